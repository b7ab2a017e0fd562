"""Units of work as what can be handed to a worker, and the workshop that carries them out."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from robustframe.calls import borrowed, call_in_batches, padded, predict
from robustframe.diagnose import Diagnosis
from robustframe.draws import Draws
from robustframe.errors import InputError, StoppedEarly
from robustframe.evaluation.bounds import certified_radii
from robustframe.evaluation.diagnosis import Shelf
from robustframe.evaluation.task import Task
from robustframe.models.classifiers import Classifier, check_model
from robustframe.recipe.stages import make_stages
from robustframe.runs.manifest import file_sha256
from robustframe.runs.record import Result, read_record, write_aside
from robustframe.runs.units import RunFiles, Unit, chunks


@dataclass(frozen=True)
class Job:
    """One unit of work on one classifier; everything is named by its place in the task."""

    classifier: int


@dataclass(frozen=True)
class Check(Job):
    """Try the classifier before anything is written: gives a `Checked`."""


@dataclass(frozen=True)
class Bound(Job):
    """Certify its predictions: gives radii, or ``None`` where there is no certificate."""


@dataclass(frozen=True)
class Clean(Job):
    """Classify the clean images of a chunk: gives rows of ``CLEAN_SCHEMA``."""

    chunk: int


@dataclass(frozen=True)
class Attacked(Job):
    """Put the survivors of a chunk through one attack: gives rows of ``ATTACK_SCHEMA``."""

    threat: int
    stage: int
    chunk: int
    index: tuple[int, ...]
    """The examples that meet the attack."""


@dataclass(frozen=True)
class Diagnosed(Job):
    """Check the number of a row: gives a `Diagnosis`."""

    threat: int
    result: Result
    rows: pl.DataFrame
    finished: frozenset[tuple[str, str]]
    """The rows whose images may be replayed, by classifier and threat."""


@dataclass(frozen=True)
class Checked:
    """What trying a classifier says."""

    flags: list[str]
    skipped: tuple[str | None, ...]
    """For each attack of the task why it is left out, ``None`` where it is run."""


@dataclass(frozen=True)
class Done:
    """A finished job."""

    job: Job
    content: Any
    """What the kind of job gives."""
    files: dict[str, str]
    """The files it left in the run, and their SHA-256."""
    resident: int = 0
    """Memory of the worker afterwards, in bytes; 0 where nobody looked."""


@dataclass(frozen=True)
class Failed:
    """A job that could not be carried out, for a reason that lies in the model or its attack."""

    job: Job
    reason: str
    """One line."""
    error: BaseException | None = None
    memory: bool = False
    """It ran out of memory."""


class Workshop:
    """Carries the units of one task out; there is one in every process that works on it.

    Args:
        task: what to evaluate.
        folder: the run's folder.
        device: where the models are.
        batch_size: rows of one model call at most; it changes no verdict.
        release: let a model go as soon as a unit of another one comes.
    """

    def __init__(
        self, task: Task, folder: Path, device: torch.device, batch_size: int, *, release: bool = False
    ) -> None:
        self.task, self.folder, self.device = task, folder, device
        self.batch_size, self.release = batch_size, release
        self.files = RunFiles(folder, tuple(each.entry.name for each in task.classifiers))
        self.chunks = chunks(len(task.data), task.chunk)
        self.stages = make_stages(task.batteries, task.folder)
        self.votes = max(battery.votes for battery in task.batteries)
        self._current: Classifier | None = None
        self._seen = False

    def do(self, job: Job) -> Done:
        """Carry a job out, and leave its files in the run."""
        classifier = self._enter(job.classifier)
        if isinstance(job, Check):
            flags = check_model(classifier, self.task.data, self.device)
            return Done(job, Checked(flags, tuple(stage.why_not(classifier.module) for stage in self.stages)), {})
        if isinstance(job, Bound):
            return Done(job, certified_radii(classifier, self.task.data, self.device), {})
        self._see_the_run()
        if isinstance(job, Diagnosed):
            return self._diagnose(job, classifier)
        if isinstance(job, Clean):
            unit = self.clean_unit(job.classifier, job.chunk)
            rows = self._clean(classifier, unit, job.chunk)
        elif isinstance(job, Attacked):
            unit = self.attack_unit(job.classifier, job.threat, job.stage, job.chunk)
            rows = self._attack(classifier, unit, job)
        else:
            raise InputError(f"{type(job).__name__} is no job")
        return Done(job, rows, self._hashes(*unit.files))

    def clean_unit(self, classifier: int, chunk: int) -> Unit:
        """Return where the clean pass of a chunk lies."""
        return self.files.clean(classifier, chunk)

    def attack_unit(self, classifier: int, threat: int, stage: int, chunk: int) -> Unit:
        """Return where a chunk under an attack lies."""
        return self.files.attack(classifier, self.task.threats[threat].label, self.stages[stage].label, chunk)

    def diagnosis(self, classifier: int, threat: int) -> Path:
        """Return where the checks of a row lie."""
        return self.files.diagnosis(classifier, self.task.threats[threat].label)

    def halve(self) -> bool:
        """Halve the batch for the rest of the evaluation; say whether there was anything to halve."""
        least = padded(1)
        if padded(self.batch_size) <= least:
            return False
        self.batch_size = max(least, self.batch_size // 2)
        return True

    def _enter(self, number: int) -> Classifier:
        classifier, before = self.task.classifiers[number], self._current
        if self.release and before is not None and before.source is not None and before.source is not classifier.source:
            before.source.release()
        self._current = classifier
        return classifier

    def _see_the_run(self) -> None:
        """See to it that the folder is the one that everybody else works in.

        Raises:
            StoppedEarly: when it is not, as on a machine that does not share it; this lies in no model.
        """
        if self._seen:
            return
        try:
            found, _ = read_record(self.folder)
        except InputError as error:
            here = f"{platform.node()} does not see the run in {self.folder}"
            raise StoppedEarly(f"{here}; every machine needs the folder at this path") from error
        if found.hash != self.task.hash:
            raise StoppedEarly(f"{self.folder} has become the folder of another evaluation")
        self._seen = True

    def _clean(self, classifier: Classifier, unit: Unit, chunk: int) -> pl.DataFrame:
        index = self.chunks[chunk]
        with borrowed(classifier.module) as model, torch.no_grad():
            images = self.task.data.images[index].to(self.device)
            votes = [predict(call_in_batches(model, images, self.batch_size)) for _ in range(self.votes)]
            predictions = torch.stack(votes).mode(0).values
        return unit.save_clean(index, self.task.data.labels[index], predictions, self.votes)

    def _attack(self, classifier: Classifier, unit: Unit, job: Attacked) -> pl.DataFrame:
        task, stage, threat = self.task, self.stages[job.stage], self.task.threats[job.threat]
        index = torch.tensor(job.index, dtype=torch.long)
        # The classifier is not in the key: both twins of a pair meet the same random numbers.
        key = (task.seed, threat.label, stage.key, job.chunk)
        draws = Draws(key, len(self.chunks[job.chunk]), index - job.chunk * task.chunk, self.device)
        result = stage.attack.run(
            classifier.module,
            task.data.images[index].to(self.device),
            task.data.labels[index].to(self.device),
            threat,
            draws,
            batch_size=self.batch_size,
            known_correct=True,
            votes=stage.battery.votes,
            closest=stage.battery.closest,
        )
        return unit.save_attack(index, result)

    def _diagnose(self, job: Diagnosed, classifier: Classifier) -> Done:
        task = self.task
        shelf = Shelf(
            task.data, task.classifiers, task.threats, self.stages, len(self.chunks), self.votes, task.seed,
            self.files, self.device, self.batch_size, job.finished,
        )  # fmt: skip
        said = shelf.diagnose(classifier, task.threats[job.threat], job.result, job.rows)
        path = self.diagnosis(job.classifier, job.threat)
        write_aside(path, diagnosis_text(said))
        return Done(job, said, self._hashes(path))

    def _hashes(self, *paths: Path) -> dict[str, str]:
        return {self.files.name(path): file_sha256(path) for path in paths}


def diagnosis_text(diagnosis: Diagnosis) -> bytes:
    """Return a diagnosis as it stands in its file."""
    return (diagnosis.model_dump_json(indent=2) + "\n").encode()
