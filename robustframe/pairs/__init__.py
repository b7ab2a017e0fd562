"""Pairs: a frame and a head that make two classifiers with one set of parameters."""

from robustframe.pairs.pair import Pair, Pursuit, Twin
from robustframe.pairs.training import (
    Adversary,
    Epoch,
    Precision,
    TrainedFor,
    TrainingPlan,
    TrainingProgress,
    train_pair,
)
from robustframe.pairs.untied import Untied

__all__ = [
    "Adversary",
    "Epoch",
    "Pair",
    "Precision",
    "Pursuit",
    "TrainedFor",
    "TrainingPlan",
    "TrainingProgress",
    "Twin",
    "Untied",
    "train_pair",
]
