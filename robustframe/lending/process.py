"""The process as a whole, lent to code of the user's: settings, streams, descriptors, signals, and that it goes on."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from robustframe.errors import Misbehaved, told
from robustframe.lending.notes import note
from robustframe.lending.settings import kept

_STOPS = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals by which someone outside says that work is to stop, where the system has them."""
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


@contextmanager
def lent() -> Iterator[None]:
    """Lend the process to code of the user's, and take it back as it was: settings, streams, signal handlers.

    Raises:
        Misbehaved: for what would have ended the process, such as `SystemExit`, in place of it. What the handler of a
            signal raises, such as at Ctrl-C or a time limit, goes through, also where the code inside caught it.
    """
    with kept(), _descriptors(), _streams(), contained():
        yield


@contextmanager
def contained() -> Iterator[None]:
    """Let nothing out that ends a process but what a signal from outside asks for.

    Raises:
        Misbehaved: in place of any exception that is no `Exception`.
    """
    stops: list[BaseException] = []
    with _listening(stops):
        try:
            yield
        except BaseException as error:
            if not any(error is stop for stop in stops):
                if stops:
                    raise stops[-1] from None
                if not isinstance(error, Exception):
                    raise Misbehaved(f"it raised what ends a process, {told(error)}") from error
            raise
        if stops:
            raise stops[-1]


@contextmanager
def _listening(stops: list[BaseException]) -> Iterator[None]:
    """Note what the handlers of signals raise inside, and put them back in their places."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for name in _STOPS if (number := getattr(signal, name, None)) is not None}
    ours = {number: _noting(handler, stops) if callable(handler) else handler for number, handler in found.items()}
    for number, handler in ours.items():
        if handler is not found[number]:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in ours.items():
            now = signal.getsignal(number)
            if now is not handler:
                note(f"changes the handler of {signal.Signals(number).name}, which was taken back")
            # A handler that was not set from Python cannot be set back from there.
            if now is not found[number] and found[number] is not None:
                signal.signal(number, found[number])


def _noting(handler: Callable[[int, FrameType | None], Any], stops: list[BaseException]) -> Any:
    def heard(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            stops.append(error)
            raise

    return heard


@contextmanager
def _descriptors() -> Iterator[None]:
    """Keep what the descriptors of stdin, stdout and stderr lead to."""
    saved = {number: os.dup(number) for number in range(3) if _leads_to(number) is not None}
    before = {number: _leads_to(number) for number in saved}
    try:
        yield
    finally:
        for number, copy in saved.items():
            if _leads_to(number) != before[number]:
                note(f"closes or replaces the file descriptor {number} of the process, which was taken back")
                os.dup2(copy, number)
            os.close(copy)


def _leads_to(number: int) -> tuple[int, int] | None:
    try:
        held = os.fstat(number)
    except OSError:
        return None
    return held.st_dev, held.st_ino


class _Unclosed:
    """A stream of the process that stays open, whoever closes it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def __enter__(self) -> "_Unclosed":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def buffer(self) -> "_Unclosed":
        """The bytes below, which stay open too."""
        return _Unclosed(self._stream.buffer)

    def close(self) -> None:
        """Note it, and leave the stream open."""
        note("closes a stream of the process, which stayed open")

    def detach(self) -> Any:
        """Refuse to give the bytes away."""
        raise io.UnsupportedOperation("a stream of the process is only lent")


@contextmanager
def _streams() -> Iterator[None]:
    """Lend the streams of the process so that nobody can close them, and put them back in their places."""
    found = {name: getattr(sys, name) for name in _STREAMS}
    given = {name: stream if stream is None else _Unclosed(stream) for name, stream in found.items()}
    for name, stream in given.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in found.items():
            if getattr(sys, name, None) is not given[name]:
                note(f"replaces sys.{name}, which was taken back")
            setattr(sys, name, stream)
