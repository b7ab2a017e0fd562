"""Does a copy say what its model says: logits and gradients compared on a few images, within stated bounds."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustframe.calls import call_in_batches
from robustframe.types import Images, Logits

Precision = Literal["float32", "bfloat16"]

LOGITS: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.05}
"""How far a logit may be from the model's, as a share of the distance between the largest and the smallest logit of an
image, on average over the images."""
GRADIENTS: dict[Precision, float] = {"float32": 1e-2, "bfloat16": 0.25}
"""How long the difference of two gradients may be, as a share of the model's gradient; of half of the images, as at a
kink rounding decides which of two slopes is taken."""
_IMAGES = 16
_NOISE = 0.1
"""Half the width of the noise on half of the images, as a share of the box: a search leaves the clean ones."""
_ROWS = (16, 24)
"""Rows of calls in which a copy must say the same, bit by bit, as in a larger one."""


@dataclass(frozen=True)
class Said:
    """What a model says to images, and how the difference of its two largest logits changes with them."""

    logits: Logits
    gradients: Images


def probes(images: Tensor, low: float, high: float) -> Tensor:
    """Return 16 images, repeated where there are fewer, and the same with noise that is always the same one.

    Args:
        images: shape (n, ...), at least one.
        low, high: the box, which the noise does not leave.
    """
    clean = images[torch.arange(_IMAGES, device=images.device) % len(images)]
    noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
    return torch.cat([clean, (clean + _NOISE * (high - low) * (2 * noise - 1)).clamp(low, high)])


def ask(model: nn.Module, images: Images, precision: Precision = "float32") -> Said:
    """Ask a model, which is borrowed, for logits and gradients of images, shape (b, ...)."""
    leaf = images.detach().clone().requires_grad_()
    low = nullcontext() if precision == "float32" else torch.autocast(leaf.device.type, torch.bfloat16)
    with torch.enable_grad(), low:
        logits = call_in_batches(model, leaf, len(leaf))
        top = logits.topk(2).values
        rise = (top[:, 0] - top[:, 1]).sum()
    slope = torch.autograd.grad(rise, leaf, allow_unused=True)[0] if rise.requires_grad else None
    return Said(logits.detach(), torch.zeros_like(leaf) if slope is None else slope)


def apart(exact: Said, said: Said, precision: Precision = "float32") -> str | None:
    """Say in what two answers differ, beyond the bounds; ``None`` where they agree."""
    if said.logits.shape != exact.logits.shape:
        return f"gives logits of shape {tuple(said.logits.shape)}"
    spread = (exact.logits.amax(1) - exact.logits.amin(1)).double().mean()
    error = (said.logits - exact.logits).double().abs().max()
    # Also where one of them is not a number.
    if not error <= LOGITS[precision] * spread:
        return f"has other logits in {precision}, by {float(error / spread):.1g} of their spread"
    lengths = exact.gradients.double().flatten(1).norm(dim=1)
    errors = (said.gradients - exact.gradients).double().flatten(1).norm(dim=1)
    within = errors <= GRADIENTS[precision] * lengths
    if 2 * int(within.sum()) < len(within):
        return f"has other gradients in {precision}"
    return None


def differs(exact: Said, copy: nn.Module, images: Images, precision: Precision = "float32") -> str | None:
    """Say in what a copy differs from its model, beyond the bounds; ``None`` where it may be searched in its place.

    Args:
        exact: what the model says to the images.
        copy: the copy.
        images: shape (b, ...), more than 24; see `probes`.
        precision: what the copy computes in.
    """
    said = ask(copy, images, precision)
    if (other := apart(exact, said, precision)) is not None:
        return other
    for rows in _ROWS:
        part = ask(copy, images[:rows], precision)
        if not (torch.equal(part.logits, said.logits[:rows]) and torch.equal(part.gradients, said.gradients[:rows])):
            return f"rounds {precision} otherwise in calls of another size"
    return None
