"""Where a site goes: built aside, then put in place of nothing, of an empty folder, or of an earlier site."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from robustframe.errors import InputError

MARKER = "site.json"
"""Lists the files of a site, so that a later one can take its place and nothing else is ever deleted."""
_KIND = "robustframe site"
_FEW = 3


def put_in_place(files: Mapping[str, bytes], out: Path) -> Path:
    """Write a site, whole or not at all.

    Args:
        files: content of each file by its path inside the site, with slashes.
        out: the site's folder; made when it is not there.

    Returns:
        The folder, with links resolved.

    Raises:
        InputError: when something else than an earlier site lies there, or it cannot be written.
    """
    out = check_out(out)
    marker = {"kind": _KIND, "files": sorted(files)}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out.parent} cannot be written ({error.strerror}); choose another folder") from error
    try:
        for name, content in {**files, MARKER: (json.dumps(marker, indent=1) + "\n").encode()}.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # Made for its owner only; a site is for every reader, such as a web server.
        aside.chmod(0o755)
        _swap(aside, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def check_out(out: Path) -> Path:
    """See, before any work, that a site may be put there; return the folder with links resolved.

    Raises:
        InputError: when something else than an earlier site lies there.
    """
    out = out.resolve()
    if not out.exists():
        return out
    if not out.is_dir():
        raise InputError(f"{out} is a file; a site is a folder, choose another name")
    try:
        held = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
    except OSError as error:
        raise InputError(f"{out} cannot be read ({error.strerror}); choose another folder") from error
    if not held:
        return out
    known = _files_of(out / MARKER)
    if known is None:
        raise InputError(f"{out} holds {_some(held)} and is no earlier site; choose another folder, or empty it")
    strange = [name for name in held if name not in known and name != MARKER]
    if strange:
        raise InputError(f"{out} is an earlier site, but holds {_some(strange)} besides; move that elsewhere first")
    return out


def _files_of(marker: Path) -> set[str] | None:
    """Return what an earlier site said its files are; ``None`` when this is none."""
    try:
        content = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("kind") != _KIND or not isinstance(content.get("files"), list):
        return None
    return {name for name in content["files"] if isinstance(name, str)}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more files" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def _swap(aside: Path, out: Path) -> None:
    """Put a folder in the place of another, which goes only once the new one stands."""
    if not out.exists():
        aside.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent)) / out.name
    out.rename(old)
    try:
        aside.rename(out)
    except OSError:
        old.rename(out)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)
