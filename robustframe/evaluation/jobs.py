"""Units of work: where each kind stands in the order, how it is done, what it leaves, and what comes of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import polars as pl
import torch

from robustframe.attacks import TransferAttack
from robustframe.calls import borrowed, call_in_batches, predict
from robustframe.diagnose import Diagnosis
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.evaluation.bounds import certified_radii
from robustframe.evaluation.diagnosis import BreakingImages, diagnose_row
from robustframe.evaluation.scores import Scores, Trial
from robustframe.evaluation.task import Task, corruptions_of
from robustframe.evaluation.workshop import Workshop
from robustframe.models.classifiers import Classifier
from robustframe.models.identity import answers
from robustframe.models.trials import check_model
from robustframe.prepared import Preparation, choose
from robustframe.runs.journal import Journal
from robustframe.runs.record import Result, write_aside
from robustframe.runs.units import (
    ATTACK_SCHEMA,
    CLEAN_SCHEMA,
    CORRUPTION_SCHEMA,
    RunFiles,
    Unit,
    Written,
    corrupted_rows,
    parse_diagnosis,
)
from robustframe.targets import check_offset
from robustframe.types import PerExample, Verdicts

R = TypeVar("R")
"""What a job gives."""
TRYING, ATTACKING, CHECKING = range(3)
"""What an evaluation does one after the other."""


@dataclass(frozen=True, eq=False)
class Job(ABC, Generic[R]):
    """One unit of work on one classifier; everything is named by its place in the task."""

    classifier: int

    @property
    @abstractmethod
    def place(self) -> tuple[int, ...]:
        """Where it stands in the order of an evaluation; no other unit stands there."""

    @abstractmethod
    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[R, Written]:
        """Do it; return what it gave, and its files, which are in the run then, with their hashes."""

    def do(self, workshop: Workshop) -> "Done[R]":
        """Do it, and say what it gave and what it left in the run."""
        found, written = self.work(workshop, workshop.classifier(self.classifier))
        return Done(self, found, {workshop.files.name(path): sha for path, sha in written.items()})

    def paths(self, task: Task, files: RunFiles) -> list[Path]:
        """Return the files that it may leave in the run."""
        del task, files
        return []

    def read(self, task: Task, files: RunFiles, journal: Journal) -> R | None:
        """Return what it gave, where its files are in the run already; ``None`` where it has to be done."""
        del task, files, journal
        return None

    @property
    def lasting(self) -> bool:
        """Whether its files are to be read, not made again, when the run is continued."""
        return True

    def wanted(self, scores: Scores) -> bool:
        """Say whether its row, or any row of its classifier, has not been given up."""
        return scores.going_on(self.classifier)

    @abstractmethod
    def enter(self, scores: Scores, found: R) -> None:
        """Enter what it gave."""

    def followers(self, scores: Scores) -> Iterator["Job[Any]"]:
        """Yield the units that become due once it is entered."""
        del scores
        yield from ()

    def give_up(self, scores: Scores, reason: str) -> None:
        """Enter that it cannot be done, which costs all rows of its classifier."""
        for threat in range(len(scores.task.threats)):
            scores.give_up(self.classifier, threat, reason)


@dataclass(frozen=True)
class Done(Generic[R]):
    """A finished job."""

    job: Job[R]
    found: R
    """What it gave."""
    files: dict[str, str]
    """The files it left in the run, and their SHA-256."""
    resident: int = 0
    """Memory of the worker afterwards, in bytes; 0 where nobody looked."""


@dataclass(frozen=True)
class Failed:
    """A job that could not be carried out, for a reason that lies in the model or its attack."""

    job: Job[Any]
    reason: str
    """One line."""
    error: BaseException | None = None
    memory: bool = False
    """It ran out of memory."""


@dataclass(frozen=True, eq=False)
class TryModel(Job[Trial]):
    """Try the classifier before anything is written."""

    @property
    def place(self) -> tuple[int, ...]:
        return TRYING, self.classifier

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[Trial, Written]:
        flags = check_model(classifier, workshop.task.data, workshop.device)
        skipped = tuple(stage.why_not(classifier.module) for stage in workshop.task.stages)
        said = answers(classifier.module, workshop.task.data.images)
        for threat in workshop.task.threats:
            check_offset(threat.targets, said.logits.shape[1])
            if threat.targets == "least-likely" and said.random:
                raise InputError(
                    f"{classifier.entry.name} draws random numbers, so that its least likely class is another one each "
                    "time; aim at 'next' or 'random'"
                )
        preparation = None
        if workshop.task.prepare:
            images = workshop.task.data.images
            preparation = choose(classifier.module, images, bfloat16=workshop.task.bfloat16)
        return Trial(flags, skipped, said, preparation=preparation), {}

    def enter(self, scores: Scores, found: Trial) -> None:
        """Nothing is left to enter: scores are made from the trials of all classifiers."""


@dataclass(frozen=True, eq=False)
class CertifyJob(Job[PerExample | None]):
    """Certify the classifier's answers: gives radii, or ``None`` where there is no certificate."""

    @property
    def place(self) -> tuple[int, ...]:
        return ATTACKING, self.classifier, 0, 1, 0

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[PerExample | None, Written]:
        return certified_radii(classifier, workshop.task.data, workshop.device), {}

    def enter(self, scores: Scores, found: PerExample | None) -> None:
        scores.add_radii(self.classifier, found)


