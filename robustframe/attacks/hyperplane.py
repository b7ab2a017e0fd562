"""The shortest step inside the box of images to where a linear function is zero, in l1, l2 and linf."""

import torch
from torch import Tensor

from robustframe.types import Norm

_PASSES = 100
"""A handful is usual; more only where nearly every pixel reaches its face of the box in a pass of its own."""


def step_to_hyperplane(
    points: Tensor,
    slope: Tensor,
    height: Tensor,
    norm: Norm,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Return the shortest step to the zero of a linear function that does not leave the box.

    Where the box holds no zero, the step goes to the corner that comes nearest to one. A slope that is zero or not
    finite gives no step.

    Source: the projections of FAB (Croce and Hein, 2020, arXiv:1907.02044). The size of a pixel's step is
    min(t * speed, room), with the t that makes the function zero; that is the root of a concave, piecewise linear
    function, to which Newton's method climbs from the left without the sort of all break points.

    Args:
        points: shape (..., d), inside the box.
        slope: gradient of the function, shape (d,) or one that expands to that of the points.
        height: its values at the points, shape (...).
        norm: the norm that is made small; not l0.
        low: lower face of the box.
        high: upper face of the box.

    Returns:
        The steps, shape (..., d).
    """
    largest = slope.abs().amax(-1, keepdim=True)
    sound = (largest > 0) & largest.isfinite() & height.isfinite().unsqueeze(-1)
    if not sound.all():
        slope, height = torch.where(sound, slope, 0.0), torch.where(sound.squeeze(-1), height, 0.0)
        largest = torch.where(sound, largest, 1.0)
    # Relative weights, so that neither their squares nor their quotients leave the range of float32.
    weight, need = slope.abs() / largest, height.abs().unsqueeze(-1) / largest
    down = slope * height.sign().unsqueeze(-1)
    # As numbers, with which a CPU reckons ten times as fast as with truth values.
    up = torch.lt(down, 0, out=torch.empty_like(down))
    room = (up * high + (1 - up) * low - points).abs_()
    if norm == "l1":
        size = _heaviest_first(weight, room, need)
    else:
        size = _all_at_once(weight, weight if norm == "l2" else weight.new_ones(1), room, need)
    return -down.sign_() * size


def _all_at_once(weight: Tensor, speed: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Sizes min(t * speed, room) with the smallest t for which the weighted sum is ``need``, else all of the room."""
    rate = weight * speed
    tiny = torch.finfo(weight.dtype).tiny
    t = need / rate.sum(-1, keepdim=True).clamp_min(tiny)
    for _ in range(_PASSES):
        reach = t * speed
        missing = need - _dot(weight, torch.minimum(reach, room))
        moving = _dot(rate, torch.lt(reach, room, out=torch.empty_like(room)))
        further = torch.where(moving > 0, t + missing / moving.clamp_min(tiny), t).clamp_max(1e30)
        # What has settled never moves again: a row's answer does not depend on how long the others take.
        grows = further > t * (1 + 4 * torch.finfo(t.dtype).eps)
        if not grows.any():
            break
        t = torch.where(grows, further, t)
    return torch.minimum(t * speed, room)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a, b)
    return product.unsqueeze(-1)


def _heaviest_first(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Sizes that use up the room of the heaviest pixel, then of the next, until the weighted sum is ``need``."""
    weight, order = weight.sort(dim=-1, descending=True)
    order = order.expand_as(room)
    room = room.gather(-1, order)
    gain = weight * room
    # What is left is a small difference of two long sums.
    missing = (need - gain.cumsum(-1, dtype=torch.float64) + gain).clamp_min(0).to(gain.dtype)
    size = torch.where(gain > 0, torch.minimum(missing / weight.clamp_min(torch.finfo(weight.dtype).tiny), room), 0.0)
    return torch.zeros_like(size).scatter_(-1, order, size)
