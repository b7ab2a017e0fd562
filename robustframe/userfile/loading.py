"""Code of the user's, named ``file:PATH.py:NAME`` in a recipe or battery and loaded by path."""

import os.path
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from robustframe.errors import InputError, told, unknown
from robustframe.lending import contained, lent
from robustframe.userfile.consent import check_consent
from robustframe.userfile.project import Project, plain_name


def load_user_file(place: str, folder: Path, *, kind: str) -> tuple[ModuleType, Path, str]:
    """Run a user's file as a module of its own; what it imports from its folder is found as it is for a script.

    Args:
        place: ``PATH.py:NAME``.
        folder: what a relative path is relative to.
        kind: what the name stands for, such as ``"attack"``, for the errors.

    Returns:
        The module, the file's path, and the name asked for; whether the module has it is the caller's business.

    Raises:
        InputError: when the place does not read, there is no such file, it may not run (see `code_consent`), or it
            fails while it is loaded.
    """
    text, colon, name = place.rpartition(":")
    if not colon or not text or not name:
        raise InputError(f"{kind} 'file:{place}' must read 'file:PATH.py:NAME'")
    path = folder / text
    # Unlike Path.is_file, it takes any text for a path.
    if not os.path.isfile(path):
        raise InputError(f"{kind} file {path} does not exist")
    if path.suffix != ".py":
        raise InputError(f"{kind} file {path} is not a Python file; its name must end in .py")
    check_consent(path)
    try:
        with contained():
            module = Project(path).run()
    except Exception as error:
        raise InputError(f"{kind} file {path} does not load: {plain_name(told(error))}") from error
    return module, path, name


class UserFunction:
    """A function of the user's, which remembers where it was named.

    Args:
        place: ``PATH.py:FUNCTION``.
        function: what the name stands for there.
    """

    def __init__(self, place: str, function: Callable[..., Any]) -> None:
        self.place, self.function = place, function

    def __call__(self, *given: Any) -> Any:
        return self.function(*given)

    def __str__(self) -> str:
        return f"file:{self.place}"


def load_user_function(place: str, folder: Path, *, kind: str) -> UserFunction:
    """Load a function of the user's file; see `load_user_file`.

    Raises:
        InputError: as `load_user_file`, and when the file has no function of that name.
    """
    with lent():
        module, path, name = load_user_file(place, folder, kind=kind)
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if name not in functions:
        raise unknown(f"function in {path}", name, functions)
    return UserFunction(place, functions[name])
