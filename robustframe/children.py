"""A process of its own for code that may bring its process down: spawned, asked, and stopped when it takes too long."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from robustframe.errors import Interrupted

_STOPS = {getattr(signal, name) for name in Interrupted.signals if hasattr(signal, name)}
"""A terminal and a batch system send these to every process; the parent alone decides what comes of them."""


class ChildEnded(Exception):
    """The process of a child came to an end before it answered: says how."""


class Child:
    """An object that lives in a process of its own.

    Args:
        make: makes the object there, once it is asked something; can be pickled.
        given: what it is called with.
    """

    def __init__(self, make: Callable[..., Any], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        # Not by the pickler of this library: it would share the memory of tensors with a process that may die.
        order = pickle.dumps((make, given))
        self._process = context.Process(target=_serve, args=(theirs, os.getcwd(), order))
        with _stops_blocked():
            self._process.start()
        theirs.close()

    def call(self, method: str, *given: Any, seconds: float | int | None = None) -> Any:
        """Call a method of the object and return what it returns.

        Args:
            method: its name.
            given: what it is called with; can be pickled.
            seconds: how long that may take; without a limit when ``None``.

        Raises:
            TimeoutError: when it takes longer; the child is of no use then.
            ChildEnded: when the process ends before it answers.
            Exception: what the method raises.
        """
        try:
            self._ours.send_bytes(pickle.dumps((method, given)))
            if not wait([self._ours, self._process.sentinel], seconds):
                raise TimeoutError
            # What was sent before an end is there, or the connection is at its end too.
            answer = self._ours.recv_bytes() if self._ours.poll() else b""
        except (EOFError, ConnectionError):
            answer = b""
        if not answer:
            self._process.join(_PATIENCE)
            raise ChildEnded(_how(self._process.exitcode))
        fine, found = pickle.loads(answer)
        if not fine:
            raise found
        return found

    def close(self) -> None:
        """Stop the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._ours.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _stops_blocked() -> Iterator[None]:
    """Block the signals that stop work, as they then stay blocked in what is started meanwhile; none is lost here."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


_PATIENCE = 10.0
"""Seconds that a process has to end whose connection has ended."""


def _how(status: int | None) -> str:
    if status is None:
        return "closed its connection"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _serve(connection: Connection, folder: str, order: bytes) -> None:
    """Answer calls until nobody is left to ask."""
    os.chdir(folder)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    held: Any = None
    while True:
        try:
            method, given = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        try:
            if held is None:
                make, with_what = pickle.loads(order)
                held = make(*with_what)
            answer = pickle.dumps((True, getattr(held, method)(*given)))
        except Exception as error:  # noqa: BLE001  the parent raises it
            answer = pickle.dumps((False, error))
        connection.send_bytes(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Nobody is left to be told anything.
        os._exit(1)
