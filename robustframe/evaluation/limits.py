"""How much time and memory one unit of work may take."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from robustframe.errors import InputError, OutOfTime


@dataclass(frozen=True)
class Limits:
    """What one unit of work may take."""

    seconds: float | int | None = None
    memory: float | int | None = None
    """Of the process that works, in GiB (2**30 bytes); on Linux."""

    def __post_init__(self) -> None:
        for name, value in (("time limit", self.seconds), ("memory limit", self.memory)):
            if value is not None and not value > 0:
                raise InputError(f"the {name} {value} must be above 0; leave it out for none")


NO_LIMITS = Limits()


@contextmanager
def time_limited(seconds: float | int | None) -> Iterator[None]:
    """Raise `OutOfTime` inside after some seconds, by the alarm of the process; in the main thread only."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _out_of_time)
    try:
        # Again every second, for a model that catches whatever it gets.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limited(gib: float | int | None) -> Iterator[None]:
    """Refuse the process more memory than some GiB inside; the refusal reaches the code that asked for it."""
    if gib is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def resident_memory() -> int:
    """Return the bytes of memory that this process takes; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    import resource

    return int(fields[1]) * resource.getpagesize()


def private_memory() -> int:
    """Return the bytes that `memory_limited` limits; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    import resource

    return int(fields[5]) * resource.getpagesize()


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime
