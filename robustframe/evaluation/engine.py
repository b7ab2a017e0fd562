"""From a task to a run: every unit of work carried out once, continued where it was left."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from robustframe.attacks import TransferAttack
from robustframe.calls import DEFAULT_BATCH
from robustframe.errors import InputError, StoppedEarly, whole_number
from robustframe.evaluation.executors import Engine, Executor, InProcess, carry_out
from robustframe.evaluation.jobs import Failed, TryModel, first_jobs, last_jobs
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.progress import Report, silent
from robustframe.evaluation.resume import begin, check_answers, corruption_entry, is_whole
from robustframe.evaluation.schedule import WorkSchedule
from robustframe.evaluation.scores import Scores, Trial
from robustframe.evaluation.task import Task
from robustframe.lending import kept
from robustframe.models.identity import Answers
from robustframe.runs.entries import contradictions
from robustframe.runs.journal import Journal
from robustframe.runs.lock import locked
from robustframe.runs.manifest import manifest
from robustframe.runs.opening import open_run
from robustframe.runs.record import EVIDENCE, VERDICTS, Record, write_aside, write_record
from robustframe.runs.run import Run
from robustframe.runs.units import parquet
from robustframe.userfile import remember_code

_TIMES = 3
"""How often a run is gone through whose files are damaged before it ends."""


@kept()
def run(
    task: Task,
    folder: str | Path,
    *,
    device: torch.device,
    batch_size: int = DEFAULT_BATCH,
    report: Report = silent,
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
        keep_going: when a model fails, mark its rows as failed and finish the others; otherwise raise what it
            raised.

    Returns:
        The complete run, opened as by `robustframe.open_run`.

    Raises:
        InputError: when the folder belongs to another evaluation or another process works in it, or a model cannot be
            evaluated.
        StoppedEarly: when the run cannot go on, such as on a full disk, and can be continued later.
    """
    folder = Path(folder)
    whole_number(batch_size, "batch size", least=1)
    for threat in task.threats:
        threat.check_shape(tuple(task.data.images.shape[1:]))
        threat.check_start(task.data.images)
    for stage in task.stages:
        if isinstance(stage.attack, TransferAttack):
            task.source(stage.attack)
    if is_whole(folder, task):
        check_answers(open_run(folder).record, folder, task, device)
        return open_run(folder)
    executor = engine(task, folder, device, batch_size, limits)
    try:
        trials = _try_models(task, executor, keep_going=keep_going)
        with locked(folder):
            record = begin(folder, task, executor.environment, trials)
            trials = [
                replace(trial, preparation=(record.searched or {}).get(each.entry.name))
                for trial, each in zip(trials, task.classifiers, strict=True)
            ]
            remember_code(task.hash, task.code_files, task.folder)
            journal = Journal(folder)
            for _ in range(_TIMES):
                scores = Scores(task, trials, report)
                schedule = WorkSchedule(scores, journal)
                schedule.add(first_jobs(task))
                _work_off(schedule, executor, keep_going=keep_going)
                if task.diagnose:
                    schedule.add(last_jobs(scores))
                    _work_off(schedule, executor, keep_going=keep_going)
                if not journal.forget_damaged(schedule.hashes):
                    break
            else:
                raise StoppedEarly(f"files of {folder} do not stay as they are written; check the disk")
            _finish(folder, record, scores, schedule.hashes)
            journal.close()
        return open_run(folder)
    finally:
        executor.close()


def _try_models(task: Task, executor: Executor, *, keep_going: bool) -> list[Trial]:
    """Try every classifier before anything is written; one that breaks down costs its own rows, if others are left."""
    jobs = iter([TryModel(classifier) for classifier in range(len(task.classifiers))])
    trials: dict[int, Trial] = {}
    broken: list[Failed] = []
    for outcome in carry_out(executor, lambda: next(jobs, None)):
        classifier = outcome.job.classifier
        if isinstance(outcome, Failed):
            if isinstance(outcome.error, InputError):
                raise outcome.error
            broken.append(outcome)
            skipped = (None,) * len(task.stages)
            trials[classifier] = Trial([], skipped, Answers.none(), failed=outcome.reason)
        else:
            trials[classifier] = outcome.found
    if broken and (len(broken) == len(trials) or not keep_going):
        name = task.classifiers[broken[0].job.classifier].entry.name
        raise InputError(f"{name} cannot be evaluated: {broken[0].reason}") from broken[0].error
    return [trials[classifier] for classifier in range(len(task.classifiers))]


def _work_off(schedule: WorkSchedule, executor: Executor, *, keep_going: bool) -> None:
    """Carry out what is due, and what becomes due by it, until nothing is left."""
    for outcome in carry_out(executor, schedule.next):
        if isinstance(outcome, Failed) and not keep_going:
            raise outcome.error or RuntimeError(outcome.reason)
        schedule.take(outcome)


def _finish(folder: Path, record: Record, scores: Scores, hashes: Mapping[str, str]) -> None:
    """Write verdicts, manifest, the complete record and its seal, in this order."""
    results = [scores.result(*row) for row in scores.finished()]
    table = scores.all_verdicts()
    verdicts = write_aside(folder / VERDICTS, parquet(table))
    evidence = write_aside(folder / EVIDENCE, manifest({**hashes, VERDICTS: verdicts}))
    complete = record.model_copy(update={"status": "complete", "results": results})
    complete = complete.model_copy(
        update={
            "verdicts_sha256": verdicts,
            "evidence_sha256": evidence,
            "flags": [*scores.flags(results), *contradictions(complete, table)],
            "failed": scores.failed(),
            "corruptions": corruption_entry(scores.task, scores.corrupted()),
        }
    )
    write_record(folder, complete)
