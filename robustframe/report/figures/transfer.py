"""Transfer: how many examples of a target are broken by what was found with the gradients of a source."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import ROOM, TWIN_COLOURS, Figure, headed, titled, values
from robustframe.report.layout import one_line

_LABEL, _LETTER, _NARROWEST, _WIDEST, _MARGIN = 260, 6, 34.0, 90.0, 60
"""Pixels of a name at most, of a letter, of a column, and around all."""


@dataclass(frozen=True)
class TransferShare:
    """One cell of a transfer matrix."""

    panel: str
    """The threat, and the attack where there are several."""
    source: str
    target: str
    share: float | None
    """Fraction of the images shown that break the target; `None` where none was."""


def transfer_figure(
    shares: Sequence[TransferShare], *, title: str = "Transfer", room: float = ROOM
) -> alt.VConcatChart:
    """Draw transfer matrices: a row a source, a column a target, a matrix a threat.

    Args:
        shares: at least one; see `robustframe.verification.matrix.transfer_matrix`.
        title: what stands above.
        room: width to lay it out in, in pixels.

    Raises:
        InputError: without shares.
    """
    if not shares:
        raise InputError("there is no transfer to draw")
    panels = dict.fromkeys(each.panel for each in shares)
    parts = [_matrix([each for each in shares if each.panel == panel], panel, room) for panel in panels]
    note = "Examples broken in %, of those that the target gets right when clean; rows are sources, columns targets."
    chart: alt.VConcatChart = alt.vconcat(*parts, spacing=24).properties(title=titled(title, note), description=title)
    return chart


def _matrix(shares: Sequence[TransferShare], panel: str, room: float) -> Figure:
    rows = [
        {
            "source": one_line(each.source),
            "target": one_line(each.target),
            "share": 100 * (each.share or 0),
            "text": "–" if each.share is None else f"{100 * each.share:.1f}",
        }
        for each in shares
    ]
    sources, targets = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("source", "target"))
    label = min(_LABEL, max(_LETTER * len(name) for name in sources))
    step = max(_NARROWEST, min(_WIDEST, (room - label - _MARGIN) / len(targets)))
    base = alt.Chart(values(rows)).encode(
        x=alt.X("target:N", sort=targets, title="Target").axis(
            orient="top", labelAngle=-35, labelLimit=180, domain=False, ticks=False
        ),
        y=alt.Y("source:N", sort=sources, title="Source").axis(domain=False, ticks=False, labelLimit=_LABEL),
    )
    cells = base.mark_rect(color=TWIN_COLOURS[0]).encode(
        opacity=alt.Opacity("share:Q", legend=None).scale(domain=[0, 100], range=[0.03, 0.75])
    )
    chart = alt.layer(cells, base.mark_text(fontSize=10).encode(text="text:N"))
    return chart.properties(width=alt.Step(step), height=alt.Step(22), title=headed(panel))
