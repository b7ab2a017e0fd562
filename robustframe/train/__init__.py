"""Training recipes, and the pairs and cards that come of them."""

from robustframe.train.make import new_pair, train, train_only
from robustframe.train.measure import check_pair, clean_accuracy
from robustframe.train.spec import (
    TrainingGrid,
    TrainingRecipe,
    find_training_recipe,
    folder_of,
    read_training_recipes,
    training_recipes,
)

__all__ = [
    "TrainingGrid",
    "TrainingRecipe",
    "check_pair",
    "clean_accuracy",
    "find_training_recipe",
    "folder_of",
    "new_pair",
    "read_training_recipes",
    "train",
    "train_only",
    "training_recipes",
]
