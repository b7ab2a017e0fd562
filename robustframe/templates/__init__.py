"""Folders to start from: written with a name of the user's, they run as they are."""

import re
from pathlib import Path
from typing import Literal

from robustframe.errors import InputError

Kind = Literal["attack", "defence"]
_HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_STAND_IN, _CLASS = "NAME", "MyAttack"


def write_template(kind: Kind, name: str, *, place: Path | None = None) -> list[Path]:
    """Write a folder to start from.

    Args:
        kind: what the folder holds.
        name: of the folder and of everything in it: letters, digits, ``-`` and ``_``.
        place: where the folder is made; the working directory when ``None``.

    Returns:
        The files written.

    Raises:
        InputError: for a name that would not do as one, a folder that is there already, or one that cannot be made.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"name {name!r} must begin with a letter and hold only letters, digits, - and _")
    folder = (place or Path()) / name
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"{folder} is there already; choose another name") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from error
    # As Python names a class, and never as one that the file imports.
    class_name = "".join(part[:1].upper() + part[1:] for part in re.split("[-_]+", name))
    if class_name == "Attack" or not class_name.endswith("Attack"):
        class_name += "Attack"
    written = []
    for source in sorted((_HERE / kind).iterdir()):
        if source.name == "__pycache__":
            continue
        content = source.read_bytes()
        if source.suffix != ".safetensors":
            text = content.decode().replace(_CLASS, class_name).replace(_STAND_IN, name)
            content = text.encode()
        (folder / source.name).write_bytes(content)
        written.append(folder / source.name)
    return written
