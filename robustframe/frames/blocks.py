"""The blocks of the global matrix of a frame, each a sum over taps of a map and a matrix over channels."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from robustframe.errors import InputError, unknown
from robustframe.frames.block import Block
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import branch_weights, branched_blocks
from robustframe.frames.frame import Frame
from robustframe.frames.incidence import Axis, gather, spread
from robustframe.frames.operators import Conv, Dense, Operator, PooledConv

Borders = Literal["exact", "periodic"]
"""``"exact"``: zero padding as the frame has it. ``"periodic"``: the image wraps around, so no atom is cut off."""


def global_blocks(
    frame: Frame, *, borders: Borders = "exact", weights: Mapping[Any, Tensor] | None = None
) -> list[Block]:
    """Write a frame out as the blocks of its global matrix.

    Args:
        frame: the frame.
        borders: ``"exact"`` or ``"periodic"``.
        weights: weights to use in place of the frame's own, by layer from 1; of frames with branches by layer and
            branch, and only some of them.

    Returns:
        The blocks, differentiable in the weights; float64 on the CPU.

    Raises:
        InputError: for an unknown kind of border, or periodic borders of an image that does not close.
    """
    if borders not in get_args(Borders):
        raise unknown("kind of borders", borders, get_args(Borders))
    if isinstance(frame, BranchedFrame):
        if borders == "periodic":
            raise InputError("frames read from networks have exact borders only, as padding and pooling seldom close")
        return branched_blocks(frame, None if weights is None else {**branch_weights(frame), **weights})
    blocks = []
    for j, layer in enumerate(frame.blocks, start=1):
        weight = layer.operator.weight if weights is None else weights[j]
        alone = layer.sources == (0,)
        blocks.append(_learned(j, layer.operator, weight.cpu().double(), alone=alone, periodic=borders == "periodic"))
        shape = layer.operator.code_shape
        if layer.skip is not None:
            blocks.append(_fixed((j, "skip"), j, shape, 1))
        for row, first in frame.signal_readers(j):
            blocks.append(_fixed(row, j, shape, -1, first=first))
        for row in frame.skip_readers(j):
            shortcut = frame.blocks[row - 1].shortcut
            if shortcut is not None:
                pixels = _sides(shortcut.code_shape)
                axes = [gather(size, own, 1, shortcut.stride, 0) for size, own in zip(pixels, _sides(shape))]
                blocks.append(_fixed((row, "skip"), j, shape, -1, first=shortcut.before, axes=axes))
    return blocks


def _learned(j: int, operator: Operator, weight: Tensor, *, alone: bool, periodic: bool) -> Block:
    shape = operator.in_shape
    if isinstance(operator, Dense):
        # A matrix on images is a kernel of the size of the image at one position; where no other column
        # reaches the row, its pixels need not be told apart.
        sides = (1, 1) if alone else _sides(shape)
        y, x = (spread(side, 1, side, side, 0) for side in sides)
        return Block(j, j, weight.view(len(weight), -1, *sides), y, x, learned=True)
    if not isinstance(operator, Conv):
        raise InputError(f"the Gram of a {type(operator).__name__} is not known; use Dense, Conv or PooledConv")
    taps, stride, padding = operator.kernel, operator.stride, operator.padding
    if isinstance(operator, PooledConv):
        weight = weight.expand(-1, -1, taps, taps) / taps
    y, x = (
        spread(size, codes, taps, stride, padding, periodic=periodic)
        for size, codes in zip(_sides(shape), _sides(operator.code_shape))
    )
    return Block(j, j, weight, y, x, learned=True)


def _fixed(
    row: Hashable, j: int, shape: tuple[int, ...], sign: int, *, first: int = 0, axes: Sequence[Axis] = ()
) -> Block:
    y, x = axes or [spread(side, side, 1, 1, 0) for side in _sides(shape)]
    weight = sign * torch.eye(shape[0], dtype=torch.float64).view(shape[0], shape[0], 1, 1)
    return Block(row, j, weight, y, x, first)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
