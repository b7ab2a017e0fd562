"""Are the counts of corrupted images those of the units, and the units those of the exact models."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import torch
from pydantic import ValidationError

from robustframe.corruptions import Corruptions, load_corruptions
from robustframe.errors import InputError, IntegrityError, first_mistake
from robustframe.models.classifiers import Classifier
from robustframe.recipe import CorruptionSpec
from robustframe.runs.record import RECORD, CorruptionEntry
from robustframe.runs.run import Run
from robustframe.runs.units import CORRUPTION_SCHEMA, corrupted_correct, corrupted_rows
from robustframe.runs.verdicts import read_table
from robustframe.verification.findings import Finding, VerifiedPart, check, left_out
from robustframe.verification.replay import Replayer
from robustframe.verification.sources import MADE_IN_PYTHON

_NAME = "corruptions"


def check_corruptions(run: Run, replayer: Replayer | None) -> list[VerifiedPart]:
    """Show the corrupted images to the exact models again, and count anew; nothing where the run has none.

    Args:
        run: the run.
        replayer: ``None`` where its models are not known, so that only counts are checked.
    """
    entry, asked = run.record.corruptions, run.record.recipe.get("corruptions")
    if entry is None and asked is None:
        return []
    if entry is None or asked is None:
        has, lacks = ("recipe", "record") if entry is None else ("record", "recipe")
        return [check(_NAME, "", [Finding(RECORD, None, f"its {has} has corruptions, its {lacks} has none")])]
    if not run.stored:
        return [left_out(_NAME, "a published copy holds counts alone; verify the run's own folder for them")]
    try:
        images = None if replayer is None else _images(run, replayer)
    except InputError as error:
        return [check(_NAME, "", [Finding(RECORD, None, str(error))])]
    findings = [*_asked(run, entry, images), *_shape(run, entry)]
    fickle = []
    for position, each in enumerate(run.record.classifiers):
        if each.name not in entry.correct:
            continue
        there = [] if replayer is None else replayer.sources.classifiers
        classifier = there[position] if position < len(there) else None
        if replayer is not None and classifier is not None and not replayer.repeats_itself(classifier):
            fickle.append(each.name)
            classifier = None
        # What the record asks is in question, and nothing can be said of the images.
        findings += _units(run, entry, position, None if findings else images, classifier, replayer)
    said = f"{len(entry.kinds) * len(entry.severities)} kinds and severities: counts follow from the units"
    if findings:
        return [check(_NAME, said, findings)]
    if replayer is None:
        return [left_out(_NAME, f"{said}; {MADE_IN_PYTHON}")]
    if fickle:
        return [left_out(_NAME, f"{said}; not replayed for {', '.join(fickle)}, which answers differently each time")]
    return [check(_NAME, f"{said}, predictions from the images", [])]


def _images(run: Run, replayer: Replayer) -> Corruptions:
    try:
        spec = CorruptionSpec.model_validate(run.record.recipe["corruptions"])
    except ValidationError as error:
        raise InputError(f"recipe.corruptions.{first_mistake(error)}") from None
    seed = run.record.recipe.get("seed")
    if not isinstance(seed, int):
        raise InputError(f"its seed {seed!r} is no whole number")
    data, folder = replayer.sources.data, run.recipe_folder if not run.from_python else Path()
    return load_corruptions(spec.use, data, seed=seed, kinds=spec.kinds, severities=spec.severities, folder=folder)


def _asked(run: Run, entry: CorruptionEntry, images: Corruptions | None) -> Iterator[Finding]:
    if images is None:
        return
    if len(images.data) < run.record.data.count:
        yield Finding(RECORD, None, f"it has {run.record.data.count:,} examples, its data {len(images.data):,}")
    for what, stated, found in (
        ("use", entry.use, images.use),
        ("kinds", entry.kinds, list(images.kinds)),
        ("severities", entry.severities, list(images.severities)),
        ("sha256", entry.sha256, images.sha256),
    ):
        if stated != found:
            yield Finding(
                RECORD, None, f"{what} of its corruptions is {stated}, its recipe and its images give {found}"
            )


def _shape(run: Run, entry: CorruptionEntry) -> Iterator[Finding]:
    """Counts that are not one for each classifier with a result, kind and severity."""
    finished = {result.classifier for result in run.results}
    for name in sorted(finished ^ set(entry.correct)):
        yield Finding(RECORD, None, f"counts of corrupted images and results do not agree on {name}")
    for name, counts in entry.correct.items():
        if [len(each) for each in counts] != [len(entry.severities)] * len(entry.kinds):
            yield Finding(RECORD, None, f"counts of corrupted images of {name} are not one for each kind and severity")


def _units(
    run: Run,
    entry: CorruptionEntry,
    position: int,
    images: Corruptions | None,
    classifier: Classifier | None,
    replayer: Replayer | None,
) -> Iterator[Finding]:
    name = run.record.classifiers[position].name
    for kind, stated in zip(entry.kinds, entry.correct[name]):
        counted: list[int] | None = [0] * len(entry.severities)
        for number, index in enumerate(run.chunks):
            unit = run.files.corrupted(position, kind, number)
            where = run.files.name(unit.table)
            try:
                rows = read_table(unit.table, CORRUPTION_SCHEMA)
            except IntegrityError as error:
                yield Finding(where, None, str(error).removeprefix(f"{unit.table}").lstrip(": "))
                counted = None
                continue
            empty = torch.zeros(len(index) * len(entry.severities), dtype=torch.int64)
            expected = corrupted_rows(entry.severities, index, torch.zeros_like(index), empty)
            if not rows.select("index", "severity").equals(expected.select("index", "severity")) or sum(
                rows.null_count().row(0)
            ):
                yield Finding(where, None, "its rows are not one for each example of the chunk and severity")
                counted = None
                continue
            if counted is not None:
                counted = [sum(pair) for pair in zip(counted, corrupted_correct(rows, entry.severities))]
            if images is not None and classifier is not None and replayer is not None:
                for severity in entry.severities:
                    mine = rows.filter(pl.col("severity") == severity)
                    shown = images.images(kind, severity, index)
                    yield from replayer.shown(classifier, mine, where, shown, f"{kind} at severity {severity}")
        if counted is not None and counted != stated:
            yield Finding(RECORD, None, f"{name}, {kind}: correct is {stated}, the units give {counted}")
