"""Which units of a run that goes on are finished: the hash of each of their files, one line per file."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from robustframe.errors import InputError, IntegrityError, StoppedEarly
from robustframe.files import RECORD_BYTES, TABLE_BYTES, read_plain
from robustframe.runs.lock import LOCK, locked
from robustframe.runs.manifest import file_sha256, manifest, read_manifest
from robustframe.runs.record import EVIDENCE, PART, VERDICTS, write_aside
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
        self.known: dict[str, str] = {}
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
            content = read_plain(path, limit=TABLE_BYTES)
        except IntegrityError:
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

    def forget_damaged(self, hashes: Mapping[str, str]) -> list[str]:
        """Name the files that are not what was written, and take them for not finished; return their names."""
        damaged = [name for name, sha in hashes.items() if _sha256(self.folder / name) != sha]
        for name in damaged:
            log.warning("%s is missing or damaged since it was written; it is made again", self.folder / name)
            self.known.pop(name, None)
        return damaged

    def close(self) -> None:
        """Remove the journal of a run that is complete, and what writers that were killed left behind."""
        _remove_leftovers(self.folder)


def tidy(folder: Path) -> None:
    """Remove what a process that was killed left in a complete run, where the folder can be written to."""
    if not _leftovers(folder) and not (folder / LOCK).exists():
        return
    with contextlib.suppress(InputError, OSError), locked(folder):
        _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    for left in _leftovers(folder):
        left.unlink(missing_ok=True)


def _leftovers(folder: Path) -> list[Path]:
    journal = [folder / PROGRESS] if (folder / PROGRESS).exists() else []
    return [*journal, *folder.glob(f"*{PART}"), *(folder / "units").rglob(f"*{PART}")]


def take_up(folder: Path, evidence_sha256: str | None) -> None:
    """Begin the journal of a complete run that is taken up again, as files are damaged or rows failed.

    Args:
        folder: the run's folder.
        evidence_sha256: of its manifest, as its record says.

    Raises:
        StoppedEarly: when the disk is full, or the folder cannot be written to.
    """
    try:
        stated = read_manifest(folder, sha256=evidence_sha256)
    except InputError as error:
        log.warning("%s; every unit is made again", error)
        stated = {}
    # The checks of the other rows missed the images of these, and are made again.
    kept = {name: sha for name, sha in stated.items() if Path(name).name not in (DIAGNOSIS, VERDICTS)}
    write_aside(folder / PROGRESS, manifest(kept))


def altered(folder: Path, evidence_sha256: str | None) -> list[str]:
    """Name the files of a complete run that are missing, or not what its manifest says; the manifest itself, too."""
    try:
        stated = read_manifest(folder, sha256=evidence_sha256)
    except InputError:
        return [EVIDENCE]
    return [name for name, sha in stated.items() if _sha256(folder / name) != sha]


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return read_plain(path, limit=RECORD_BYTES).decode(errors="replace").splitlines(keepends=True)


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
