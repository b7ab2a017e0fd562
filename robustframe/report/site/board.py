"""The board: entries grouped by data, threat and attacks, ranked inside a group and nowhere else; and their models."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustframe.recipe import digest
from robustframe.report.site.entries import Entry
from robustframe.statistics import shared_ranks


@dataclass(frozen=True)
class Place:
    """An entry with its rank."""

    entry: Entry
    rank: int | None
    """From 1, shared where the examples do not tell entries apart; `None` for a run that is not finished."""
    shared: bool


@dataclass(frozen=True)
class Group:
    """Entries that may be compared: the same examples, the same threat, the same attacks."""

    key: str
    """Names its place on the page."""
    places: tuple[Place, ...]
    """By rank, then by robust accuracy; unfinished ones last."""

    @property
    def first(self) -> Entry:
        """Any of the entries, for what all have in common."""
        return self.places[0].entry


def grouped(entries: Sequence[Entry]) -> list[Group]:
    """Group and rank entries.

    Accuracies on other examples, under another threat or against other attacks are other quantities: nothing is ranked
    or averaged across groups.

    Args:
        entries: of any runs, in any order.

    Returns:
        Groups by data set, norm and eps.
    """
    found: dict[tuple[str, str, float, str], list[Entry]] = {}
    for entry in entries:
        # The content of batteries, not their names: a file of the user's may change and keep its name.
        attacks = digest(entry.run.record.batteries)
        key = (entry.run.record.data.sha256, entry.threat.norm, entry.threat.eps, attacks)
        found.setdefault(key, []).append(entry)
    groups = [Group(f"g-{digest(key)[:8]}", _ranked(each)) for key, each in found.items()]
    return sorted(groups, key=_order)


def _order(group: Group) -> tuple[str, str, int, str, float, str]:
    entry = group.first
    data = entry.run.record.data
    return data.use, data.split, data.count, entry.threat.norm, entry.threat.eps, entry.run.batteries


def _ranked(entries: list[Entry]) -> tuple[Place, ...]:
    finished = {str(at): entry for at, entry in enumerate(entries) if entry.row is not None}
    ranked = shared_ranks({name: entry.robust for name, entry in finished.items()})
    ranks = [each.rank for each in ranked]
    places = [Place(finished[each.name], each.rank, ranks.count(each.rank) > 1) for each in ranked]
    return (*places, *(Place(entry, None, False) for entry in entries if entry.row is None))


@dataclass(frozen=True)
class Model:
    """One model of the board: a pair or a single classifier, by name and weights."""

    name: str
    sha256: str
    entries: tuple[Entry, ...]

    @property
    def first(self) -> Entry:
        """Any of its entries, for what all have in common."""
        return self.entries[0]


def models(entries: Sequence[Entry]) -> list[Model]:
    """Gather the entries of each model, in the order of their names; other weights make another model."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.classifier.model, entry.classifier.sha256), []).append(entry)
    return [Model(*key, tuple(each)) for key, each in sorted(found.items())]
