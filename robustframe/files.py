"""The one door for files that someone else may have written: plain, of a likely size, and refused in one sentence.

Every file is opened here, so that no pipe, device or link out of a folder is; every decoder works inside of `decoding`,
so that whatever a damaged file makes it raise is one sentence; and what a file claims is compared with what it holds
before any memory is taken for it.
"""

import codecs
import gzip
import io
import itertools
import math
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

CARD_BYTES = 2**20
"""Largest model card, recipe or battery; real ones have a few thousand bytes."""
RECORD_BYTES = 2**28
"""Largest record or manifest of a run."""
WEIGHTS_BYTES = 2**32
"""Largest file of weights or of stored images."""
TABLE_BYTES = 2**31
"""Largest Parquet file."""
DATA_BYTES = 2**36
"""Largest file of arrays of the user's."""
IMAGE_BYTES = 2**28
"""Largest image file."""
IDX_BYTES = 2**26
"""Largest IDX file, packed or not; MNIST's largest has 47 million bytes."""
KEY_PARTS = 32
"""Most parts of a dotted key in TOML."""

_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")
_HEADER_BYTES = 2**24
"""Largest header of a safetensors file, which lists its tensors."""
_PACKED, _RATIO = 2**28, 50
"""An array may unpack to so many bytes, or to so many times its file's; images and labels stay far below both."""
_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
# Whatever stands for a key: tomllib takes time and memory with the square of its parts, half a gigabyte for 30 kB.
_LONG_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{KEY_PARTS}}}")


def is_plain_name(name: str) -> bool:
    """Say whether a name is that of a file in a folder: no path, no control character, not too long.

    >>> is_plain_name("tiny.safetensors"), is_plain_name("../tiny.safetensors")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


@contextmanager
def opened(path: Path, *, limit: int, inside: Path | None = None, what: str = "the file") -> Iterator[IO[bytes]]:
    """Open a file that someone else may have made.

    Args:
        path: the file.
        limit: bytes it may hold.
        inside: the folder it must lie in after every symbolic link is followed; anywhere when ``None``.
        what: what it is, for the sentence.

    Yields:
        The file, to be read from its beginning.

    Raises:
        IntegrityError: when it is missing, no plain file (a device or a pipe would never end), larger than the limit,
            or a link out of the folder.
    """
    try:
        real = path.resolve(strict=True)
        if inside is not None and not real.is_relative_to(inside.resolve()):
            raise IntegrityError(f"{path} leads out of {inside}, to {real}; copy that file in place of the link")
        # A pipe would wait for a writer when it is opened.
        file = os.fdopen(os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, what, error) from error
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError(f"{what} {path} cannot be read: it is not a plain file")
        if found.st_size > limit:
            raise IntegrityError(_too_large(path, limit))
        yield file


def read_plain(path: Path, *, limit: int, inside: Path | None = None, what: str = "the file") -> bytes:
    """Return the whole content of a file that someone else may have made; as `opened`."""
    with opened(path, limit=limit, inside=inside, what=what) as file:
        try:
            # Memory is taken for as much as is asked for; one byte more, lest a file of the system that states no size
            # is taken for an empty one.
            content = file.read(os.fstat(file.fileno()).st_size + 1)
        except OSError as error:
            raise _unreadable(path, what, error) from error
    if len(content) > limit:
        raise IntegrityError(_too_large(path, limit))
    return content


def _too_large(path: Path, limit: int) -> str:
    return f"{path} is larger than {limit:,} bytes, which no such file is"


def _unreadable(path: Path, what: str, error: Exception) -> IntegrityError:
    return IntegrityError(f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}")


@contextmanager
def decoding(path: Path | str, kind: str, hint: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises inside into one sentence: damaged files make them raise anything.

    Args:
        path: the file, for the sentence.
        kind: what it should be, with its article, such as ``"an npz file"``.
        hint: what to do, put behind the sentence.

    Raises:
        IntegrityError: for any error but an `InputError`, which says more.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise IntegrityError(f"{path} needs more memory than there is here") from error
    except BaseException as error:
        # A panic of a decoder that is written in Rust is no Exception, and each library has a type of its own for it.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        said = f"{path} is damaged or not {kind}" + (f" ({reason})" if reason and "Error(" not in reason else "")
        raise IntegrityError(f"{said}; {hint}" if hint else said) from error


_WHOLE = range(-(2**63), 2**64)
"""What 64 bits hold, with a sign or without."""


def read_toml_tables(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most `CARD_BYTES` whose numbers are finite.

    Raises:
        InputError: when it cannot be read, is no TOML, has a key of more than `KEY_PARTS` parts, NaN or infinity.
    """
    content = read_plain(path, limit=CARD_BYTES)
    with decoding(path, "a TOML file"):
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{path} is UTF-16; save it as UTF-8")
        # Some editors put a mark of the encoding in front.
        text = content.decode("utf-8-sig")
        if _LONG_KEY.search(text):
            raise InputError(f"{path} has a key of more than {KEY_PARTS} parts with dots between; no such file has one")
        tables = tomllib.loads(text)
    check_finite(tables, path)
    return tables


