"""How a number of classifiers, such as the coherence of their frames, goes with their robust accuracy, by rank.

Tables, figures, the board and the claims all ask here, so that the same classifiers have the same rho everywhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from robustframe.errors import InputError
from robustframe.runs import Run
from robustframe.runs.record import ClassifierEntry
from robustframe.statistics import Association, clears_floor, spearman
from robustframe.zoo import ZOO, Card, names, read_card

ENOUGH = 5
"""Of fewer, no order of ranks is significant at 5 %."""


@dataclass(frozen=True)
class Rankable:
    """One classifier."""

    number: float
    robust: float
    """Robust accuracy, in [0, 1]; likewise the clean one."""
    clean: float
    group: str = ""
    """Training and structure: classifiers are ranked among those of their own."""
    doubted: bool = False
    """Whether a check doubts the pair or is not finished (`doubted_models`): its number is no row of a correlation."""


@dataclass(frozen=True)
class RobustRanks:
    """What ranks say, and about how many."""

    found: Association | None
    """`None` where there are too few, or all are equal."""
    kept: int
    """Classifiers that clear the floor on clean accuracy and are not alone in their group."""
    below: int
    """Classifiers below the floor (`robustframe.statistics.clears_floor`)."""
    doubted: int = 0
    """Classifiers of pairs that a check doubts."""

    @property
    def sentence(self) -> str:
        """The correlation in words, or why there is none."""
        left_out = left_out_of(self.doubted, self.below)
        if self.found is None:
            why = "too few" if self.kept < ENOUGH else "too few of a kind or all alike in one of the two,"
            return f"{self.kept} models, {why} for a rank correlation{left_out}"
        ends = f"[{self.found.interval.low:+.2f}, {self.found.interval.high:+.2f}]"
        p = f"p = {self.found.p_value:.2g}" if self.found.p_value >= 0.001 else "p < 0.001"
        within = f" ranked within {self.found.groups} groups of training and structure" if self.found.groups > 1 else ""
        return f"Spearman's rho {self.found.value:+.2f} {ends}, {p}, {self.found.n} models{within}{left_out}"


def left_out_of(doubted: int, below: int) -> str:
    """Say how many classifiers have no part in a correlation and why; empty where all have."""
    reasons = {"doubted by a check or not finished": doubted, "below the floor on clean accuracy": below}
    said = ", ".join(f"{count} {why}" for why, count in reasons.items() if count)
    return f"; left out: {said}" if said else ""


def robust_ranks(rows: Sequence[Rankable]) -> RobustRanks:
    """Correlate a number with robust accuracy by rank, within groups and above the floor on clean accuracy.

    Args:
        rows: classifiers on the same examples under the same threat.
    """
    believed = [row for row in rows if not row.doubted]
    cleared = clears_floor([row.clean for row in believed])
    above = [row for row, clears in zip(believed, cleared) if clears]
    sizes = Counter(row.group for row in above)
    kept = [row for row in above if sizes[row.group] > 1]
    found = None
    if len(kept) - len({row.group for row in kept}) + 1 >= ENOUGH:
        found = spearman([row.number for row in kept], [row.robust for row in kept], groups=[row.group for row in kept])
    return RobustRanks(found, len(kept), len(believed) - len(above), len(rows) - len(believed))


def doubted_models(run: Run, threat: str) -> set[str]:
    """Name the models with a twin that a check doubts, or whose checks are not finished; where none is, all count.

    It is the rule by which the board puts pairs apart.
    """
    verdicts: dict[str, set[str]] = {}
    for result in run.results:
        if result.threat == threat:
            said = "unchecked" if result.diagnosis is None else result.diagnosis.verdict
            verdicts.setdefault(run.entry(result.classifier).model, set()).add(said)
    checked = any(said == {"sound"} for said in verdicts.values())
    trusted = {"sound"} if checked else {"sound", "unchecked"}
    return {model for model, said in verdicts.items() if not said <= trusted}


def group_of(entry: ClassifierEntry) -> str:
    """Name the training and structure of a pair of the zoo, as its card states them; empty for any other model."""
    card = _card(entry.use)
    known = card is not None and card.sha256 == entry.sha256
    return f"trained {card.manner}, {card.structure}" if card is not None and known else ""


@lru_cache
def _card(use: str) -> Card | None:
    kind, _, name = use.partition(":")
    try:
        # A zoo name is a file name and nothing else.
        return read_card(ZOO / f"{name}.json") if kind == "zoo" and name in names() else None
    except InputError:
        return None
