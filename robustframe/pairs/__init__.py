"""Pairs: a frame and a head that make two classifiers with one set of parameters."""

from robustframe.pairs.pair import Pair, Pursuit, Twin
from robustframe.pairs.plan import Adversary, Arm, Epoch, Precision, TrainingPlan, TrainingProgress
from robustframe.pairs.reframed import Reframed, ReframedPair, reframe
from robustframe.pairs.training import train_pair
from robustframe.pairs.untied import Untied

__all__ = [
    "Adversary",
    "Arm",
    "Epoch",
    "Pair",
    "Precision",
    "Pursuit",
    "Reframed",
    "ReframedPair",
    "TrainingPlan",
    "TrainingProgress",
    "Twin",
    "Untied",
    "reframe",
    "train_pair",
]
