"""Evaluation: from a recipe, or a model in memory, to a run."""

from robustframe.evaluation.api import evaluate, evaluate_recipe
from robustframe.evaluation.engine import run
from robustframe.evaluation.limits import Limits
from robustframe.evaluation.loading import load_task, make_task, run_folder
from robustframe.evaluation.progress import Moment, silent
from robustframe.evaluation.task import Task

__all__ = [
    "Limits",
    "Moment",
    "Task",
    "evaluate",
    "evaluate_recipe",
    "load_task",
    "make_task",
    "run",
    "run_folder",
    "silent",
]
