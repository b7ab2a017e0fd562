"""The board: classifiers under threats with their numbers, grouped by data, threat and attacks, ranked
inside a group and nowhere else; and the models these are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from robustframe.errors import InputError
from robustframe.recipe import digest
from robustframe.report.layout import PLAIN, TableRow
from robustframe.report.robustness import robustness_table
from robustframe.report.site.provenance import Provenance, provenance
from robustframe.runs import Run, open_run
from robustframe.runs.curve import Curve
from robustframe.runs.record import ClassifierEntry, Result
from robustframe.runs.units import slug
from robustframe.statistics import shared_ranks
from robustframe.threat import ThreatModel

TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent", None: "single"}
"""What the site calls a twin of a record."""


@dataclass(frozen=True, eq=False)
class BoardRun:
    """A run of the site."""

    run: Run
    place: str
    """Its name as a file name, unlike that of any other run of the site."""
    provenance: Provenance
    curves: tuple[Curve, ...]
    images: Run | None
    """Where its adversarial images are: here, or for a published copy in the run that it was made of; `None` where no
    such run was found."""

    @property
    def batteries(self) -> str:
        """What the examples went through, in order."""
        return " then ".join(battery.cited for battery in self.run.batteries)


@dataclass(frozen=True, eq=False)
class BoardEntry:
    """One classifier under one threat in one run: a row of the board."""

    source: BoardRun
    classifier: ClassifierEntry
    threat: ThreatModel
    result: Result | None = None
    """`None` when the run is not finished, as are its numbers."""
    row: TableRow | None = None
    difference: TableRow | None = None
    """Of the recurrent twin, less the feed-forward one; `None` for everything else."""

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.source.run

    @property
    def verdicts(self) -> pl.DataFrame:
        """What became of each example."""
        return self.run.rows(self.classifier.name, self.result.threat if self.result is not None else "")

    @property
    def ranked(self) -> bool:
        """Whether there is a number, and no check doubts it."""
        return self.result is not None and self.verdict != "suspicious"

    @property
    def verdict(self) -> str:
        """Whether to believe the number: a diagnosis, or why there is none."""
        if self.result is None:
            return "begun"
        return self.result.diagnosis.verdict if self.result.diagnosis is not None else "unchecked"


def read_runs(given: Sequence[str], runs: Path) -> list[BoardEntry]:
    """Read runs, complete or not.

    Args:
        given: their folders, or published copies of them.
        runs: where run folders lie, to find the images of a published copy.

    Returns:
        An entry for each classifier and threat, in the order of the runs; a run that is named twice counts once.

    Raises:
        InputError: when no run is given, one of them is none, or is not what was written.
    """
    if not given:
        raise InputError("no run is given; name the folders of runs, such as runs/* or evaluations/default/results")
    opened: dict[str, list[tuple[str, Run]]] = {}
    for name in dict.fromkeys(given):
        run = open_run(name, unfinished=True)
        opened.setdefault(run.seal, []).append((name, run))
    entries: list[BoardEntry] = []
    keys: list[str] = []
    for same in opened.values():
        name, run = same[0]
        keys.append(run.name)
        # One recipe may have been evaluated on two machines, which makes two records of one hash.
        again = f"-{keys.count(run.name)}" if keys.count(run.name) > 1 else ""
        place = f"{slug(run.name)}{again}"
        curves = tuple(run.curves()) if run.complete else ()
        images = _images([each for _, each in same], runs / slug(run.name)) if run.complete else None
        entries += _entries(BoardRun(run, place, provenance(run, name, f"{place}.toml"), curves, images))
    return entries


def _images(same: Sequence[Run], place: Path) -> Run | None:
    """Return the run with the images of some runs that are the same: one of them, or that in a folder."""
    for run in same:
        if run.stored:
            return run
    try:
        found = open_run(place)
    except InputError:
        return None
    return found if found.seal == same[0].seal and found.stored else None


def _entries(source: BoardRun) -> list[BoardEntry]:
    run = source.run
    if not run.complete:
        return [BoardEntry(source, each, threat) for each in run.record.classifiers for threat in run.threats]
    numbers = {(row.model, row.twin, row.threat): row for row in robustness_table(run).rows}
    entries = []
    for result in run.results:
        classifier = run.entry(result.classifier)
        model, twin = classifier.model, PLAIN if classifier.twin is None else TWINS[classifier.twin]
        difference = numbers.get((model, "difference", result.threat)) if twin == "recurrent" else None
        row = numbers[model, twin, result.threat]
        entries.append(BoardEntry(source, classifier, ThreatModel.parse(result.threat), result, row, difference))
    return entries


@dataclass(frozen=True)
class Place:
    """An entry with its rank."""

    entry: BoardEntry
    rank: int | None
    """From 1, shared where the examples do not tell entries apart; `None` for suspicious and unfinished ones."""
    shared: bool


@dataclass(frozen=True)
class Group:
    """Entries that may be compared: the same examples, the same threat, the same attacks."""

    key: str
    """Names its place on the page."""
    places: tuple[Place, ...]
    """By rank, then by robust accuracy; suspicious ones after them, and unfinished ones last."""

    @property
    def first(self) -> BoardEntry:
        """Any of the entries, for what all have in common."""
        return self.places[0].entry


def grouped(entries: Sequence[BoardEntry]) -> list[Group]:
    """Group and rank entries.

    Accuracies on other examples, under another threat or against other attacks are other quantities: nothing is ranked
    or averaged across groups.

    Args:
        entries: of any runs, in any order.

    Returns:
        Groups by data set, norm and eps.
    """
    found: dict[tuple[str, str, float, str], list[BoardEntry]] = {}
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
    return data.use, data.split, data.count, entry.threat.norm, entry.threat.eps, entry.source.batteries


def _ranked(entries: list[BoardEntry]) -> tuple[Place, ...]:
    # A number that a check doubts is not ranked beside those that nothing speaks against.
    finished = {str(at): entry for at, entry in enumerate(entries) if entry.ranked}
    ranked = shared_ranks({name: entry.verdicts["robust"].to_numpy() for name, entry in finished.items()})
    ranks = [each.rank for each in ranked]
    places = [Place(finished[each.name], each.rank, ranks.count(each.rank) > 1) for each in ranked]
    others = sorted((entry for entry in entries if not entry.ranked), key=lambda entry: entry.result is None)
    return (*places, *(Place(entry, None, False) for entry in others))


@dataclass(frozen=True)
class Model:
    """One model of the board: a pair or a single classifier, by name and weights."""

    name: str
    sha256: str
    entries: tuple[BoardEntry, ...]

    @property
    def first(self) -> BoardEntry:
        """Any of its entries, for what all have in common."""
        return self.entries[0]


def models(entries: Sequence[BoardEntry]) -> list[Model]:
    """Gather the entries of each model, in the order of their names; other weights make another model."""
    found: dict[tuple[str, str], list[BoardEntry]] = {}
    for entry in entries:
        found.setdefault((entry.classifier.model, entry.classifier.sha256), []).append(entry)
    return [Model(*key, tuple(each)) for key, each in sorted(found.items())]
