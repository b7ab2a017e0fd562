"""Evaluation: from a recipe, or a model in hand, to a record."""

from robustframe.evaluation.api import (
    evaluate,
    evaluate_recipe,
    load_task,
    make_task,
    pick_device,
    run_folder,
)
from robustframe.evaluation.engine import Moment, Task, run

__all__ = [
    "Moment",
    "Task",
    "evaluate",
    "evaluate_recipe",
    "load_task",
    "make_task",
    "pick_device",
    "run",
    "run_folder",
]
