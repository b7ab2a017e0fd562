"""The model zoo: pairs by name, each with a card and a hash."""

from robustframe.zoo.card import SWEEPS, Accuracy, Card, LearningCurve, LeastPotential, TrainingData, read_card
from robustframe.zoo.store import ZOO, find_card, load, load_card, load_named, names, save

__all__ = [
    "SWEEPS",
    "ZOO",
    "Accuracy",
    "Card",
    "LearningCurve",
    "LeastPotential",
    "TrainingData",
    "find_card",
    "load",
    "load_card",
    "load_named",
    "names",
    "read_card",
    "save",
]
