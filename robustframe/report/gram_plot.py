"""A picture of |Gram|, filter by filter, with its blocks labelled; drawn with Pillow, which torchvision brings."""

import base64
import html
import io
import itertools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.frames.coherence import filter_gram

_SIDE = 900
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 64, 110, 24
# Dark for zero, bright for one, of steadily rising lightness, so that it also reads in grey.
_COLOURS = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (252, 255, 164)]
_TICKS = (1.0, 0.5, 0.25, 0.1, 0.02, 0.0)
_NOTHING = (232, 232, 232)
_INK, _FAINT = (40, 40, 40), (110, 110, 110)


def check_plot(path: Path) -> None:
    """Check, before any work, that a plot can be written there.

    Raises:
        InputError: for another ending than .png or .svg, or a folder that is not there.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"a plot is a .png or .svg file, not {path.name!r}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} of the plot is not there; make it first")


def plot_gram(frame: Frame, path: Path, title: str) -> None:
    """Write a picture of |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.
        path: a file that ends in ``.png`` or ``.svg``; the SVG holds the matrix as pixels and the labels as text.
        title: what stands above.

    Raises:
        InputError: for another ending, or a folder that is not there.
    """
    check_plot(path)
    matrix, starts = _assemble(frame)
    pixels, scale = _fit(matrix)
    labels = _labels([start * scale for start in starts])
    if path.suffix.lower() == ".png":
        _draw(pixels, labels, title).save(path)
    else:
        path.write_text(_svg(pixels, labels, title), encoding="utf-8")


def _assemble(frame: Frame) -> tuple[Tensor, list[int]]:
    filters = [shape[0] for shape in frame.code_shapes]
    starts = [sum(filters[:number]) for number in range(len(filters) + 1)]
    matrix = torch.full((starts[-1], starts[-1]), -1.0)
    for (i, j), tile in filter_gram(frame).items():
        rows, columns = slice(starts[i - 1], starts[i]), slice(starts[j - 1], starts[j])
        matrix[rows, columns] = tile.float()
        matrix[columns, rows] = tile.T.float()
    return matrix.fill_diagonal_(1), starts


def _fit(matrix: Tensor) -> tuple[Image.Image, float]:
    """Colour the matrix at about `_SIDE` pixels; what is shrunk keeps its largest entries."""
    size = len(matrix)
    if size > _SIDE:
        matrix = F.adaptive_max_pool2d(matrix[None, None], _SIDE)[0, 0]
    times = max(1, _SIDE // len(matrix))
    picture = _colour(matrix).resize((len(matrix) * times,) * 2, Image.Resampling.NEAREST)
    return picture, picture.width / size


def _colour(values: Tensor) -> Image.Image:
    anchors = torch.tensor(_COLOURS, dtype=torch.float32)
    # The square root opens up the small values, where almost all of them are.
    at = values.clamp(0, 1).sqrt() * (len(anchors) - 1)
    low = at.floor().clamp(max=len(anchors) - 2).long()
    colours = torch.lerp(anchors[low], anchors[low + 1], (at - low).unsqueeze(2)).round().byte()
    # Blocks that are zero by structure are not values.
    colours[values < 0] = torch.tensor(_NOTHING, dtype=torch.uint8)
    return Image.fromarray(colours.numpy())


def _labels(edges: list[float]) -> list[tuple[str, float, float]]:
    """Names of the layers with their edges; a name only where it does not run into the one before."""
    names, last = [], -math.inf
    for number, (start, end) in enumerate(itertools.pairwise(edges), start=1):
        middle = (start + end) / 2
        shown = middle - last >= 30
        last = middle if shown else last
        names.append((f"w{number}" if shown else "", start, end))
    return names


def _draw(pixels: Image.Image, labels: list[tuple[str, float, float]], title: str) -> Image.Image:
    side = pixels.width
    picture = Image.new("RGB", (_LEFT + side + _RIGHT, _TOP + side + _BOTTOM), "white")
    picture.paste(pixels, (_LEFT, _TOP))
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(14), ImageFont.load_default(18)
    draw.text((_LEFT, 12), title, fill=_INK, font=large)
    for name, start, end in labels:
        if start > 0 and side / len(labels) > 12:
            draw.line([(_LEFT + start, _TOP), (_LEFT + start, _TOP + side)], fill=_FAINT)
            draw.line([(_LEFT, _TOP + start), (_LEFT + side, _TOP + start)], fill=_FAINT)
        middle = (start + end) / 2
        draw.text((_LEFT + middle, _TOP - 5), name, fill=_INK, font=small, anchor="mb")
        draw.text((_LEFT - 8, _TOP + middle), name, fill=_INK, font=small, anchor="rm")
    picture.paste(_bar(side), (_LEFT + side + 24, _TOP))
    for value in _TICKS:
        y = _TOP + (1 - value**0.5) * (side - 1)
        draw.text((_LEFT + side + 52, y), f"{value:g}", fill=_INK, font=small, anchor="lm")
    return picture


def _bar(height: int) -> Image.Image:
    return _colour(torch.linspace(1, 0, height).square().unsqueeze(1).expand(-1, 20))


def _svg(pixels: Image.Image, labels: list[tuple[str, float, float]], title: str) -> str:
    side = pixels.width
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + side + _RIGHT} {_TOP + side + _BOTTOM}" '
        'font-family="sans-serif" font-size="14" fill="#282828">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="28" font-size="18">{html.escape(title)}</text>',
        _embedded(pixels, _LEFT, _TOP),
        _embedded(_bar(side), _LEFT + side + 24, _TOP),
    ]
    for name, start, end in labels:
        middle = (start + end) / 2
        if start > 0 and side / len(labels) > 12:
            x, y = _LEFT + start, _TOP + start
            parts.append(f'<path d="M{x:.1f} {_TOP}v{side}M{_LEFT} {y:.1f}h{side}" stroke="#6e6e6e" stroke-width="1"/>')
        parts.append(f'<text x="{_LEFT + middle:.1f}" y="{_TOP - 6}" text-anchor="middle">{name}</text>')
        parts.append(f'<text x="{_LEFT - 8}" y="{_TOP + middle + 5:.1f}" text-anchor="end">{name}</text>')
    for value in _TICKS:
        y = _TOP + (1 - value**0.5) * (side - 1)
        parts.append(f'<text x="{_LEFT + side + 52}" y="{y + 5:.1f}">{value:g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _embedded(picture: Image.Image, x: int, y: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<image x="{x}" y="{y}" {size} href="data:image/png;base64,{data}"/>'
