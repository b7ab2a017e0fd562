"""What code of the user's did to the process, for whoever says it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("robustframe")

_CHANGES: ContextVar[list[str] | None] = ContextVar("changes", default=None)
"""Where it is noted what was taken back, as long as someone listens."""


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collect what `note` is told inside, each once."""
    changes: list[str] = []
    token = _CHANGES.set(changes)
    try:
        yield changes
    finally:
        _CHANGES.reset(token)


def note(change: str) -> None:
    """Note something of code of the user's that a reader of its numbers should know: a clause without its subject."""
    changes = _CHANGES.get()
    if changes is None:
        log.warning("your code %s", change)
    elif change not in changes:
        changes.append(change)
