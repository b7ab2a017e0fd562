"""Several tests at once, and the rankings that follow from them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.statistics.proportions import PairedDifference


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family of tests, so that the chance of any false finding stays below the level.

    Holm's step-down method (Holm, 1979, Scandinavian Journal of Statistics 6); valid whatever the tests have to do
    with each other. SciPy adjusts for the false discovery rate only.

    Args:
        ps: p-values in [0, 1], in any order.

    Returns:
        The adjusted p-values in the same order, none below its own.

    Raises:
        InputError: for a p that is no probability.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    for p in ps:
        if not 0 <= p <= 1:
            raise InputError(f"p = {p} is no probability in [0, 1]")
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted, highest = [1.0] * len(ps), 0.0
    for place, at in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[at]))
        adjusted[at] = highest
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
    pairs = list(itertools.combinations(range(len(order)), 2))
    ps = holm([PairedDifference.of(verdicts[order[i]], verdicts[order[j]]).p_value for i, j in pairs])
    tied = {pair for pair, p in zip(pairs, ps) if p > level}
    ranked, rank = [], 1
    for place, name in enumerate(order):
        if not any((i, j) in tied for i in range(place) for j in range(place, len(order))):
            rank = place + 1
        ranked.append(Ranked(name, values[name], rank))
    return ranked
