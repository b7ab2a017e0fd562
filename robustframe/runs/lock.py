"""One process at a time works in the folder of a run."""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustframe.errors import InputError

LOCK = ".lock"

log = logging.getLogger("robustframe")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run; the lock dies with its process, whatever it dies of.

    Raises:
        InputError: when another process holds it, or the folder cannot be written to.
    """
    try:
        import fcntl
    except ImportError:
        log.warning("%s cannot be locked on this system; see to it that one process works in it", folder)
        yield
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}; name another folder with --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{_holder(handle)} is working in {folder}; wait for it, or stop it") from error
        except OSError as error:
            log.warning("%s cannot be locked (%s); see to it that one process works in it", folder, error.strerror)
        else:
            if not _still_there(path, handle):
                raise InputError(f"another process has just left {folder}; try again")
        with contextlib.suppress(OSError):
            # Only for the sentence that the next process says; a full disk is met later.
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _still_there(path: Path, handle: int) -> bool:
    """Say whether the locked file is the one that the next process is going to find."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace") or "another process"
