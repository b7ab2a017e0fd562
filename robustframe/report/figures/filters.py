"""A picture of the atoms of a frame, layer by layer, as they stand in the image."""

import itertools
import math

import altair as alt
import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.frames.branched import BranchedFrame
from robustframe.report.figures.style import Figure, titled, values
from robustframe.report.pixels import embedded

_WIDTH, _HEAD = 620, 28
_NOTE = "Each scaled by itself around grey: white adds to the image, black takes away."
_MOST = 256


def filters_figure(frame: Frame, *, title: str = "Atoms") -> Figure:
    """Draw what one code of each filter (or each atom) puts into the image, away from borders.

    Args:
        frame: a frame on images of one or three channels. Of a chain every layer is drawn, of others the first.
        title: what stands above.

    Returns:
        The chart, a block of atoms for each layer, at most 256 of them.

    Raises:
        InputError: for a frame on anything but images of one or three channels.
    """
    if len(frame.in_shape) != 3 or frame.in_shape[0] not in (1, 3):
        shape = " x ".join(map(str, frame.in_shape))
        raise InputError(f"atoms are drawn of frames on images of one or three channels, not on {shape}")
    layers = len(frame.blocks) if frame.structure == "chain" else 1
    boards = [_mosaic(atoms(frame, j)[:_MOST]) for j in range(1, layers + 1)]
    heights = [_WIDTH * board.shape[1] / board.shape[2] for board in boards]
    tops = [0.0, *itertools.accumulate(height + _HEAD for height in heights)]
    y = alt.Y("y:Q", axis=None).scale(domain=[0, tops[-1]], reverse=True, nice=False)
    place = {"x": alt.X("x:Q", axis=None).scale(domain=[0, _WIDTH], nice=False), "y": y}
    charts: list[alt.Chart] = []
    for j, (board, height, top) in enumerate(zip(boards, heights, tops), start=1):
        there = frame.code_shapes[j - 1][0]
        text = f"layer {j} of {len(frame.blocks)}: {min(_MOST, there)} of {there} atoms"
        words = alt.Chart(values([{"x": 0, "y": top + 14, "text": text}])).mark_text(align="left", fontSize=12)
        rows = [{"x": 0, "y": top + _HEAD - 6, "url": embedded(board, 2 * _WIDTH)}]
        picture = alt.Chart(values(rows)).mark_image(width=_WIDTH, height=height, align="left", baseline="top")
        charts += [words.encode(**place, text="text:N"), picture.encode(**place, url="url:N")]
    return alt.layer(*charts).properties(
        width=_WIDTH, height=tops[-1], title=titled(title, _NOTE), description=f"{title}, {layers} layers"
    )


@torch.no_grad()
def atoms(frame: Frame, layer: int) -> Tensor:
    """Return what one code in the middle of each channel of a layer adds to the image, cut to where it is not zero.

    Args:
        frame: a frame; a chain, or the first layer of any.
        layer: from 1.

    Returns:
        Shape (channels of the code, *image channels, height, width).
    """
    shape = frame.code_shapes[layer - 1]
    codes = torch.zeros(shape[0], *shape)
    middle = tuple(size // 2 for size in shape[1:])
    for channel in range(shape[0]):
        codes[(channel, channel, *middle)] = 1
    for block in reversed(frame.blocks[:layer]):
        codes = block.operator.synthesis(codes)
    if isinstance(frame, BranchedFrame):
        # Of several branches the first; they stand side by side in one row.
        part = frame.branches(1)[0]
        codes = codes[:, : math.prod(part.inner)].view(-1, *part.inner)
    used = codes.abs().sum((0, 1)) > 0
    rows, columns = (used.any(axis).nonzero().flatten() for axis in (1, 0))
    return codes[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _mosaic(pictures: Tensor) -> Tensor:
    """Put pictures side by side, a white line between them; shape (channels, height, width), in [0, 1]."""
    count, channels, height, width = pictures.shape
    pictures = 0.5 + 0.5 * pictures / pictures.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
    across = max(8, math.ceil(math.sqrt(2 * count)))
    down = math.ceil(count / across)
    board = torch.ones(channels, down * (height + 1) - 1, across * (width + 1) - 1)
    for at, picture in enumerate(pictures):
        y, x = at // across * (height + 1), at % across * (width + 1)
        board[:, y : y + height, x : x + width] = picture
    return board
