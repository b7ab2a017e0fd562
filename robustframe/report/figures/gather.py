"""From the folders of runs to what the figures draw."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from robustframe.curve import security_curves
from robustframe.errors import InputError
from robustframe.record import ClassifierEntry, Record, Result, find_run, read_record
from robustframe.report.figures.association import Point
from robustframe.report.figures.curves import ModelCurve
from robustframe.report.figures.outcomes import Outcome
from robustframe.report.figures.style import twin_name
from robustframe.report.robustness import read_verdicts
from robustframe.statistics import Proportion

WRONG, ROBUST = "wrong without attack", "robust"


@dataclass(frozen=True)
class Loaded:
    """A complete run, or the published copy of one."""

    folder: Path
    record: Record
    verdicts: pl.DataFrame

    @property
    def results(self) -> list[Result]:
        """What it found."""
        return self.record.results or []

    @property
    def data(self) -> str:
        """Its examples in words."""
        return f"{self.record.data.use} {self.record.data.split}, {self.record.data.count:,} examples"


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
        ModelCurve(label, twin_name(entry.twin), curve)
        for run, entry, label in _classifiers(runs)
        for curve in security_curves(run.record, run.verdicts)
        if curve.classifier == entry.name
    ]


def gather_points(runs: Sequence[Loaded]) -> list[Point]:
    """Return coherence (x) and robust accuracy in % (y) of every classifier with a frame, a panel a threat."""
    points = []
    for run, entry, label in _classifiers(runs):
        if entry.mutual_coherence is None:
            continue
        for result in run.results:
            if result.classifier == entry.name:
                share = Proportion(result.robust_correct, result.examples)
                interval = share.interval()
                points.append(
                    Point(
                        model=label,
                        twin=twin_name(entry.twin),
                        x=entry.mutual_coherence,
                        y=100 * share.value,
                        low=100 * interval.low,
                        high=100 * interval.high,
                        panel=f"{run.data}, {result.threat}",
                    )
                )
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


def _classifiers(runs: Sequence[Loaded]) -> Iterator[tuple[Loaded, ClassifierEntry, str]]:
    """Every classifier with what its model is called: with the run where several runs have a model of that name."""
    having = Counter(name for run in runs for name in {entry.model for entry in run.record.classifiers})
    for run in runs:
        for entry in run.record.classifiers:
            alone = having[entry.model] == 1
            yield run, entry, entry.model if alone else f"{entry.model} ({run.record.name}-{run.record.hash[:8]})"
