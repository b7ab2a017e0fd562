"""The exceptions that carry a sentence for the user."""

import difflib
import os.path
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class InputError(ValueError):
    """Input that cannot be used: says what was given, what is allowed and what to do."""


class IntegrityError(InputError):
    """A file that is missing, truncated, altered or of another shape than its card says."""


class StoppedEarly(RuntimeError):
    """Work that had to stop and can be continued by the same command, such as on a full disk: says why."""


class Misbehaved(Exception):
    """Code of the user's did what would have ended the process, and was kept from it: says what."""


class OutOfTime(BaseException):
    """A unit of work has reached its time limit; no handler of ordinary errors, of a model's say, catches it."""


class Interrupted(BaseException):
    """The user or the machine asked for a stop; like `KeyboardInterrupt`, no handler of ordinary errors catches it."""

    signals: ClassVar[tuple[str, ...]] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
    """What asks for it, where the system has it: Ctrl-C, a scheduler, a terminal that closes, a limit of time."""

    asked: ClassVar[bool] = False
    """Whether a stop was asked for: one that is raised while foreign code calls back into Python may be lost there."""


_FEW, _NEAREST = 20, 4
"""Up to so many names are all listed; of more, the nearest."""
_LONG = 1000
"""Letters of a name to which none that is known can be near."""


def shown(value: object) -> str:
    """Spell out a value for a sentence: at most some sixty characters, whatever it is."""
    if isinstance(value, str):
        # Not the whole of it first: it may be of any length.
        value = value[:100]
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # A whole number with more digits than Python writes.
        return "a value too long to write"
    return text if len(text) < 60 else text[:57] + "..."


_LONGEST = 1000
"""Characters of an error's text that a sentence has room for."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text in letters that every file and terminal takes, or what it is called."""
    try:
        # Cut first, as a text may have any size.
        lines = str(error)[: 10 * _LONGEST].strip().splitlines()
    except Exception as wrong:  # noqa: BLE001  `__str__` of a user's class may raise anything
        lines = [f"{type(error).__name__}, whose text cannot be made: {type(wrong).__name__}"]
    text = lines[0].strip() if lines else type(error).__name__
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def told(error: BaseException) -> str:
    """Say in one line what an error is and where it came up; one that carries a sentence says that alone."""
    text, kind = first_line(error), first_line(Exception(type(error).__name__))
    if isinstance(error, InputError | Misbehaved):
        return text
    said = text if text == kind or text.startswith(f"{kind},") else f"{kind}: {text}"
    last = error.__traceback__
    # Not all of them: of a recursion without an end there are thousands.
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return said
    file = first_line(Exception(os.path.basename(last.tb_frame.f_code.co_filename)))
    return f"{said} ({file}, line {last.tb_lineno})"


def first_mistake(error: "ValidationError") -> str:
    """Say what the first mistake in a file or a call is, and at which key: ``data.count = -1: Input should be ...``."""
    return mistake(error.errors(include_url=False)[0])


def mistake(problem: "ErrorDetails") -> str:
    """Say what one mistake in a file or a call is, and at which key; entries of lists are counted from 1."""
    key, given = key_of(problem), problem["input"]
    if problem["type"] == "missing":
        return f"{key} is missing"
    said = problem["msg"].removeprefix("Value error, ")
    plain = isinstance(given, str | int | float | bool | None) and problem["loc"]
    return f"{key} = {shown(given)}: {said}" if plain else f"{key}: {said}"


def key_of(problem: "ErrorDetails") -> str:
    """Write the place of a mistake as it is found in the file: ``model[2].use``."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]]
    return "".join(parts).lstrip(".") or "the file"


def _short(given: object) -> bool:
    # From Python anything may come in place of a name.
    return isinstance(given, str) and len(given) < _LONG


def unknown(kind: str, given: str, allowed: Iterable[str], *, where: str = "") -> InputError:
    """Build the error for a name that is not known, with the nearest known ones.

    Args:
        kind: what the name stands for, such as ``"attack"``.
        given: the name that was given.
        allowed: every name that would have been right.
        where: the file and key it stood in, put in front of the sentence.

    Returns:
        An error to raise.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=_NEAREST, cutoff=0.4) if _short(given) else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = f"known: {', '.join(names) or 'none'}"
    if len(names) > _FEW:
        shown_names = near or [*names[:_NEAREST], "..."]
        listed = f"{'nearest' if near else 'some'} of the {len(names)} known: {', '.join(shown_names)}"
    prefix = f"{where}: " if where else ""
    return InputError(f"{prefix}unknown {kind} {shown(given)}; {hint}{listed}")


def as_path(value: Any, what: str, kind: str = "folder") -> Path:
    """Return what the user gave as the path of a folder, or of another kind of thing; else it is an `InputError`."""
    if not isinstance(value, str | Path) or "\0" in str(value):
        given = shown(value) if isinstance(value, str) else type(value).__name__
        raise InputError(f"{what} is {given}; it must be the path of a {kind}")
    return Path(value)


def whole_number(value: int, what: str, *, least: int) -> int:
    """Return a whole number of at least ``least``; anything else is an `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{what} {value!r} must be a whole number of at least {least}")
    return value
