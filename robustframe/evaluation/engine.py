"""From a task to a record: every unit of work carried out once, continued where it was left."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import ValidationError

from robustframe.calls import DEFAULT_BATCH
from robustframe.data import Dataset
from robustframe.diagnose import Diagnosis
from robustframe.errors import InputError
from robustframe.evaluation.bounds import certified_correct
from robustframe.evaluation.executors import Engine, Executor, InProcess
from robustframe.evaluation.jobs import Check, Checked, Diagnosed, Done, Failed, Job, Workshop
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.schedule import Moment, Schedule
from robustframe.evaluation.task import Task
from robustframe.files import check_sealed
from robustframe.runs.entries import distrust, doubts
from robustframe.runs.journal import Journal, altered
from robustframe.runs.lock import locked
from robustframe.runs.manifest import manifest
from robustframe.runs.record import (
    EVIDENCE,
    RECORD,
    VERDICTS,
    DataEntry,
    Incomplete,
    Record,
    Result,
    read_record,
    write_aside,
)
from robustframe.runs.run import Run, open_run
from robustframe.runs.units import parquet
from robustframe.runs.verdicts import VERDICT_SCHEMA

log = logging.getLogger("robustframe")


def run(
    task: Task,
    folder: Path,
    *,
    device: torch.device,
    batch_size: int = DEFAULT_BATCH,
    report: Callable[[Moment], None] = lambda moment: None,
    engine: Engine = InProcess,
    limits: Limits = NO_LIMITS,
    keep_going: bool = True,
) -> Run:
    """Carry an evaluation out, or continue it; the files of the run end the same, byte for byte.

    Args:
        task: what to evaluate.
        folder: the run's folder, made when it is not there.
        device: where the models are.
        batch_size: rows of one model call at most; it changes no verdict.
        report: called after every unit.
        engine: who carries the units out; it changes no byte.
        limits: what one unit may take.
        keep_going: when a model fails, mark its rows as incomplete and finish the others; otherwise raise what it
            raised.

    Returns:
        The complete run.

    Raises:
        InputError: when the folder belongs to another evaluation or another process works in it, or a model cannot be
            evaluated.
        StoppedEarly: when the run cannot go on, such as on a full disk, and can be continued later.
    """
    whole_number(batch_size, "batch size", least=1)
    for threat in task.threats:
        threat.check_shape(tuple(task.data.images.shape[1:]))
    if _whole(folder, task):
        return open_run(folder)
    executor = engine(task, folder, device, batch_size, limits)
    try:
        checked = _check(task, executor)
        with locked(folder):
            record = _open(folder, _begun(task, executor), task)
            workshop = Workshop(task, folder, device, batch_size)
            _Work(workshop, executor, checked, report, keep_going).finish(record)
        return open_run(folder)
    finally:
        executor.close()


def whole_number(value: int, what: str, *, least: int) -> int:
    """Return a whole number of at least ``least``; anything else is an `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{what} {value!r} must be a whole number of at least {least}")
    return value


class _Work:
    """A run that goes on."""

    def __init__(
        self,
        workshop: Workshop,
        executor: Executor,
        checked: list[Checked],
        report: Callable[[Moment], None],
        keep_going: bool,
    ) -> None:
        self.workshop, self.task, self.folder = workshop, workshop.task, workshop.folder
        self.executor, self.checked, self.keep_going = executor, checked, keep_going
        self.journal = Journal(self.folder)
        self.schedule = Schedule(workshop, self.journal, [each.skipped for each in checked], report)

    def finish(self, record: Record) -> None:
        """Carry out what is left, and write verdicts, manifest and record."""
        for outcome in carry_out(self.executor, self.schedule.next):
            self._raise(outcome)
            self.schedule.take(outcome)
        results = self._results()
        verdicts = [self.schedule.verdicts(*row) for row in results]
        incomplete = self.schedule.incomplete()
        if self.task.diagnose:
            incomplete += self._diagnose(results, dict(zip(results, verdicts)), resumable=not incomplete)
        rows = list(results.values())
        flags = [flag for each in self.checked for flag in each.flags] + self.schedule.guesses()
        flags += [sentence for result in rows for sentence in distrust(result)]
        flags += [sentence for result in rows for entry in result.attacks for sentence in doubts(result, entry)]
        table = parquet(pl.concat(verdicts) if verdicts else pl.DataFrame(schema=VERDICT_SCHEMA))
        write_aside(self.folder / VERDICTS, table)
        evidence = manifest(self.folder)
        write_aside(self.folder / EVIDENCE, evidence)
        record = record.model_copy(
            update={
                "status": "complete",
                "results": rows,
                "verdicts_sha256": hashlib.sha256(table).hexdigest(),
                "evidence_sha256": hashlib.sha256(evidence).hexdigest(),
                "flags": flags,
                "incomplete": incomplete,
            }
        )
        write_aside(self.folder / RECORD, record.to_json().encode())
        self.journal.close()

    def _results(self) -> dict[tuple[int, int], Result]:
        """The counts of every finished row, by classifier and threat."""
        results = {}
        for classifier, threat in self.schedule.rows:
            result = self.schedule.result(classifier, threat)
            if result is not None:
                pixels = self.task.data.images[0].numel()
                certified = certified_correct(self.schedule.radii.get(classifier), self.task.threats[threat], pixels)
                results[classifier, threat] = result.model_copy(update={"certified_correct": certified})
        return results

    def _diagnose(
        self, results: dict[tuple[int, int], Result], verdicts: dict[tuple[int, int], pl.DataFrame], *, resumable: bool
    ) -> list[Incomplete]:
        """Check every row, once the images that broke any classifier are there to be replayed on the others.

        What is said while a row is missing is not kept for later: the images of that row are to be replayed too.
        """
        finished = frozenset((result.classifier, result.threat) for result in results.values())
        jobs: list[Job] = []
        for row, result in results.items():
            if (said := self._said(*row)) is not None and resumable:
                self._enter(results, row, said)
            else:
                jobs.append(Diagnosed(*row, result, verdicts[row], finished))
        failed = []
        for outcome in carry_out(self.executor, lambda: jobs.pop(0) if jobs else None):
            self._raise(outcome)
            job = outcome.job
            if not isinstance(job, Diagnosed):
                continue
            if isinstance(outcome, Failed):
                name, threat = job.result.classifier, job.result.threat
                log.warning("%s under %s cannot be checked: %s", name, threat, outcome.reason)
                reason = f"its checks failed: {outcome.reason}"
                failed.append(Incomplete(classifier=name, threat=threat, reason=reason))
                self.workshop.diagnosis(job.classifier, job.threat).unlink(missing_ok=True)
                continue
            if resumable:
                self.journal.add(outcome.files)
            self._enter(results, (job.classifier, job.threat), outcome.content)
        return failed

    def _said(self, classifier: int, threat: int) -> Diagnosis | None:
        content = self.journal.read(self.workshop.diagnosis(classifier, threat))
        try:
            return None if content is None else Diagnosis.model_validate_json(content)
        except ValidationError:
            return None

    def _enter(self, results: dict[tuple[int, int], Result], row: tuple[int, int], said: Diagnosis) -> None:
        results[row] = results[row].model_copy(update={"diagnosis": said})
        self.schedule.say(*row, "diagnosis", results[row].robust_correct)

    def _raise(self, outcome: Done | Failed) -> None:
        if isinstance(outcome, Failed) and not self.keep_going:
            raise outcome.error or RuntimeError(outcome.reason)


def carry_out(executor: Executor, take: Callable[[], Job | None]) -> Iterator[Done | Failed]:
    """Keep an executor busy with units, and yield what becomes of each.

    Args:
        executor: who carries them out.
        take: the next unit that is due; ``None`` when none is, until another one has come to its end.
    """
    flying = 0
    while True:
        while executor.free and (job := take()) is not None:
            executor.submit(job)
            flying += 1
        if not flying:
            return
        for outcome in executor.wait():
            flying -= 1
            yield outcome


def _check(task: Task, executor: Executor) -> list[Checked]:
    """Try every classifier before anything is written."""
    jobs: list[Job] = [Check(at) for at in range(len(task.classifiers))]
    checked: dict[int, Any] = {}
    for outcome in carry_out(executor, lambda: jobs.pop(0) if jobs else None):
        at = outcome.job.classifier
        if isinstance(outcome, Failed):
            if isinstance(outcome.error, InputError):
                raise outcome.error
            name = task.classifiers[at].entry.name
            raise InputError(f"{name} cannot be evaluated: {outcome.reason}") from outcome.error
        checked[at] = outcome.content
    return [checked[at] for at in range(len(task.classifiers))]


def _begun(task: Task, executor: Executor) -> Record:
    return Record(
        status="started",
        name=task.name,
        hash=task.hash,
        recipe=task.recipe,
        batteries=[battery.model_dump(by_alias=True) for battery in task.batteries],
        data=_data_entry(task.data),
        classifiers=[classifier.entry for classifier in task.classifiers],
        environment=executor.environment,
    )


def _whole(folder: Path, task: Task) -> bool:
    """Say whether a run is complete and undamaged."""
    if not (folder / RECORD).exists():
        return False
    found = _same(folder, task)
    if found.status != "complete" or found.incomplete:
        return False
    damaged = altered(folder)
    for name in damaged:
        log.warning("%s is damaged (its SHA-256 is not what was written)", folder / name)
    return not damaged


def _open(folder: Path, record: Record, task: Task) -> Record:
    """Begin a run, or take it up; return its record."""
    if (folder / RECORD).exists():
        found = _same(folder, task)
        if found.environment != record.environment:
            log.warning("%s was begun in another environment; finished parts are kept as they are", folder)
    else:
        check_sealed(folder)
    write_aside(folder / RECORD, record.to_json().encode())
    return record


def other_parts(found: Record, task: Task) -> str:
    """Say in what a run in a folder differs from the one that is asked for, so that it cannot be continued."""
    then, now = found.environment.robustframe, version("robustframe")
    if then != now:
        # Nobody knows whether two versions draw the same numbers; two halves of a run must.
        return f"robustframe {then} began it, this is {now}, whose results may be others"
    parts = {
        "recipe": found.recipe != task.recipe,
        "batteries": found.batteries != [battery.model_dump(by_alias=True) for battery in task.batteries],
        "examples": found.data.sha256 != task.data.sha256,
        "models": found.classifiers != [each.entry for each in task.classifiers],
    }
    return f"other {' and '.join(name for name, other in parts.items() if other) or 'code of the user'}"


def _same(folder: Path, task: Task) -> Record:
    """Return the record of a run of this very task.

    Raises:
        InputError: when it is another one's.
    """
    check_sealed(folder)
    found, _ = read_record(folder)
    if found.hash != task.hash:
        raise InputError(
            f"{folder} belongs to another evaluation ({found.name}-{found.hash[:8]}, this is "
            f"{task.name}-{task.hash[:8]}): {other_parts(found, task)}; choose another folder or delete it"
        )
    return found


def _data_entry(data: Dataset) -> DataEntry:
    return DataEntry(use=data.name, split=data.split, count=len(data), sha256=data.sha256, classes=list(data.classes))
