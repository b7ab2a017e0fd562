"""Means over models and examples at once, and over few numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from robustframe.errors import InputError
from robustframe.statistics.proportions import Interval, check_level


@dataclass(frozen=True)
class Mean:
    """A mean and what encloses it."""

    n: int
    """Models, or groups of them that were averaged first."""
    value: float
    interval: Interval


def crossed_mean(values: NDArray[np.float64], *, groups: Sequence[str] | None = None, level: float = 0.95) -> Mean:
    """Enclose the mean of a table of models by examples, for other models and other examples.

    Models met the same examples, so neither rows nor columns are independent draws alone. The variance is that of the
    means of models over their number plus that of the means of examples over theirs, the random-effects analysis of a
    crossed table with its third, negative term left out, which is on the safe side; the interval is Student's with a
    degree of freedom less than models, which covers for three of them, where a bootstrap of models does not. With one
    model only its examples vary, and the interval is about that model alone.

    Args:
        values: a number a model and example, such as robust for the second twin less robust for the first; shape
            (models, examples).
        groups: what each model is a repetition of, such as its architecture where models differ by their seed:
            repetitions are averaged first, and each group counts once.
        level: confidence, in (0, 1).

    Returns:
        The mean of groups with its interval.

    Raises:
        InputError: for an empty table, numbers that are not finite, groups of another number, or a level outside
            (0, 1).
    """
    if values.ndim != 2 or min(values.shape) < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise InputError(f"a crossed mean needs a table of finite numbers, 2 examples or more, not {values.shape}")
    if groups is not None:
        if len(groups) != len(values):
            raise InputError(f"{len(groups)} groups were given for {len(values)} models: give one for each")
        names = np.asarray(list(groups))
        values = np.stack([values[names == name].mean(0) for name in dict.fromkeys(groups)])
    models, examples = values.shape
    variance = float(values.mean(0).var(ddof=1)) / examples
    if models > 1:
        variance += float(values.mean(1).var(ddof=1)) / models
    return _mean(models, float(values.mean()), variance, (models if models > 1 else examples) - 1, level)


def mean_of_few(values: NDArray[np.float64], *, level: float = 0.95) -> Mean:
    """Enclose the mean of a few numbers, one a model or cell, by Student's t.

    Args:
        values: shape (n,), n at least 2.
        level: confidence, in (0, 1).

    Raises:
        InputError: for fewer than 2 numbers, numbers that are not finite, or a level outside (0, 1).
    """
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(f"a mean of few needs 2 finite numbers or more, not {values.shape}")
    n = len(values)
    return _mean(n, float(values.mean()), float(values.var(ddof=1)) / n, n - 1, level)


def _mean(n: int, middle: float, variance: float, freedom: int, level: float) -> Mean:
    check_level(level)
    reach = float(student.ppf((1 + level) / 2, freedom)) * variance**0.5
    return Mean(n, middle, Interval(middle - reach, middle + reach))
