"""The tables of the board: a pair is one row, rows are ranked only where they may be compared, and of the tables of a
threat the best founded comes first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from robustframe.recipe import digest
from robustframe.report.layout import Cell
from robustframe.report.site.board import BoardEntry
from robustframe.runs.units import slug
from robustframe.statistics import PairedDifference, shared_ranks

TRUST = ("sound", "unchecked", "unfinished", "suspicious", "begun")
"""Verdicts, the best first; a row has the worst of those of its twins."""
Sweeps = Callable[[BoardEntry], int | None]
"""How many sweeps the recurrent twin of a pair was made for."""


@dataclass(frozen=True, eq=False)
class BoardRow:
    """A pair in a table, or a classifier that has no twin."""

    entries: tuple[BoardEntry, ...]
    """Its classifiers, by sweeps."""
    feedforward: BoardEntry | None
    recurrent: BoardEntry | None
    """At the number of sweeps that it was made for."""

    @property
    def first(self) -> BoardEntry:
        """Any of its classifiers, for what all have in common."""
        return self.entries[0]

    @property
    def key(self) -> str:
        """Names its place on the page."""
        return f"r-{digest([group_key(self.first), self.first.source.place, *self.first.key])[:10]}"

    @property
    def shown(self) -> tuple[BoardEntry, ...]:
        """The classifiers whose numbers stand in the row itself: both twins, or the only one."""
        twins = tuple(each for each in (self.feedforward, self.recurrent) if each is not None)
        return twins or self.entries[:1]

    @property
    def verdict(self) -> str:
        """Whether to believe the row: the worst verdict of what is shown."""
        return max((each.verdict for each in self.shown), key=TRUST.index)

    @property
    def best(self) -> BoardEntry:
        """The more robust of its twins, by which it is ranked."""
        return max(self.shown, key=lambda each: each.result.robust_correct if each.result is not None else -1)

    @cached_property
    def difference(self) -> Cell | None:
        """Recurrent less feed-forward on the same examples, with Newcombe's interval; `None` without both twins."""
        pair = self.feedforward, self.recurrent
        if pair[0] is None or pair[1] is None or pair[0].result is None or pair[1].result is None:
            return None
        found = PairedDifference.of(*(each.verdicts["robust"].to_numpy() for each in pair if each is not None))
        ends = found.interval()
        return Cell(found.value, ends.low, ends.high)


@dataclass(frozen=True)
class Placed:
    """A row with its rank."""

    row: BoardRow
    rank: int
    """From 1, shared where the examples do not tell rows apart."""
    shared: bool


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: the same examples, the same threat, the same attacks."""

    key: str
    """Names its place on the page."""
    ranked: tuple[Placed, ...]
    apart: tuple[BoardRow, ...]
    """Rows that a check doubts or that are not finished; they are not ranked beside sound ones."""
    effort: float
    """Passes that the attacks spent on an example, of the middle classifier: how strong they are."""

    @property
    def rows(self) -> tuple[BoardRow, ...]:
        """All rows, ranked ones first."""
        return (*(placed.row for placed in self.ranked), *self.apart)

    @property
    def first(self) -> BoardEntry:
        """Any of the entries, for what all have in common."""
        return self.rows[0].first


@dataclass(frozen=True)
class BoardSection:
    """Everything that was measured under one threat on one data set."""

    key: str
    groups: tuple[Group, ...]
    """The canonical one first: of those with a sound row that on the most examples, then by the strongest attacks."""

    @property
    def first(self) -> BoardEntry:
        """Any of the entries, for what all have in common."""
        return self.groups[0].first


def group_key(entry: BoardEntry) -> str:
    """Name what an entry may be compared with."""
    # The content of batteries, not their names: a file of the user's may change and keep its name.
    attacks = digest(entry.run.record.batteries)
    threat = [entry.threat.kind, entry.threat.eps]
    return f"g-{digest([entry.run.record.data.sha256, *threat, attacks])[:8]}"


def sections(entries: Sequence[BoardEntry], sweeps: Sweeps = lambda entry: None) -> list[BoardSection]:
    """Put entries into tables and rank them.

    Accuracies on other examples, under another threat or against other attacks are other quantities: nothing is ranked
    or averaged across groups.

    Args:
        entries: of any runs, in any order.
        sweeps: how many sweeps the recurrent twin of a pair was made for; the most it was evaluated at when ``None``.

    Returns:
        A section a data set and threat, each with its canonical table first; the section whose first table is the best
        founded comes first.
    """
    groups: dict[str, list[BoardEntry]] = {}
    for entry in entries:
        groups.setdefault(group_key(entry), []).append(entry)
    found: dict[str, list[Group]] = {}
    for key, same in groups.items():
        found.setdefault(_section_key(same[0]), []).append(_group(key, same, sweeps))
    made = [BoardSection(key, tuple(sorted(each, key=_founded))) for key, each in found.items()]
    return sorted(made, key=lambda each: (_founded(each.groups[0]), each.key))


def _section_key(entry: BoardEntry) -> str:
    data, threat = entry.run.record.data, entry.threat
    named = f"{data.use} {data.split}"
    # A name that cannot stand in an address gets a mark, so that no other is taken for it.
    mark = "" if slug(named.replace(" ", "-")) == named.replace(" ", "-") else f"-{digest(named)[:6]}"
    sought = slug(threat.kind.replace(" ", "-")).removeprefix(threat.norm)
    return f"{slug(named.replace(' ', '-'))}{mark}-{threat.norm}-{threat.eps:.6g}{sought}"


def _founded(group: Group) -> tuple[bool, int, float, str]:
    return not group.ranked, -group.first.run.record.data.count, -group.effort, group.key


def _group(key: str, entries: Sequence[BoardEntry], sweeps: Sweeps) -> Group:
    of: dict[tuple[object, ...], list[BoardEntry]] = {}
    for entry in entries:
        of.setdefault((entry.source, *entry.key), []).append(entry)
    rows = [_row(same, sweeps) for same in of.values()]
    # Numbers that nobody checked are ranked only where none was.
    checked = any(row.verdict == "sound" for row in rows)
    trusted = [row for row in rows if row.verdict == "sound" or (row.verdict == "unchecked" and not checked)]
    ranks = shared_ranks({str(at): row.best.verdicts["robust"].to_numpy() for at, row in enumerate(trusted)})
    numbers = [each.rank for each in ranks]
    ranked = tuple(Placed(trusted[int(each.name)], each.rank, numbers.count(each.rank) > 1) for each in ranks)
    apart = sorted(
        (row for row in rows if row not in trusted), key=lambda row: (TRUST.index(row.verdict), -_robust(row))
    )
    return Group(key, ranked, tuple(apart), median(map(_effort, entries)))


def _robust(row: BoardRow) -> int:
    return row.best.result.robust_correct if row.best.result is not None else -1


def _effort(entry: BoardEntry) -> float:
    attacks = entry.result.attacks if entry.result is not None else []
    return sum(((each.forwards + each.backwards) / max(each.entered, 1) for each in attacks), 0.0)


def _row(entries: Sequence[BoardEntry], sweeps: Sweeps) -> BoardRow:
    ordered = sorted(entries, key=lambda each: (each.classifier.sweeps or 0, each.classifier.twin == "recurrent"))
    recurrent = [each for each in ordered if each.classifier.twin == "recurrent"]
    made_for = [each for each in recurrent if each.classifier.sweeps == sweeps(each)]
    feedforward = next((each for each in ordered if each.classifier.twin == "feedforward"), None)
    return BoardRow(tuple(ordered), feedforward, next(reversed(made_for or recurrent), None))
