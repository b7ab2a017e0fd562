"""What a file of weights holds, read without running anything of it: every dict of tensors in it, by its keys."""

import io
import itertools
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustframe.errors import InputError, shown
from robustframe.files import decoding, parse_safetensors

EXTRA = "_extra_state"
"""How the name of an entry ends that a layer of torch keeps beside its tensors."""
_OTHERS = (
    (b"<", "an HTML page, not weights: download it again"),
    (b"version https://git-lfs", "a Git LFS pointer, not weights: fetch the file itself with `git lfs pull`"),
    (b"{", "a JSON file, not weights: name the file of the tensors"),
    (b"[", "a JSON file, not weights: name the file of the tensors"),
    (b"\x1f\x8b", "a gzip archive, not weights: unpack it"),
)
"""How files begin that are taken for weights, and are none."""
_MOST, _DEEP = 1000, 200
"""Most dicts of tensors in a file, and most characters of the keys that lead to one."""
_TAR, _TAR_AT = b"ustar", 257


@dataclass(frozen=True)
class StateDict:
    """A dict of tensors in a file."""

    keys: str
    """Those that lead to it, with dots between; empty where it is the whole file."""
    entries: Mapping[str, Any]
    """Tensors; anything where a name ends in `EXTRA`."""

    def parts(self) -> "list[StateDict]":
        """Return the groups of its names, by what stands before their first dot."""
        groups: dict[str, dict[str, Any]] = {}
        for name, entry in self.entries.items():
            first, dot, rest = name.partition(".")
            if dot:
                groups.setdefault(first, {})[rest] = entry
        return [StateDict(_joined(self.keys, first), entries) for first, entries in groups.items()]


def read_checkpoint(path: Path, content: bytes) -> list[StateDict]:
    """Return every dict of tensors in a file of weights; an optimiser's state is none.

    Args:
        path: a file of safetensors, or of `torch.save` with nothing but tensors and plain values.
        content: its bytes.

    Raises:
        InputError: for a file of another kind, damage, or one that can hold code.
    """
    held = _tensors(path, content)
    found = list(itertools.islice(_state_dicts(held), _MOST + 1))
    if len(found) > _MOST:
        raise InputError(f"{path} holds more than {_MOST:,} dicts of tensors; save model.state_dict() of one")
    if not found:
        keys = ", ".join(map(shown_key, list(held)[:6])) if isinstance(held, dict) else type(held).__name__
        raise InputError(f"{path} holds no state dict ({keys or 'nothing'}); save model.state_dict()")
    return found


def shown_key(key: object) -> str:
    """Spell out a key of a file for a sentence."""
    text = str(key)
    return text if len(text) <= 60 and text.isprintable() else shown(text)


def _is_safetensors(content: bytes) -> bool:
    """Say whether a file goes on, behind the size of a header that it has room for, with that header."""
    return int.from_bytes(content[:8], "little") <= len(content) - 8 and content[8:9] == b"{"


def _refuse_other(path: Path, content: bytes) -> None:
    """Call a file what it is, where its bytes tell that it holds no weights."""
    start = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start and len(content) < 1000:
        raise InputError(f"{path} is empty: download or save it again")
    for mark, what in _OTHERS:
        if start.startswith(mark):
            raise InputError(f"{path} is {what}")
    if content[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise InputError(f"{path} is a tar archive, not weights: unpack it")


def _tensors(path: Path, content: bytes) -> Any:
    if _is_safetensors(content):
        return parse_safetensors(content, path)
    _refuse_other(path, content)
    if path.suffix == ".safetensors":
        # It says what else it is.
        return parse_safetensors(content, path)
    with decoding(path, "a file of weights"), warnings.catch_warnings():
        # What it warns of is said below, where it matters.
        warnings.simplefilter("ignore")
        _check_archive(path, content)
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} is not a checkpoint of weights alone; a file that can hold code is not loaded. "
                "Save model.state_dict(), best with safetensors"
            ) from error


def _check_archive(path: Path, content: bytes) -> None:
    """Refuse an archive that `torch.save` did not write: it packs nothing, so that none stands for more than it has."""
    if not content.startswith(b"PK"):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
    if not any(Path(part.filename).name == "data.pkl" for part in parts):
        raise InputError(f"{path} is a zip archive, not weights: unpack it, or save model.state_dict()")
    if any(Path(part.filename).name == "constants.pkl" for part in parts):
        raise InputError(
            f"{path} is a TorchScript program, not weights: return torch.jit.load of it from a function, and name that "
            "in use"
        )
    if sum(part.file_size for part in parts) > len(content):
        raise InputError(f"{path} is a packed archive, which torch.save does not write; save the weights again")


def _state_dicts(held: Any) -> Iterator[StateDict]:
    """Yield the dicts of tensors in nested dicts and lists, in their order."""
    # A pickle may hold a container in itself, or in many places.
    met: set[int] = set()
    pending = [("", held)]
    while pending:
        keys, value = pending.pop()
        if len(keys) > _DEEP:
            continue
        if isinstance(value, dict) and _holds_tensors(value):
            yield StateDict(keys, {str(name): entry for name, entry in value.items()})
        elif isinstance(value, dict | list | tuple) and id(value) not in met and "param_groups" not in value:
            met.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [(_joined(keys, str(key)), part) for key, part in reversed(list(items))]


def _holds_tensors(value: dict[Any, Any]) -> bool:
    entries = [entry for name, entry in value.items() if not str(name).endswith(EXTRA)]
    return bool(entries) and all(isinstance(entry, Tensor) for entry in entries)


def _joined(keys: str, key: str) -> str:
    return f"{keys}.{key}" if keys else key
