"""Weights from a file: tensors only, never code; loaded strictly, never guessed, and what does not fit is said."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustframe.errors import InputError, first_line, unknown
from robustframe.files import WEIGHTS_BYTES, read_plain
from robustframe.models.checkpoints import EXTRA, StateDict, read_checkpoint, shown_key

_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What data parallelism, compilation and training put before every name."""
_AVERAGED = "n_averaged"
"""What `torch.optim.swa_utils.AveragedModel` counts beside the weights."""
_LISTED = 6


def weights_file(folder: Path, given: str) -> tuple[Path, str | None]:
    """Split what a recipe says of weights, ``x.pt`` or ``x.pt:ema``, into the file and the keys of what is wanted.

    Args:
        folder: what a relative path is relative to.
        given: as it stands in the recipe; a file whose own name has a colon is that file.
    """
    places = [len(given), *(at for at in range(len(given) - 1, 0, -1) if given[at] == ":")]
    for at in places:
        if (folder / given[:at]).is_file():
            return folder / given[:at], given[at + 1 :] or None
    return folder / given, None


def load_weights(module: nn.Module, path: Path, wanted: str | None = None) -> str:
    """Load a file of weights into a module.

    Args:
        module: takes exactly the tensors of the file.
        path: a ``.safetensors`` file, or a checkpoint of `torch.save` that holds nothing but tensors and plain values.
        wanted: the keys of the weights among several in the file, with dots between.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: when the file is missing, holds code, holds several that fit, or its tensors are not those of the
            module.
    """
    content = read_plain(path, limit=WEIGHTS_BYTES, what="the weights file")
    held = read_checkpoint(path, content)
    # With the parameters themselves, so that those that are one can be told.
    expected: dict[str, Any] = module.state_dict(keep_vars=True)
    if lazy := [name for name, tensor in expected.items() if is_lazy(tensor)]:
        raise InputError(f"the model has no {lazy[0]} yet; call it on one image first, so that it knows its sizes")
    tensors = _the_one(expected, held, path, wanted)
    _check_values(expected, tensors, path)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model: {first_line(error)}") from error
    return hashlib.sha256(content).hexdigest()


def _the_one(expected: Mapping[str, Any], held: list[StateDict], path: Path, wanted: str | None) -> dict[str, Any]:
    """Return the weights that are wanted, or the only ones that fit, by the names that the model has."""
    parts = [part for each in held for part in each.parts()]
    if wanted is not None:
        named = [each for each in held if each.keys == wanted] or [each for each in parts if each.keys == wanted]
        if len(named) != 1:
            raise unknown(
                "weights", wanted, [shown_key(each.keys) for each in held if each.keys][:100], where=str(path)
            )
        held, parts = named, []
    ways = {id(each): _named_as(expected, each.entries) for each in [*held, *parts]}
    fitting = [each for each in held if not _misfits(expected, ways[id(each)])]
    if len(fitting) == 1:
        return ways[id(fitting[0])]
    if fitting:
        raise InputError(f"{path} holds several weights that fit the model: {_choice(fitting, path)}")
    if inner := [each for each in parts if not _misfits(expected, ways[id(each)])]:
        raise InputError(f"{path} as a whole does not fit the model, but this in it does: {_choice(inner, path)}")
    near = max(held, key=lambda each: len(ways[id(each)].keys() & expected.keys()))
    where = f"{path}:{shown_key(near.keys)}" if near.keys else str(path)
    others = f"; also there: {_list(each for each in held if each is not near)}" if len(held) > 1 else ""
    reasons = "; ".join(_misfits(expected, ways[id(near)]))
    raise InputError(f"{where} does not fit the model: {reasons}{others}")


def _list(several: Iterable[StateDict]) -> str:
    keys = [shown_key(each.keys) for each in several]
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _choice(several: list[StateDict], path: Path) -> str:
    return f'{_list(several)}; choose one, such as weights = "{path.name}:{shown_key(several[-1].keys)}"'


