"""How sure a number is: intervals, paired tests, tests of many at once, rankings with ties, correlations.

Tables, figures, the board and the claims take their numbers from here and print the same ones: p and interval are those
of a single test and agree, and what a family of tests shows together is said in one sentence (Holm).
"""

from robustframe.statistics.association import Association, clears_floor, spearman
from robustframe.statistics.crossed import Mean, crossed_mean, mean_of_few
from robustframe.statistics.many import Ranked, family_sentence, holm, shared_ranks
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
    "clears_floor",
    "crossed_mean",
    "family_sentence",
    "holm",
    "least_squares",
    "mean_of_few",
    "resolution",
    "resolution_sentence",
    "shared_ranks",
    "spearman",
]
