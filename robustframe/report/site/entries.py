"""What is read of runs for a site: each classifier under each threat with its numbers, and nothing that is not bound
to its record."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.report.layout import TableRow
from robustframe.report.robustness import robustness_table
from robustframe.report.site.provenance import Provenance, provenance
from robustframe.runs.curve import Curve, security_curves
from robustframe.runs.manifest import sha256
from robustframe.runs.record import VERDICTS, ClassifierEntry, Record, Result, find_run, read_record
from robustframe.runs.units import slug
from robustframe.threat import ThreatModel

_BATTERY = " then "
_CANDIDATES = 400
"""Broken examples of a classifier under a threat that are looked at for some to show: enough for some of each class."""


@dataclass(frozen=True)
class Run:
    """One run as the user named it."""

    folder: Path
    record: Record
    key: str
    """Name and beginning of the hash: how the site calls it."""
    place: str
    """The same as a file name, unlike that of any other run of the site."""
    provenance: Provenance
    broken: pl.DataFrame
    """Verdicts of the first examples that were right and are broken; empty for a run that is not finished."""
    curves: tuple[Curve, ...]
    images: Path | None
    """The folder that holds the adversarial images of this record; `None` where no such folder was found."""

    @property
    def finished(self) -> bool:
        """Whether every unit of work is done."""
        return self.record.results is not None and self.record.status == "complete"

    @property
    def batteries(self) -> str:
        """What the examples went through, in order."""
        return _BATTERY.join(f"{each['name']}@{each['version']}" for each in self.record.batteries)


@dataclass(frozen=True)
class Entry:
    """One classifier under one threat in one run: a row of the board."""

    run: Run
    classifier: ClassifierEntry
    threat: ThreatModel
    row: TableRow | None
    """Its numbers; `None` when the run is not finished."""
    difference: TableRow | None
    """Of the recurrent twin, less the feed-forward one; `None` for everything else."""
    result: Result | None
    robust: NDArray[np.bool_] = field(repr=False, compare=False)
    """Verdict an example, shape (n,); empty when the run is not finished."""

    @property
    def verdict(self) -> str:
        """Whether to believe the number: a diagnosis, or why there is none."""
        if self.result is None:
            return "unfinished"
        return self.result.diagnosis.verdict if self.result.diagnosis is not None else "unchecked"


def read_runs(given: Sequence[str], runs: Path) -> list[Entry]:
    """Read runs, complete or not.

    Args:
        given: their folders, or published copies of them.
        runs: where run folders lie, to find the images of a published copy.

    Returns:
        An entry for each classifier and threat, in the order of the runs; a run that is named twice counts once.

    Raises:
        InputError: when no run is given, one of them is none, or its verdicts are not those of its record.
    """
    if not given:
        raise InputError("no run is given; name the folders of runs, such as runs/* or evaluations/default/results")
    entries: list[Entry] = []
    seen: dict[str, str] = {}
    keys: list[str] = []
    for name in given:
        folder = find_run(name)
        record = read_record(folder)
        content = hashlib.sha256(record.to_json().encode()).hexdigest()
        if content not in seen:
            seen[content] = name
            key = f"{record.name}-{record.hash[:8]}"
            keys.append(key)
            # One recipe may have been evaluated on two machines, which makes two records of one hash.
            again = f"-{keys.count(key)}" if keys.count(key) > 1 else ""
            entries += _read(name, folder, record, runs, f"{slug(key)}{again}")
    return entries


def _read(given: str, folder: Path, record: Record, runs: Path, place: str) -> list[Entry]:
    key = f"{record.name}-{record.hash[:8]}"
    stated = provenance(record, given, f"{place}.toml")
    if record.status != "complete" or record.results is None:
        nothing = np.zeros(0, dtype=np.bool_)
        run = Run(folder, record, key, place, stated, pl.DataFrame(), (), None)
        threats = [ThreatModel.parse(each) for each in _asked(record, folder)]
        return [
            Entry(run, each, threat, None, None, None, nothing) for each in record.classifiers for threat in threats
        ]
    _check_verdicts(folder, record)
    # First of all, so that its copy of the verdicts is gone when the next one comes.
    rows = robustness_table(record, folder).rows
    numbers = {(row.model, row.twin, row.threat): row for row in rows}
    verdicts = pl.read_parquet(folder / VERDICTS)
    broken = verdicts.filter(pl.col("clean_correct") & ~pl.col("robust")).sort("index")
    few = broken.group_by("classifier", "threat", maintain_order=True).head(_CANDIDATES)
    curves = tuple(security_curves(record, verdicts))
    run = Run(folder, record, key, place, stated, few, curves, _images(folder, record, runs / slug(key)))
    robust = {
        (str(name), str(threat)): part.sort("index")["robust"].to_numpy()
        for (name, threat), part in verdicts.select("classifier", "threat", "index", "robust").group_by(
            "classifier", "threat"
        )
    }
    classifiers = {each.name: each for each in record.classifiers}
    entries = []
    for result in record.results:
        classifier = classifiers[result.classifier]
        twin = {"feedforward": "feed-forward", "recurrent": "recurrent", None: "—"}[classifier.twin]
        difference = numbers.get((classifier.model, "difference", result.threat)) if twin == "recurrent" else None
        entries.append(
            Entry(
                run,
                classifier,
                ThreatModel.parse(result.threat),
                numbers[classifier.model, twin, result.threat],
                difference,
                result,
                robust[result.classifier, result.threat],
            )
        )
    return entries


def _asked(record: Record, folder: Path) -> list[str]:
    threats = record.recipe.get("threats")
    if not isinstance(threats, list) or not all(isinstance(each, str) for each in threats):
        raise InputError(f"the recipe in {folder} names no threats; evaluate again")
    return threats


def _check_verdicts(folder: Path, record: Record) -> None:
    path = folder / VERDICTS
    hint = f"`robustframe verify {folder}` says more"
    if not path.is_file():
        raise InputError(f"{path} is missing; {hint}")
    if sha256(path) != record.verdicts_sha256:
        raise InputError(f"{path} is not what its record says; {hint}")


def _images(folder: Path, record: Record, run: Path) -> Path | None:
    """Return the folder with a record's images: its own, or for a published copy the run of the same record."""
    for place in (folder, run):
        if (place / "units").is_dir() and (place == folder or _same(place, record)):
            return place
    return None


def _same(place: Path, record: Record) -> bool:
    try:
        return read_record(place) == record
    except InputError:
        return False