def _named_as(expected: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a file by the names that the model has, as far as what stands before all of them tells."""
    before, own = _before(name for name in entries if name != _AVERAGED), "".join(_before(expected))
    ways = [
        {name.removeprefix("".join(before[:count])): entry for name, entry in entries.items()}
        for count in range(len(before) + 1)
    ]
    ways.append({own + name: entry for name, entry in ways[-1].items()})
    best = max(ways, key=lambda way: len(way.keys() & expected.keys()))
    # What holds nothing says nothing, nor do counts of an average's.
    best = {
        name: entry
        for name, entry in best.items()
        if name in expected or not (entry is None or name in (_AVERAGED, own + _AVERAGED))
    }
    for names in _tied(expected):
        there = [name for name in names if name in best]
        best |= {name: best[there[0]] for name in names if there and name not in best}
    return best


def _before(names: Iterable[str]) -> list[str]:
    """Return the prefixes that all names begin with, in their order."""
    names, found = list(names), list[str]()
    while names and (prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in names)), None)):
        found.append(prefix)
        names = [name.removeprefix(prefix) for name in names]
    return found


def _tied(expected: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, tensor in expected.items():
        if isinstance(tensor, Tensor):
            names.setdefault(id(tensor), []).append(name)
    return [each for each in names.values() if len(each) > 1]


def _misfits(expected: Mapping[str, Any], tensors: Mapping[str, Any]) -> list[str]:
    """Say what of names and shapes does not fit, a clause each; none where all does."""
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    # Torch before 0.4.1 had no such counters, which change no answer; loading begins them at 0.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    reasons = []
    if missing:
        reasons.append(f"it lacks {_some(missing)}")
    if extra:
        reasons.append(f"it has {_some(extra)}, which the model does not")
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} there and {tuple(tensor.shape)} in the model"
        for name, tensor in _plain(expected).items()
        if name in tensors and isinstance(tensor, Tensor) and tensors[name].shape != tensor.shape
    ]
    if shapes:
        hint = " (the last layer: set classes)" if not missing and not extra and len(shapes) <= 2 else ""
        reasons.append(_some(shapes) + hint)
    return reasons


def _check_values(expected: Mapping[str, Any], tensors: Mapping[str, Any], path: Path) -> None:
    """Refuse what loading would turn into other numbers without a word."""
    extra = {name: entry for name, entry in tensors.items() if name.endswith(EXTRA)}
    if wrong := [name for name, entry in extra.items() if not isinstance(entry, Tensor | None)]:
        kind = type(extra[wrong[0]]).__name__
        raise InputError(f"{path}: {wrong[0]} is a {kind}; only None and tensors are taken, so keep it as a tensor")
    tensors = _plain(tensors)
    if packed := [name for name in tensors if not isinstance(expected[name], Tensor)]:
        raise InputError(
            f"{packed[0]} is not a plain tensor in the model, so that {path} cannot be loaded into it; load it in the "
            "function that builds the model"
        )
    odd = [
        f"{name} is {_kind(tensor)} there and {_kind(expected[name])} in the model"
        for name, tensor in tensors.items()
        if not _loads_as(tensor, expected[name])
    ]
    if odd:
        raise InputError(
            f"{path} does not fit the model: {_some(odd)}; save plain dense tensors of the model's own types"
        )
    # As they are in the model: what is finite in float64 may not be in float32.
    broken = [name for name, tensor in tensors.items() if not tensor.to(expected[name].dtype).isfinite().all()]
    if broken:
        raise InputError(f"{path}: {_some(broken)} holds NaN or infinity; train the model again")
    for first, *others in _tied(expected):
        if apart := [other for other in others if first in tensors and not _equal(tensors[first], tensors[other])]:
            raise InputError(
                f"{path} does not fit the model: {first} and {apart[0]} are one tensor in the model and two there; "
                "save the weights of the model as it is built here"
            )


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict without what layers keep beside their tensors, which may be of any shape."""
    return {name: entry for name, entry in state.items() if not name.endswith(EXTRA)}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights that may be converted; narrower ones mean nothing without the scales that they were made with."""


def _loads_as(tensor: Tensor, expected: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    alike = tensor.dtype == expected.dtype or (tensor.dtype in _FLOATS and expected.dtype in _FLOATS)
    return plain and alike


def _kind(tensor: Tensor) -> str:
    """Say what numbers a tensor holds, and how, where that is not plain."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized:
        return f"quantised {kind}"
    if tensor.layout != torch.strided:
        return f"{str(tensor.layout).removeprefix('torch.').replace('_', ' ')} {kind}"
    return f"{kind} without values" if tensor.device.type == "meta" else kind


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
