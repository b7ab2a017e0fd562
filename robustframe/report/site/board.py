"""What the board is made of: classifiers under threats with their numbers, and the models these are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from robustframe.errors import InputError
from robustframe.report.layout import PLAIN, TableRow
from robustframe.report.robustness import robustness_table
from robustframe.report.site.provenance import Provenance, provenance
from robustframe.runs import Run, open_run
from robustframe.runs.curve import Curve
from robustframe.runs.kept import Kept, read_kept
from robustframe.runs.record import ClassifierEntry, Result
from robustframe.runs.units import slug
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
    kept: Kept
    """Some adversarial images that lie beside a published copy."""

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
    called: str
    """Its model: one name for all numbers of sweeps of the same weights."""
    result: Result | None = None
    """`None` when the run is not finished, as are its numbers."""
    row: TableRow | None = None
    difference: TableRow | None = None
    """Of the recurrent twin, less the feed-forward one; `None` for everything else."""

    @property
    def key(self) -> tuple[str, str]:
        """Its model by name and weights."""
        return self.called, self.classifier.sha256

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.source.run

    @property
    def verdicts(self) -> pl.DataFrame:
        """What became of each example."""
        return self.run.rows(self.classifier.name, self.result.threat if self.result is not None else "")

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
        kept = read_kept(run.folder) if run.complete and images is None else {}
        entries += _entries(BoardRun(run, place, provenance(run, name, f"{place}.toml"), curves, images, kept))
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
    run, called = source.run, _called(source.run.record.classifiers)
    if not run.complete:
        return [
            BoardEntry(source, each, threat, called[each.name])
            for each in run.record.classifiers
            for threat in run.threats
        ]
    numbers = {(row.model, row.twin, row.threat): row for row in robustness_table(run).rows}
    entries = []
    for result in run.results:
        classifier = run.entry(result.classifier)
        model, twin = classifier.model, PLAIN if classifier.twin is None else TWINS[classifier.twin]
        difference = numbers.get((model, "difference", result.threat)) if twin == "recurrent" else None
        row = numbers[model, twin, result.threat]
        threat, name = ThreatModel.parse(result.threat), called[classifier.name]
        entries.append(BoardEntry(source, classifier, threat, name, result, row, difference))
    return entries


def _called(classifiers: Sequence[ClassifierEntry]) -> Mapping[str, str]:
    """Name the model of each classifier: what a recipe tells apart only by sweeps is one model."""
    of: dict[tuple[str, str], list[ClassifierEntry]] = {}
    for each in classifiers:
        of.setdefault((each.sha256, each.use), []).append(each)
    called: dict[str, str] = {}
    for (_, use), same in of.items():
        sweeps = [each.sweeps for each in same]
        one = len({each.model for each in same}) > 1 and None not in sweeps and len(set(sweeps)) == len(sweeps)
        kind, _, place = use.partition(":")
        name = Path(place).stem if kind == "card" else place
        called |= {each.name: name if one else each.model for each in same}
    return called


@dataclass(frozen=True)
class Model:
    """One model of the board: a pair or a single classifier, by name and weights."""

    name: str
    sha256: str
    entries: tuple[BoardEntry, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Its name and weights."""
        return self.name, self.sha256

    @property
    def first(self) -> BoardEntry:
        """Any of its entries, for what all have in common."""
        return self.entries[0]


def models(entries: Sequence[BoardEntry]) -> list[Model]:
    """Gather the entries of each model, in the order of their names; other weights make another model."""
    found: dict[tuple[str, str], list[BoardEntry]] = {}
    for entry in entries:
        found.setdefault(entry.key, []).append(entry)
    return [Model(*key, tuple(each)) for key, each in sorted(found.items())]
