"""|Gram| of a frame, filter by filter, and its colours."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.frames import Frame
from robustframe.frames.coherence import filter_gram

# Dark for zero, bright for one, of steadily rising lightness, so that it also reads in grey.
_COLOURS = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (252, 255, 164)]
_NOTHING = (200.0, 204.0, 208.0)


def gram_matrix(frame: Frame) -> tuple[Tensor, list[int]]:
    """Assemble |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.

    Returns:
        The matrix, with entries in [0, 1], and -1 in blocks that are zero by structure; and where the layers begin,
        the end included.
    """
    starts = [0, *itertools.accumulate(shape[0] for shape in frame.code_shapes)]
    matrix = torch.full((starts[-1], starts[-1]), -1.0)
    for (i, j), tile in filter_gram(frame).items():
        rows, columns = slice(starts[i - 1], starts[i]), slice(starts[j - 1], starts[j])
        matrix[rows, columns] = tile.float()
        matrix[columns, rows] = tile.T.float()
    return matrix.fill_diagonal_(1), starts


def shrunk(matrix: Tensor, side: int) -> Tensor:
    """Shrink a matrix to a side at most; what is shrunk keeps its largest entries."""
    return matrix if len(matrix) <= side else F.adaptive_max_pool2d(matrix[None, None], side)[0, 0]


def coloured(matrix: Tensor) -> Tensor:
    """Colour a matrix with entries in [0, 1], -1 where zero by structure: red, green, blue up to 255 on a last axis."""
    anchors = torch.tensor(_COLOURS, dtype=torch.float32)
    # The square root opens up the small values, where almost all of them are.
    at = matrix.clamp(0, 1).sqrt() * (len(anchors) - 1)
    low = at.floor().clamp(max=len(anchors) - 2).long()
    colours = torch.lerp(anchors[low], anchors[low + 1], (at - low).unsqueeze(2))
    # Blocks that are zero by structure are not values.
    colours[matrix < 0] = torch.tensor(_NOTHING)
    return colours