@dataclass(frozen=True, eq=False)
class CleanJob(Job[pl.DataFrame]):
    """Classify the clean images of a chunk: gives rows of ``CLEAN_SCHEMA``."""

    chunk: int

    @property
    def place(self) -> tuple[int, ...]:
        return ATTACKING, self.classifier, 0, 0, self.chunk

    def unit(self, files: RunFiles) -> Unit:
        """Return where its files lie."""
        return files.clean(self.classifier, self.chunk)

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[pl.DataFrame, Written]:
        workshop.see_the_run()
        task, index = workshop.task, workshop.task.chunks[self.chunk]
        with borrowed(classifier.module) as model, torch.no_grad():
            images = task.data.images[index].to(workshop.device)
            votes = [predict(call_in_batches(model, images, workshop.batch_size)) for _ in range(task.votes)]
            predictions = torch.stack(votes).mode(0).values
        return self.unit(workshop.files).save_clean(index, task.data.labels[index], predictions, task.votes)

    def paths(self, task: Task, files: RunFiles) -> list[Path]:
        return [self.unit(files).table]

    def read(self, task: Task, files: RunFiles, journal: Journal) -> pl.DataFrame | None:
        return journal.load(self.unit(files), CLEAN_SCHEMA)

    def enter(self, scores: Scores, found: pl.DataFrame) -> None:
        scores.add_clean(self.classifier, self.chunk, found)

    def followers(self, scores: Scores) -> Iterator[Job[Any]]:
        for threat in range(len(scores.task.threats)):
            if (attack := scores.next_attack(self.classifier, threat, self.chunk)) is not None:
                preparation = scores.trials[self.classifier].preparation
                yield AttackJob(self.classifier, threat, self.chunk, *attack, preparation)


@dataclass(frozen=True, eq=False)
class CorruptionJob(Job[pl.DataFrame]):
    """Classify the corrupted images of a chunk, of one kind at all severities: gives rows of ``CORRUPTION_SCHEMA``."""

    kind: int
    """By its place in the task's corruptions."""
    chunk: int

    @property
    def place(self) -> tuple[int, ...]:
        return ATTACKING, self.classifier, 0, 2, self.kind, self.chunk

    def unit(self, task: Task, files: RunFiles) -> Unit:
        """Return where its files lie."""
        return files.corrupted(self.classifier, corruptions_of(task).kinds[self.kind], self.chunk)

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[pl.DataFrame, Written]:
        workshop.see_the_run()
        task, index = workshop.task, workshop.task.chunks[self.chunk]
        asked = corruptions_of(task)
        kind = asked.kinds[self.kind]
        images = torch.cat([asked.images(kind, severity, index) for severity in asked.severities])
        with borrowed(classifier.module) as model, torch.no_grad():
            images = images.to(workshop.device)
            votes = [predict(call_in_batches(model, images, workshop.batch_size)) for _ in range(task.votes)]
            predictions = torch.stack(votes).mode(0).values
        rows = corrupted_rows(asked.severities, index, task.data.labels[index], predictions)
        return self.unit(task, workshop.files).save_corrupted(rows)

    def paths(self, task: Task, files: RunFiles) -> list[Path]:
        return [self.unit(task, files).table]

    def read(self, task: Task, files: RunFiles, journal: Journal) -> pl.DataFrame | None:
        return journal.load(self.unit(task, files), CORRUPTION_SCHEMA)

    def enter(self, scores: Scores, found: pl.DataFrame) -> None:
        scores.add_corrupted(self.classifier, self.kind, found)


