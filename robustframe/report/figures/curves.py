"""Security curves: robust accuracy over the radius, with its interval, a panel a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import ROOM, Figure, headed, panels, titled, twin_channels, values
from robustframe.report.layout import one_line
from robustframe.report.look import TWINS
from robustframe.runs.curve import Curve
from robustframe.statistics import Proportion

NORMS: Mapping[str, str] = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}
_STEPS = 120
"""Radii drawn of a curve at most; it falls at each broken example, thousands of times."""
_ROBUST = "Robust accuracy (%)"
_NAME = 260
"""Pixels of the name of a model at most."""
_NOTE = "Upper bounds with 95 % intervals (Wilson); attacks searched the marked radii, or for the nearest example."


@dataclass(frozen=True)
class ModelCurve:
    """The curve of one classifier."""

    model: str
    """Names the panel."""
    twin: str
    """``"feed-forward"``, ``"recurrent"`` or ``"single"``."""
    curve: Curve
    data: str = ""
    """The examples in words; other examples have panels of their own."""


def curve_figure(curves: Sequence[ModelCurve], *, title: str = "Security curves", room: float = ROOM) -> Figure:
    """Draw security curves: both twins of a model in one panel, a block of panels a norm.

    Args:
        curves: at least one; see `robustframe.runs.curve.security_curves`.
        title: what stands above.
        room: width to lay it out in, in pixels.

    Returns:
        The chart; robust accuracy in percent over the radius in input units. A curve of which a single radius was
        attacked is a point with its interval.

    Raises:
        InputError: without curves.
    """
    if not curves:
        raise InputError("there are no curves to draw")
    models = list(dict.fromkeys(each.model for each in curves))
    blocks: dict[tuple[str, str, float], list[ModelCurve]] = {}
    for each in curves:
        # What has a single radius is compared there, all models in one panel.
        alone = 0.0 if each.curve.line else each.curve.reach
        blocks.setdefault((each.data, each.curve.kind, alone), []).append(each)
    parts = [_block(found, room) if found[0].curve.line else _dots(found, room) for found in blocks.values()]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(title, _NOTE),
        description=f"{title}: robust accuracy over the radius, {len(models)} models",
    )


def _block(curves: list[ModelCurve], room: float) -> Figure:
    models = list(dict.fromkeys(each.model for each in curves))
    reach = max(each.curve.reach for each in curves)
    norm, aim = curves[0].curve.norm, _aim(curves)
    rows: list[dict[str, Any]] = []
    for each in curves:
        for point in each.curve.points(_STEPS):
            asked = {"eps": point.eps, "asked": point.eps in each.curve.asked}
            rows.append({**_numbers(each, point.robust), "dash": each.twin, **asked})
    channels = twin_channels(each.twin for each in curves)
    columns, width = panels(room, len(models))
    unit = ", pixels from 0 to 1" if columns == 1 else ""
    x = alt.X("eps:Q", title=f"Radius ε ({NORMS[norm]}{aim}{unit})").scale(domain=[0, 1.04 * reach])
    x = x.axis(tickCount=5 if columns == 1 else 3)
    y = alt.Y("robust:Q", title=_ROBUST).scale(domain=[0, 100])
    base = alt.Chart(values(rows)).encode(x=x, color=channels["color"])
    band = base.mark_area(opacity=0.18, interpolate="step-after").encode(y=alt.Y("low:Q", title=_ROBUST), y2="high:Q")
    line = base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(y=y, strokeDash=channels["strokeDash"])
    mark = base.transform_filter("datum.asked").mark_point(filled=True, size=28, opacity=1)
    mark = mark.encode(y=y, shape=channels["shape"])
    facet = alt.Facet("model:N", sort=[one_line(model) for model in models], title=None)
    layers = alt.layer(band, line, mark).properties(width=width, height=0.68 * width)
    return layers.facet(facet, columns=columns).properties(title=headed(curves[0].data))


def _dots(curves: list[ModelCurve], room: float) -> Figure:
    """One radius: a row a model, the most robust first, its twins as points with their intervals."""
    rows = [_numbers(each, each.curve.at(each.curve.reach)) for each in curves]
    channels = twin_channels(each.twin for each in curves)
    names = list(dict.fromkeys(str(row["model"]) for row in sorted(rows, key=lambda row: -row["robust"])))
    y = alt.Y("model:N", sort=names, title=None).axis(labelLimit=_NAME, ticks=False, grid=True)
    base = alt.Chart(values(rows)).encode(y=y, color=channels["color"])
    # The intervals of twins lie beside each other.
    aside = alt.YOffset("twin:N", sort=list(TWINS))
    low = alt.X("low:Q", title=_ROBUST).scale(domain=[0, 100])
    whisker = base.mark_rule(opacity=0.55, strokeWidth=1.4).encode(x=low, x2="high:Q", yOffset=aside)
    mark = base.mark_point(filled=True, size=28, opacity=1)
    mark = mark.encode(x=alt.X("robust:Q", title=_ROBUST), shape=channels["shape"], yOffset=aside)
    norm, reach = curves[0].curve.norm, curves[0].curve.reach
    width = room - min(_NAME, 6 * max(map(len, names))) - 40
    head = headed(f"At {NORMS[norm]} ≤ {reach:g}{_aim(curves)}, {curves[0].data}")
    step = alt.Step(17, **{"for": "position"})
    return alt.layer(whisker, mark).properties(width=width, height=step, title=head)


def _aim(curves: list[ModelCurve]) -> str:
    return curves[0].curve.kind.removeprefix(curves[0].curve.norm)


def _numbers(curve: ModelCurve, share: Proportion) -> dict[str, Any]:
    interval = share.interval()
    return {
        "model": one_line(curve.model), "twin": curve.twin, "robust": 100 * share.value,
        "low": 100 * interval.low, "high": 100 * interval.high,
    }  # fmt: skip
