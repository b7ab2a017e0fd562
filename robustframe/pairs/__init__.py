"""Pairs: a frame and a head that make two classifiers with one set of parameters."""

from robustframe.pairs.pair import Pair, Twin
from robustframe.pairs.training import Adversary, Progress, Schedule, train_pair

__all__ = ["Adversary", "Pair", "Progress", "Schedule", "Twin", "train_pair"]
