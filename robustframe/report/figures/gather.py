"""From the folders of runs to what the figures draw."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from robustframe.data import Dataset
from robustframe.errors import InputError, unknown
from robustframe.report.figures.association import Point
from robustframe.report.figures.curves import ModelCurve
from robustframe.report.figures.examples import Example
from robustframe.report.figures.outcomes import ROBUST, WRONG, Outcome
from robustframe.report.figures.stored import StoredImages
from robustframe.report.figures.style import twin_name
from robustframe.report.figures.sweeps import SweepPoint
from robustframe.report.robustness import model_names, read_verdicts
from robustframe.runs.curve import security_curves
from robustframe.runs.record import ClassifierEntry, Record, Result, find_run, read_record
from robustframe.statistics import Proportion
from robustframe.zoo import ZOO, names, read_card


@dataclass(frozen=True)
class Loaded:
    """A complete run, or the published copy of one."""

    folder: Path
    record: Record
    verdicts: pl.DataFrame
    only: frozenset[str] = frozenset()
    """Models or classifiers to draw; all when empty."""

    @property
    def results(self) -> list[Result]:
        """What it found."""
        return self.record.results or []

    @property
    def data(self) -> str:
        """Its examples in words."""
        return f"{self.record.data.use} {self.record.data.split}, {self.record.data.count:,} examples"


def load_runs(given: Sequence[str | Path], only: Sequence[str] = ()) -> list[Loaded]:
    """Read what figures need of runs.

    Args:
        given: their folders.
        only: models or classifiers to draw; all when empty.

    Raises:
        InputError: without runs, for one given twice, when one is none, is not complete or lacks its verdicts, and for
            a model that is in none of them.
    """
    if not given:
        raise InputError("give at least one folder of a run")
    runs: list[Loaded] = []
    for run in map(load_run, given):
        twice = next((other for other in runs if other.record.hash == run.record.hash), None)
        if twice is not None:
            raise InputError(f"{twice.folder} and {run.folder} are the same run; give it once")
        runs.append(run)
    known = {name for run in runs for entry in run.record.classifiers for name in (entry.model, entry.name)}
    for name in only:
        if name not in known:
            raise unknown("model", name, sorted(known))
    return [replace(run, only=frozenset(only)) for run in runs]


def load_run(given: str | Path) -> Loaded:
    """Read what figures need of a run.

    Raises:
        InputError: when there is no run, or it is not complete, or its verdicts are missing.
    """
    folder = find_run(given)
    record = read_record(folder)
    if record.status != "complete" or record.results is None:
        raise InputError(f"{folder} is not complete; run the same evaluate command again to continue it")
    return Loaded(folder, record, read_verdicts(folder))


def gather_curves(runs: Sequence[Loaded]) -> list[ModelCurve]:
    """Return the security curves of runs, as `curve_figure` takes them."""
    return [
        ModelCurve(label, twin_name(entry.twin), curve, run.data)
        for run, entry, label in _classifiers(runs)
        for curve in security_curves(run.record, run.verdicts)
        if curve.classifier == entry.name
    ]


def gather_points(
    runs: Sequence[Loaded], x: Callable[[ClassifierEntry], float | None] = lambda entry: entry.mutual_coherence
) -> list[Point]:
    """Return a number of every classifier (x) and its robust accuracy in % (y), a panel for each data and threat.

    Args:
        runs: where the robust accuracies are from.
        x: the number, such as the coherence of its frame; a classifier of which it is `None` is left out.
    """
    points = []
    for run, entry, label in _classifiers(runs):
        number = x(entry)
        if number is None:
            continue
        for result in run.results:
            if result.classifier == entry.name:
                share = Proportion(result.robust_correct, result.examples)
                low, high = 100 * share.interval().low, 100 * share.interval().high
                panel = f"{run.data}, {result.threat}"
                points.append(Point(label, twin_name(entry.twin), number, 100 * share.value, low, high, panel))
    return points


def gather_outcomes(runs: Sequence[Loaded]) -> list[Outcome]:
    """Return how the examples of every classifier ended, as `outcome_figure` takes them."""
    outcomes = []
    for run, entry, label in _classifiers(runs):
        for result in run.results:
            if result.classifier != entry.name:
                continue
            mine = (pl.col("classifier") == entry.name) & (pl.col("threat") == result.threat)
            rows = run.verdicts.filter(mine)
            ends = Counter(rows["broken_by"].drop_nulls().to_list())
            counts: dict[str, int | None] = {WRONG: result.examples - result.clean_correct}
            counts |= {attack.label: None if attack.skipped else ends[attack.label] for attack in result.attacks}
            counts |= {ROBUST: result.robust_correct}
            outcomes += [
                Outcome(label, twin_name(entry.twin), f"{run.data}, {result.threat}", name, count, result.examples)
                for name, count in counts.items()
            ]
    return outcomes


def gather_sweeps(runs: Sequence[Loaded]) -> list[SweepPoint]:
    """Return clean and robust accuracies of every set of weights that was evaluated at some number of sweeps.

    Classifiers with the same weights on the same examples are one model at several numbers of sweeps; what the card of
    a zoo pair says of the whole test split is added.
    """
    points: list[SweepPoint] = []
    first: dict[tuple[str, str], str] = {}
    for run, entry, label in _classifiers(runs):
        if entry.sweeps is None:
            continue
        if (entry.sha256, run.record.data.sha256) not in first:
            first[entry.sha256, run.record.data.sha256] = label
            points += _card(entry, label)
        model = first[entry.sha256, run.record.data.sha256]
        results = [result for result in run.results if result.classifier == entry.name]
        found = {"clean": (results[0].clean_correct, results[0].examples)} if results else {}
        found |= {result.threat: (result.robust_correct, result.examples) for result in results}
        points += [SweepPoint(model, measure, entry.sweeps, *counts) for measure, counts in found.items()]
    return list(dict.fromkeys(points))


def _card(entry: ClassifierEntry, label: str) -> list[SweepPoint]:
    kind, _, name = entry.use.partition(":")
    if kind != "zoo" or name not in names():
        return []
    card = read_card(ZOO / f"{name}.json")
    if card.sha256 != entry.sha256:
        return []
    stated = card.clean_accuracy
    measure = f"clean, {stated.use} {stated.split}, {stated.count:,} examples"
    return [
        SweepPoint(label, measure, int(sweeps), round(share * stated.count), stated.count)
        for sweeps, share in stated.by_sweeps.items()
    ]


def gather_examples(
    runs: Sequence[Loaded], *, count: int = 8, root: Path | None = None, data: Dataset | None = None
) -> list[Example]:
    """Return broken examples of every classifier under every threat, each attack in turn.

    Args:
        runs: with stored images; published copies have none.
        count: of each classifier under each threat, from 1.
        root: where data lies that does not ship.
        data: the examples of runs that were made from Python, whose records name no data set.

    Raises:
        InputError: for a count below 1, runs without stored images, or data that is not that of the run.
    """
    if count < 1:
        raise InputError(f"--count {count} must be at least 1")
    found: list[Example] = []
    for run, entry, label in _classifiers(runs):
        stored = StoredImages(run.folder, run.record, run.verdicts, data=data, root=root)
        twin = "" if entry.twin is None else f", {twin_name(entry.twin)}"
        for result in run.results:
            if result.classifier == entry.name:
                found += stored.examples(entry, result.threat, f"{label}{twin}", count)
    return found


def _classifiers(runs: Sequence[Loaded]) -> Iterator[tuple[Loaded, ClassifierEntry, str]]:
    """Every classifier that is drawn, with what its model is called."""
    for run, called in zip(runs, model_names([run.record for run in runs]), strict=True):
        for entry in run.record.classifiers:
            if not run.only or run.only & {entry.model, entry.name}:
                yield run, entry, called[entry.model]