def check_finite(tree: Any, path: Path | str) -> None:
    """Refuse NaN, infinity and numbers beyond 64 bits, wherever they stand in the tables and lists of a file.

    Raises:
        InputError: with the key of the first.
    """
    pending: list[tuple[str, Any]] = [("", tree)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{path}: {key.lstrip('.')} = {value} is not a finite number")
        # Python reads others, and cannot write those of thousands of digits.
        if isinstance(value, int) and value not in _WHOLE:
            raise InputError(f"{path}: {key.lstrip('.')} is a whole number beyond 64 bits")
        if isinstance(value, dict):
            pending += [(f"{key}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list):
            pending += [(f"{key}[{at}]", part) for at, part in enumerate(value, start=1)]


def gunzip(content: bytes, path: Path | str, *, limit: int) -> bytes:
    """Undo gzip, as far as a limit.

    Raises:
        IntegrityError: for anything else, damage, or more bytes than the limit.
    """
    with decoding(path, "a gzip file", "fetch it again"), gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
        found = packed.read(limit + 1)
    if len(found) > limit:
        raise IntegrityError(f"{path} unpacks to more than {limit:,} bytes, which no such file does")
    return found


_KINDS = (
    (b"\x80", "it is a Python pickle, which could run code and is never opened; save the weights as safetensors"),
    (b"PK\x03\x04", "it is a PyTorch or zip archive with a pickle in it, which could run code and is never opened; "
     "save the weights as safetensors"),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"<", "it is a web page, such as a sign-in or an error page, saved under this name"),
)  # fmt: skip


def looks_like(content: bytes) -> str:
    """Say what a file that is no safetensors file is, from its first bytes; empty when they tell nothing."""
    if not content:
        return "it is empty"
    return next((sentence for start, sentence in _KINDS if content.lstrip()[: len(start)] == start), "")


def parse_safetensors(content: bytes, path: Path | str) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file by name.

    Raises:
        IntegrityError: for anything else, or damage.
    """
    # Here and not above: a command that only reads TOML and JSON does without torch.
    from safetensors.torch import load

    header = int.from_bytes(content[:8], "little")
    whole = 8 <= 8 + header <= len(content)
    if not whole and (kind := looks_like(content)):
        raise IntegrityError(f"{path} is not a safetensors file: {kind}")
    with decoding(path, "a safetensors file"):
        if not whole or header > _HEADER_BYTES:
            raise ValueError(f"its header has {header:,} bytes, where {len(content):,} are all there are")
        return load(content)


def read_npz(path: Path, names: Sequence[str], *, limit: int = DATA_BYTES) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz file.

    What its header states is compared with what the file can hold before any memory is taken: a few bytes of a zip file
    can stand for any number.

    Args:
        path: the file.
        names: the arrays that are wanted.
        limit: bytes that the file may hold.

    Returns:
        Those of them that are there. Objects, which would need pickle, are refused.

    Raises:
        IntegrityError: when it cannot be read, is damaged or no npz file, lacks an array, or unpacks to too much.
    """
    kind = "an npz file of plain arrays"
    with opened(path, limit=limit, what="the data file") as file, decoding(path, kind), zipfile.ZipFile(file) as held:
        there = [name.removesuffix(".npy") for name in held.namelist()]
        check_held(path, there, names)
        most = max(_PACKED, _RATIO * os.fstat(file.fileno()).st_size)
        return {name: _npy(held, f"{name}.npy", most, path) for name in names}


def check_held(path: Path, there: Iterable[str], names: Sequence[str]) -> None:
    """Refuse a file of arrays that lacks one of some names."""
    if not set(names) <= set(there):
        held = ", ".join(itertools.islice(there, 10))[:200] or "nothing"
        raise InputError(f"{path} holds {held}; it needs the arrays {' and '.join(names)}")


def _npy(held: zipfile.ZipFile, name: str, most: int, path: Path) -> NDArray[Any]:
    info = held.getinfo(name)
    if info.file_size > most:
        raise IntegrityError(
            f"{path}: {name} unpacks to {info.file_size:,} bytes; from a file of this size at most {most:,} are taken"
        )
    with held.open(info) as packed:
        shape, _, dtype = _npy_header(packed)
        stated = math.prod(shape) * dtype.itemsize
        if stated > info.file_size:
            raise IntegrityError(f"{path}: {name} states {stated:,} bytes of numbers, but has {info.file_size:,}")
    with held.open(info) as packed:
        found: NDArray[Any] = np.lib.format.read_array(packed, allow_pickle=False)
    return found


def npy_rows(path: Path, rows: slice) -> tuple[NDArray[np.uint8], int]:
    """Read some rows of the bytes in an .npy file, and nothing else of it.

    Args:
        path: the file.
        rows: first and last of them, from 0; cut off where the file ends.

    Returns:
        The rows, uint8, and how many the file has.

    Raises:
        IntegrityError: when it cannot be read, or is no .npy file of bytes in C order.
    """
    with opened(path, limit=DATA_BYTES, what="the array") as file, decoding(path, "an .npy file of bytes"):
        shape, reverse, dtype = _npy_header(file)
        if dtype != np.uint8 or reverse or not shape:
            raise IntegrityError(f"{path} holds {dtype} of shape {shape}; it must hold uint8, in C order")
        each, begins = math.prod(shape[1:]), file.tell()
        if begins + shape[0] * each > os.fstat(file.fileno()).st_size:
            raise IntegrityError(f"{path} states {shape[0] * each:,} bytes of numbers, more than it has")
        first, last, _ = rows.indices(shape[0])
        file.seek(begins + first * each)
        content = file.read(max(last - first, 0) * each)
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, *shape[1:]), shape[0]


def _npy_header(packed: Any) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    version = np.lib.format.read_magic(packed)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(packed)
    return np.lib.format.read_array_header_2_0(packed)


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
