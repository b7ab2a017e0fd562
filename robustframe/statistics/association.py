"""Rank correlations, plain or given other numbers, within groups, and which rows may enter one about robustness."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from robustframe.errors import InputError
from robustframe.statistics.proportions import Interval, check_level

_DRAWS = 9999
_EVERY = 7
"""All orders are tried of so many things at most."""
_EQUAL = 1e-9
FLOOR = 0.75
"""Share of the best clean accuracy below which a classifier is no row of a correlation with robustness."""


@dataclass(frozen=True)
class Association:
    """A rank correlation."""

    n: int
    value: float
    """Spearman's rho, in [-1, 1]; ties share their mean rank."""
    p_value: float
    """Two-sided."""
    interval: Interval
    """Holds 0 exactly where ``p_value`` is at least 1 less its level."""
    groups: int = 1
    """Groups within which things were ranked."""


def spearman(
    x: Any,
    y: Any,
    *,
    given: Sequence[Any] = (),
    groups: Sequence[str] | None = None,
    level: float = 0.95,
) -> Association | None:
    """Correlate two numbers of the same things by rank, such as coherence and robust accuracy of models.

    The interval is Fisher's for ranks (Bonett and Wright, 2000, Psychometrika 65:23), which covers in small samples
    where a bootstrap does not. The p-value is the larger of its own and that of a permutation test (every order of 7
    things or fewer, else 9,999 drawn ones), and the interval is stretched to 0 where p says so: the two never disagree.
    Things are put into an order of their own first, so nothing depends on that in which they are given.

    Args:
        x: a list or array with one number per thing, at least 3.
        y: the other values, in the same order.
        given: further numbers of the things whose ranks are taken out of both, linearly: a partial correlation.
        groups: what each thing belongs to; it is ranked among its own, and so are permutations made. Groups of one
            are left out.
        level: confidence of the interval, in (0, 1).

    Returns:
        The correlation; `None` when fewer than 3 things are left or when one of the two numbers says nothing: it is
        the same for all, or follows from what is given.

    Raises:
        InputError: for fewer than 3 things, lengths that differ, or numbers that are not finite.
    """
    check_level(level)
    names = np.asarray([""] * len(x) if groups is None else list(groups))
    columns = [np.asarray(each, dtype=np.float64) for each in (x, y, *given)]
    if any(each.shape != (len(names),) for each in columns) or len(names) < 3:
        lengths = ", ".join(str(len(each)) for each in (*columns, names))
        raise InputError(f"a rank correlation needs lists of one length, at least 3 numbers, not {lengths}")
    if not all(np.isfinite(each).all() for each in columns):
        raise InputError("a rank correlation needs finite numbers; leave out what is unknown")
    sizes = {name: int((names == name).sum()) for name in np.unique(names)}
    kept = np.array([sizes[name] > 1 for name in names])
    if kept.sum() < 3:
        return None
    columns, names = [each[kept] for each in columns], names[kept]
    order = np.lexsort((*reversed(columns), names))
    members = [np.flatnonzero(names[order] == name) for name in np.unique(names)]
    one, two, *known = (_ranks(each[order], members) for each in columns)
    return _associated(one, two, np.array(known).reshape(len(known), len(one)), members, level)


def _ranks(values: NDArray[np.float64], members: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Ranks within groups, as shares of the group, around 0."""
    found = np.zeros(len(values))
    for own in members:
        found[own] = (rankdata(values[own]) - (len(own) + 1) / 2) / (len(own) + 1)
    return found


def _associated(
    one: NDArray[np.float64],
    two: NDArray[np.float64],
    known: NDArray[np.float64],
    members: Sequence[NDArray[np.intp]],
    level: float,
) -> Association | None:
    basis = _basis(known)
    first, second = _without(one, basis), _without(two, basis)
    # What is left of a number that follows from others is rounding.
    if any(np.linalg.norm(left) <= 1e-6 * np.linalg.norm(whole) for left, whole in ((first, one), (second, two))):
        return None
    value = float(_cosine(first, second))
    permuted = _without(_orders(second, members), basis)
    far = np.abs(_cosine(permuted, first)) >= abs(value) - _EQUAL
    complete = len(members) == 1 and len(one) <= _EVERY
    p = float(far.mean()) if complete else (float(far.sum()) + 1) / (len(far) + 1)
    n = len(one) - len(members) + 1
    spread = _spread(value, n - len(known))
    centre = math.atanh(_inner(value, n))
    if math.isfinite(spread):
        p = max(p, 2 * float(ndtr(-abs(centre) / spread)))
    reach = float(ndtri((1 + level) / 2)) * spread
    low, high = min(math.tanh(centre - reach), value), max(math.tanh(centre + reach), value)
    if p >= 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return Association(len(one), value, p, Interval(low, high), len(members))


def _spread(value: float, n: int) -> float:
    """The standard error of atanh(rho); of three things and fewer nothing is known."""
    return math.sqrt((1 + value**2 / 2) / (n - 3)) if n > 3 else math.inf


def _inner(value: float, n: int) -> float:
    """Bring a perfect correlation half a step inside: the next one has two neighbours exchanged."""
    most = 1 - 6 / (n**3 - n) if n > 2 else 0.5
    return min(max(value, -most), most)


def _basis(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of what is given, shape (k, n)."""
    _, sizes, directions = np.linalg.svd(known, full_matrices=False) if known.size else (None, np.zeros(0), known)
    return np.asarray(directions[sizes > 1e-9], dtype=np.float64)


def _without(values: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - (values @ basis.T) @ basis


def _orders(values: NDArray[np.float64], members: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Permutations within groups: every one where they are few, else drawn ones; shape (draws, n)."""
    if len(members) == 1 and len(values) <= _EVERY:
        return np.array(list(itertools.permutations(values)))
    rng = np.random.default_rng(0)
    orders = np.tile(values, (_DRAWS, 1))
    for own in members:
        orders[:, own] = rng.permuted(orders[:, own], axis=1)
    return orders


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> Any:
    sizes = np.linalg.norm(a, axis=-1) * np.linalg.norm(b)
    return np.clip(np.divide(a @ b, sizes, out=np.zeros_like(sizes), where=sizes > 0), -1, 1)


def clears_floor(clean: Sequence[float]) -> list[bool]:
    """Say which classifiers may enter a correlation with robust accuracy.

    A classifier that is wrong without an attack is not robust either, whatever else it is like: it would speak of clean
    accuracy alone.

    Args:
        clean: clean accuracies of all that might, in [0, 1].

    Returns:
        For each whether it has at least three quarters of the best.

    >>> clears_floor([0.9, 0.7, 0.35])
    [True, True, False]
    """
    best = max(clean, default=0.0)
    return [each >= FLOOR * best for each in clean]
