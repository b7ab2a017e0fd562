"""The units of a run read back: is every table there, whole, and about the examples that had to meet the attack."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from robustframe.attacks import APGD, APGDT
from robustframe.errors import InputError, IntegrityError
from robustframe.recipe.stages import Stage
from robustframe.runs.manifest import bound_files, file_sha256, read_manifest
from robustframe.runs.record import EVIDENCE, GIVEN, OWN_FILES, RECORD, VERDICTS
from robustframe.runs.run import Run
from robustframe.runs.units import ATTACK_SCHEMA, CLEAN_SCHEMA, Unit, correct
from robustframe.runs.verdicts import read_table
from robustframe.threat import ThreatModel
from robustframe.verification.diagnoses import diagnosis_files
from robustframe.verification.findings import Finding, VerifiedPart, check
from robustframe.verification.sources import Sources

"""What lies beside the units of a run."""

Tables = list[pl.DataFrame | None]
"""One table a chunk; `None` where it is missing or damaged."""


@dataclass(frozen=True)
class AttackUnits:
    """One attack on one classifier under one threat."""

    position: int
    """Of the classifier in the record."""
    threat: ThreatModel
    stage: Stage
    skipped: str | None
    """Why it was not run for this classifier; it has no units then."""
    units: list[Unit]
    tables: Tables


@dataclass
class Stored:
    """Everything that the units of a run hold."""

    clean: list[tuple[list[Unit], Tables]] = field(default_factory=list)
    attacked: list[AttackUnits] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_units(run: Run, stages: Sequence[Stage], sources: Sources | None) -> Stored:
    """Read every table of a run, and note what is missing, damaged or impossible in it.

    Args:
        run: the run, with units.
        stages: every attack in the order in which examples meet it.
        sources: its models; without them the record says which attacks were left out for a classifier.
    """
    stored = Stored()
    for position in range(len(run.record.classifiers)):
        units = [run.files.clean(position, number) for number in range(len(run.chunks))]
        name = run.record.classifiers[position].name
        all_missing = all((name, threat.label) in run.record.missing for threat in run.threats)
        clean = [_read(run, unit, CLEAN_SCHEMA, stored, may_lack=all_missing) for unit in units]
        for unit, rows, index in zip(units, clean, run.chunks):
            if rows is not None:
                stored.findings += _index(run, unit, rows, index, "the chunk's")
        stored.clean.append((units, clean))
        for threat in run.threats:
            _read_attacks(run, stages, sources, position, threat, clean, stored)
    return stored


def _read_attacks(
    run: Run,
    stages: Sequence[Stage],
    sources: Sources | None,
    position: int,
    threat: ThreatModel,
    clean: Tables,
    stored: Stored,
) -> None:
    right = [None if rows is None else index[_right(rows, index)] for rows, index in zip(clean, run.chunks)]
    alive = list(right)
    for stage in stages:
        if not stage.runs_for(threat):
            continue
        skipped = _skipped(run, sources, position, threat, stage)
        numbers = range(0 if skipped else len(run.chunks))
        units = [run.files.attack(position, threat.label, stage.label, number) for number in numbers]
        may_lack = (run.record.classifiers[position].name, threat.label) in run.record.missing
        tables = [_read(run, unit, ATTACK_SCHEMA, stored, may_lack=may_lack) for unit in units]
        for number, (unit, rows) in enumerate(zip(units, tables)):
            entering = right[number] if stage.battery.closest else alive[number]
            if rows is None:
                # Nobody knows who survived this, so what follows is held to less.
                alive[number] = None
                continue
            if entering is not None:
                who = "those that were classified right and" if stage.battery.closest else "survivors that"
                stored.findings += _index(run, unit, rows, entering, f"{who} had to meet this attack")
            stored.findings += _outcomes(run, unit, rows, clean[number], threat, stage)
            broken = torch.from_numpy(rows["index"].filter(rows["success"]).to_numpy().copy())
            if (before := alive[number]) is not None:
                alive[number] = before[~torch.isin(before, broken)]
        stored.attacked.append(AttackUnits(position, threat, stage, skipped, units, tables))


def _right(rows: pl.DataFrame, index: Tensor) -> Tensor:
    """Which examples of a chunk are classified right, whatever else its table holds."""
    known = torch.from_numpy(rows["index"].to_numpy().copy())[correct(rows)]
    return torch.isin(index, known)


def _skipped(run: Run, sources: Sources | None, position: int, threat: ThreatModel, stage: Stage) -> str | None:
    if sources is not None and position < len(sources.classifiers):
        return stage.why_not(sources.classifiers[position].module)
    name = run.record.classifiers[position].name
    entries = [
        entry
        for result in run.results
        if (result.classifier, result.threat) == (name, threat.label)
        for entry in result.attacks
        if (entry.battery, entry.position) == (stage.battery.cited, stage.position)
    ]
    return entries[0].skipped if entries else None


def _read(run: Run, unit: Unit, schema: Mapping[str, Any], stored: Stored, *, may_lack: bool) -> pl.DataFrame | None:
    """Read a table; one that is missing is a finding, unless the record calls its row failed."""
    where = run.files.name(unit.table)
    if not unit.table.is_file():
        if may_lack:
            return None
        stored.findings.append(Finding(where, None, "this unit is missing"))
        return None
    try:
        rows = read_table(unit.table, schema)
    except IntegrityError as error:
        stored.findings.append(Finding(where, None, str(error).removeprefix(f"{unit.table}").lstrip(": ")))
        return None
    if holes := [name for name in rows.columns if rows[name].null_count()]:
        stored.findings.append(Finding(where, None, f"there are empty cells in {', '.join(holes)}"))
        return None
    return rows


def _index(run: Run, unit: Unit, rows: pl.DataFrame, expected: Tensor, who: str) -> Iterator[Finding]:
    where, found = run.files.name(unit.table), rows["index"]
    if found.to_list() == expected.tolist():
        return
    wanted = set(expected.tolist())
    twice = found.filter(found.is_duplicated()).unique().sort()
    yield from (Finding(where, index, "it appears more than once") for index in twice)
    yield from (Finding(where, index, f"it is here, but not one of {who}") for index in sorted(set(found) - wanted))
    yield from (Finding(where, index, f"it is missing; it is one of {who}") for index in sorted(wanted - set(found)))
    if not len(twice) and set(found) == wanted:
        yield Finding(where, None, "its examples are in another order")


def _outcomes(
    run: Run, unit: Unit, rows: pl.DataFrame, clean: pl.DataFrame | None, threat: ThreatModel, stage: Stage
) -> Iterator[Finding]:
    """Rows that no attack leaves behind, whatever the model."""
    where = run.files.name(unit.table)
    if clean is not None:
        labels = clean.select("index", "label").unique("index")
        rows = rows.join(labels, on="index", how="left", maintain_order="left")
    else:
        rows = rows.with_columns(pl.lit(None, pl.Int64).alias("label"))
    success, claimed, distance = pl.col("success"), pl.col("claimed"), pl.col("distance")
    right = pl.col("prediction") == pl.col("label")
    # What misses its target may still be misclassified.
    any_class = not threat.targets
    # A hair wider than the ball that the images themselves are held to.
    outside = ~distance.is_between(0, threat.eps * (1 + 1e-3) + 1e-3)
    least = pl.min_horizontal("forwards", "backwards", "zero_gradients", "nonfinite_gradients")
    # Each step of an attack that fails evaluates its point, by a forward or by a gradient's; one that ends runs which
    # come back to an earlier point may take any number of them.
    steps = stage.attack.steps if isinstance(stage.attack, APGD | APGDT) else 1
    idle = ~claimed & (pl.col("forwards") < steps)
    kinds: list[tuple[pl.Expr, Callable[[dict[str, Any]], str]]] = [
        (success & ~claimed, lambda row: "a success that the search did not claim"),
        (success & right, lambda row: f"a success whose prediction is its label, {row['label']}"),
        (~claimed & ~right & any_class, lambda row: f"no success, yet its prediction is {row['prediction']}"),
        (outside, lambda row: f"its distance {row['distance']:.6g} is not inside {threat.label}"),
        (least < 0, lambda row: "a count of passes is below 0"),
        (idle, lambda row: f"{row['forwards']} forwards are no attack of {steps} step{'s' if steps > 1 else ''}"),
    ]
    for bad, sentence in kinds:
        yield from (Finding(where, row["index"], sentence(row)) for row in rows.filter(bad).iter_rows(named=True))
    if bool(rows["success"].any()) != unit.images.is_file():
        there = "it has successes, but their images are missing"
        yield Finding(
            run.files.name(unit.images), None, there if rows["success"].any() else "images of a unit without a success"
        )


def check_units(run: Run, stored: Stored) -> VerifiedPart:
    """Say what reading the units brought up."""
    tables = [rows for _, clean in stored.clean for rows in clean]
    tables += [rows for each in stored.attacked for rows in each.tables]
    return check("units", f"{len(tables):,} tables, each with the examples that had to be in it", stored.findings)


def check_files(run: Run, stored: Stored) -> VerifiedPart:
    """Hash every file and compare it with the manifest, whose own hash stands in the record."""
    expected, there = run.record.evidence_sha256, (run.folder / EVIDENCE).is_file()
    if not there:
        return check("files", "", [Finding(EVIDENCE, None, "it is missing; the record names its hash")])
    findings = []
    if file_sha256(run.folder / EVIDENCE) != expected:
        findings.append(Finding(EVIDENCE, None, "its hash is not the one in the record"))
    try:
        stated = read_manifest(run.folder)
    except InputError as error:
        return check("files", "", [*findings, Finding(EVIDENCE, None, str(error))])
    findings += _hashes(run, stated)
    known = {*OWN_FILES, *_explained(run, stored), *diagnosis_files(run)}
    if not run.from_python:
        known.remove(GIVEN)
    elif (run.folder / GIVEN).exists():
        try:
            run.examples()
        except InputError as error:
            findings.append(Finding(GIVEN, None, str(error)))
    findings += [
        Finding(name, None, "nothing in the record explains this file")
        for name in sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
        if name not in known
    ]
    findings += [
        Finding(path.relative_to(run.folder).as_posix(), None, "nothing in the record explains this empty folder")
        for path in sorted(run.folder.rglob("*"))
        if path.is_dir() and not any(path.iterdir())
    ]
    return check("files", f"SHA-256 of {len(stated):,} files, bound to the record by {EVIDENCE}", findings)


def _hashes(run: Run, stated: dict[str, str]) -> Iterator[Finding]:
    there = set(bound_files(run.folder))
    for name, expected in stated.items():
        if name not in there:
            yield Finding(name, None, f"{EVIDENCE} lists it, but it is missing")
        elif file_sha256(run.folder / name) != expected:
            yield Finding(name, None, f"its hash is not the one in {EVIDENCE}")
    yield from (Finding(name, None, f"{EVIDENCE} does not list it") for name in sorted(there - set(stated)))


def _explained(run: Run, stored: Stored) -> Iterator[str]:
    for units, _ in stored.clean:
        yield from (run.files.name(unit.table) for unit in units)
    corrupted = run.record.corruptions
    for position in range(len(stored.clean)):
        for kind in () if corrupted is None else corrupted.kinds:
            for number in range(len(run.chunks)):
                yield run.files.name(run.files.corrupted(position, kind, number).table)
    for each in stored.attacked:
        for unit in each.units:
            yield from (run.files.name(path) for path in (unit.table, unit.images))


def verdict_hash(run: Run) -> Iterator[Finding]:
    """Compare the verdicts with their hash in the record."""
    path = run.folder / VERDICTS
    if not Path(path).is_file():
        yield Finding(VERDICTS, None, "it is missing")
    elif file_sha256(path) != run.record.verdicts_sha256:
        yield Finding(VERDICTS, None, f"its hash is not the one in {RECORD}")
