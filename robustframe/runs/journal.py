"""Which units of a run that goes on are finished: the hash of each of their files, one line a file."""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from robustframe.errors import InputError, IntegrityError, StoppedEarly
from robustframe.runs.manifest import file_sha256, read_manifest
from robustframe.runs.record import EVIDENCE, PART
from robustframe.runs.units import DIAGNOSIS, Unit
from robustframe.runs.verdicts import read_table

PROGRESS = "progress.sha256"
"""In the folder of a run that is not complete yet; in the form of ``evidence.sha256``, which takes its place."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)\n")

log = logging.getLogger("robustframe")


class Journal:
    """The finished files of a run. One process at a time writes it: the one that has locked the run.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A manifest is of a complete run that is taken up again: files are damaged, or rows were incomplete. Then the
        # checks of the other rows missed the images of these, and are made again.
        self.known = {name: sha for name, sha in _manifest(folder).items() if Path(name).name != DIAGNOSIS}
        # A process that was killed may have left half a line, which counts for nothing.
        for line in _lines(folder / PROGRESS):
            if (match := _LINE.fullmatch(line)) is not None:
                self.known[match[2]] = match[1]

    def add(self, files: Mapping[str, str]) -> None:
        """Enter finished files: their place in the run, and their SHA-256.

        Raises:
            StoppedEarly: when the disk is full.
        """
        self.known.update(files)
        path = self.folder / PROGRESS
        try:
            with path.open("a", encoding="utf-8", newline="\n") as file:
                # After half a line, a new one.
                whole = file.tell() == 0 or _ends_well(path)
                file.write(("" if whole else "\n") + "".join(f"{sha}  {name}\n" for name, sha in files.items()))
        except OSError as error:
            raise StoppedEarly(f"{path} cannot be written: {error.strerror}") from error

    def read(self, path: Path) -> bytes | None:
        """Return the content of a finished file; ``None`` when it is not finished, or not what was written."""
        name = path.relative_to(self.folder).as_posix()
        expected = self.known.get(name)
        if expected is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            log.warning("%s is missing; it is made again", path)
            return None
        if hashlib.sha256(content).hexdigest() != expected:
            log.warning("%s is damaged (its SHA-256 is not what was written); it is made again", path)
            return None
        return content

    def load(self, unit: Unit, schema: Mapping[str, object]) -> pl.DataFrame | None:
        """Return the rows of a finished unit; ``None`` when it is not finished, or its files are not what they were."""
        content = self.read(unit.table)
        if content is None:
            return None
        try:
            rows = read_table(unit.table, schema, content=content)
        except IntegrityError:
            return None
        if "success" in rows.columns and bool(rows["success"].any()) and self.read(unit.images) is None:
            return None
        return rows

    def close(self) -> None:
        """Remove the journal of a run that is complete, and what writers that were killed left behind."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        for left in (*self.folder.glob(f"*{PART}"), *(self.folder / "units").rglob(f"*{PART}")):
            left.unlink(missing_ok=True)


def altered(folder: Path) -> list[str]:
    """Return the files of a complete run that are missing, or not what its manifest says."""
    return [name for name, sha in _manifest(folder).items() if _sha256(folder / name) != sha]


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def _manifest(folder: Path) -> dict[str, str]:
    try:
        return read_manifest(folder) if (folder / EVIDENCE).is_file() else {}
    except InputError:
        return {}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
