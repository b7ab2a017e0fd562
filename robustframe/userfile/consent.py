"""Who may run code: a record comes from anybody, and the files that it names run only when the user has named them."""

import base64
import hashlib
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from robustframe.errors import InputError
from robustframe.userfile.imports import files_of

_SHIPPED = Path(__file__).parent.parent / "_shipped"
_COMMAND = "robustframe verify"


@dataclass(frozen=True)
class _Consent:
    run: Path
    allowed: frozenset[Path]
    command: str

    def permits(self, path: Path) -> bool:
        real = _real(path)
        return real in self.allowed or _ships(real)


_current: ContextVar[_Consent | None] = ContextVar("code_consent", default=None)
_standing: list[_Consent] = []
"""Those of every thread: one that was started within has no context of its own, and is bound all the same."""


@contextmanager
def code_consent(
    allowed: Collection[str | Path], *, run: Path, named: Collection[Path] = (), command: str = _COMMAND
) -> Iterator[None]:
    """Let only some files of the user's run meanwhile, since a run names them and not the user.

    Without it all code runs that is named: in your own recipe, on the command line, from Python.

    Args:
        allowed: the files that may run, with what they import from their folder; links are followed.
        run: the folder of the run that names code.
        named: all files that the run is known to name, so that they are said at once; see `code_named`. A file that
            is missing here is refused all the same when it is going to be run.
        command: what reads the run, for the sentence that says how to allow a file.

    Raises:
        InputError: when a named file may not run, before anything does.
    """
    consent = _Consent(run, frozenset(_real(Path(each)) for each in allowed), command)
    unasked = [each for each in named if not consent.permits(each)]
    if unasked:
        raise refusal(run, unasked, consent.allowed, command=command)
    token = _current.set(consent)
    _standing.append(consent)
    try:
        yield
    finally:
        _standing.remove(consent)
        _current.reset(token)


def check_consent(path: Path) -> None:
    """Refuse to run a file that may not; the loader asks this of every file that it is given.

    Raises:
        InputError: naming the file, and what to do.
    """
    own = _current.get()
    for consent in list(_standing) if own is None else [own]:
        if not consent.permits(path):
            raise refusal(consent.run, [path], consent.allowed, command=consent.command)


def code_named(content: Any) -> list[str]:
    """Return the Python files that JSON content names, at any depth and under any key, in the order they come.

    This is for saying them all at once. Whether one may run is asked when it is loaded, and needs no list.

    Args:
        content: such as a record.

    Returns:
        Paths as they stand there, without the function; each once.
    """
    found: dict[str, None] = {}
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and value.startswith("file:"):
            path, colon, _ = value.removeprefix("file:").rpartition(":")
            if colon and path.endswith(".py"):
                found[path] = None
        elif isinstance(value, dict):
            pending += reversed([part for pair in value.items() for part in pair])
        elif isinstance(value, list):
            pending += reversed(value)
    return list(found)


def refusal(run: Path, files: Sequence[Path], allowed: Collection[Path] = (), *, command: str = _COMMAND) -> InputError:
    """Build the error for code that a run names and the user did not, with everything that would run.

    Args:
        run: the run's folder.
        files: all files that it names and that may not run.
        allowed: those that may already, which the command repeats.
        command: what reads the run.

    Returns:
        An error to raise.
    """
    lines = []
    unasked = list(dict.fromkeys(_real(each) for each in files))
    for file in unasked:
        beside = [name for name in files_of(file) if name != file.name] if file.is_file() else []
        also = f", which imports {_said(', '.join(beside))}: they run too" if beside else ""
        lines.append(f"  {_said(str(file))}" + (also if file.is_file() else " (which is not there)"))
    options = " ".join(f"--code {_said(shlex.quote(str(each)))}" for each in sorted({*unasked, *allowed}))
    return InputError(
        f"{run} names code, and code of a run is not run unasked: it could do anything on this machine; read\n"
        + "\n".join(lines)
        + f"\nand allow it with `{command} {shlex.quote(str(run))} {options}` (code=[...] in Python)"
    )


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        # No path at all, or links in a circle: nothing that could be loaded either.
        return path.absolute()


def _said(text: str) -> str:
    """Spell out what a terminal would obey."""
    return text if text.isprintable() else ascii(text)


def _ships(path: Path) -> bool:
    """Whether the installed package brought a file with it and it is unchanged; in a checkout none is exempt."""
    if not path.is_relative_to(_SHIPPED):
        return False
    try:
        listed = distribution("robustframe").files or []
    except PackageNotFoundError:
        return False
    wanted = {each.hash.value for each in listed if each.hash is not None and Path(each.locate()).resolve() == path}
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    return found in wanted
