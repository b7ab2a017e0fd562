"""Code that a run names: it is run only when the user has named the same file, for a record comes from anybody."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robustframe.errors import InputError
from robustframe.recipe import shipped_folder
from robustframe.runs import Run


def check_code(run: Run, code: Sequence[str | Path]) -> None:
    """Refuse a run that names a Python file which the user has not named too.

    Args:
        run: the run; its recipe and its batteries are going to be built.
        code: the files that the user named. Those beside the shipped recipes and batteries belong to the package.

    Raises:
        InputError: with the first other file, and what to do.
    """
    allowed = {Path(each).resolve() for each in code}
    ours = [shipped_folder(kind).resolve() for kind in ("attacks", "evaluations")]
    for place in _named([run.record.recipe, run.record.batteries]):
        try:
            file = (run.recipe_folder / place.rpartition(":")[0]).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{run.folder} names code in 'file:{place}', which is no path: {error}") from error
        if file not in allowed and not any(file.is_relative_to(each) for each in ours):
            raise InputError(
                f"{run.folder} names code, 'file:{place}', and code of a run is not run unasked: it could do anything "
                f"on this machine; read {file}, then give --code {file} (code=[...] in Python)"
            )


def _named(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        if content.startswith("file:"):
            yield content.removeprefix("file:")
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _named(key)
            # The examples of a file are arrays, which are read and not run.
            if key != "data":
                yield from _named(value)
    elif isinstance(content, list):
        for value in content:
            yield from _named(value)
