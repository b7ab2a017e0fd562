"""One figure of a model against another, such as coherence against robustness, with what a line and ranks say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import TWINS, Figure, headed, titled, twin_channels, values
from robustframe.report.layout import one_line
from robustframe.statistics import least_squares, spearman

_LEAST = 5
"""Of fewer, no order of ranks is significant at 5 %, and a line says nothing."""
_FEW = 12
"""Models whose names still find room."""
_LINE_STEPS = 40


@dataclass(frozen=True)
class ModelPoint:
    """One classifier in the plane."""

    model: str
    twin: str
    """``"feed-forward"``, ``"recurrent"`` or ``"single"``."""
    x: float
    y: float
    low: float | None = None
    """Lower end of the interval of ``y``."""
    high: float | None = None
    panel: str = ""
    """Such as the threat; each has its panel, line and ranks."""


def association_figure(
    points: Sequence[ModelPoint],
    *,
    x: str = "Mutual coherence of the frame",
    y: str = "Robust accuracy (%)",
    title: str = "Coherence and robustness",
    names: bool | None = None,
) -> Figure:
    """Draw one number of classifiers against another, with a regression line of each kind of twin and Spearman's rho.

    Args:
        points: at least one.
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis, with its unit; the numbers are drawn as they are.
        title: what stands above.
        names: write the models beside their points; where there are few when ``None``.

    Returns:
        The chart; the band is the 95 % interval of the line, the whiskers that of a point.

    Raises:
        InputError: without points, or for numbers that are not finite.
    """
    if not points:
        raise InputError("there are no classifiers with both numbers to draw")
    if not all(math.isfinite(number) for point in points for number in (point.x, point.y)):
        raise InputError("a figure needs finite numbers; leave out what is unknown")
    panels = list(dict.fromkeys(point.panel for point in points))
    parts = [_panel([point for point in points if point.panel == panel], panel, x, y, names) for panel in panels]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(title, "Lines: least squares with the 95 % interval of the line; whiskers: 95 % of a point."),
        description=f"{title}: {len(points)} classifiers",
    )


def _panel(points: list[ModelPoint], panel: str, x: str, y: str, names: bool | None) -> Figure:
    twins = [twin for twin in TWINS if any(point.twin == twin for point in points)]
    rows = [
        {"model": one_line(p.model), "twin": p.twin, "x": p.x, "y": p.y, "low": p.low, "high": p.high} for p in points
    ]
    lines: list[dict[str, Any]] = []
    notes = []
    for twin in twins:
        own = [point for point in points if point.twin == twin]
        notes.append(_ranks(twin, own))
        lines += _line(twin, own)
    channels = twin_channels(twins)
    base = alt.Chart(values(rows)).encode(
        x=alt.X("x:Q", title=x).scale(zero=False, nice=False, padding=18).axis(tickCount=8), color=channels["color"]
    )
    axis = alt.Y("y:Q", title=y).scale(zero=False, nice=False, padding=14)
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(opacity=0.45)
    dots = base.mark_point(filled=True, size=42, opacity=0.9).encode(y=axis, shape=channels["shape"])
    layers: list[alt.Chart] = [whiskers.encode(y=alt.Y("low:Q", title=y), y2="high:Q"), dots]
    if lines:
        fitted = alt.Chart(values(lines)).encode(x="x:Q", color=channels["color"])
        layers.insert(0, fitted.mark_line(strokeWidth=1.6).encode(y="y:Q", strokeDash=channels["strokeDash"]))
        layers.insert(0, fitted.mark_area(opacity=0.16).encode(y="low:Q", y2="high:Q"))
    if names if names is not None else len({point.model for point in points}) <= _FEW:
        layers += _names(points, axis)
    return alt.layer(*layers).properties(width=480, height=300, title=headed(panel, *notes))


def _names(points: list[ModelPoint], axis: alt.Y) -> list[alt.Chart]:
    """Write each model once, above its highest point, on the side that has room."""
    highest: dict[str, ModelPoint] = {}
    for point in points:
        if point.model not in highest or point.y > highest[point.model].y:
            highest[point.model] = point
    middle = (min(point.x for point in points) + max(point.x for point in points)) / 2
    layers = []
    for left in (True, False):
        rows = [{"model": one_line(p.model), "x": p.x, "y": p.y} for p in highest.values() if (p.x <= middle) == left]
        text = alt.Chart(values(rows)).mark_text(
            align="left" if left else "right", dx=7 if left else -7, dy=-7, fontSize=10, limit=220
        )
        layers.append(text.encode(x="x:Q", y=axis, text="model:N"))
    return layers


def _ranks(twin: str, points: list[ModelPoint]) -> str:
    who = "" if twin == "single" else f"{twin}: "
    if len(points) < _LEAST:
        return f"{who}{len(points)} models, too few for a rank correlation"
    found = spearman([point.x for point in points], [point.y for point in points], seed=0)
    if found is None:
        return f"{who}all equal in one of the two, so there are no ranks"
    ends = f"[{found.interval.low:+.2f}, {found.interval.high:+.2f}]"
    rho = f"{found.value:+.2f} {ends}".replace("-", "−")
    return f"{who}Spearman's ρ {rho}, p = {found.p_value:.2g}, {found.n} models"


def _line(twin: str, points: list[ModelPoint]) -> list[dict[str, Any]]:
    if len(points) < _LEAST:
        return []
    fit = least_squares([point.x for point in points], [point.y for point in points])
    if fit is None:
        return []
    first, last = min(point.x for point in points), max(point.x for point in points)
    rows = []
    for step in range(_LINE_STEPS + 1):
        at = first + (last - first) * step / _LINE_STEPS
        interval = fit.interval(at)
        rows.append({"twin": twin, "dash": twin, "x": at, "y": fit.at(at), "low": interval.low, "high": interval.high})
    return rows
