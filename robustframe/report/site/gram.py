"""|Gram| as a small picture, one pixel for each pair of filters; the page draws the lines between layers."""

from PIL import Image

from robustframe.frames import Frame
from robustframe.report.gram import coloured, gram_matrix, shrunk

_SIDE = 112
_LEVELS = 48


def gram_picture(frame: Frame) -> tuple[Image.Image, tuple[float, ...]]:
    """Draw |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.

    Returns:
        The picture, of a large frame with the largest entries of what is shrunk; and where the layers begin and end,
        as shares of its side.
    """
    matrix, starts = gram_matrix(frame)
    colours = coloured(shrunk(matrix, _SIDE)).round().byte()
    picture = Image.fromarray(colours.numpy()).quantize(_LEVELS, dither=Image.Dither.NONE)
    return picture, tuple(start / starts[-1] for start in starts)
