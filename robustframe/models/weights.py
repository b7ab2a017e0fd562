"""Weights from a file: tensors only, never code; loaded strictly, and what does not fit is said."""

import hashlib
import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.files import WEIGHTS_BYTES, decoding, parse_safetensors, read_plain

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts commonly put the weights in a checkpoint."""
_PREFIXES = ("module.", "_orig_mod.")
"""What data parallelism and compilation put before every name."""


def load_weights(module: nn.Module, path: Path) -> str:
    """Load a file of weights into a module.

    Args:
        module: takes exactly the tensors of the file.
        path: a ``.safetensors`` file, or a checkpoint of `torch.save` that holds nothing but tensors and plain values.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: when the file is missing, holds code, or its tensors are not those of the module.
    """
    content = read_plain(path, limit=WEIGHTS_BYTES, what="the weights file")
    tensors = _unwrapped(_tensors(path, content), path)
    expected = module.state_dict()
    _check_names(expected, tensors, path)
    _check_values(expected, tensors, path)
    module.load_state_dict(tensors, strict=True)
    return hashlib.sha256(content).hexdigest()


def _tensors(path: Path, content: bytes) -> Any:
    if path.suffix == ".safetensors":
        return parse_safetensors(content, path)
    with decoding(path, "a file of weights"), warnings.catch_warnings():
        # What it warns of is said below, where it matters.
        warnings.simplefilter("ignore")
        _refuse_packed(path, content)
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} is no checkpoint of weights alone; a file that can hold code is not loaded. "
                "Save model.state_dict(), best with safetensors"
            ) from error


def _refuse_packed(path: Path, content: bytes) -> None:
    """Refuse an archive that stands for more bytes than it has: `torch.save` packs nothing."""
    if not content.startswith(b"PK"):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(part.file_size for part in archive.infolist()) > len(content):
            raise InputError(f"{path} is a packed archive, which torch.save does not write; save the weights again")


def _unwrapped(held: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
            break
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        keys = ", ".join(map(str, list(held)[:6])) if isinstance(held, dict) else type(held).__name__
        raise InputError(f"{path} holds no state dict ({keys or 'nothing'}); save model.state_dict()")
    tensors = {str(name): tensor for name, tensor in held.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _check_names(expected: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
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
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if shapes:
        hint = " (the last layer: set classes)" if not missing and not extra and len(shapes) <= 2 else ""
        reasons.append(_some(shapes) + hint)
    if reasons:
        raise InputError(f"{path} does not fit the model: {'; '.join(reasons)}")


def _check_values(expected: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse what loading would turn into other numbers without a word."""
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
