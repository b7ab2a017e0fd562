"""What the peers' calls have in common: how they name norms, and models that are functions."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from robustframe.devices import pick_device
from robustframe.errors import InputError, unknown
from robustframe.models.adapters import Called
from robustframe.pairs import Pair
from robustframe.threat import ThreatModel, parse_eps, written_eps
from robustframe.types import Norm

NORMS: dict[str, Norm] = {"Linf": "linf", "L2": "l2", "L1": "l1"}
"""Ours by theirs."""


def length_of(given: float | str) -> float:
    """Return a radius or a step as a number; text such as ``"8/255"`` is read as that of a threat is.

    Raises:
        InputError: for text that is not a number above 0.
    """
    return parse_eps(given) if isinstance(given, str) else given


def threat_of(norm: str, eps: float | str) -> ThreatModel:
    """Return the ball that a peer's caller means, labelled as a user of ours would write it.

    Args:
        norm: ``"Linf"``, ``"L2"`` or ``"L1"``.
        eps: radius in input units, or its text, such as ``"8/255"``.

    Raises:
        InputError: for another norm, or a radius that is none.

    >>> threat_of("Linf", 8 / 255).label
    'linf:8/255'
    """
    if norm not in NORMS:
        raise unknown("norm", str(norm), NORMS)
    return ThreatModel.parse(f"{NORMS[norm]}:{written_eps(parse_eps(eps))}")


class Forward(Called):
    """A function from images to logits as a module, on a device.

    Args:
        function: such as a closure over a model.
        device: where it takes its images.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], device: torch.device) -> None:
        super().__init__(function)
        self.register_buffer("anchor", torch.zeros(1, device=device), persistent=False)


def as_module(model: object, device: object = None) -> nn.Module:
    """Return the one classifier that a peer's caller means: a module as it is, a function as one.

    Args:
        model: a module, its ``forward``, or a function from images to logits.
        device: where a function takes its images; a module is called on the device that it is on.

    Raises:
        InputError: for a pair, which is two classifiers, for what cannot be called, or a device that is not there.
    """
    owner = getattr(model, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(model, "__name__", "") in ("forward", "__call__", "_call_impl"):
        model = owner
    if isinstance(model, Pair):
        raise InputError("a pair is two classifiers; give model.recurrent or model.feedforward")
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise InputError(f"the model is {type(model).__name__}; give a torch.nn.Module or a function that gives logits")
    return Forward(cast("Callable[[Tensor], Tensor]", model), pick_device(str(device or "auto")))
