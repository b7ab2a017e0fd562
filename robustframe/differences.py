"""Slopes of a model from evaluations alone: random directions, and gradients estimated along orthogonal ones."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.calls import call_in_batches
from robustframe.draws import Draws
from robustframe.types import Images, Logits

STEP = 8 / 255
"""Half the distance of the two points of a difference, in root mean square, over the width of the box: more than what
models round their images to."""
_EVEN = 10
"""Frequencies up to about this are drawn alike; above, the rarer the higher they are, as large images are smooth."""


def random_direction(shape: Sequence[int], draws: Draws, *, grain: int) -> Tensor:
    """Draw one direction per row.

    Args:
        shape: of an image; where it has three axes or more, the last two are height and width.
        draws: random numbers for the rows.
        grain: size in pixels of what changes alike; 1 for white noise.

    Returns:
        Shape (rows, *shape), of mean size 1.
    """
    if grain > 1 and len(shape) >= 3:
        *channels, height, width = shape
        small = draws.normal(*channels, max(height // grain, 1), max(width // grain, 1)).flatten(1, -3)
        drawn = F.interpolate(small, (height, width), mode="bicubic", align_corners=False).view(-1, *shape)
    else:
        drawn = draws.normal(*shape)
    size: Tensor = drawn.flatten(1).abs().mean(1).clamp_min(1e-12)
    return drawn / size.view(-1, *[1] * len(shape))


class Estimate(torch.autograd.Function):
    """The logits of a model, with a gradient estimated from evaluations at both ends of each of a number of directions.

    The directions are waves (of the discrete cosine transform), drawn without repeats: as they are orthogonal, none
    tells what another told, and as many as there are pixels give the whole gradient. They are drawn from the image's
    own content, so that they are others at every step of a search, and the same whatever else is in the batch.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Images, model: Callable[[Tensor], Tensor], number: int, box: tuple[float, float], batch_size: int
    ) -> Logits:
        """Evaluate the model at every image and at the ends of its directions, inside the box."""
        images = x.detach().clone()
        chosen = torch.stack([_chosen(image, number) for image in images])
        logits = call_in_batches(model, images, batch_size)
        group = max(1, batch_size // (2 * len(images)))
        slopes = []
        for part in torch.split(chosen, group, dim=1):
            ends = [end for pair in _ends(images, part, box) for end in pair]
            found = call_in_batches(model, torch.cat(ends), batch_size).view(-1, 2, *logits.shape)
            slopes.append(found[:, 0] - found[:, 1])
        ctx.box = box
        ctx.save_for_backward(images, chosen, torch.cat(slopes))
        return logits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Add up the directions, each as much as the loss rises along it."""
        images, chosen, slopes = ctx.saved_tensors
        gradient = torch.zeros_like(images)
        width = 2 * STEP * (ctx.box[1] - ctx.box[0])
        rises = (slopes * grads[0]).sum(2) / (width**2 * images[0].numel())
        for rise, (above, below) in zip(rises, _ends(images, chosen, ctx.box)):
            gradient += rise.view(-1, *[1] * (images.dim() - 1)) * (above - below)
        return gradient, None, None, None, None


def _ends(images: Images, chosen: Tensor, box: tuple[float, float]) -> Iterator[tuple[Images, Images]]:
    """Yield both ends of each chosen direction, shape (m, ...) each."""
    low, high = box
    for numbers in chosen.T:
        way = STEP * (high - low) * _waves(images.shape[1:], numbers).to(images)
        yield (images + way).clamp(low, high), (images - way).clamp(low, high)


def _chosen(image: Tensor, number: int) -> Tensor:
    """Draw the numbers of different waves for one image; all of them when there are no more."""
    weights = (_frequencies(image.shape).flatten() + _EVEN).reciprocal()
    content = image.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
    generator = torch.Generator().manual_seed(seed)
    # The largest of weighted exponential numbers: drawing without repeats, however many there are.
    keys = torch.empty(len(weights)).exponential_(generator=generator) / weights
    return keys.topk(min(number, len(weights)), largest=False).indices


def _frequencies(shape: Sequence[int]) -> Tensor:
    """The frequency of every wave, shape ``shape``: axes before the last two are told apart, pixel by pixel."""
    *channels, height, width = (1, *shape) if len(shape) == 1 else shape
    down, right = torch.arange(height).view(-1, 1), torch.arange(width)
    return (down**2 + right**2).float().sqrt().expand(*channels, height, width)


def _waves(shape: Sequence[int], numbers: Tensor) -> Tensor:
    """Return waves by their numbers, shape (m, *shape), of root mean square 1 over all pixels."""
    height, width = (1, shape[0]) if len(shape) == 1 else shape[-2:]
    channels = math.prod(shape) // (height * width)
    channel, down, right = numbers // (height * width), numbers // width % height, numbers % width
    wave = _cosines(height)[down].unsqueeze(2) * _cosines(width)[right].unsqueeze(1)
    full = torch.zeros(len(numbers), channels, height, width)
    full[torch.arange(len(numbers)), channel] = math.sqrt(channels) * wave
    return full.view(-1, *shape)


def _cosines(size: int) -> Tensor:
    number = torch.arange(size)
    waves = torch.cos(math.pi * number.view(-1, 1) * (number + 0.5) / size)
    return waves / waves.square().mean(1, keepdim=True).sqrt()
