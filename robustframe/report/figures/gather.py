"""From runs to what the figures draw.

Each function takes complete runs, such as `robustframe.runs.open_runs` gives them, and the names of the models or
classifiers to draw; all of them when there are none.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from robustframe.data import Dataset
from robustframe.errors import InputError, unknown
from robustframe.report.figures.association import ModelPoint
from robustframe.report.figures.curves import ModelCurve
from robustframe.report.figures.examples import Example
from robustframe.report.figures.outcomes import ROBUST, WRONG, ModelOutcome
from robustframe.report.figures.style import twin_name
from robustframe.report.figures.sweeps import SweepPoint
from robustframe.report.robust_ranks import doubted_models, group_of
from robustframe.report.robustness import model_names
from robustframe.runs import Run
from robustframe.runs.record import ClassifierEntry, Result
from robustframe.statistics import Proportion
from robustframe.zoo import ZOO, names, read_card


def gather_curves(runs: Sequence[Run], only: Sequence[str] = ()) -> list[ModelCurve]:
    """Return the security curves of runs, as `curve_figure` takes them."""
    curves = {run: run.curves() for run in runs}
    return [
        ModelCurve(label, twin_name(entry.twin), curve, _data(run))
        for run, entry, label in _classifiers(runs, only)
        for curve in curves[run]
        if curve.classifier == entry.name
    ]


def gather_points(
    runs: Sequence[Run],
    only: Sequence[str] = (),
    *,
    x: Callable[[ClassifierEntry], float | None] = lambda entry: entry.mutual_coherence,
) -> list[ModelPoint]:
    """Return a number of every classifier (x) and its robust accuracy in % (y), for each data, threat and group.

    Args:
        runs: where the robust accuracies are from.
        only: models or classifiers to draw; all when empty.
        x: the number, such as the coherence of its frame; a classifier of which it is `None` is left out.
    """
    points = []
    doubted = {(run, threat.label): doubted_models(run, threat.label) for run in runs for threat in run.threats}
    for run, entry, label, result in _results(runs, only):
        number = x(entry)
        if number is not None:
            share = Proportion(result.robust_correct, result.examples)
            low, high = 100 * share.interval().low, 100 * share.interval().high
            panel = f"Under {result.threat}, {_data(run)}"
            clean = result.clean_correct / result.examples
            doubt = entry.model in doubted[run, result.threat]
            drawn = label, twin_name(entry.twin), number, 100 * share.value, low, high, panel
            points.append(ModelPoint(*drawn, group=group_of(entry), clean=clean, doubted=doubt))
    return points


def gather_outcomes(runs: Sequence[Run], only: Sequence[str] = ()) -> list[ModelOutcome]:
    """Return how the examples of every classifier ended, as `outcome_figure` takes them."""
    outcomes = []
    for run, entry, label, result in _results(runs, only):
        ends = Counter(run.rows(entry.name, result.threat)["broken_by"].drop_nulls().to_list())
        counts: dict[str, int | None] = {WRONG: result.examples - result.clean_correct}
        counts |= {attack.label: None if attack.skipped else ends[attack.label] for attack in result.attacks}
        counts |= {ROBUST: result.robust_correct}
        outcomes += [
            ModelOutcome(
                label, twin_name(entry.twin), f"Under {result.threat}, {_data(run)}", name, count, result.examples
            )
            for name, count in counts.items()
        ]
    return outcomes


def gather_sweeps(runs: Sequence[Run], only: Sequence[str] = ()) -> list[SweepPoint]:
    """Return clean and robust accuracies of every set of weights that was evaluated at some number of sweeps.

    Classifiers with the same weights on the same examples are one model at several numbers of sweeps; what the card of
    a zoo pair says of the whole test split is added.
    """
    points: list[SweepPoint] = []
    first: dict[tuple[str, str], str] = {}
    labels: dict[str, set[str]] = {}
    for _, entry, label in _classifiers(runs, only):
        labels.setdefault(entry.sha256, set()).add(label)
    for run, entry, label, result in _results(runs, only):
        if entry.sweeps is None:
            continue
        weights = entry.sha256, run.record.data.sha256
        if weights not in first:
            # What a recipe tells apart by sweeps is called as it is loaded.
            kind, _, place = entry.use.partition(":")
            first[weights] = place if len(labels[entry.sha256]) > 1 and kind == "zoo" else label
            points += _card(entry, first[weights])
        found = {"clean": result.clean_correct, result.threat: result.robust_correct}
        points += [
            SweepPoint(first[weights], measure, entry.sweeps, correct, result.examples)
            for measure, correct in found.items()
        ]
    return list(dict.fromkeys(points))


def most_robust(runs: Sequence[Run], count: int) -> list[str]:
    """Name the models with the most robust classifiers, by the mean of each classifier over its threats.

    Args:
        runs: complete runs.
        count: how many, from 1.

    Raises:
        InputError: for a count below 1.
    """
    if count < 1:
        raise InputError(f"--top {count} must be at least 1")
    shares: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for result in run.results:
            of = shares.setdefault(run.entry(result.classifier).model, {})
            of.setdefault(result.classifier, []).append(result.robust_correct / result.examples)
    best = {model: max(sum(each) / len(each) for each in of.values()) for model, of in shares.items()}
    return sorted(best, key=lambda model: -best[model])[:count]


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
    runs: Sequence[Run],
    only: Sequence[str] = (),
    *,
    count: int = 8,
    data_root: Path | None = None,
    data: Dataset | None = None,
) -> list[Example]:
    """Return broken examples of every classifier under every threat, each attack in turn.

    Args:
        runs: with stored images; published copies have none.
        only: models or classifiers to draw; all when empty.
        count: of each classifier under each threat, from 1.
        data_root: where data lies that does not ship.
        data: the examples of runs that were made from Python, whose records name no data set.

    Raises:
        InputError: for a count below 1, runs without stored images, or data that is not that of the run.
    """
    if count < 1:
        raise InputError(f"--count {count} must be at least 1")
    clean: dict[str, Tensor] = {}
    found: list[Example] = []
    for run, entry, label, result in _results(runs, only):
        rows = _each_attack(run.rows(entry.name, result.threat), count)
        images = run.breaking_images(entry.name, result.threat, [row["index"] for row in rows])
        attacked = run.record.data.sha256
        if rows and attacked not in clean:
            clean[attacked] = _examples(run, data_root, data).images
        found += [
            Example(
                clean=clean[attacked][row["index"]],
                adversarial=image,
                label=run.class_name(row["label"]),
                predicted=run.class_name(row["adversarial_prediction"]),
                attack=row["broken_by"],
                threat=result.threat,
                classifier=label if entry.twin is None else f"{label}, {twin_name(entry.twin)}",
                distance=row["distance"],
            )
            for row, image in zip(rows, images, strict=True)
        ]
    return found


def _each_attack(verdicts: pl.DataFrame, count: int) -> list[dict[str, Any]]:
    """Choose broken examples, the first of each attack in turn, at most ``count``; by attack, then by index."""
    broken = verdicts.filter(pl.col("broken_by").is_not_null())
    turn = pl.int_range(pl.len()).over("broken_by")
    return broken.sort(turn, "broken_by").head(count).sort("broken_by", "index").to_dicts()


def _examples(run: Run, data_root: Path | None, data: Dataset | None) -> Dataset:
    if data is None:
        return run.examples(data_root)
    if data.sha256 != run.record.data.sha256:
        raise InputError(f"the examples of {run.folder} are not those of {data.name} {data.split}")
    return data


def _data(run: Run) -> str:
    """The examples of a run in words."""
    return f"{run.record.data.use} {run.record.data.split}, {run.record.data.count:,} examples"


def _results(runs: Sequence[Run], only: Sequence[str]) -> Iterator[tuple[Run, ClassifierEntry, str, Result]]:
    """Every result that is drawn, by classifier, with what its model is called."""
    for run, entry, label in _classifiers(runs, only):
        for result in run.results:
            if result.classifier == entry.name:
                yield run, entry, label, result


def _classifiers(runs: Sequence[Run], only: Sequence[str]) -> Iterator[tuple[Run, ClassifierEntry, str]]:
    """Every classifier that is drawn, with what its model is called."""
    known = {name for run in runs for entry in run.record.classifiers for name in (entry.model, entry.name)}
    for name in only:
        if name not in known:
            raise unknown("model", name, sorted(known))
    for run, called in zip(runs, model_names([run.record for run in runs]), strict=True):
        for entry in run.record.classifiers:
            if not only or {entry.model, entry.name} & set(only):
                yield run, entry, called[entry.model]
