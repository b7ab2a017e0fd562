"""A picture of |Gram|, filter by filter, with its layers labelled."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import torch
from torch import Tensor

from robustframe.frames import Frame
from robustframe.report.figures.style import Figure, titled, values
from robustframe.report.pixels import coloured, embedded, gram_matrix

_SIDE, _PIXELS = 450.0, 900
_TICKS = (1.0, 0.5, 0.25, 0.1, 0.02, 0.0)
_ROOM, _NARROW = 15, 6
_NOTE = "Largest normalised inner product of each pair of filters over all positions; grey: zero by structure."


def gram_figure(frame: Frame, *, title: str = "|Gram|") -> Figure:
    """Draw |G|: for each pair of filters the largest normalised inner product over all positions.

    Args:
        frame: the frame.
        title: what stands above.

    Returns:
        The chart: the matrix as pixels, of a large one the largest entries, and its layers as text.
    """
    matrix, starts = gram_matrix(frame)
    edges = [start * _SIDE / starts[-1] for start in starts]
    bar = torch.linspace(1, 0, 256).square().unsqueeze(1).expand(-1, 8)
    layers = [
        _picture(coloured(matrix, _PIXELS), 0.0, _SIDE),
        _picture(coloured(bar, _PIXELS), _SIDE + 16, 12.0),
        _words([(at, -8.0, name) for name, at in _names(edges)], "center"),
        _words([(-8.0, at, name) for name, at in _names(edges)], "right"),
        _words([(_SIDE + 34, (1 - value**0.5) * _SIDE, f"{value:g}") for value in _TICKS], "left"),
    ]
    if _SIDE / len(edges) > _NARROW:
        inner = edges[1:-1]
        layers += [_lines([{"x": at, "y": 0, "x2": at, "y2": _SIDE} for at in inner])]
        layers += [_lines([{"x": 0, "y": at, "x2": _SIDE, "y2": at} for at in inner])]
    return alt.layer(*layers).properties(
        width=_SIDE + 60, height=_SIDE, title=titled(title, _NOTE), description=f"{title}, {len(starts) - 1} layers"
    )


def _names(edges: list[float]) -> list[tuple[str, float]]:
    """Names of the layers at their middles; a name only where it does not run into the one before."""
    names, last = [], -math.inf
    for number, (start, end) in enumerate(itertools.pairwise(edges), start=1):
        middle = (start + end) / 2
        if middle - last >= _ROOM:
            names.append((f"w{number}", middle))
            last = middle
    return names


def _placed(chart: alt.Chart, **channels: Any) -> alt.Chart:
    """Put a layer at its pixels, in one frame for all layers."""
    x = alt.X("x:Q", axis=None).scale(domain=[0, _SIDE + 60], nice=False)
    y = alt.Y("y:Q", axis=None).scale(domain=[0, _SIDE], reverse=True, nice=False)
    return chart.encode(x=x, y=y, **channels)


def _picture(pixels: Tensor, x: float, width: float) -> alt.Chart:
    rows = [{"x": x, "y": 0, "url": embedded(pixels, _PIXELS)}]
    mark = alt.Chart(values(rows)).mark_image(width=width, height=_SIDE, align="left", baseline="top", aspect=False)
    return _placed(mark, url="url:N")


def _words(words: Sequence[tuple[float, float, str]], align: Any) -> alt.Chart:
    rows = [{"x": x, "y": y, "text": text} for x, y, text in words]
    return _placed(alt.Chart(values(rows)).mark_text(align=align, fontSize=11), text="text:N")


def _lines(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return _placed(alt.Chart(values(rows)).mark_rule(color="#8c959f", strokeWidth=0.5), x2="x2:Q", y2="y2:Q")
