"""Files that somebody else may have written, read without trust: plain, inside their folder, of a likely size."""

import os
import re
import stat
from pathlib import Path

from robustframe.errors import InputError, IntegrityError

CARD_BYTES = 2**20
"""Largest model card, recipe or battery; real ones have a few thousand bytes."""
RECORD_BYTES = 2**28
"""Largest record or manifest of a run."""
WEIGHTS_BYTES = 2**32
"""Largest file of weights or of stored images."""
TABLE_BYTES = 2**31
"""Largest Parquet file."""

_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")


def is_plain_name(name: str) -> bool:
    """Say whether a name is that of a file in a folder: no path, no control character, not too long.

    >>> is_plain_name("tiny.safetensors"), is_plain_name("../tiny.safetensors")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def read_plain(path: Path, *, limit: int, inside: Path | None = None, what: str = "the file") -> bytes:
    """Read a whole file that somebody else may have made.

    Args:
        path: the file.
        limit: bytes it may hold.
        inside: the folder it must lie in after every symbolic link is followed; anywhere when ``None``.
        what: what it is, for the sentence.

    Returns:
        Its content.

    Raises:
        IntegrityError: when it is missing, no plain file (a device or a pipe would never end), larger than the limit,
            or a link out of the folder.
    """
    try:
        real = path.resolve(strict=True)
        if inside is not None and not real.is_relative_to(inside.resolve()):
            raise IntegrityError(f"{path} leads out of {inside}, to {real}; copy that file in place of the link")
        # A pipe would wait for a writer when it is opened.
        with os.fdopen(os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise IntegrityError(f"{what} {path} cannot be read: it is no plain file")
            # Memory is taken for as much as is asked for.
            content = file.read(min(limit, found.st_size) + 1)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise IntegrityError(f"{what} {path} cannot be read: {reason}") from error
    if len(content) > limit:
        raise IntegrityError(f"{path} is larger than {limit:,} bytes, which no such file is")
    return content


def check_sealed(folder: Path) -> None:
    """Refuse a folder with anything but plain files and folders in it, at any depth; the folder may be a link itself.

    Raises:
        InputError: naming a symbolic link, device or pipe, through which something outside would be read or written.
    """
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        kind = "a symbolic link" if entry.is_symlink() else "no plain file"
                        raise InputError(f"{entry.path} is {kind}; a run's folder holds plain files and folders only")
        except OSError as error:
            raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
