"""Security curves: robust accuracy over the radius, with its interval, a panel a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import TWINS, Figure, headed, titled, twin_channels, values
from robustframe.report.layout import one_line
from robustframe.runs.curve import Curve

NORMS: Mapping[str, str] = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "L∞"}
_STEPS = 120
"""Radii drawn of a curve at most; it falls at each broken example, thousands of times."""
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


def curve_figure(curves: Sequence[ModelCurve], *, title: str = "Security curves") -> Figure:
    """Draw security curves: both twins of a model in one panel, a block of panels a norm.

    Args:
        curves: at least one; see `robustframe.runs.curve.security_curves`.
        title: what stands above.

    Returns:
        The chart; robust accuracy in percent over the radius in input units.

    Raises:
        InputError: without curves.
    """
    if not curves:
        raise InputError("there are no curves to draw")
    models = list(dict.fromkeys(each.model for each in curves))
    blocks: dict[tuple[str, str], list[ModelCurve]] = {}
    for each in curves:
        blocks.setdefault((each.data, each.curve.norm), []).append(each)
    parts = [_block(found, len(models) > 1) for found in blocks.values()]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(title, _NOTE),
        description=f"{title}: robust accuracy over the radius, {len(models)} models",
    )


def _block(curves: list[ModelCurve], many: bool) -> Figure:
    models = list(dict.fromkeys(each.model for each in curves))
    reach = max(each.curve.reach for each in curves)
    norm = curves[0].curve.norm
    rows: list[dict[str, Any]] = []
    for each in curves:
        for point in each.curve.points(_STEPS):
            interval = point.robust.interval()
            rows.append(
                {
                    "model": one_line(each.model),
                    "twin": each.twin,
                    "dash": each.twin,
                    "eps": point.eps,
                    "robust": 100 * point.robust.value,
                    "low": 100 * interval.low,
                    "high": 100 * interval.high,
                    "asked": point.eps in each.curve.asked,
                }
            )
    shown = [twin for twin in TWINS if any(row["twin"] == twin for row in rows)]
    channels = twin_channels(shown)
    x = alt.X("eps:Q", title=f"Radius ε ({NORMS[norm]}, pixels from 0 to 1)").scale(domain=[0, reach]).axis(tickCount=5)
    y = alt.Y("robust:Q", title="Robust accuracy (%)").scale(domain=[0, 100])
    base = alt.Chart(values(rows)).encode(x=x, color=channels["color"])
    band = base.mark_area(opacity=0.18, interpolate="step-after").encode(
        y=alt.Y("low:Q", title="Robust accuracy (%)"), y2="high:Q"
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(y=y, strokeDash=channels["strokeDash"])
    mark = base.transform_filter("datum.asked").mark_point(filled=True, size=28, opacity=1)
    mark = mark.encode(y=y, shape=channels["shape"])
    size = (360, 240) if not many else (200, 140)
    facet = alt.Facet("model:N", sort=[one_line(model) for model in models], title=None)
    layers = alt.layer(band, line, mark).properties(width=size[0], height=size[1])
    return layers.facet(facet, columns=4 if many else 1).properties(title=headed(curves[0].data))
