"""Where and how much, example by example: a batch as parts that are attacked under one threat each."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.spaces import Intervals, Mask, Space, Window
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels


@dataclass(frozen=True)
class Part:
    """Examples that are attacked together."""

    threat: ThreatModel
    rows: Labels
    """Which they are, shape (m,)."""


def divide(threat: ThreatModel, x: Images, mask: Any = None, eps: Any = None) -> list[Part]:
    """Divide a batch by what may change in each example, and by how much.

    Args:
        threat: norm, radius and box.
        x: clean images, shape (n, ...).
        mask: true where a value may change, as `robustframe.attack` takes it.
        eps: radii, as `robustframe.attack` takes them.

    Returns:
        Parts that together are the batch. In linf there is one: each value has limits of its own. In other norms
        examples of one radius whose masks allow equally many values are a part.

    Raises:
        InputError: for a mask or radii of another shape or type, a mask that allows nothing, or a threat that says what
            may change itself.
    """
    every = torch.arange(len(x), device=x.device)
    if mask is None and eps is None:
        return [Part(threat, every)]
    if threat.on:
        raise InputError(f"{threat.label} says what may change; leave out mask and eps, or 'on ...'")
    free = None if mask is None else _as_mask(mask, x)
    radii = None if eps is None else _as_radii(eps, x, threat)
    if radii is not None and threat.norm == "linf":
        if threat.valid:
            raise InputError(f"{threat.label}: radii of examples or values are for images that need not be saved")
        reach = radii if free is None else radii * free
        lower, upper = ((x + way * reach).clamp(threat.low, threat.high).to(x.dtype) for way in (-1, 1))
        largest = min(float(reach.max()), threat.high - threat.low)
        if not largest:
            raise InputError("eps is 0 everywhere, so that nothing may change")
        return [Part(replace(threat, eps=largest, on=Intervals(lower, upper), label=""), every)]
    counts = torch.zeros_like(every) if free is None else free.flatten(1).sum(1).expand(len(x))
    sizes = torch.full_like(every, threat.eps, dtype=torch.float64) if radii is None else radii
    parts = []
    for count, size in sorted(set(zip(counts.tolist(), sizes.tolist()))):
        rows = ((counts == count) & (sizes == size)).nonzero().squeeze(1)
        space = "" if free is None else _space(free if len(free) == 1 else free[rows])
        parts.append(Part(replace(threat, eps=size, on=space, label=""), rows))
    return parts


def _as_mask(given: Any, x: Images) -> Tensor:
    """Return where values may change, shape (1, ...) or (n, ...)."""
    mask = _tensor(given, "the mask").to(x.device)
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"the mask holds {mask.dtype} other than 0 and 1; give true where a value may change")
    try:
        free = mask.bool().expand(x.shape if mask.dim() == x.dim() else x.shape[1:])
    except RuntimeError:
        raise InputError(
            f"a mask of shape {tuple(mask.shape)} fits neither one image, {tuple(x.shape[1:])}, nor all, "
            f"{tuple(x.shape)}"
        ) from None
    free = free if mask.dim() == x.dim() else free.unsqueeze(0)
    if bool((none := ~free.flatten(1).any(1)).any()):
        which = f" of example {int(none.nonzero()[0])}" if len(free) > 1 else ""
        raise InputError(f"the mask{which} allows no value to change")
    return free


def _as_radii(given: Any, x: Images, threat: ThreatModel) -> Tensor:
    """Return the radius of each example, shape (n,), or in linf of each value, shape (n, ...)."""
    radii = _tensor(given, "eps").to(x.device, torch.float64)
    if not bool((radii >= 0).all()) or not bool(radii.isfinite().all()):
        raise InputError("eps must be finite and at least 0, in input units")
    each = radii.shape == (len(x),)
    if threat.norm != "linf":
        if not each:
            raise InputError(
                f"eps of shape {tuple(radii.shape)} in {threat.norm}: give one for each of the {len(x)} examples; "
                "radii of single values are for linf"
            )
        if not bool((radii > 0).all()):
            raise InputError(f"the radius of example {int((radii == 0).nonzero()[0])} is 0, so that nothing may change")
        return radii
    try:
        if radii.dim() == 1 < x.dim() - 1 and not each:
            # Rather one for each of so many other examples than one for each column.
            raise RuntimeError
        return radii.view(-1, *[1] * (x.dim() - 1)).expand(x.shape) if each else radii.expand(x.shape)
    except RuntimeError:
        raise InputError(
            f"eps of shape {tuple(radii.shape)} fits neither the {len(x)} examples nor images of {tuple(x.shape[1:])}"
        ) from None


def _tensor(given: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is {type(given).__name__}; give numbers, as a tensor or an array") from error


def _space(free: Tensor) -> Space:
    """Take a rectangle as one, in which attacks that draw windows can draw them."""
    if len(free) == 1:
        ranges = []
        for axis in range(1, free.dim()):
            lines = free.amax([each for each in range(free.dim()) if each != axis]).nonzero().squeeze(1)
            ranges.append((int(lines[0]), int(lines[-1]) + 1))
        count = 1
        for first, last in ranges:
            count *= last - first
        if count == int(free.sum()):
            return Window(",".join(f"{first}:{last}" for first, last in ranges))
    return Mask(free)
