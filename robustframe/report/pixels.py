"""Pixels: images and |Gram| of a frame as colours, and a picture as a URL that holds it."""

import base64
import io
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustframe.frames import Frame
from robustframe.frames.coherence import filter_gram

# Dark for zero, bright for one, of steadily rising lightness, so that it also reads in grey.
_COLOURS = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (252, 255, 164)]
_MOST = 4096
_NOTHING = (200.0, 204.0, 208.0)


def gram_matrix(frame: Frame) -> tuple[Tensor, list[int]]:
    """Assemble |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.

    Returns:
        The matrix, with entries in [0, 1], and -1 in blocks that are zero by structure; and where the layers begin,
        the end included. Of more than 4,096 filters neighbours share a row, which holds their largest entries.
    """
    starts = [0, *itertools.accumulate(shape[0] for shape in frame.code_shapes)]
    side = min(starts[-1], _MOST)
    place = torch.arange(starts[-1]) * side // starts[-1]
    matrix = torch.full((side, side), -1.0)
    for (i, j), tile in filter_gram(frame).items():
        rows, columns = place[starts[i - 1] : starts[i]], place[starts[j - 1] : starts[j]]
        for (down, across), part in (((rows, columns), tile), ((columns, rows), tile.T)):
            small = torch.full((side, part.shape[1]), -1.0)
            small.scatter_reduce_(0, down.unsqueeze(1).expand(-1, part.shape[1]), part.float(), "amax")
            matrix.scatter_reduce_(1, across.expand(side, -1), small, "amax")
    return matrix.fill_diagonal_(1), [start * side // starts[-1] for start in starts]


def coloured(matrix: Tensor, side: int) -> Tensor:
    """Colour a matrix with entries in [0, 1], -1 where zero by structure.

    Args:
        matrix: square, or a strip of at most ``side`` rows.
        side: a larger matrix is shrunk to it, and keeps its largest entries.

    Returns:
        Red, green and blue in [0, 1], shape (3, height, width).
    """
    if len(matrix) > side:
        matrix = F.adaptive_max_pool2d(matrix[None, None], side)[0, 0]
    anchors = torch.tensor(_COLOURS, dtype=torch.float32)
    # The square root opens up the small values, where almost all of them are.
    at = matrix.clamp(0, 1).sqrt() * (len(anchors) - 1)
    low = at.floor().clamp(max=len(anchors) - 2).long()
    colours = torch.lerp(anchors[low], anchors[low + 1], (at - low).unsqueeze(2))
    # Blocks that are zero by structure are not values.
    colours[matrix < 0] = torch.tensor(_NOTHING)
    return colours.permute(2, 0, 1) / 255


def eight_bit(image: Tensor) -> NDArray[np.uint8]:
    """Return an image of shape (channels, height, width) as bytes of shape (height, width, channels).

    What lies outside [0, 1] is cut.
    """
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def embedded(image: Tensor, side: int) -> str:
    """Return an image as a URL that holds it.

    Args:
        image: shape (1 or 3, height, width); what lies outside [0, 1] is cut.
        side: a smaller image is enlarged, each pixel to a square of whole pixels, until it is about so wide.

    Returns:
        As `png_url`.
    """
    array = eight_bit(image)
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    times = max(1, round(side / max(picture.size)))
    return png_url(picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST))


def png_url(picture: Image.Image) -> str:
    """Return a picture as a PNG in a ``data:`` URL, the same for the same picture."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG, the same for the same picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
