"""Means over models and examples at once, and over few models alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from robustframe.draws import derive_seed
from robustframe.errors import InputError
from robustframe.statistics.proportions import Interval


@dataclass(frozen=True)
class Mean:
    """A mean and what encloses it."""

    n: int
    """Models."""
    value: float
    interval: Interval


def crossed_mean(values: NDArray[np.float64], *, seed: int, level: float = 0.95, resamples: int = 10_000) -> Mean:
    """Enclose the mean of a table of models by examples, by drawing both with replacement.

    Models met the same examples, so neither rows nor columns are independent draws alone. The pigeonhole bootstrap
    (Owen, 2007, Annals of Applied Statistics 1, section 4) draws rows and columns apart and is on the safe side. With
    one model only its examples are drawn.

    Args:
        values: a number a model and example, such as robust for the second twin less robust for the first; shape
            (models, examples).
        seed: of the draws.
        level: confidence, in (0, 1).
        resamples: how many draws.

    Returns:
        The mean with a percentile interval.

    Raises:
        InputError: for an empty table, numbers that are not finite, or a level outside (0, 1).
    """
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all() or not 0 < level < 1:
        raise InputError(f"a crossed mean needs a table of finite numbers and a level in (0, 1), not {values.shape}")
    models, examples = values.shape
    draws = np.random.default_rng(derive_seed(seed, "crossed mean"))
    means = np.empty(resamples)
    for at in range(resamples):
        rows = draws.multinomial(models, np.full(models, 1 / models))
        columns = draws.multinomial(examples, np.full(examples, 1 / examples))
        means[at] = rows @ values @ columns / values.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Mean(models, float(values.mean()), Interval(float(low), float(high)))


def mean_of_few(values: NDArray[np.float64], *, level: float = 0.95) -> Mean:
    """Enclose the mean of a few numbers, one a model or cell, by Student's t.

    Args:
        values: shape (n,), n at least 2.
        level: confidence, in (0, 1).

    Raises:
        InputError: for fewer than 2 numbers, numbers that are not finite, or a level outside (0, 1).
    """
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or not 0 < level < 1:
        raise InputError(f"a mean of few needs 2 finite numbers or more and a level in (0, 1), not {values.shape}")
    n = len(values)
    reach = float(student.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / n**0.5
    middle = float(values.mean())
    return Mean(n, middle, Interval(middle - reach, middle + reach))
