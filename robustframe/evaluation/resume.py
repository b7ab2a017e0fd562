"""What lies in the folder of a run already: nothing, a part of this evaluation, all of it, or another one."""

import logging
from importlib.metadata import version
from pathlib import Path

from robustframe.errors import InputError
from robustframe.evaluation.task import Task
from robustframe.files import check_sealed
from robustframe.runs.journal import altered, take_up, tidy
from robustframe.runs.record import (
    EVIDENCE,
    RECORD,
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
        InputError: when the folder belongs to another evaluation.
    """
    if not (folder / RECORD).exists():
        return False
    found, content = _same(folder, task)
    if found.status != "complete" or found.incomplete:
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


def begin(folder: Path, task: Task, environment: Environment) -> Record:
    """Begin the run of a task, or take it up; return its record.

    Raises:
        InputError: when the folder belongs to another evaluation.
    """
    if (folder / RECORD).exists():
        found, _ = _same(folder, task)
        if found.status == "complete":
            take_up(folder, found.evidence_sha256)
        if found.environment != environment:
            log.warning("%s was begun in another environment; finished parts are kept as they are", folder)
    else:
        check_sealed(folder)
    record = _started(task, environment)
    write_record(folder, record)
    (folder / EVIDENCE).unlink(missing_ok=True)
    return record


def _started(task: Task, environment: Environment) -> Record:
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
    )


def _other_parts(found: Record, task: Task) -> str:
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
