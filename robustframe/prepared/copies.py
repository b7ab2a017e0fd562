"""What a model is searched on in place of itself: chosen by rule, from the model and the images of a run."""

import copy
import re
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from robustframe.calls import borrowed, device_of, out_of_memory
from robustframe.errors import InputError, first_line
from robustframe.lending import lent
from robustframe.pairs import Twin
from robustframe.prepared.agreement import Precision, Said, apart, ask, differs, probes
from robustframe.prepared.folding import Seen, fold, watch
from robustframe.types import Images

Step = Literal["batch norm folded", "channels last"]
_FOLDED: Step = "batch norm folded"
_LAST: Step = "channels last"
_WIDE_ENOUGH = 0.75
"""Share of the multiplications from which bfloat16 is faster; in narrower layers its roundings cost what it saves."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Preparation(BaseModel):
    """What a model is searched on, and why on the model as it is, where that is so."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: list[Step] = Field(default_factory=list, max_length=2)
    """How the copy is made that is searched; without any it is the model itself."""
    why_not: str | None = Field(default=None, max_length=2000)
    """Why there are none."""
    bfloat16: bool = False
    """Whether batteries that ask for bfloat16 search in it."""
    why_not_bfloat16: str | None = Field(default=None, max_length=2000)
    """Why they do not; null where no battery asks."""


@dataclass(frozen=True)
class Searched:
    """What a search asks in place of the exact model."""

    model: nn.Module
    """Takes the same images and gives the same logits, up to rounding."""
    precision: Precision = "float32"
    """What it computes in."""


def choose(
    model: nn.Module, images: Images, *, low: float = 0.0, high: float = 1.0, bfloat16: bool = False
) -> Preparation:
    """Choose what a model is searched on: a copy that says the same in less time, where there is one.

    The choice follows from the model, the first images and the device; no time is measured. A copy has its batch norms
    folded into the layers before them, and on a CPU its convolutions' weights last channel first. It is taken only
    where logits and gradients agree with the model's on the first 16 images and on noisy ones (`LOGITS` and `GRADIENTS`
    of `robustframe.prepared.agreement`), and round alike in calls of any size.

    Args:
        model: maps images to logits; comes back exactly as it was.
        images: shape (n, ...), at least one.
        low, high: the box.
        bfloat16: choose also whether it is searched in bfloat16 where that is asked for.

    Returns:
        The choice; whatever cannot be copied, or answers otherwise, is searched as it is, with the reason.
    """
    try:
        with borrowed(model):
            return _chosen(model, probes(images, low, high).to(device_of(model)), bfloat16)
    except Exception as error:
        if out_of_memory(error):
            raise
        # Of a model that fails now and then, the evaluation says so where it does.
        return _as_it_is(f"it {_failing(error)}", bfloat16)


def _chosen(model: nn.Module, few: Images, bfloat16: bool) -> Preparation:
    exact = ask(model, few)
    if apart(exact, ask(model, few)) is not None:
        return _as_it_is("it answers the same images differently each time", bfloat16)
    seen = watch(model, few)
    steps, why_not = _steps(model, few, exact, seen)
    wrong = _why_not_bfloat16(model, few, exact, steps, seen) if bfloat16 else None
    return Preparation(steps=steps, why_not=why_not, bfloat16=bfloat16 and wrong is None, why_not_bfloat16=wrong)


def _as_it_is(why: str, bfloat16: bool) -> Preparation:
    return Preparation(why_not=why, why_not_bfloat16=why if bfloat16 else None)


def searched(model: nn.Module, images: Images, preparation: Preparation, *, bfloat16: bool = False) -> Searched:
    """Make what a search asks in place of a model.

    Args:
        model: the exact model; comes back exactly as it was, and is the one that is searched where there are no steps.
        images: those that the preparation was chosen by.
        preparation: what was chosen.
        bfloat16: search in bfloat16, if the preparation allows it.
    """
    precision: Precision = "bfloat16" if bfloat16 and preparation.bfloat16 else "float32"
    if not preparation.steps:
        return Searched(model, precision)
    with borrowed(model):
        few = probes(images, 0.0, 1.0).to(device_of(model))
        return Searched(_built(model, preparation.steps, few), precision)


def _steps(model: nn.Module, few: Images, exact: Said, seen: Seen) -> tuple[list[Step], str | None]:
    """The steps of a copy that agrees, or why there is none."""
    unsuited = _unsuited(model, seen)
    if unsuited is not None:
        return [], unsuited
    steps: list[Step] = [_FOLDED] if seen.foldable else []
    # On a GPU, float32 is no faster with channels last.
    last: list[Step] = [_LAST] if seen.convolutional and few.device.type != "cuda" else []
    why = "nothing in it can be made faster"
    # Without the last step too, as `view` fails where channels come last.
    for way in [way for way in ([*steps, *last], steps) if way]:
        wrong = _wrong(model, way, few, exact)
        if wrong is None:
            return way, None
        why = f"a copy of it {wrong}"
    return [], why


def _unsuited(model: nn.Module, seen: Seen) -> str | None:
    """Say why a model is not to be copied, whatever a copy would say."""
    if isinstance(model, Twin):
        return "it is a solver, whose sweeps share their products as they are"
    modules = dict(model.named_modules())
    for name, module in modules.items():
        called = f"{name or 'it'} ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule) or hasattr(module, "_orig_mod"):
            return f"{called} is a compiled program"
        if any(getattr(module, kind) for kind in _HOOKS):
            return f"{called} has hooks"
        if is_parametrized(module):
            return f"{called} has parametrizations"
    kinds = {each.dtype for each in [*model.parameters(), *model.buffers()] if each.is_floating_point()}
    if other := sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32}):
        return f"it has weights of {', '.join(other)}"
    return f"it calls {seen.repeated[0]} more than once" if seen.repeated else None


def _why_not_bfloat16(model: nn.Module, few: Images, exact: Said, steps: list[Step], seen: Seen) -> str | None:
    if seen.wide < _WIDE_ENOUGH:
        return "most of its layers have too few channels for bfloat16 to be faster"
    wrong = _wrong(model, steps, few, exact, "bfloat16")
    return wrong if wrong is None else f"it {wrong}"


def _wrong(
    model: nn.Module, steps: list[Step], few: Images, exact: Said, precision: Precision = "float32"
) -> str | None:
    """Say what is wrong with a copy of a model; ``None`` where it may be searched in its place."""
    try:
        # The model's own code runs here, in a copy that it may not expect: it may do anything.
        with lent():
            return differs(exact, _built(model, steps, few) if steps else model, few, precision)
    except Exception as error:
        if out_of_memory(error):
            raise
        return _failing(error)


def _failing(error: Exception) -> str:
    """Say what a model raised, in the same words whenever it does: where something lies in memory is left out."""
    return f"fails: {re.sub('0x[0-9a-fA-F]+', '0x...', first_line(error))}"


def _built(model: nn.Module, steps: list[Step], few: Images) -> nn.Module:
    made = copy.deepcopy(model)
    own = {id(each) for each in [*model.modules(), *model.parameters()]}
    seen = watch(made, few)
    # A function that a model holds, as in place of its method, goes on calling what it did.
    if any(id(each) in own for each in [*made.modules(), *made.parameters()]) or seen != watch(model, few):
        raise InputError("it calls layers of the model itself")
    if _FOLDED in steps:
        fold(made, seen.foldable)
    return made.to(memory_format=torch.channels_last) if _LAST in steps else made
