"""Accuracy over the number of solver sweeps: from the feed-forward network at one to the recurrent one at many."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import ROOM, Figure, legend_of_marks, panels, titled, values
from robustframe.report.layout import one_line
from robustframe.statistics import Proportion

# Of an accuracy, not of a twin: a line here runs from one twin to the other.
_COLOURS = ("#7f8790", "#cc79a7", "#b58900", "#8f63c9", "#2a9d8f")
_NOTE = "One sweep is the feed-forward twin. Bands: 95 % intervals (Wilson)."
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross")


@dataclass(frozen=True)
class SweepPoint:
    """The accuracy of a pair at one number of sweeps."""

    model: str
    measure: str
    """What is right: ``"clean"``, or a threat such as ``"linf:0.1"``."""
    sweeps: int
    correct: int
    examples: int


def sweeps_figure(points: Sequence[SweepPoint], *, title: str = "Accuracy over sweeps", room: float = ROOM) -> Figure:
    """Draw accuracies over sweeps with Wilson's intervals, a panel a model, a line a measure.

    Args:
        points: at least one; one sweep is the feed-forward twin.
        title: what stands above.
        room: width to lay it out in, in pixels.

    Returns:
        The chart; sweeps on a logarithmic axis, accuracy in percent.

    Raises:
        InputError: without points, or for fewer sweeps than one.
    """
    if not points:
        raise InputError("there are no accuracies over sweeps to draw")
    if min(point.sweeps for point in points) < 1:
        raise InputError("sweeps are counted from 1")
    rows = []
    for point in sorted(points, key=lambda point: point.sweeps):
        share = Proportion(point.correct, point.examples)
        interval = share.interval()
        rows.append(
            {
                "model": one_line(point.model),
                "measure": one_line(point.measure),
                "sweeps": point.sweeps,
                "accuracy": 100 * share.value,
                "low": 100 * interval.low,
                "high": 100 * interval.high,
            }
        )
    models = list(dict.fromkeys(one_line(point.model) for point in points))
    measures = list(dict.fromkeys(one_line(point.measure) for point in points))
    ticks = sorted({point.sweeps for point in points})
    columns, width = panels(room, len(models))
    x = alt.X("sweeps:Q", title="Sweeps of the solver (1 = feed-forward)" if columns == 1 else "Sweeps")
    x = x.scale(type="log", base=2, nice=False).axis(values=ticks, format="d")
    y = alt.Y("accuracy:Q", title="Accuracy (%)").scale(zero=False)
    legend = legend_of_marks()
    colour = alt.Color("measure:N", scale=alt.Scale(domain=measures, range=list(_COLOURS)), legend=legend)
    shape = alt.Shape("measure:N", scale=alt.Scale(domain=measures, range=list(_SHAPES)), legend=legend)
    base = alt.Chart(values(rows)).encode(x=x, color=colour)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="Accuracy (%)"), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8).encode(y=y)
    marks = base.mark_point(filled=True, size=36, opacity=1).encode(y=y, shape=shape)
    return (
        alt.layer(band, line, marks)
        .properties(width=width, height=0.68 * width)
        .facet(alt.Facet("model:N", sort=models, title=None), columns=columns)
        .properties(
            title=titled(title, _NOTE),
            description=f"{title}, {len(models)} models",
        )
    )
