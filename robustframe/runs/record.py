"""The record of an evaluation: what was asked, what was found, what it cost."""

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from robustframe.diagnose import Diagnosis
from robustframe.errors import InputError, StoppedEarly, first_mistake, shown
from robustframe.files import CARD_BYTES, RECORD_BYTES, read_plain
from robustframe.prepared import Preparation

Device = torch.device

RECORD = "record.json"
VERDICTS = "verdicts.parquet"
EVIDENCE = "evidence.sha256"
SEAL = "seal.sha256"
"""Holds the hash of ``record.json``, which holds those of everything else."""
GIVEN = "examples.safetensors"
"""What was attacked, in a run of `robustframe.evaluate`; the record holds their identity."""
OWN_FILES = frozenset({RECORD, VERDICTS, EVIDENCE, SEAL, GIVEN, "table.md", "table.tex", "table.csv"})
"""What lies in the folder of a complete run beside its units."""
PART = ".part"
"""How the name of a file ends while it is written."""
EXAMPLES = 10**7
"""Most examples of a run."""


class Section(BaseModel):
    """A frozen part of a record that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class DataEntry(Section):
    """The examples that were attacked."""

    use: str
    split: str
    count: int
    sha256: str
    """Of the pixels and labels: the identity of the examples."""
    classes: list[str]


class ClassifierEntry(Section):
    """One classifier: a twin of a pair, or any model."""

    name: str
    model: str
    """What both twins of a pair share."""
    twin: Literal["feedforward", "recurrent"] | None
    use: str
    sha256: str
    """Of the weights file for a pair with a card, else of the parameters, buffers and code."""
    parameters: int
    sweeps: int | None
    mutual_coherence: float | None
    """Of the pair's frame, or of that which the model is a sweep of; null where there is none or nobody measured it."""
    weights_sha256: str | None
    """Of the weights file that a recipe names; null where it names none."""
    code: dict[str, str]
    """What it is besides its weights, part by part: SHA-256 of each file of the user's and of each class, settings and
    plain attributes of its layers; empty for a pair with a card."""
    unread: list[str]
    """Parts whose source cannot be read, which its answers alone identify."""
    no_frame: str | None = None
    """Of a model without twins: why it is no sweep of a frame; left out where it is one, or nobody looked."""

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["ClassifierEntry"], dict[str, Any]]) -> dict[str, Any]:
        # Records of before it was looked at stay what they are, byte by byte.
        return {key: value for key, value in write(self).items() if key != "no_frame" or value is not None}


class AttackEntry(Section):
    """What one attack of a battery did to the survivors of those before it."""

    battery: str
    position: int
    """Place in its battery, from 1."""
    use: str
    name: str | None
    """What its battery calls it, where ``use`` says too little."""
    settings: dict[str, Any]
    """Every setting with its value, defaults included."""
    skipped: str | None
    """Why it was not run for this classifier, such as a solver's gradient for a network that is not a solver."""
    entered: int
    broken: int
    """Successes that the exact model confirmed."""
    unverified: int
    """Successes that the search claimed and the exact model did not confirm; not counted."""
    forwards: int
    """Passes of single examples through the model."""
    backwards: int
    blind: int
    """Examples that gave it no gradient but zero."""
    nonfinite: int
    """Examples that gave it a gradient with NaN or infinity."""

    @property
    def label(self) -> str:
        """How verdicts name it, such as ``standard@1/03-fab-t``."""
        return f"{self.battery}/{self.position:02d}-{self.name or self.use}"


class Result(Section):
    """One classifier under one threat."""

    classifier: str
    threat: str
    examples: int
    clean_correct: int
    robust_correct: int
    """Correct on the clean image and on every stored adversarial one."""
    certified_correct: int | None
    """Examples that no attack can break, by a certificate: the lower bound beside ``robust_correct``, the upper one;
    null where there is no certificate."""
    attacks: list[AttackEntry]
    diagnosis: Diagnosis | None
    """Whether the number can be believed; null where nobody asked, and where the checks failed."""


class CorruptionEntry(Section):
    """Which corrupted images the classifiers were tried on, and how many they get right."""

    use: str
    """``corruptions@1``, or the folder that they are from."""
    kinds: list[str]
    severities: list[int]
    sha256: str | None
    """Of the images, where they are read from a folder; null for those that are drawn."""
    correct: dict[str, list[list[int]]]
    """By classifier: images of each kind (a list) and severity that are classified right, of as many as there are
    examples. Empty while the run is not complete; a classifier without finished rows is not in it."""

    def mean(self, classifier: str, examples: int) -> float | None:
        """Return the accuracy of a classifier over all kinds and severities, each with the same weight."""
        counts = self.correct.get(classifier)
        if not counts:
            return None
        return sum(map(sum, counts)) / (len(self.kinds) * len(self.severities) * examples)


class FailedRow(Section):
    """One classifier under one threat that could not be finished; the same command tries again."""

    classifier: str
    threat: str
    reason: str
    """Such as what the model raised. Where only the checks of the row failed, its result is there nonetheless."""


