"""How sure a number is: intervals, paired tests, tests of many at once, rankings with ties, correlations."""

from robustframe.statistics.association import Association, bootstrap_difference, spearman
from robustframe.statistics.many import Ranked, holm, shared_ranks
from robustframe.statistics.proportions import Interval, PairedDifference, Proportion, resolution, resolution_sentence
from robustframe.statistics.regression import Line, least_squares

__all__ = [
    "Association",
    "Interval",
    "Line",
    "PairedDifference",
    "Proportion",
    "Ranked",
    "bootstrap_difference",
    "holm",
    "least_squares",
    "resolution",
    "resolution_sentence",
    "shared_ranks",
    "spearman",
]
