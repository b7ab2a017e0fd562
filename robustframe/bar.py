"""How far something long is: two lines that move in a terminal, one in a notebook, elsewhere one now and then."""

import contextlib
import logging
import sys
from collections import deque
from threading import Event, Lock, Thread
from time import monotonic
from typing import Protocol, runtime_checkable

from robustframe.terminal import columns, in_notebook, is_terminal

EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""
_TICK, _FLICKER = 1.0, 0.1
"""Seconds after which a terminal is drawn anew although nothing has happened, and before which it is not."""
_BAR = (12, 30)
"""Characters of the bar: at least, and at most."""
_CLEAR = "\r\x1b[J"
log = logging.getLogger("robustframe")


@runtime_checkable
class Progress(Protocol):
    """What is said now and then of something that takes long."""

    @property
    def shown(self) -> tuple[int, int, str, tuple[str, ...]]:
        """What a bar shows: what is done, of how many, of what, and what else there is to say, the weightiest first."""


class Bar:
    """Shows on stderr how far something is, and how long it still takes.

    In a terminal it clears itself away at the end; a thread keeps it alive between two reports.

    Args:
        unit: what is counted.
        name: what stands in front.
    """

    def __init__(self, unit: str, name: str) -> None:
        self.unit, self.name = unit, name
        self._stream = sys.stderr
        # In a notebook stderr shows a line that is written over, although it is no terminal.
        self._notebook = in_notebook()
        self._terminal = is_terminal(self._stream) and not self._notebook
        self._done, self._total, self._what = 0, 0, ""
        self._said: tuple[str, ...] = ()
        self._seen: deque[tuple[float, int]] = deque(maxlen=100)
        self._drawn = 0.0
        self._lock, self._over = Lock(), Event()
        self._ticking = Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Bar":
        log.addFilter(self._make_way)
        self._ticking.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._ticking.join()
        log.removeFilter(self._make_way)
        if self._terminal:
            self._write(_CLEAR)
        elif self._notebook and self._drawn:
            self._write("\n")

    def stage(self, what: str) -> None:
        """Say at once what is being done before there is anything to count."""
        self._what = _plain(what)
        if self._terminal or self._notebook:
            self._draw()
        else:
            self._write(f"{self.name}: {what}\n")

    def show(self, now: Progress) -> None:
        """Show how far it is; what is done may rise by more than one."""
        done, self._total, what, self._said = now.shown
        self._what = _plain(what)
        if done < self._done:
            self._seen.clear()
        self._done = done
        self._seen.append((monotonic(), done))
        if (self._terminal or self._notebook) and (done >= self._total or monotonic() - self._drawn > _FLICKER):
            self._draw()

    def _tick(self) -> None:
        while not self._over.wait(_TICK if self._terminal else EVERY):
            if self._what and self._terminal:
                self._draw()
            elif self._what and not self._notebook:
                self._write(f"{self._line()}\n")

    def _make_way(self, record: logging.LogRecord) -> bool:
        """Clear the lines away before a message is written where they stand."""
        if self._terminal:
            self._write(_CLEAR)
        return True

    def _draw(self) -> None:
        width = columns(self._stream) - 1
        self._drawn = monotonic()
        if self._notebook:
            self._write("\r" + self._line()[:width].ljust(width))
            return
        # The cursor waits at the beginning of the first line, so that whatever is written next stands there.
        head = f"{self.name}: {self._what}"[:width]
        self._write(f"{_CLEAR}{head}\n{self._gauge(width)[:width]}\r\x1b[A")

    def _line(self) -> str:
        return ", ".join(filter(None, [f"{self.name}: {self._what}", *self._parts()]))

    def _parts(self) -> list[str]:
        if not self._total:
            return []
        return [f"{self._done:,} of {self._total:,} {self.unit}", *self._said[:1], self._left(), *self._said[1:]]

    def _gauge(self, width: int) -> str:
        """The bar and as much beside it as fits, the least weighty left out first."""
        parts = [part for part in self._parts() if part]
        if not parts:
            return ""
        least, most = _BAR
        while len(parts) > 1 and least + sum(len(part) + 2 for part in parts) > width:
            parts.pop()
        room = max(1, min(most, width - sum(len(part) + 2 for part in parts)))
        full = min(room, room * self._done // self._total)
        return "  ".join(["━" * full + "─" * (room - full), *parts])

    def _left(self) -> str:
        """How long it still takes, by the pace of the last hundred reports."""
        if len(self._seen) < 2 or self._done >= self._total:
            return ""
        (began, first), (_, last) = self._seen[0], self._seen[-1]
        passed = monotonic() - began
        if last == first or passed < _TICK:
            return ""
        return f"{duration(passed / (last - first) * (self._total - last))} left"

    def _write(self, text: str) -> None:
        # Whoever looked may be gone, and code of the user's may have closed the stream.
        with self._lock, contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
            self._stream.flush()


def _plain(text: str) -> str:
    """Names are of anybody's making, and steer no terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def duration(seconds: float) -> str:
    """Write a time as people say it: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