class Environment(Section):
    """What it ran on; two runs of one recipe in one environment are equal byte for byte."""

    robustframe: str
    python: str
    torch: str
    torchattacks: str | None
    numpy: str
    platform: str
    device: str
    threads: int

    @property
    def kernels(self) -> tuple[str, str, str]:
        """What decides how numbers round: the device, the release of torch, the system."""
        return self.device, self.torch, self.platform

    @classmethod
    def here(cls, device: Device) -> "Environment":
        """Return versions, device and number of threads of this process."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return cls(
            robustframe=version("robustframe"),
            python=platform.python_version(),
            torch=torch.__version__,
            torchattacks=_installed("torchattacks"),
            numpy=np.__version__,
            platform=platform.system(),
            device=f"{device.type} ({name})",
            threads=torch.get_num_threads(),
        )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Record(Section):
    """One evaluation. Unknown is null, never 0."""

    format: Literal[2] = Field(default=2, alias="schema")
    status: Literal["started", "complete"]
    name: str
    hash: str
    """SHA-256 of everything asked: recipe, batteries, examples, weights and code version."""
    recipe: dict[str, Any]
    batteries: list[dict[str, Any]]
    data: DataEntry
    classifiers: list[ClassifierEntry]
    environment: Environment
    answers: dict[str, list[list[float]] | None]
    """Logits of each classifier on the first examples, which say whether a model is the one that was evaluated; null
    for one that answers at random."""
    results: list[Result] | None = None
    verdicts_sha256: str | None = None
    evidence_sha256: str | None = None
    """Of ``evidence.sha256``, which holds the hash of every file of the run."""
    flags: list[str] = Field(default_factory=list)
    """Sentences about what makes a number here doubtful."""
    failed: list[FailedRow] = Field(default_factory=list)
    """Rows that could not be finished; without results, unless it was their checks that failed."""
    corruptions: CorruptionEntry | None = None
    """Accuracy on corrupted images; left out where nobody asked."""
    searched: dict[str, Preparation] | None = None
    """What attacks searched in place of each classifier, by its name; left out where they searched the models
    themselves. Those that could not be tried are not in it."""

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["Record"], dict[str, Any]]) -> dict[str, Any]:
        # Records of before there were these stay what they are, byte by byte.
        late = ("corruptions", "searched")
        return {key: value for key, value in write(self).items() if key not in late or value is not None}

    @property
    def missing(self) -> frozenset[tuple[str, str]]:
        """The rows without a result, by classifier and threat."""
        there = {(result.classifier, result.threat) for result in self.results or []}
        return frozenset((row.classifier, row.threat) for row in self.failed) - there

    @property
    def cited(self) -> str:
        """How the run is cited: its name and the beginning of its hash."""
        return f"{self.name}-{self.hash[:8]}"

    @model_validator(mode="after")
    def _whole(self) -> "Record":
        parts = (self.results, self.verdicts_sha256, self.evidence_sha256)
        if any((part is not None) != (self.status == "complete") for part in parts):
            raise ValueError("results and hashes of files belong to a complete run, and to no other")
        for name, rows in self.answers.items():
            if rows is not None and len({len(row) for row in rows}) != 1:
                raise ValueError(f"the answers of {name} are not a table of logits")
        return self

    def to_json(self) -> str:
        """Return the record as it stands in its file."""
        return json.dumps(self.model_dump(by_alias=True), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_aside(path: Path, content: bytes) -> str:
    """Write a file so that it is either whole or not there, whoever else writes the same one.

    Returns:
        The SHA-256 of what was written, whatever becomes of the file.

    Raises:
        StoppedEarly: when the disk is full, or the folder cannot be written to.
    """
    # Workers on several machines that share the folder may, after an accident, write the same file.
    aside = path.with_name(f"{path.name}.{os.urandom(6).hex()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StoppedEarly(f"{path} cannot be written: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a run, and its seal when the run is complete.

    Raises:
        StoppedEarly: when the disk is full, or the folder cannot be written to.
    """
    # A seal that is there is of a complete record; while there is none, the run is not taken for one.
    if record.status == "complete":
        sha256 = write_aside(folder / RECORD, record.to_json().encode())
        write_aside(folder / SEAL, f"{sha256}  {RECORD}\n".encode())
        return
    try:
        (folder / SEAL).unlink(missing_ok=True)
    except OSError as error:
        raise StoppedEarly(f"{folder / SEAL} cannot be removed: {error.strerror or error}") from error
    write_aside(folder / RECORD, record.to_json().encode())


def broken_seal(folder: Path, content: bytes) -> str:
    """Say what is wrong with the seal of a complete run; nothing when it is whole.

    Args:
        folder: the run's folder.
        content: of its record.
    """
    if not (folder / SEAL).is_file():
        return f"{folder / SEAL} is missing"
    try:
        stated = read_plain(folder / SEAL, limit=CARD_BYTES)
    except InputError as error:
        return str(error)
    if stated != f"{hashlib.sha256(content).hexdigest()}  {RECORD}\n".encode():
        return f"{folder / RECORD} is not what {SEAL} says"
    return ""


def find_run(given: str | Path) -> Path:
    """Return the folder of a run, given as the folder or as its record.

    Raises:
        InputError: when there is no record.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"a run is given as the path of its folder, not as {type(given).__name__}")
    path = Path(given)
    folder = path.parent if path.name == RECORD else path
    # Unlike the method of a path, this takes a name of any length.
    if not os.path.isfile(folder / RECORD):
        raise InputError(f"{shown(str(given))} is not a run: there is no {RECORD} in it")
    return folder


def read_record(given: str | Path) -> tuple[Record, bytes]:
    """Read the record of a run, and the bytes that it is read from.

    Raises:
        InputError: when there is none, or it is of another schema.
    """
    folder = find_run(given)
    path = folder / RECORD
    content = read_plain(path, limit=RECORD_BYTES)
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        by = re.search(rb'"robustframe": "([0-9A-Za-z.+-]{1,40})"', content)
        made = f" (robustframe {by[1].decode()} wrote it)" if by else ""
        raise InputError(f"{path} is not a record of this version: {first_mistake(error)}{made}") from None
    try:
        record.to_json().encode()
    except ValueError as error:
        raise InputError(f"{path} holds what no record does: {error}") from error
    return record, content
