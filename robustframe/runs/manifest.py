"""The files of a run bound to its record: one line per file, in the form that ``sha256sum -c`` reads."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from robustframe.errors import InputError
from robustframe.files import RECORD_BYTES, is_plain_name, read_plain
from robustframe.runs.record import EVIDENCE, VERDICTS

_KINDS = (".parquet", ".safetensors", ".json")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def bound_files(folder: Path) -> list[str]:
    """Return the files of a run that its record answers for, relative to its folder, in order."""
    units = (path for path in (folder / "units").rglob("*") if path.suffix in _KINDS and path.is_file())
    verdicts = [folder / VERDICTS] if (folder / VERDICTS).is_file() else []
    return sorted(path.relative_to(folder).as_posix() for path in (*units, *verdicts))


def manifest(hashes: Mapping[str, str]) -> bytes:
    """Write the hashes of a run's files down, the same bytes for the same files.

    Args:
        hashes: of the verdicts and of every table, image and diagnosis file below ``units/``, by its place in the run.

    Returns:
        The content of ``evidence.sha256``; its own SHA-256 stands in the record.
    """
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()


def read_manifest(folder: Path, *, sha256: str | None = None) -> dict[str, str]:
    """Read the hash of each file from ``evidence.sha256``.

    Args:
        folder: the run's folder.
        sha256: what its own hash must be; anything when ``None``.

    Raises:
        InputError: when it cannot be read, has another hash, or a line of it is no hash with a file.
    """
    path = folder / EVIDENCE
    try:
        content = read_plain(path, limit=RECORD_BYTES)
        lines = content.decode().splitlines()
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read; evaluate again, or copy the run again") from error
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise InputError(f"{path} is not what its record says; `robustframe verify {folder}` says more")
    found = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{path}, line {number} is not a SHA-256 with a file name; copy the run again")
        if len(match[2]) > 1000 or not all(map(is_plain_name, match[2].split("/"))):
            raise InputError(
                f"{path}, line {number} names {match[2]!r}, which is not a file of the run; copy the run again"
            )
        found[match[2]] = match[1]
    return found


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
