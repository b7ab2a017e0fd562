"""The runs of this user on this machine, whose code need not be allowed again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


def remember_code(run: str, files: Mapping[str, str], folder: Path) -> None:
    """Note that this user has a run whose code was run here; where nothing can be written, nothing is noted.

    Args:
        run: hash of everything the run asks.
        files: SHA-256 of each file of its code, by name.
        folder: what the names are relative to.
    """
    if remembered(run, files, folder):
        return
    try:
        place = _place()
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with place.open("a", encoding="ascii", newline="\n") as file:
            file.write(_line(run, files, folder) + "\n")
    except (OSError, RuntimeError, ValueError):
        # A home that is read-only or not to be found only means that one is asked again.
        return


def remembered(run: str, files: Mapping[str, str], folder: Path) -> bool:
    """Say whether `remember_code` has noted the run with the code as it is now, in the same place.

    Args:
        run: hash of everything the run asks, derived here and not taken from its record.
        files: SHA-256 of each file of its code, by name.
        folder: what the names are relative to.
    """
    try:
        return _line(run, files, folder) in _place().read_text(encoding="ascii", errors="replace").splitlines()
    except (OSError, RuntimeError, ValueError):
        return False


def _place() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "robustframe" / "own-runs"


def _line(run: str, files: Mapping[str, str], folder: Path) -> str:
    # Beside the same files, code may find others elsewhere: what it imports by a name put together is in no hash of it.
    text = json.dumps([run, dict(files), os.path.realpath(folder)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
