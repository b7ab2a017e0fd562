"""How sure a number is: intervals, paired tests, tests of many at once, rankings with ties, correlations."""

from robustframe.statistics.association import Association, bootstrap_difference, spearman
from robustframe.statistics.crossed import Mean, crossed_mean, mean_of_few
from robustframe.statistics.many import Ranked, holm, shared_ranks
from robustframe.statistics.proportions import Interval, PairedDifference, Proportion, resolution, resolution_sentence
from robustframe.statistics.regression import Line, least_squares

__all__ = [
    "Association",
    "Interval",
    "Line",
    "Mean",
    "PairedDifference",
    "Proportion",
    "Ranked",
    "bootstrap_difference",
    "crossed_mean",
    "holm",
    "least_squares",
    "mean_of_few",
    "resolution",
    "resolution_sentence",
    "shared_ranks",
    "spearman",
]
