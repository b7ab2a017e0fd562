"""Several tests at once, and the rankings that follow from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.statistics.proportions import PairedDifference, mcnemar


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family of tests, so that the chance of any false finding stays below the level.

    Holm's step-down method (Holm, 1979, Scandinavian Journal of Statistics 6); valid whatever the tests have to do
    with each other. SciPy adjusts for the false discovery rate only.

    Args:
        ps: p-values in [0, 1], in any order.

    Returns:
        The adjusted p-values in the same order, none below its own.

    Raises:
        InputError: for a p that is not a probability.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    for p in ps:
        if not 0 <= p <= 1:
            raise InputError(f"p = {p} is not a probability in [0, 1]")
    adjusted: list[float] = _holm(np.asarray(ps, dtype=float)).tolist()
    return adjusted


def family_sentence(ps: Sequence[float], *, of: str, level: float = 0.05) -> str:
    """Say that tests stand each by itself, and how many of them hold together.

    This is the one adjustment there is: numbers beside each other, p and interval, are those of single tests, and what
    a whole family shows is said once.

    Args:
        ps: p-values in [0, 1].
        of: what there are so many of, in the plural.
        level: of significance.

    >>> family_sentence([0.01, 0.04, 0.03], of="differences")
    'p and interval not adjusted for the 3 differences, of which 1 holds together (Holm, 5 %)'
    """
    hold = sum(p <= level for p in holm(ps))
    things = of.removesuffix("s") if len(ps) == 1 else of
    verb = "holds" if hold == 1 else "hold"
    family = f"the {len(ps)} {things}, of which {hold} {verb} together (Holm, {100 * level:g} %)"
    return f"p and interval not adjusted for {family}"


def _holm(ps: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(ps, kind="stable")
    stepped = np.minimum(1.0, (len(ps) - np.arange(len(ps))) * ps[order])
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


@dataclass(frozen=True)
class Ranked:
    """One place in a ranking."""

    name: str
    value: float
    """Its proportion, in [0, 1]."""
    rank: int
    """From 1; shared by all that the examples cannot tell apart."""


def shared_ranks(verdicts: Mapping[str, NDArray[Any]], *, level: float = 0.05) -> list[Ranked]:
    """Rank proportions over the same examples, with one rank for those whose difference is not significant.

    A new rank begins only where everyone above is significantly better than everyone below (exact McNemar, Holm over
    all pairs), as in the clusters of machine translation's shared tasks. So two whose difference is not significant
    never have different ranks; two of one rank may differ significantly, with a third between them that differs from
    neither.

    Args:
        verdicts: for each name a bool array of shape (n,), such as "robust", all over the same examples.
        level: of significance, in (0, 1).

    Returns:
        From the highest proportion to the lowest; equal ones in the order given.

    Raises:
        InputError: for a level outside (0, 1), or verdicts that cannot be compared.
    """
    if not (0 < level < 1 and math.isfinite(level)):
        raise InputError(f"significance level {level} must lie between 0 and 1, such as 0.05")
    values = {name: float(np.mean(array)) if len(array) else 0.0 for name, array in verdicts.items()}
    order = sorted(verdicts, key=lambda name: -values[name])
    reach = _reach([verdicts[name] for name in order], level)
    ranked, rank, furthest = [], 1, 0
    for place, name in enumerate(order):
        if furthest < place:
            rank = place + 1
        furthest = max(furthest, reach[place])
        ranked.append(Ranked(name, values[name], rank))
    return ranked


def _reach(ordered: Sequence[NDArray[Any]], level: float) -> list[int]:
    """Return the last place from which each one's difference is not significant; its own where there is none after it.

    There are half a million pairs of a thousand, so that all are counted, tested and adjusted at once.
    """
    for each in ordered[1:]:
        PairedDifference.of(ordered[0], each)  # says what cannot be compared
    if len(ordered) < 2:
        return list(range(len(ordered)))
    # Counts of up to 2^24 examples are exact in float32, which a run has fewer of.
    right = np.stack(ordered).astype(np.float32)
    both = np.rint(right @ right.T).astype(np.int64)
    only = both.diagonal()[:, None] - both
    first, second = np.triu_indices(len(ordered), k=1)
    tied = _holm(mcnemar(only[first, second], only[second, first])) > level
    reach = np.arange(len(ordered))
    np.maximum.at(reach, first[tied], second[tied])
    return reach.tolist()
