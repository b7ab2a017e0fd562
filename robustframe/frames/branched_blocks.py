"""The blocks of the global matrix of a frame with branches, atoms of unit norm in every branch."""

import itertools
import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from robustframe.frames.block import Block
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branches import Branch
from robustframe.frames.incidence import Axis, spread
from robustframe.frames.maps import Pick

Key = tuple[int, int]
"""A branch: row from 1, and number in the row."""


def branch_weights(frame: BranchedFrame, row: int | None = None) -> dict[Key, Tensor]:
    """Return the atoms of all branches, or those of one row, as they are in the frame: float64 on the CPU, by branch.

    They are right up to a factor a row, which no coherence depends on: along a deep network their true size is beyond
    what numbers can hold.
    """
    logs = frame.log_scales.tolist()
    found = {}
    for j in range(1, len(frame.layers) + 1) if row is None else (row,):
        read = [logs[part.spec.reads] if part.spec.reads > 0 else 0.0 for part in frame.branches(j)]
        for b, part in enumerate(frame.branches(j)):
            found[j, b] = part.weight.cpu().double() * math.exp(min(read) - read[b])
    return found


def unit_atoms(frame: BranchedFrame, weights: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Scale atoms to unit norm: of all branches that one convolution made together, and of each that is added.

    Args:
        frame: the frame.
        weights: by branch, as `branch_weights` gives them; differentiable.
    """
    unit = {}
    for j in sorted({row for row, _ in weights}):
        parts = list(enumerate(frame.branches(j)))
        for group in {part.spec.group for _, part in parts}:
            joined = [(b, part) for b, part in parts if part.spec.group == group]
            squares = weights[j, joined[0][0]].new_zeros(frame.code_shapes[j - 1][0])
            for b, part in joined:
                own = weights[j, b].square().flatten(1).sum(1) / math.prod(part.spec.box)
                squares = torch.cat([
                    squares[: part.spec.first], squares[part.spec.first : part.spec.end] + own, squares[part.spec.end :]
                ])  # fmt: skip
            # Atoms of zeros stay what they are.
            inverse = torch.where(squares > 0, squares, 1.0).rsqrt()
            for b, part in joined:
                unit[j, b] = weights[j, b] * inverse[part.spec.first : part.spec.end].view(-1, 1, 1, 1)
    return unit


def branched_blocks(frame: BranchedFrame, weights: Mapping[Key, Tensor] | None = None) -> list[Block]:
    """Write a frame with branches out as the blocks of its global matrix, zero-padded borders exact.

    A code whose channels belong to different branches is several columns, one for each part of its channels. Max
    pooling is taken to choose the middle of each of its windows, and windows that overlap to choose different pixels:
    which pixels an image makes it choose changes places, not inner products.

    Args:
        frame: the frame.
        weights: weights by branch, in place of the frame's own.
    """
    unit = unit_atoms(frame, branch_weights(frame) if weights is None else weights)
    blocks = []
    for column, (j, first, end) in enumerate(columns(frame)):
        for b, part in enumerate(frame.branches(j)):
            spec = part.spec
            if spec.first <= first and end <= spec.end:
                full = spec.map(unit[j, b]).full()[first - spec.first : end - spec.first]
                y, x = (_axis(part, at, full.shape[2 + at]) for at in (0, 1))
                blocks.append(Block((j, b), column, full, y, x, learned=_is_learned(full, spec.groups)))
        shape = frame.code_shapes[j - 1]
        sides = shape[1:] or (1, 1)
        y, x = (spread(side, side, 1, 1, 0) for side in sides)
        for row in frame.readers(j):
            weight = -torch.eye(end - first, dtype=torch.float64).view(end - first, end - first, 1, 1)
            blocks.append(Block(row, column, weight, y, x, first))
    return blocks


def columns(frame: BranchedFrame) -> list[tuple[int, int, int]]:
    """Return the layer, the first channel and the channel after the last of every column of the Gram."""
    found = []
    for j, specs in enumerate(frame.specs, start=1):
        bounds = {0, frame.code_shapes[j - 1][0]}
        bounds |= {at for spec in specs for at in (spec.first, spec.end)}
        ordered = sorted(bounds)
        found += [(j, first, end) for first, end in itertools.pairwise(ordered)]
    return found


def taps(weight: Tensor) -> Tensor:
    """Return which taps of filters are not zero by structure, as between those of a dilated one, shape (1, 1, y, x)."""
    found = (weight.detach() != 0).any(0, keepdim=True).any(1, keepdim=True)
    # Weights of zeros say nothing about the structure.
    return found if bool(found.any()) else torch.ones_like(found)


def _is_learned(weight: Tensor, groups: int) -> bool:
    """Whether no entry is zero by structure: of groups and holes between taps there are some."""
    return groups == 1 and bool(taps(weight).all())


def _axis(part: Branch, at: int, taps: int) -> Axis:
    spec = part.spec
    if spec.pick is None:
        return spread(part.shape[1 + at], part.out[at], taps, spec.stride[at], spec.padding[at])
    return _picked(part.shape[1 + at], part.inner[1 + at], part.out[at], taps, spec.stride[at], spec.padding[at],
                   spec.pick, at)  # fmt: skip


@lru_cache(maxsize=1024)
def _picked(
    pixels: int, pooled: int, positions: int, taps: int, stride: int, padding: int, pick: Pick, at: int
) -> Axis:
    """`spread` onto the middles of the windows of max pooling."""
    inner = spread(pooled, positions, taps, stride, padding)
    before = pick.dilation[at] * ((pick.kernel[at] - 1) // 2) - pick.padding[at]

    def middle(window: int) -> int:
        return -1 if window < 0 else min(max(pick.stride[at] * window + before, 0), pixels - 1)

    return Axis(tuple(tuple(middle(window) for window in row) for row in inner.pixels))
