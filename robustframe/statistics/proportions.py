"""How sure a number is: intervals of an accuracy, and of the difference between two on the same examples."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from robustframe.errors import InputError


@dataclass(frozen=True)
class Interval:
    """The ends of a confidence interval."""

    low: float
    high: float


def check_level(level: float) -> None:
    """Check a confidence level.

    Raises:
        InputError: for one outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"confidence level {level} must lie between 0 and 1, such as 0.95")


@dataclass(frozen=True)
class Proportion:
    """How many of some examples something holds for, such as being classified right."""

    successes: int
    trials: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials or self.trials == 0:
            given = f"{self.successes} of {self.trials}"
            raise InputError(f"{given} is not a proportion; give 0 <= successes <= trials and trials >= 1")

    @property
    def value(self) -> float:
        """The fraction, in [0, 1]."""
        return self.successes / self.trials

    def interval(self, level: float = 0.95) -> Interval:
        """Enclose the true proportion (Wilson, 1927, score interval without continuity correction).

        Args:
            level: confidence, in (0, 1).

        Returns:
            An interval inside [0, 1] that has a width also when all succeed or none does.

        Raises:
            InputError: for a level outside (0, 1).

        >>> Proportion(0, 10).interval().low
        0.0
        """
        check_level(level)
        # SciPy has it only behind a test, which takes a hundred times as long.
        n, p, z = self.trials, self.value, float(ndtri(0.5 + 0.5 * level))
        denominator = 2 * (n + z**2)
        centre = (2 * n * p + z**2) / denominator
        reach = z / denominator * math.sqrt(4 * n * p * (1 - p) + z**2)
        return Interval(0.0 if self.successes == 0 else centre - reach, 1.0 if self.successes == n else centre + reach)


@dataclass(frozen=True)
class PairedDifference:
    """Second less first, of two proportions over the same examples; made by `of`."""

    both: int
    only_first: int
    only_second: int
    neither: int

    def __post_init__(self) -> None:
        counts = (self.both, self.only_first, self.only_second, self.neither)
        if min(counts) < 0 or sum(counts) == 0:
            raise InputError(
                f"the counts {counts} are not counts of pairs; none may be negative and one must be above 0"
            )

    @classmethod
    def of(cls, first: NDArray[Any], second: NDArray[Any]) -> "PairedDifference":
        """Count how two verdicts on the same examples agree.

        Args:
            first: bool, shape (n,), such as "right for the feed-forward twin".
            second: bool, shape (n,), for the same examples in the same order.

        Raises:
            InputError: when the arrays are not boolean, not of one dimension and length, or empty.
        """
        for array in (first, second):
            if array.dtype != np.bool_ or array.ndim != 1:
                raise InputError(f"verdicts must be bool of shape (n,), not {array.dtype} of shape {array.shape}")
        if first.shape != second.shape:
            lengths = f"{len(first)} verdicts and {len(second)}"
            raise InputError(f"a paired comparison needs the same examples, but there are {lengths}")
        if len(first) == 0:
            raise InputError("there are no examples to compare")
        pairs = (first & second, first & ~second, ~first & second, ~first & ~second)
        return cls(*(int(np.count_nonzero(kind)) for kind in pairs))

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def value(self) -> float:
        """Second proportion less first, in [-1, 1]."""
        return (self.only_second - self.only_first) / self.n

    @property
    def p_value(self) -> float:
        """Exact two-sided test that the two proportions are equal (McNemar, 1947); 1 when no pair differs."""
        return float(mcnemar(np.array(self.only_first), np.array(self.only_second)))

    def interval(self, level: float = 0.95) -> Interval:
        """Enclose the true difference: `newcombe`, stretched to 0 where the exact test cannot tell the two apart.

        Args:
            level: confidence, in (0, 1).

        Returns:
            An interval inside [-1, 1] that holds `value`, and 0 exactly where `p_value` is at least 1 - level.

        Raises:
            InputError: for a level outside (0, 1).
        """
        found = self.newcombe(level)
        return Interval(min(found.low, 0.0), max(found.high, 0.0)) if self.p_value >= 1 - level else found

    def newcombe(self, level: float = 0.95) -> Interval:
        """Enclose the true difference (Newcombe, 1998, Statistics in Medicine 17:2635, method 10).

        It is built from the Wilson limits of both proportions and their correlation, so it has a width also
        when no pair differs, where a bootstrap and Wald's interval claim certainty. In small samples it can exclude 0
        where the exact test, which is on the safe side, does not.

        Args:
            level: confidence, in (0, 1).

        Returns:
            An interval inside [-1, 1] that holds `value`.

        Raises:
            InputError: for a level outside (0, 1).
        """
        first = Proportion(self.both + self.only_first, self.n)
        second = Proportion(self.both + self.only_second, self.n)
        a, b = first.interval(level), second.interval(level)
        correlation = self._correlation()
        down = _hypotenuse(second.value - b.low, a.high - first.value, correlation)
        up = _hypotenuse(b.high - second.value, first.value - a.low, correlation)
        return Interval(self.value - down, self.value + up)

    def _correlation(self) -> float:
        """Phi of the 2 x 2 table, its numerator drawn towards 0 by n / 2 where it is positive (method 10)."""
        product = self.both * self.neither - self.only_first * self.only_second
        corrected = max(product - self.n / 2, 0.0) if product > 0 else float(product)
        margins = (
            (self.both + self.only_first)
            * (self.only_second + self.neither)
            * (self.both + self.only_second)
            * (self.only_first + self.neither)
        )
        return corrected / math.sqrt(margins) if margins else 0.0


def mcnemar(only_first: NDArray[np.integer], only_second: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the p of the exact two-sided test of many pairs at once (McNemar, 1947); see `PairedDifference.p_value`.

    Args:
        only_first: examples of which something holds for the first only, at least 0, of any shape.
        only_second: for the second only, of the same shape.
    """
    # A coin that is fair is as likely to fall as unevenly one way as the other, so the test is twice one tail.
    fewer, differing = np.minimum(only_first, only_second), only_first + only_second
    return np.asarray(np.minimum(1.0, 2 * bdtr(np.asarray(fewer, dtype=float), differing, 0.5)))


def _hypotenuse(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(x * x - 2 * correlation * x * y + y * y, 0.0))


def resolution(examples: int, level: float = 0.95) -> float:
    """Return what so many examples resolve: half the width of the interval of an accuracy of 1/2, as a fraction.

    >>> round(resolution(1000), 4)
    0.0309
    """
    interval = Proportion(examples // 2, examples).interval(level)
    return (interval.high - interval.low) / 2


def resolution_sentence(examples: int) -> str:
    """Say in words what so many examples resolve.

    >>> resolution_sentence(1000)
    '1,000 examples resolve about 3 points'
    """
    points = 100 * resolution(examples)
    shown = f"{points:.0f}" if points >= 0.95 else f"{points:.1g}"
    plural = "s" if examples != 1 else ""
    verb = "resolve" if examples != 1 else "resolves"
    return f"{examples:,} example{plural} {verb} about {shown} point{'s' if shown != '1' else ''}"
