"""What needs resampling: intervals of differences of any numbers, and rank correlations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test, rankdata

from robustframe.errors import InputError
from robustframe.statistics.proportions import Interval

_RESAMPLES = 9999
_AT_ONCE = 100
"""Resamples in memory at a time; 10,000 examples take 8 MB then."""


def bootstrap_difference(
    first: NDArray[Any], second: NDArray[Any], *, seed: int, level: float = 0.95, resamples: int = _RESAMPLES
) -> Interval:
    """Enclose the mean of second less first, by drawing examples with replacement (Efron, 1979; percentiles).

    For one pair of verdicts `PairedDifference.interval` is better; this is for what has no formula, such as an
    accuracy averaged over threats.

    Args:
        first: a number per example, shape (n,).
        second: those of the other, for the same examples in the same order.
        seed: of the draws.
        level: confidence, in (0, 1).
        resamples: how many draws.

    Returns:
        The interval; without a width when the difference is the same for every example.

    Raises:
        InputError: when the arrays do not match or are empty, or for a level outside (0, 1).
    """
    _checked_level(level)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise InputError(f"a paired difference needs two arrays of one length, not {first.shape} and {second.shape}")
    difference = second.astype(np.float64) - first.astype(np.float64)
    if np.ptp(difference) == 0:
        return Interval(float(difference[0]), float(difference[0]))
    found = bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        batch=_AT_ONCE,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Association:
    """A rank correlation."""

    n: int
    value: float
    """Spearman's rho, in [-1, 1]; ties share their mean rank."""
    p_value: float
    """Two-sided, by permutation: exact where there are no more permutations than draws."""
    interval: Interval


def spearman(
    x: Any,
    y: Any,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = _RESAMPLES,
) -> Association | None:
    """Correlate two numbers of the same things by rank, such as coherence and robust accuracy of models.

    Args:
        x: a list or array with one number per thing, at least 3.
        y: the other values, in the same order.
        seed: of permutations and draws.
        level: confidence of the bootstrap interval, in (0, 1).
        resamples: how many permutations and draws.

    Returns:
        The correlation with an interval and a p-value; `None` when all x or all y are equal, which have no ranks.

    Raises:
        InputError: for fewer than 3 things, lengths that differ, or numbers that are not finite.
    """
    _checked_level(level)
    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 3:
        raise InputError(f"a rank correlation needs two lists of at least 3 numbers, not {one.shape} and {two.shape}")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise InputError("a rank correlation needs finite numbers; leave out what is unknown")
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    rng = np.random.default_rng(seed)
    tested = permutation_test(
        (one,),
        lambda permuted, axis=-1: _rho(permuted, np.broadcast_to(two, permuted.shape)),
        permutation_type="pairings",
        n_resamples=resamples,
        vectorized=True,
        rng=rng,
    )
    # Not SciPy's bootstrap: one draw without two different numbers has no rho, and would leave no interval.
    drawn = rng.integers(len(one), size=(resamples, len(one)))
    rhos = _rho(one[drawn], two[drawn])
    low, high = np.quantile(rhos[np.isfinite(rhos)], [(1 - level) / 2, (1 + level) / 2])
    value = float(_rho(one, two))
    return Association(len(one), value, float(tested.pvalue), Interval(min(float(low), value), max(float(high), value)))


def _rho(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Spearman's rho along the last axis; NaN where all numbers are equal."""
    ranks = [rankdata(values, axis=-1) for values in (x, y)]
    a, b = (each - each.mean(-1, keepdims=True) for each in ranks)
    size = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    product = (a * b).sum(-1)
    rho = np.divide(product, size, out=np.full_like(size, np.nan), where=size > 0)
    # Rounding may not lead out of [-1, 1], nor make two equal correlations differ in a permutation test.
    return np.clip(np.round(rho, 12), -1, 1)


def _checked_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"confidence level {level} must lie between 0 and 1, such as 0.95")
