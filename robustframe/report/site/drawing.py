"""Pictures drawn as SVG inside the page, so that they take its colours, dark or light, and their points are links."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustframe.report.layout import Cell
from robustframe.report.site.markup import Markup
from robustframe.runs.curve import Curve
from robustframe.statistics import Proportion

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 14, 30, 40
_COLUMNS = 160
"""Parts of the width of a curve that are told apart: 4 pixels each."""
_LABELS = 5
_ASIDE = 14


def interval_bar(cell: Cell) -> Markup:
    """Draw a fraction with its interval on a track from 0 to 1; decoration beside the number that says it."""
    if cell.value is None or cell.low is None or cell.high is None:
        return Markup("")
    low, high = 100 * cell.low, 100 * cell.high
    parts = (
        f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="fill" d="M0 4h{100 * cell.value:.1f}"/>'
        f'<path class="ends" d="M{low:.1f} 4h{max(high - low, 0.6):.1f}"/></svg>'
    )
    return Markup(parts)


def zero_bar(cell: Cell, reach: float) -> Markup:
    """Draw a signed number with its interval around zero; decoration beside the number that says it.

    Args:
        cell: the number.
        reach: what the track ends at on either side.
    """
    if cell.value is None or cell.low is None or cell.high is None:
        return Markup("")
    low, value, high = (50 + 50 * max(-1.0, min(1.0, each / reach)) for each in (cell.low, cell.value, cell.high))
    side = "more" if cell.low > 0 else "less" if cell.high < 0 else "unclear"
    return Markup(
        f'<svg class="zero {side}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="axis" d="M50 0v10"/><path class="ends" d="M{low:.1f} 5H{max(high, low + 0.6):.1f}"/>'
        f'<path class="at" d="M{value:.1f} 1v8"/></svg>'
    )


@dataclass(frozen=True)
class _Axes:
    """From numbers to places in the picture; y runs from 0 to 1."""

    x0: float
    x1: float

    def x(self, value: float) -> float:
        span = (self.x1 - self.x0) or 1.0
        return _LEFT + (value - self.x0) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM)


def _frame(axes: _Axes, xlabel: str, ylabel: str, ticks: Sequence[float]) -> str:
    lines, texts = [], []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = axes.y(part)
        lines.append(f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}")
        texts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{100 * part:.0f}</text>')
    for value in ticks:
        x = axes.x(value)
        texts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{value:.3g}</text>')
    texts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end" class="name">{Markup.escape(xlabel)}</text>'
    )
    texts.append(f'<text x="0" y="14" class="name">{Markup.escape(ylabel)}</text>')
    return f'<path class="grid" d="{"".join(lines)}"/>{"".join(texts)}'


def _svg(label: str, content: str) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{Markup.escape(label)}">'
        f"{content}</svg>"
    )


def curve_picture(curves: Sequence[tuple[str, Curve]], label: str) -> Markup:
    """Draw security curves of one norm with 95 % bands; points stand at the radii that were asked.

    Args:
        curves: with the class that gives each its colour.
        label: the picture in words, for those who do not see it.
    """
    axes = _Axes(0.0, 1.05 * max(curve.reach for _, curve in curves))
    ticks = sorted({0.0, *(eps for _, curve in curves for eps in curve.asked)})
    if len(ticks) > _LABELS:
        ticks = nice_ticks(0.0, axes.x1)
    parts = [_frame(axes, f"eps in {curves[0][1].norm}", "robust %", ticks)]
    for at, (kind, curve) in enumerate(curves):
        # Points at one radius stand beside each other.
        aside = _ASIDE * (at - (len(curves) - 1) / 2)
        parts.append(_curve(axes, kind, curve) if curve.line else _single(axes, kind, curve, aside))
    return _svg(label, "".join(parts))


def nice_ticks(low: float, high: float, parts: int = _LABELS) -> list[float]:
    """Return round numbers inside an interval: multiples of 1, 2 or 5 times a power of ten, a few parts.

    >>> nice_ticks(0.393, 0.981)
    [0.4, 0.6, 0.8]
    """
    least = (high - low) / parts
    power = 10.0 ** math.floor(math.log10(least))
    step = next(
        power * times for times in (1, 2, 5, 10, 20) if high // (power * times) - low // (power * times) <= parts
    )
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _single(axes: _Axes, kind: str, curve: Curve, aside: float) -> str:
    """Draw what one radius says: a point and its interval; nothing is known of the radii between it and 0."""
    dot = _dot(axes, kind, curve.reach, curve.at(curve.reach))
    return f'<g class="{kind}" transform="translate({aside:g} 0)">{dot}</g>'


def _curve(axes: _Axes, kind: str, curve: Curve) -> str:
    points = curve.points(_COLUMNS)
    ends = [(axes.x(point.eps), point.robust.interval()) for point in points]
    low = [(x, axes.y(each.low)) for x, each in ends]
    high = [(x, axes.y(each.high)) for x, each in ends]
    down = _stairs(low[::-1], first="v")
    band = f"{_stairs(high)}V{low[-1][1]:.1f}{down[down.index('v') :] if 'v' in down else ''}Z"
    line = _stairs([(axes.x(point.eps), axes.y(point.robust.value)) for point in points])
    dots = "".join(_dot(axes, kind, eps, curve.at(eps)) for eps in (0.0, *curve.asked))
    return f'<g class="{kind}"><path class="band" d="{band}"/><path class="line" d="{line}"/>{dots}</g>'


def _stairs(points: Sequence[tuple[float, float]], first: str = "h") -> str:
    """Write steps from point to point as a path, in tenths and relative, as a page has thousands of them."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in points]
    parts = [f"M{_tenths(tenths[0][0])} {_tenths(tenths[0][1])}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(tenths):
        steps = [f"h{_tenths(x1 - x0)}", f"v{_tenths(y1 - y0)}"]
        parts += steps if first == "h" else steps[::-1]
    return "".join(parts)


def _tenths(number: int) -> str:
    return f"{number / 10:g}"


def _dot(axes: _Axes, kind: str, eps: float, share: Proportion) -> str:
    ends = share.interval()
    x, text = axes.x(eps), f"eps {eps:.4g}: {_percent(share.value)} [{_percent(ends.low)}, {_percent(ends.high)}]"
    return (
        f'<path class="whisker" d="M{x:.1f} {axes.y(ends.low):.1f}V{axes.y(ends.high):.1f}"/>'
        f"<g>{_mark(kind, x, axes.y(share.value), 3.5)}<title>{text}</title></g>"
    )


def _mark(kind: str, x: float, y: float, size: float) -> str:
    """A square, a circle or a triangle, so that colour is not the only difference."""
    if kind == "rec":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    if kind == "ff":
        return f'<path class="mark" d="M{x - size:.1f} {y - size:.1f}h{2 * size:g}v{2 * size:g}h{-2 * size:g}z"/>'
    return f'<path class="mark" d="M{x:.1f} {y - 1.2 * size:.1f}l{1.2 * size:g} {2 * size:g}h{-2.4 * size:g}z"/>'


@dataclass(frozen=True)
class LinkedPoint:
    """One classifier in a picture of coherence against robustness."""

    kind: str
    """The class that gives it its colour."""
    name: str
    href: str
    row: str
    """The key of its row: where that is filtered out, so is the point."""
    coherence: float
    robust: Cell


def scatter_picture(points: Sequence[LinkedPoint], label: str) -> Markup:
    """Draw robust accuracy against coherence; every point has its interval and leads to its page."""
    found = [point.coherence for point in points]
    room = max(0.02, 0.06 * (max(found) - min(found)))
    axes = _Axes(min(found) - room, max(found) + room)
    parts = [_frame(axes, "mutual coherence", "robust %", nice_ticks(axes.x0, axes.x1))]
    parts += [_point(axes, point) for point in points if point.robust.value is not None]
    # Links inside make it more than an image.
    return Markup(str(_svg(label, "".join(parts))).replace('role="img"', 'role="group"', 1))


def _point(axes: _Axes, point: LinkedPoint) -> str:
    cell, x = point.robust, axes.x(point.coherence)
    robust = f"{_percent(cell.value)} [{_percent(cell.low)}, {_percent(cell.high)}]"
    said = Markup.escape(f"{point.name}: {robust}, coherence {point.coherence:.3f}")
    whisker = f'<path class="whisker" d="M{x:.1f} {axes.y(cell.low or 0.0):.1f}V{axes.y(cell.high or 0.0):.1f}"/>'
    dot = _mark(point.kind, x, axes.y(cell.value or 0.0), 4.5)
    # Out of the way of the keyboard: the table holds the same links.
    href = Markup.escape(point.href)
    link = f'<a class="{point.kind}" href="{href}" data-row="{point.row}" tabindex="-1" aria-label="{said}">'
    return f"{link}<title>{said}</title>{whisker}{dot}</a>"


def _percent(share: Any) -> str:
    return f"{100 * share:.1f}"
