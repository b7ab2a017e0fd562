"""Least deep frame potential against parameters: architectures without data."""

from collections.abc import Sequence

import altair as alt

from robustframe.report.figures.style import Figure, titled, values
from robustframe.report.rank import RankedArchitecture

_WIDTH, _HEIGHT = 560, 360


def rank_figure(
    ranks: Sequence[RankedArchitecture], *, title: str = "Least deep frame potential of architectures"
) -> Figure:
    """Draw the least potential of each architecture over its parameters.

    Args:
        ranks: the architectures.
        title: what stands above.

    Returns:
        The chart: one mark an architecture, with its name.
    """
    rows = [
        {"name": each.name, "structure": each.structure, "parameters": each.parameters, "least": each.least}
        for each in ranks
    ]
    base = alt.Chart(values(rows)).encode(
        x=alt.X("parameters:Q", title="parameters", axis=alt.Axis(format="~s", tickCount=4)).scale(
            type="log", nice=True, padding=30
        ),
        y=alt.Y("least:Q", title="least deep frame potential F").scale(zero=False, padding=20),
    )
    marks = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.Color("structure:N", title=None), shape=alt.Shape("structure:N", title=None)
    )
    names = base.mark_text(align="left", dx=8, dy=-6, fontSize=10).encode(text="name:N")
    note = "Over all weights with unit atoms; the lower, the better the paper expects it to generalise."
    return alt.layer(marks, names).properties(width=_WIDTH, height=_HEIGHT, title=titled(title, note))
