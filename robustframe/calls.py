"""How models are called: borrowed and given back as they were, in batches that round alike."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustframe.errors import InputError, first_line
from robustframe.lending import lent, note
from robustframe.types import Images, Labels, Logits

DEFAULT_BATCH = 256
_LEAST_ROWS, _ROWS = 16, 8
"""Model calls are padded to at least the first, and to a multiple of the second: CPU kernels for a handful of rows, and
for odd ones over several threads, round differently, and an example's verdict must not depend on how many others are
still in its batch."""


def predict(logits: Logits) -> Labels:
    """Return the class of the largest logit, and -1 (never right) where a logit is NaN."""
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters or buffers; the CPU where it has none."""
    held = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if held is None else held.device


def require_differentiable(model: object) -> None:
    """Refuse what no attack could be run on.

    Raises:
        InputError: for anything but a module, and for one that was made inside inference mode.
    """
    if not isinstance(model, nn.Module):
        raise InputError(not_a_model(model))
    # One that has not seen an image yet is refused where it is asked first, by name.
    if any(not is_lazy(each) and each.is_inference() for each in [*model.parameters(), *model.buffers()]):
        raise InputError(
            "the model was made inside torch.inference_mode(), so that no gradient goes through it; make it outside"
        )


def not_a_model(model: object) -> str:
    """Say what something is that is no module, and what makes one of it."""
    kind = type(model).__name__
    if isinstance(model, type):
        return f"the model is the class {model.__name__}; make one of it, {model.__name__}(...)"
    if kind == "ExportedProgram":
        return "the model is an exported program; take its module, model.module()"
    if callable(model):
        return f"the model is a {kind}, not a torch.nn.Module; wrap it, robustframe.adapt(model)"
    return f"the model is {kind}; it must be a torch.nn.Module"


@contextmanager
def forked_random(seed: int) -> Iterator[None]:
    """Start the global random states of torch, NumPy and Python from a seed, and restore them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        # Not `torch.manual_seed`, which notes a traceback for each kind of device that there is none of.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextmanager
def borrowed(model: nn.Module, *, seed: int = 0) -> Iterator[nn.Module]:
    """Use a model in evaluation mode with frozen parameters, and give it and the process back exactly as they were.

    Mode per module, ``requires_grad``, ``.grad``, buffers, the random states of torch, NumPy and Python, and what
    `robustframe.lending.lent` takes back are restored, also after an exception. Inside, those random states start from
    ``seed``, so a model that draws random numbers repeats itself.

    Raises:
        Misbehaved: for what would have ended the process, such as `SystemExit`, in place of it.
    """
    # A program that was frozen has no mode.
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with forked_random(seed), lent(), _unchanged_buffers(model):
        writes = _writes(model.parameters())
        try:
            _set_evaluating(model)
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
                # Whatever a module accumulates meanwhile does not land in the user's tensor.
                parameter.grad = None
            yield model
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            if _writes(model.parameters()) != writes:
                note("changes its own weights while it answers, so that answers depend on those before them")


def _set_evaluating(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:
        # An exported program stays in the mode that it was exported in; what stands around it does not.
        if not isinstance(model, torch.fx.GraphModule):
            model.training = False
            for child in model.children():
                _set_evaluating(child)


@contextmanager
def _unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Give the buffers of a model back as they were, such as running statistics and counters."""
    held = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.layout is torch.strided and not (buffer.is_meta or is_lazy(buffer))
    ]
    try:
        yield
    finally:
        for module, name, buffer, before in held:
            # Those of a compiled program are no dict.
            now = dict(module._buffers.items()).get(name)
            # Of another shape it is no statistic but something that was computed once, and is kept.
            if now is None or (now.shape, now.dtype) != (before.shape, before.dtype):
                continue
            module._buffers[name] = buffer
            # By content: what is changed through `.data` leaves no other trace.
            if not torch.equal(buffer, before):
                buffer.data.copy_(before)


def _writes(parameters: Iterable[nn.Parameter]) -> list[int]:
    """How often each parameter has been written to."""
    return [-1 if parameter.is_inference() else parameter._version for parameter in parameters]


def call(model: Callable[[Tensor], Tensor], images: Images) -> Logits:
    """Call a model, and go on recording gradients or not as before, whatever it has done about that.

    Raises:
        InputError: when it does not return one row of logits an image.
    """
    recording = torch.is_grad_enabled()
    said = answer(model, images)
    torch.set_grad_enabled(recording)
    return checked(said, images)


def type_of(model: object) -> torch.dtype | None:
    """Return the type of the first weights that a model computes with; ``None`` where it has none."""
    if not isinstance(model, nn.Module):
        return None
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), None)


