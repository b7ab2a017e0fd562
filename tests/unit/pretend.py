"""A device without hardware: tensors that lie in the CPU's memory, say that they do not, and mix with no others.

    with pretended():
        model.to("pretend")

What a GPU would refuse is refused here: an operation on tensors of both kinds, a factory that forgets the device, a
generator or a mask on the other side. What only real kernels do (other rounding, streams, memory) is not seen. It
needs torch 2.9.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"


class _Module(backend_registration._DummyBackendModule):
    """What torch asks a backend about."""

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        """Nothing draws numbers there but from the CPU's state."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
DEVICE = torch.device(NAME, 0)
_ATEN = torch.ops.aten
_BETWEEN = {_ATEN._to_copy.default, _ATEN.copy_.default}
"""Operations that take tensors from one side to the other."""
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
"""Operations whose indices may lie on the CPU, as with CUDA."""


class There(Tensor):
    """A tensor on the pretended device; ``memory`` is where its numbers are."""

    memory: Tensor

    @staticmethod
    def __new__(cls, memory: Tensor) -> "There":
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, memory.size(), strides=memory.stride(), storage_offset=memory.storage_offset(), dtype=memory.dtype,
            layout=memory.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.memory = memory
        return made

    def __repr__(self, **_: Any) -> str:
        return f"There({self.memory!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


def _carry_out(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry an operation out in memory; what comes of it lies where its arguments do, or where it is told to."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    told = kwargs.get("device")
    if func not in _BETWEEN:
        _refuse_a_mix(func, args, tensors, there)
        if tensors and not there and told is None:
            return func(*args, **kwargs)
    if told is not None:
        goes_there = torch.device(told).type == NAME
    elif func is _ATEN.copy_.default:
        goes_there = isinstance(args[0], There)
    else:
        goes_there = bool(there)
    made = func(*tree_map(_in_memory, args), **tree_map(_in_memory, kwargs))
    if not goes_there:
        return made
    same = {id(tensor.memory): tensor for tensor in there}

    def place(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return same[id(value)] if id(value) in same else There(value)

    return tree_map(place, made)


def _refuse_a_mix(func: Any, args: tuple[Any, ...], tensors: list[Tensor], there: list[There]) -> None:
    # A number in a tensor without axes goes anywhere.
    here = [tensor for tensor in tensors if not isinstance(tensor, There) and tensor.dim() > 0]
    if func in _INDEXED and isinstance(args[0], There):
        here = [tensor for tensor in here if tensor.dtype.is_floating_point]
    if there and here:
        shapes = [tuple(tensor.shape) for tensor in here]
        raise RuntimeError(f"{func}: tensors of shape {shapes} are on the CPU, others on {DEVICE}")


def _in_memory(value: Any) -> Any:
    if isinstance(value, There):
        return value.memory
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


class _Everything(TorchDispatchMode):
    """Sees operations without a tensor of ours, such as factories."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


class _Python(TorchFunctionMode):
    """Sees what never gets as far as an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        if isinstance(first, There):
            if func is Tensor.tolist:
                return first.detach().cpu().tolist()
            if func in (Tensor.numpy, Tensor.__array__):
                raise TypeError(f"a tensor on {DEVICE} has no array; move it with Tensor.cpu()")
        # Asking for the current device would need a driver.
        args, kwargs = (tree_map(_numbered, part) for part in (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") == DEVICE:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    named = value == NAME if isinstance(value, str) else isinstance(value, torch.device) and value.type == NAME
    return DEVICE if named else value


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """Let the device be there."""
    with _Everything(), _Python():
        yield