@dataclass(frozen=True, eq=False)
class AttackJob(Job[pl.DataFrame]):
    """Put the survivors of a chunk through one attack: gives rows of ``ATTACK_SCHEMA``."""

    threat: int
    chunk: int
    stage: int
    index: tuple[int, ...]
    """The examples that meet the attack."""
    preparation: Preparation | None
    """What is searched in place of the classifier; ``None`` where that is itself."""

    @property
    def place(self) -> tuple[int, ...]:
        return ATTACKING, self.classifier, 1 + self.threat, self.stage, self.chunk

    def unit(self, task: Task, files: RunFiles) -> Unit:
        """Return where its files lie."""
        return files.attack(self.classifier, task.threats[self.threat].label, task.stages[self.stage].label, self.chunk)

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[pl.DataFrame, Written]:
        workshop.see_the_run()
        task = workshop.task
        stage, threat = task.stages[self.stage], task.threats[self.threat]
        index = torch.tensor(self.index, dtype=torch.long)
        # The classifier is not in the key: both twins of a pair meet the same random numbers.
        key = (task.seed, threat.label, stage.key, self.chunk)
        draws = Draws(key, len(task.chunks[self.chunk]), index - self.chunk * task.chunk, workshop.device)
        attack = stage.attack
        if isinstance(attack, TransferAttack) and (source := task.source(attack)) not in (None, self.classifier):
            attack = attack.on(task.classifiers[source].module)
        search = None
        if self.preparation is not None:
            search = workshop.searched(classifier, self.preparation, bfloat16=stage.battery.precision == "bfloat16")
        result = attack.run(
            classifier.module,
            task.data.images[index].to(workshop.device),
            task.data.labels[index].to(workshop.device),
            threat,
            draws,
            batch_size=workshop.batch_size,
            known_correct=True,
            votes=stage.battery.votes,
            closest=stage.battery.closest,
            gallery=(task.data.images, task.data.labels),
            search=search,
        )
        return self.unit(task, workshop.files).save_attack(index, result)

    def paths(self, task: Task, files: RunFiles) -> list[Path]:
        unit = self.unit(task, files)
        return [unit.table, unit.images]

    def read(self, task: Task, files: RunFiles, journal: Journal) -> pl.DataFrame | None:
        rows = journal.load(self.unit(task, files), ATTACK_SCHEMA)
        return rows if rows is not None and tuple(rows["index"].to_list()) == self.index else None

    def wanted(self, scores: Scores) -> bool:
        return scores.going_on(self.classifier, self.threat)

    def enter(self, scores: Scores, found: pl.DataFrame) -> None:
        scores.add_attack(self.classifier, self.threat, self.stage, self.chunk, found)

    def followers(self, scores: Scores) -> Iterator[Job[Any]]:
        if (attack := scores.next_attack(self.classifier, self.threat, self.chunk, after=self.stage)) is not None:
            yield AttackJob(self.classifier, self.threat, self.chunk, *attack, self.preparation)

    def give_up(self, scores: Scores, reason: str) -> None:
        scores.give_up(self.classifier, self.threat, reason)


@dataclass(frozen=True, eq=False)
class DiagnoseJob(Job[Diagnosis]):
    """Check the number of a row, once the images that broke any classifier are there to be replayed on the others."""

    threat: int
    result: Result
    correct: Verdicts
    robust: Verdicts
    finished: frozenset[tuple[int, int]]
    """The rows whose images may be replayed, by classifier and threat."""
    whole: bool
    """These are all rows. What is said while one is missing is not kept, as its images are to be replayed too."""

    @property
    def place(self) -> tuple[int, ...]:
        return CHECKING, self.classifier, self.threat

    @property
    def lasting(self) -> bool:
        return self.whole

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[Diagnosis, Written]:
        workshop.see_the_run()
        said = diagnose_row(
            BreakingImages(workshop.task, workshop.files, self.finished),
            self.classifier, self.threat, self.result, self.correct, self.robust,
            batch_size=workshop.batch_size, device=workshop.device,
        )  # fmt: skip
        (path,) = self.paths(workshop.task, workshop.files)
        return said, {path: write_aside(path, (said.model_dump_json(indent=2) + "\n").encode())}

    def paths(self, task: Task, files: RunFiles) -> list[Path]:
        return [files.diagnosis(self.classifier, task.threats[self.threat].label)]

    def read(self, task: Task, files: RunFiles, journal: Journal) -> Diagnosis | None:
        (path,) = self.paths(task, files)
        content = journal.read(path) if self.whole else None
        return None if content is None else parse_diagnosis(content)

    def enter(self, scores: Scores, found: Diagnosis) -> None:
        scores.add_diagnosis(self.classifier, self.threat, found)

    def give_up(self, scores: Scores, reason: str) -> None:
        scores.leave_unchecked(self.classifier, self.threat, reason)


def first_jobs(task: Task) -> Iterator[Job[Any]]:
    """Yield the units with which an evaluation begins: clean passes, certificates and corruptions."""
    for classifier in range(len(task.classifiers)):
        yield CertifyJob(classifier)
        for chunk in range(len(task.chunks)):
            yield CleanJob(classifier, chunk)
        for kind in range(0 if task.corruptions is None else len(task.corruptions.kinds)):
            for chunk in range(len(task.chunks)):
                yield CorruptionJob(classifier, kind, chunk)


def last_jobs(scores: Scores) -> Iterator[Job[Any]]:
    """Yield the checks of every finished row, once nothing else is left to do."""
    rows = scores.finished()
    for classifier, threat in rows:
        if not scores.task.threats[threat].whole:
            continue
        verdicts = scores.verdicts(classifier, threat)
        correct, robust = (torch.from_numpy(verdicts[name].to_numpy().copy()) for name in ("clean_correct", "robust"))
        result = scores.result(classifier, threat)
        yield DiagnoseJob(classifier, threat, result, correct, robust, frozenset(rows), len(rows) == len(scores.rows))
