"""One figure of a model against another, such as coherence against robustness, with what a line and ranks say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import Figure, headed, titled, twin_channels, values
from robustframe.report.layout import one_line
from robustframe.report.look import TWINS
from robustframe.report.robust_ranks import ENOUGH, Rankable, robust_ranks
from robustframe.statistics import clears_floor, least_squares

_LINE_STEPS = 40
_ROOM = 560.0
_AXIS = 70.0
"""Pixels of the vertical axis and its title."""
_LETTER = 5.6
"""Width of a letter of a name, in pixels."""


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
    """Such as the threat; each has panels, lines and ranks of its own."""
    group: str = ""
    """Such as training and structure: each is drawn apart, and ranks over several are those within them."""
    clean: float = 1.0
    """Clean accuracy, in [0, 1]: lines and ranks are of those that clear the floor (`clears_floor`)."""
    doubted: bool = False
    """Whether a check doubts the model or is not finished: it is drawn, and has no part in line and ranks."""


def association_figure(
    points: Sequence[ModelPoint],
    *,
    x: str = "Mutual coherence of the frame",
    y: str = "Robust accuracy (%)",
    title: str = "Coherence and robustness",
    names: bool = True,
    room: float = _ROOM,
) -> Figure:
    """Draw one number of classifiers against another, with a regression line of each kind of twin and Spearman's rho.

    Groups stand in panels of their own, below a line that says what their ranks say together.

    Args:
        points: at least one.
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis, with its unit; the numbers are drawn as they are.
        title: what stands above.
        names: write the models beside their points, as many as find a free place.
        room: width to lay it out in, in pixels.

    Returns:
        The chart; the band is the 95 % interval of the line, the whiskers that of a point.

    Raises:
        InputError: without points, or for numbers that are not finite.
    """
    if not points:
        raise InputError("there are no classifiers with both numbers to draw")
    if not all(math.isfinite(number) for point in points for number in (point.x, point.y)):
        raise InputError("a figure needs finite numbers; leave out what is unknown")
    panels = list(dict.fromkeys((point.panel, point.group) for point in points))
    parts = [
        _panel([point for point in points if (point.panel, point.group) == panel], _head(panel), x, y, names, room)
        for panel in panels
    ]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(
            title,
            "Lines: least squares with the 95 % interval of the line; whiskers: 95 % of a point.",
            *(line for said in _together(points) for line in wrap(said, int(room / _LETTER))),
        ),
        description=f"{title}: {len(points)} classifiers",
    )


def _head(panel: tuple[str, str]) -> str:
    return ", ".join(filter(None, panel))


def _together(points: Sequence[ModelPoint]) -> list[str]:
    """What the ranks of several groups say together, for each panel and twin."""
    lines = []
    for panel in dict.fromkeys(point.panel for point in points):
        own = [point for point in points if point.panel == panel]
        if len({point.group for point in own}) > 1:
            of = [(twin, [point for point in own if point.twin == twin]) for twin in TWINS]
            lines.append(f"{panel}, all groups:" if panel else "All groups:")
            lines += [_ranks(twin, each) for twin, each in of if each]
    return lines


def _panel(points: list[ModelPoint], panel: str, x: str, y: str, names: bool, room: float) -> Figure:
    twins = [twin for twin in TWINS if any(point.twin == twin for point in points)]
    rows = [
        {"model": one_line(p.model), "twin": p.twin, "x": p.x, "y": p.y, "low": p.low, "high": p.high} for p in points
    ]
    lines: list[dict[str, Any]] = []
    notes = []
    for twin in twins:
        own = [point for point in points if point.twin == twin]
        notes += wrap(_ranks(twin, own), int(room / _LETTER))
        lines += _line(twin, own)
    channels = twin_channels(twins)
    plane = _Plane.around(points, room)
    base = alt.Chart(values(rows)).encode(
        x=alt.X("x:Q", title=x).scale(domain=list(plane.x), nice=False).axis(tickCount=8), color=channels["color"]
    )
    axis = alt.Y("y:Q", title=y).scale(domain=list(plane.y), nice=False)
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(opacity=0.45)
    dots = base.mark_point(filled=True, size=42, opacity=0.9).encode(y=axis, shape=channels["shape"])
    layers: list[alt.Chart] = [whiskers.encode(y=alt.Y("low:Q", title=y), y2="high:Q"), dots]
    if lines:
        fitted = alt.Chart(values(lines)).encode(x="x:Q", color=channels["color"])
        layers.insert(
            0, fitted.mark_line(strokeWidth=1.6, clip=True).encode(y="y:Q", strokeDash=channels["strokeDash"])
        )
        layers.insert(0, fitted.mark_area(opacity=0.16, clip=True).encode(y="low:Q", y2="high:Q"))
    if names:
        layers.append(_names(points, plane, axis))
    return alt.layer(*layers).properties(width=plane.width, height=plane.height, title=headed(panel, *notes))


@dataclass(frozen=True)
class _Plane:
    """From numbers to pixels: ends of both axes, and the size of the panel."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float

    @classmethod
    def around(cls, points: Sequence[ModelPoint], room: float) -> "_Plane":
        """Leave a margin around points and their whiskers, but none below 0 where nothing lies there."""
        lows = [point.y if point.low is None else point.low for point in points]
        highs = [point.y if point.high is None else point.high for point in points]
        x = _widened(min(point.x for point in points), max(point.x for point in points))
        low, high = _widened(min(lows), max(highs))
        width = room - _AXIS
        return cls(x, (max(low, 0.0) if min(lows) >= 0 else low, high), width, max(180.0, 0.6 * width))

    def place(self, point: ModelPoint) -> tuple[float, float]:
        """Return where a point stands, from the upper left corner."""
        across, down = self.x[1] - self.x[0], self.y[1] - self.y[0]
        return (point.x - self.x[0]) / across * self.width, (self.y[1] - point.y) / down * self.height

    def numbers(self, x: float, y: float) -> dict[str, float]:
        """Return what stands at a place."""
        across, down = self.x[1] - self.x[0], self.y[1] - self.y[0]
        return {"x": self.x[0] + x / self.width * across, "y": self.y[1] - y / self.height * down}


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _names(points: Sequence[ModelPoint], plane: _Plane, axis: alt.Y) -> alt.Chart:
    """Write each model once beside its highest point, where the name meets no point and no other name."""
    highest: dict[str, ModelPoint] = {}
    for point in points:
        if point.model not in highest or point.y > highest[point.model].y:
            highest[point.model] = point
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in map(plane.place, points)]
    for point in points:
        x, top = plane.place(replace(point, y=point.y if point.high is None else point.high))
        taken.append((x - 1, top, x + 1, plane.place(replace(point, y=point.y if point.low is None else point.low))[1]))
    rows = []
    for point in sorted(highest.values(), key=lambda each: -each.y):
        x, y = plane.place(point)
        name = one_line(point.model)
        size = min(220.0, _LETTER * len(name))
        for left, top in ((x + 7, y - 14), (x - 7 - size, y - 14), (x + 7, y + 3), (x - 7 - size, y + 3)):
            box = (left, top, left + size, top + 11)
            inside = left >= 0 and top >= 0 and box[2] <= plane.width and box[3] <= plane.height
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                rows.append({"model": name, **plane.numbers(left, top + 9)})
                break
    text = alt.Chart(values(rows)).mark_text(align="left", baseline="alphabetic", fontSize=10, limit=220)
    placed: alt.Chart = text.encode(x=alt.X("x:Q").scale(domain=list(plane.x)), y=axis, text="model:N")
    return placed


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ranks(twin: str, points: list[ModelPoint]) -> str:
    who = "" if twin == "single" else f"{twin}: "
    said = robust_ranks(
        [Rankable(point.x, point.y, point.clean, point.group, point.doubted) for point in points]
    ).sentence
    return who + said.replace("rho", "ρ").replace("-0", "−0").replace("-1", "−1")


def _line(twin: str, points: list[ModelPoint]) -> list[dict[str, Any]]:
    believed = [point for point in points if not point.doubted]
    points = [point for point, clears in zip(believed, clears_floor([each.clean for each in believed])) if clears]
    if len(points) < ENOUGH:
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
