"""A straight line through points, and how sure it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

from robustframe.errors import InputError
from robustframe.statistics.proportions import Interval, check_level


@dataclass(frozen=True)
class Line:
    """A least-squares line with what its intervals need."""

    n: int
    slope: float
    intercept: float
    slope_error: float
    """Standard error of the slope."""
    centre: float
    """Mean of x."""
    spread: float
    """Mean squared deviation of x."""

    def at(self, x: float) -> float:
        """Return the line at a point."""
        return self.intercept + self.slope * x

    def interval(self, x: float, level: float = 0.95) -> Interval:
        """Return the interval of the line, not of a new point, at x (Student's t; residuals independent and alike)."""
        check_level(level)
        reach = float(student.ppf((1 + level) / 2, self.n - 2)) * self.slope_error
        reach *= (self.spread + (x - self.centre) ** 2) ** 0.5
        return Interval(self.at(x) - reach, self.at(x) + reach)


def least_squares(x: Any, y: Any) -> Line | None:
    """Fit a line to points.

    Args:
        x: a list or array of at least 3 numbers.
        y: the other values, in the same order.

    Returns:
        The line; `None` when all x are equal.

    Raises:
        InputError: for fewer than 3 points, lengths that differ, or numbers that are not finite.
    """
    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 3:
        raise InputError(f"a line needs two lists of at least 3 numbers, not {one.shape} and {two.shape}")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise InputError("a line needs finite numbers; leave out what is unknown")
    if np.ptp(one) == 0:
        return None
    fit = linregress(one, two)
    numbers = map(float, (fit.slope, fit.intercept, fit.stderr, one.mean(), one.var()))
    return Line(len(one), *numbers)
