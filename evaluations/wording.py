"""How claims are put: verdicts, effects and rank correlations in words, and the table of claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from published import Basis

from robustframe.statistics import Association, Interval, Mean, spearman

Standing = Literal["supported", "not supported", "undecided"]

POINT = 0.01
"""A difference of accuracies below this is no effect worth a claim."""
WEAK = 0.2
"""Nor is a rank correlation below this."""


@dataclass(frozen=True)
class Claim:
    """One claim and its test."""

    text: str
    source: str
    evaluation: str
    """Folder in ``evaluations/``."""
    found: str
    """A verdict in bold, or where seeds or architectures are too few for one, how many there are and what they show."""
    figures: str
    """The evidence: effect, interval, controls."""


def claims_table(found: Sequence[Claim], *, evaluations: str | None = None) -> str:
    """Write claims as a Markdown table.

    Args:
        found: the claims.
        evaluations: the path of ``evaluations/`` as seen from the page, for links; without it none are made.
    """
    lines = ["| Claim | Found | Evidence | Evaluation |", "| :-- | :-- | :-- | :-- |"]
    for claim in found:
        place = f"`{claim.evaluation}`"
        if evaluations is not None:
            place = f"[{place}]({evaluations}/{claim.evaluation}/README.md)"
        lines.append(f"| {claim.text} ({claim.source}) | {claim.found} | {claim.figures} | {place} |")
    return "\n".join(lines)


def direction(interval: Interval, sign: int, negligible: float) -> Standing:
    """Judge a claim that something is above zero (sign 1) or below it (-1)."""
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > 0:
        return "supported"
    return "not supported" if high < 0 or -negligible < low <= high < negligible else "undecided"


def no_worse(interval: Interval) -> Standing:
    """Judge a claim that no more than a point is lost."""
    if interval.low > -POINT:
        return "supported"
    return "not supported" if interval.high < -POINT else "undecided"


def found_of(basis: Basis, standing: Standing, plain: str, control: str = "") -> str:
    """Return a verdict where seeds and architectures are enough for one, else what is there in plain words.

    Args:
        basis: what it rests on.
        standing: the verdict, if there may be one.
        plain: what was found, in words.
        control: what becomes of it given other numbers, such as ``", but not given parameters"``.
    """
    return (f"**{standing}**" if basis.enough else f"{basis}: {plain}") + control


def told(found: Association | None) -> bool:
    """Whether a correlation is told from chance."""
    return found is not None and not found.interval.low <= 0 <= found.interval.high


def more(mean: Mean, what: str) -> str:
    """A difference of accuracies in plain words."""
    if mean.interval.low <= 0 <= mean.interval.high:
        return f"no difference in {what} that could be told from chance"
    return f"{what} {100 * abs(mean.value):.1f} points {'higher' if mean.value > 0 else 'lower'}"


def order(found: Association | None, what: str, with_: str) -> str:
    """A rank correlation in plain words."""
    if found is None or not told(found):
        return f"no order of {what} by {with_} that could be told from chance"
    return f"{what} {'rises' if found.value > 0 else 'falls'} with {with_}"


def points(mean: Mean) -> str:
    return f"{100 * mean.value:+.1f} [{100 * mean.interval.low:+.1f}, {100 * mean.interval.high:+.1f}] points"


def rho(found: Association | None) -> str:
    if found is None:
        return "cannot be told apart"
    p = f"p = {found.p_value:.2g}" if found.p_value >= 0.001 else "p < 0.001"
    return f"rho {found.value:+.2f} [{found.interval.low:+.2f}, {found.interval.high:+.2f}], {p}, {found.n} models"


def control_of(
    found: Association | None, x: Sequence[float], y: Sequence[float], given: Mapping[str, Sequence[float]]
) -> str:
    """Say where what a correlation tells cannot be told any more once other numbers are given."""
    if not told(found) or told(spearman(x, y, given=list(given.values()))):
        return ""
    return f", which given {' and '.join(given)} cannot be told from chance"


def controlled(
    x: Sequence[float], y: Sequence[float], given: Mapping[str, Sequence[float]], groups: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """The same correlation with other numbers taken out of both, and within groups."""
    for what, values in given.items():
        yield f"given {what} {rho(spearman(x, y, given=[values]))}"
    if len(given) > 1:
        yield f"given all of these {rho(spearman(x, y, given=list(given.values())))}"
    for what, names in groups.items():
        if len(set(names)) > 1:
            found = spearman(x, y, groups=names)
            parts = "" if found is None else f" ({found.groups} groups)"
            yield f"within {what} {rho(found)}{parts}"
