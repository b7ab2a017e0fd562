"""The form of a check: what it asks, of how many examples, up to which figure the answer is a good one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from scipy.special import bdtr

from robustframe.diagnose.case import Case
from robustframe.types import Norm

POINTS = 0.02
"""Loss of robust accuracy that is worth a warning: two points, about the half width of a 95 % interval on 1,000
examples at 10 or 90 %."""


_BY_CHANCE = 0.05
"""How often a check may fail for nothing."""


def points(examples: int) -> float:
    """Return the loss of robust accuracy, found on so many examples, up to which there is no cause for doubt.

    It is `POINTS`, or where that is more the largest that one run in twenty finds by chance when half of `POINTS` is
    lost: of 100 examples three, of 1,000 twenty.
    """
    chance = next(lost for lost in range(examples + 1) if bdtr(lost, examples, POINTS / 2) >= 1 - _BY_CHANCE)
    return max(POINTS, chance / max(examples, 1))


@dataclass(frozen=True)
class Measurement:
    """What a check measured."""

    figure: float | None
    examples: int
    seen: str
    """A sentence without its end, such as ``"3 of 16 survivors fall to ..."``."""
    threshold: float | None = None
    """In place of the question's own, where it depends on the size of the sample."""
    undecided: bool = False
    """There is too little to tell."""
    excused: str = ""
    """Why a figure above the threshold is no cause for doubt, such as a battery that is made for it."""


@dataclass(frozen=True)
class Question:
    """One check: all there is to know about it stands here, and in the function that measures it."""

    name: str
    asks: str
    """What the figure is."""
    threshold: float
    why: str
    """Where the threshold comes from."""
    source: str
    remedy: str
    """What to do when it fails."""
    measure: Callable[[Case], Measurement]
    looks_at: Literal["record", "answers", "gradients", "survivors", "solver"]
    """``record``: what the battery left. ``answers``: examples that are right without an attack. ``gradients``: those
    too, but survivors first, as the number comes from them. ``survivors``: nothing else. ``solver``: as ``answers``, of
    models that solve."""
    cost: Callable[[Case, int], int] = lambda case, count: 0
    """Passes that so many examples cost at most."""
    least: int = 12
    """Examples below which the answer would say nothing, where there are so many."""
    most: int = 64
    """Examples above which it would say no more."""
    share: float = 1.0
    """Of the budget of all checks, as far as that pays for the least number of examples."""
    of_nearest: bool = False
    """The figure is the share of a few survivors, those nearest to the boundary; one of them may be chance."""
    since: str = "0.1.0"
    """The version of robustframe that asked it first."""
    decides: bool = True
    """No number is sound without its answer; others say more where the budget allows them."""
    norms: tuple[Norm, ...] = get_args(Norm)
    """Of the threats that it can be asked about."""
    in_points: bool = False
    """The figure is robust accuracy that would be lost, so that it can be no larger than what there is."""


def lost(case: Case, broken: int, tested: int, seen: str, *, strict: bool = False) -> Measurement:
    """Say how much robust accuracy would be lost if all survivors fell like those that were tested.

    Args:
        case: the row.
        broken: survivors that fell.
        tested: survivors that were tried.
        seen: what happened.
        strict: one that falls is one too many; otherwise one of a sample may be chance.
    """
    if not tested:
        return Measurement(None, 0, "No survivors were left to try")
    share = case.found.robust_accuracy
    limit = 0.0 if strict else max(POINTS, share / tested)
    return Measurement(broken / tested * share, tested, f"{broken} of {tested} survivors {seen}", limit)
