"""What lies in the folder of a run already: nothing, a part of this evaluation, all of it, or another one."""

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from robustframe.calls import DEFAULT_BATCH
from robustframe.errors import InputError
from robustframe.evaluation.scores import Trial
from robustframe.evaluation.task import Task
from robustframe.evaluation.workshop import Workshop
from robustframe.files import check_sealed
from robustframe.models.identity import Answers, CodeIdentity, answers, compare_answers
from robustframe.runs.journal import PROGRESS, altered, take_up, tidy
from robustframe.runs.lock import LOCK
from robustframe.runs.record import (
    EVIDENCE,
    OWN_FILES,
    PART,
    RECORD,
    CorruptionEntry,
    DataEntry,
    Environment,
    Record,
    broken_seal,
    read_record,
    write_record,
)

log = logging.getLogger("robustframe")


def is_whole(folder: Path, task: Task) -> bool:
    """Say whether the run of a task is complete and undamaged.

    Raises:
        InputError: when the folder belongs to another evaluation, or holds other files.
    """
    # Unlike the method of a path, this takes a name of any length.
    if not os.path.lexists(folder / RECORD):
        _check_empty(folder)
        return False
    found, content = _same(folder, task)
    if found.status != "complete" or found.failed:
        return False
    if problem := broken_seal(folder, content):
        log.warning("%s; it is written anew", problem)
        return False
    broken = altered(folder, found.evidence_sha256)
    for name in broken:
        what = "damaged (its SHA-256 is not what was written)" if (folder / name).is_file() else "missing"
        log.warning("%s is %s; it is made again", folder / name, what)
    if not broken:
        tidy(folder)
    return not broken


def _check_empty(folder: Path) -> None:
    """Refuse a folder with files of others: nobody could tell them from those of the run."""
    if not os.path.isdir(folder):
        return
    check_sealed(folder)
    # What is left of a run whose record is not there is made anew.
    own = {*OWN_FILES, LOCK, PROGRESS, "units"}
    others = sorted(name for name in os.listdir(folder) if name not in own and not name.endswith(PART))
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise InputError(
            f"{folder} holds other files ({others[0]}{more}) and no run; name a folder that is new or empty with --out"
        )


def check_answers(found: Record, folder: Path, task: Task, device: torch.device) -> None:
    """Ask the models of a finished run whether they are still those that were evaluated.

    Raises:
        InputError: when one answers otherwise.
    """
    workshop = Workshop(task, folder, device, DEFAULT_BATCH, release=True)
    now = [answers(workshop.classifier(at).module, task.data.images) for at in range(len(task.classifiers))]
    _compare_answers(found, folder, now, Environment.here(device))


def _compare_answers(found: Record, folder: Path, now: Sequence[Answers], here: Environment) -> None:
    for entry, said in zip(found.classifiers, now, strict=True):
        stated = Answers.of_record(found.answers.get(entry.name))
        if (problem := compare_answers(stated, said, alike=here.kernels == found.environment.kernels)) is not None:
            raise InputError(
                f"{folder} is the run of another {entry.name}: {problem}; choose another folder or delete it"
            )


def begin(folder: Path, task: Task, environment: Environment, trials: Sequence[Trial]) -> Record:
    """Begin the run of a task, or take it up; return its record.

    Args:
        folder: the run's folder.
        task: what is evaluated.
        environment: what it runs on.
        trials: what trying each classifier said: its answers, and what is to be searched in its place, which stays
            what it was when the run was begun.

    Raises:
        InputError: when the folder belongs to another evaluation.
    """
    now = [trial.answers for trial in trials]
    names = [each.entry.name for each in task.classifiers]
    chosen = {name: trial.preparation for name, trial in zip(names, trials, strict=True)}
    if os.path.lexists(folder / RECORD):
        found, _ = _same(folder, task)
        chosen = {name: None for name in names} if found.searched is None else {**chosen, **found.searched}
        _compare_answers(found, folder, now, environment)
        if found.status == "complete":
            take_up(folder, found.evidence_sha256)
        if found.environment != environment:
            log.warning("%s was started in another environment; finished parts are kept as they are", folder)
    else:
        _check_empty(folder)
    kept = {name: preparation for name, preparation in chosen.items() if preparation is not None}
    record = _started(task, environment, now).model_copy(update={"searched": kept or None})
    write_record(folder, record)
    (folder / EVIDENCE).unlink(missing_ok=True)
    return record


def _started(task: Task, environment: Environment, now: Sequence[Answers]) -> Record:
    data = task.data
    return Record(
        status="started",
        name=task.name,
        hash=task.hash,
        recipe=task.recipe,
        batteries=[battery.model_dump(by_alias=True) for battery in task.batteries],
        data=DataEntry(
            use=data.name, split=data.split, count=len(data), sha256=data.sha256, classes=list(data.classes)
        ),
        classifiers=[classifier.entry for classifier in task.classifiers],
        environment=environment,
        answers={each.entry.name: said.stated() for each, said in zip(task.classifiers, now, strict=True)},
        corruptions=corruption_entry(task, {}),
    )


def corruption_entry(task: Task, correct: dict[str, list[list[int]]]) -> CorruptionEntry | None:
    """Return what a record says of corrupted images; ``None`` where the task asks for none."""
    asked = task.corruptions
    if asked is None:
        return None
    kinds, severities = list(asked.kinds), list(asked.severities)
    return CorruptionEntry(use=asked.use, kinds=kinds, severities=severities, sha256=asked.sha256, correct=correct)


def _other_parts(found: Record, task: Task) -> str:
    """Say in what a run in a folder differs from the one that is asked for, so that it cannot be continued."""
    then, now = found.environment.robustframe, version("robustframe")
    if then != now:
        # Nobody knows whether two versions draw the same numbers; two halves of a run must.
        return f"robustframe {then} began it, this is {now}, whose results may be others"
    if changed := _changes(found, task):
        return f"another model: {'; '.join(changed)}"
    then_images = None if found.corruptions is None else found.corruptions.sha256
    parts = {
        "corrupted images": then_images != (None if task.corruptions is None else task.corruptions.sha256),
        "recipe": found.recipe != task.recipe,
        "batteries": found.batteries != [battery.model_dump(by_alias=True) for battery in task.batteries],
        "examples": found.data.sha256 != task.data.sha256,
        "models": found.classifiers != [each.entry for each in task.classifiers],
    }
    return f"other {' and '.join(name for name, other in parts.items() if other) or 'code of the user'}"


def _changes(found: Record, task: Task) -> list[str]:
    """Say what is different in the models of a run, where their code says more than that they are others."""
    then = {entry.name: entry for entry in found.classifiers}
    changed = []
    for entry in (each.entry for each in task.classifiers):
        if entry.name in then and entry != then[entry.name]:
            now, before = (CodeIdentity(each.code, {}, tuple(each.unread)) for each in (entry, then[entry.name]))
            changed += [f"{entry.name}: {text}" for text in before.changes(now)]
    return changed


def _same(folder: Path, task: Task) -> tuple[Record, bytes]:
    """Return the record of a run of this very task, and what its file holds.

    Raises:
        InputError: when it is another one's.
    """
    check_sealed(folder)
    found, content = read_record(folder)
    if found.hash != task.hash:
        raise InputError(
            f"{folder} belongs to another evaluation ({found.name}-{found.hash[:8]}, this is "
            f"{task.name}-{task.hash[:8]}): {_other_parts(found, task)}; choose another folder or delete it"
        )
    return found, content
