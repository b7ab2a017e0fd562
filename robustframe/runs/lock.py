"""One process at a time works in the folder of a run."""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from robustframe.errors import InputError
from robustframe.files import CARD_BYTES, read_plain

LOCK = ".lock"

log = logging.getLogger("robustframe")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run; the lock dies with its process, whatever it dies of.

    Raises:
        InputError: when another process holds it, or the folder cannot be written to.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Whether anything can be written here; a lock that cannot be had is another matter.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}; name another folder with --out") from error
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{_holder(path)} is working in {folder}; wait for it, or stop it") from error
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s); make sure that only one process works in it", folder, error)
    try:
        with contextlib.suppress(OSError):
            # Only for the sentence that the next process says; a full disk is met later.
            path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        # While it is held, so that nobody who has just got it loses it. A system that keeps files that are open does
        # without: what is left there is swept with the next run.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return read_plain(path, limit=CARD_BYTES).decode(errors="replace")[:200] or "another process"
    except InputError:
        return "another process"
