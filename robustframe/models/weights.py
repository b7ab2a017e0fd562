"""Weights from a file: tensors only, never code; loaded strictly, and what does not fit is said."""

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from robustframe.errors import InputError

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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the weights file {path} cannot be read: {error.strerror}") from error
    tensors = _unwrapped(_tensors(path, content), path)
    _check_fit(module.state_dict(), tensors, path)
    module.load_state_dict(tensors, strict=True)
    return hashlib.sha256(content).hexdigest()


def _tensors(path: Path, content: bytes) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_safetensors(content)
        except SafetensorError as error:
            raise InputError(f"{path} is not a safetensors file: {error}") from error
    try:
        with warnings.catch_warnings():
            # What it warns of is said below, where it matters.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is no checkpoint of weights alone; a file that can hold code is not loaded. "
            "Save model.state_dict(), best with safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is no file of weights: {reason}") from error


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


def _check_fit(expected: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
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
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path}: {_some(broken)} holds NaN or infinity; train the model again")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
