"""Code that a run names: none of it runs unless the user has named it too, for a record comes from anybody."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from robustframe.errors import InputError
from robustframe.evaluation.task import run_hash
from robustframe.models.values import LONG
from robustframe.recipe import code_files
from robustframe.runs import Run
from robustframe.runs.manifest import file_sha256
from robustframe.runs.record import ClassifierEntry
from robustframe.userfile import code_consent, code_named, remembered


@contextmanager
def consent(
    runs: Sequence[Run], code: Sequence[str | Path], command: str, folder: str | Path | None = None
) -> Iterator[None]:
    """Let no code of the user's run meanwhile but what the user has named, and that of runs made here by this user.

    Args:
        runs: those that are read.
        code: Python files that the user named.
        command: what reads the runs, for the sentence that says how to allow a file.
        folder: what the user said that paths are relative to, likewise.

    Raises:
        InputError: when a run names another file, before anything of it runs: with all of them.
    """
    named = {run.folder: [run.recipe_folder / each for each in _named(run)] for run in runs}
    own = [file for run in runs if named[run.folder] and _own(run) for file in named[run.folder]]
    everything = [file for files in named.values() for file in files]
    if folder is not None:
        command += f" --folder {shlex.quote(str(folder))}"
    first = next((folder for folder, files in named.items() if files), runs[0].folder)
    with code_consent([*code, *own], run=first, named=everything, command=command):
        yield


def _named(run: Run) -> list[str]:
    return code_named([run.record.recipe, run.record.batteries])


def _own(run: Run) -> bool:
    """Say whether this user made the run on this machine, in this place, with its code as it is now."""
    record = run.record
    try:
        files = code_files(record.recipe, run.batteries, run.recipe_folder)
    except InputError:
        return False
    asked = run_hash(
        record.environment.robustframe, record.recipe, run.batteries, files, record.data.sha256,
        [entry.model_dump() for entry in record.classifiers],
        None if record.corruptions is None else record.corruptions.sha256,
    )  # fmt: skip
    if not remembered(asked, files, run.recipe_folder):
        return False
    return all(_unchanged(entry, files, run.recipe_folder) for entry in record.classifiers)


def _unchanged(entry: ClassifierEntry, files: Mapping[str, str], folder: Path) -> bool:
    """Say whether all files that a model brought with it are as they were, also those that no import statement names.

    Args:
        entry: the model as the record has it.
        files: SHA-256 of what its file imports by statements, as it is now.
        folder: what its path is relative to.
    """
    path = entry.use.removeprefix("file:").rpartition(":")[0]
    for label, stated in entry.code.items():
        if not label.removesuffix(" (another)").endswith(".py") or not stated.startswith(LONG):
            continue
        sha256 = stated.removeprefix(LONG)
        if files.get(f"{path}: {label}") == sha256:
            continue
        beside = (folder / path).parent / label
        if not beside.is_file() or file_sha256(beside) != sha256:
            return False
    return True
