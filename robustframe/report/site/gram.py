"""|Gram| as a small picture, one pixel for each pair of filters; the page draws the lines between layers."""

import itertools

import torch
import torch.nn.functional as F
from PIL import Image

from robustframe.frames import Frame
from robustframe.frames.coherence import filter_gram

_SIDE = 112
_LEVELS = 48
# Dark for zero, bright for one, of steadily rising lightness, so that it also reads in grey.
_COLOURS = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (252, 255, 164)]
_NOTHING = (200, 204, 208)


def gram_picture(frame: Frame) -> tuple[Image.Image, tuple[float, ...]]:
    """Draw |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.

    Returns:
        The picture, of a large frame with the largest entries of what is shrunk; and where the layers begin and end,
        as shares of its side.
    """
    starts = [0, *itertools.accumulate(shape[0] for shape in frame.code_shapes)]
    matrix = torch.full((starts[-1], starts[-1]), -1.0)
    for (i, j), tile in filter_gram(frame).items():
        rows, columns = slice(starts[i - 1], starts[i]), slice(starts[j - 1], starts[j])
        matrix[rows, columns] = tile.float()
        matrix[columns, rows] = tile.T.float()
    matrix.fill_diagonal_(1)
    if len(matrix) > _SIDE:
        matrix = F.adaptive_max_pool2d(matrix[None, None], _SIDE)[0, 0]
    anchors = torch.tensor(_COLOURS, dtype=torch.float32)
    # The square root opens up the small values, where almost all of them are.
    at = matrix.clamp(0, 1).sqrt() * (len(anchors) - 1)
    low = at.floor().clamp(max=len(anchors) - 2).long()
    colours = torch.lerp(anchors[low], anchors[low + 1], (at - low).unsqueeze(2)).round().byte()
    # Blocks that are zero by structure are not values.
    colours[matrix < 0] = torch.tensor(_NOTHING, dtype=torch.uint8)
    picture = Image.fromarray(colours.numpy()).quantize(_LEVELS, dither=Image.Dither.NONE)
    return picture, tuple(start / starts[-1] for start in starts)