def answer(model: Callable[[Tensor], Any], images: Images) -> Any:
    """Return what a model says to images, which are cast to the type of its weights if it does not take them else."""
    kind = type_of(model)
    if kind is None or kind == images.dtype:
        return model(images)
    try:
        # It may cast them itself, and before that change them in place.
        return model(images.clone())
    except RuntimeError as error:
        if out_of_memory(error):
            raise
    return model(images.to(kind))


def grey_hint(model: Callable[[Tensor], Tensor], images: Images) -> str:
    """Say of a model that does not take grey images that it takes them in three channels, where it does."""
    if images.dim() != 4 or images.shape[1] != 1:
        return ""
    try:
        call(model, images[:2].repeat(1, 3, 1, 1))
    # The model raises what it likes; what it said first is reported.
    except Exception:  # noqa: BLE001
        return ""
    return "; it takes grey images after robustframe.adapt(model, channels=3), channels = 3 in a recipe"


def call_in_batches(model: Callable[[Tensor], Tensor], points: Images, batch_size: int) -> Logits:
    """Evaluate a model batch by batch, each padded to a multiple of 8 rows and to 16 at least.

    Args:
        model: maps images to logits.
        points: images, shape (b, ...), at least one.
        batch_size: rows of one call at most; rounded up likewise.

    Returns:
        Logits of shape (b, classes), differentiable where the model and the points are.

    Raises:
        InputError: when the model does not return one row of logits an image.
    """
    parts = []
    for part in torch.split(points, padded(batch_size)):
        full = pad(part)
        # A model may give the same memory to each call.
        parts.append(call(model, full)[: len(part)].clone())
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error is that of memory that is not available, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the host, and libraries below torch, raise nothing of their own.
    said = ("allocate memory", "not enough memory", "out of memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(words in first_line(error) for words in said)


def pad(points: Tensor) -> Tensor:
    """Repeat the first row until the number of rows is what a model call is padded to.

    The result is a copy, and no leaf of a graph: a model that prepares its images in place changes nobody else's, and
    its gradient is that of the same steps out of place.
    """
    missing = padded(len(points)) - len(points)
    return torch.cat([points, points[:1].expand(missing, *points.shape[1:])]) if missing else points.clone()


def checked(said: object, points: Tensor) -> Logits:
    """Return the logits in what a model gave for some points, if they are one row per point, in the type of the points.

    Raises:
        InputError: when they are not.
    """
    logits = own_logits(said)
    if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(points) and logits.shape[1] > 1:
        return logits.to(points.dtype)
    raise InputError(f"the model returned {_no_logits(said, points)}")


def own_logits(said: object) -> object:
    """Return the logits of an object that has them as an attribute, as models of Hugging Face do; else what it is."""
    logits = None if isinstance(said, Tensor) else getattr(said, "logits", None)
    return logits if isinstance(logits, Tensor) else said


def one_number(said: object, points: Tensor) -> TypeGuard[Tensor]:
    """Say whether a model gave one number per point, as before a sigmoid."""
    rows = len(points)
    return isinstance(said, Tensor) and said.is_floating_point() and tuple(said.shape) in ((rows,), (rows, 1))


def _no_logits(said: object, points: Tensor) -> str:
    """Say what a model returned in place of logits, and the line that makes logits of it."""
    rows = len(points)
    if one_number(said, points):
        return (
            f"one number per image, shape {tuple(said.shape)}; if that is the input of a sigmoid, "
            "robustframe.adapt(model, sigmoid=True) makes two logits of it, sigmoid = true in a recipe"
        )
    if isinstance(said, Mapping | tuple | list) and len(said):
        held: dict[Any, Any] = dict(said) if isinstance(said, Mapping) else dict(enumerate(said))
        fitting = [key for key, part in held.items() if isinstance(part, Tensor) and part.shape[:1] == (rows,)]
        key = [*fitting, *held][0]
        named = f" of {', '.join(map(str, held))}" if isinstance(said, Mapping) else f" of {len(said)}"
        return (
            f"a {type(said).__name__}{named}; say which are the logits, such as robustframe.adapt(model, "
            f"output={key!r}), output = {json.dumps(key, default=str)} in a recipe"
        )
    what = str(tuple(said.shape)) if isinstance(said, Tensor) else type(said).__name__
    return f"{what} for {rows} images; it must return logits of shape ({rows}, classes), at least two"


def padded(rows: int) -> int:
    """Round a number of rows up to the size a model call is padded to."""
    return max(-(-rows // _ROWS) * _ROWS, _LEAST_ROWS)
