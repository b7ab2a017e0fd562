"""A run as it lies in its folder: the record, what it asks, and where each unit must be."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from robustframe.errors import InputError
from robustframe.evaluation.stages import Stage, make_stages
from robustframe.evaluation.units import Unit, chunks, classifier_folder, slug
from robustframe.evidence.code import check_code
from robustframe.recipe import Battery, parse_threats, recipes
from robustframe.record import EVIDENCE, EXAMPLES, RECORD, Record, find_run, read_record
from robustframe.threat import ThreatModel

_CHUNKS = 10**5
"""Most chunks of a run."""


@dataclass(frozen=True)
class Run:
    """A complete run, or the published copy of one."""

    folder: Path
    record: Record
    raw: dict[str, Any]
    """The record as its file has it, before any default is filled in."""
    batteries: list[Battery]
    stages: list[Stage]
    """Every attack in the order in which examples meet it."""
    threats: list[ThreatModel]
    chunk: int
    recipe_folder: Path
    """What paths in the recipe and its batteries are relative to."""

    @property
    def stored(self) -> bool:
        """Whether units are stored here; a published copy has record and verdicts only."""
        return (self.folder / "units").is_dir() or (self.folder / EVIDENCE).is_file()

    @property
    def chunks(self) -> list[torch.Tensor]:
        """The example indices of each chunk."""
        return list(chunks(self.record.data.count, self.chunk))

    def clean_unit(self, position: int, number: int) -> Unit:
        """Return the clean pass of a chunk, for the classifier at a position of the record."""
        return Unit(self.folder / self._place(position) / "clean", number)

    def attack_unit(self, position: int, threat: str, stage: str, number: int) -> Unit:
        """Return a chunk under an attack, for the classifier at a position of the record."""
        return Unit(self.folder / self._place(position) / slug(threat) / slug(stage), number)

    def where(self, path: Path) -> str:
        """Say where a file lies, relative to the run."""
        return path.relative_to(self.folder).as_posix()

    def _place(self, position: int) -> Path:
        return classifier_folder(position, self.record.classifiers[position].name)


def read_run(given: str | Path, recipe_folder: Path | None = None, code: Sequence[str | Path] = ()) -> Run:
    """Read a complete run.

    Args:
        given: its folder, or its record.
        recipe_folder: what paths in its recipe are relative to; the folder of the shipped recipe of its name, else the
            working directory, when ``None``.
        code: Python files of which the user has said that this run may have them run.

    Raises:
        InputError: when there is no record, it is of another schema, it is not complete, what it asks does not read, or
            it names code that the user did not.
    """
    folder = find_run(given)
    record = read_record(folder)
    if record.status != "complete" or record.results is None:
        raise InputError(f"{folder} is not complete; run the same evaluate command again to continue it")
    where = f"{folder / RECORD}: recipe"
    threats, chunk = record.recipe.get("threats"), record.recipe.get("chunk")
    if not isinstance(threats, list) or not all(isinstance(threat, str) for threat in threats):
        raise InputError(f"{where}.threats = {threats!r} must be a list such as ['linf:8/255']")
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1 or not 1 <= record.data.count <= EXAMPLES:
        raise InputError(f"{where}.chunk = {chunk!r} and data.count = {record.data.count} must be whole numbers from 1")
    if record.data.count / chunk > _CHUNKS:
        raise InputError(f"{where}.chunk = {chunk} makes too many chunks of {record.data.count:,} examples")
    if not record.classifiers or not record.batteries:
        raise InputError(f"{folder / RECORD} lists no classifiers or no batteries, so that there is nothing to check")
    batteries = [_battery(content, folder) for content in record.batteries]
    if recipe_folder is None:
        shipped = recipes().get(record.name)
        recipe_folder = Path() if shipped is None else shipped.parent
    check_code(folder, [record.recipe, record.batteries], recipe_folder, code)
    return Run(
        folder=folder,
        record=record,
        raw=json.loads((folder / RECORD).read_bytes()),
        batteries=batteries,
        stages=make_stages(batteries, recipe_folder),
        threats=parse_threats(threats, where=f"{where}.threats"),
        chunk=chunk,
        recipe_folder=recipe_folder,
    )


def _battery(content: dict[str, Any], folder: Path) -> Battery:
    try:
        return Battery.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{folder / RECORD}: batteries: {key}: {first['msg']}") from None
