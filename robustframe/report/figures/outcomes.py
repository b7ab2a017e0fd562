"""Which attack broke what: how the examples of each classifier ended."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import Figure, titled, values
from robustframe.report.layout import one_line


@dataclass(frozen=True)
class Outcome:
    """How many examples of a classifier ended in one way."""

    model: str
    twin: str
    """``"feed-forward"``, ``"recurrent"`` or ``"single"``."""
    threat: str
    outcome: str
    """``"wrong without attack"``, ``"robust"``, or the attack that broke them."""
    count: int | None
    """`None` for an attack that this classifier did not meet."""
    examples: int
    """Of the classifier, however they ended."""


def outcome_figure(outcomes: Sequence[Outcome], *, title: str = "What broke the examples") -> Figure:
    """Draw how the examples of each classifier ended, a row a classifier, a column an attack, a table a threat.

    Args:
        outcomes: at least one; columns keep the order in which they first appear.
        title: what stands above.

    Returns:
        The chart; every row adds up to 100 percent of the classifier's examples.

    Raises:
        InputError: without outcomes.
    """
    if not outcomes:
        raise InputError("there are no outcomes to draw")
    threats = list(dict.fromkeys(outcome.threat for outcome in outcomes))
    parts = [_threat([outcome for outcome in outcomes if outcome.threat == threat], threat) for threat in threats]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(title, "Examples in %, by the first attack that broke them; a row adds up to 100."),
        description=title,
    )


def _threat(outcomes: list[Outcome], threat: str) -> Figure:
    rows = []
    for outcome in outcomes:
        share = None if outcome.count is None else 100 * outcome.count / outcome.examples
        twin = "" if outcome.twin == "single" else f", {outcome.twin}"
        rows.append(
            {
                "classifier": f"{one_line(outcome.model)}{twin}",
                "outcome": one_line(outcome.outcome),
                "share": share,
                "text": "–" if share is None else f"{share:.1f}",
            }
        )
    names = list(dict.fromkeys(str(row["classifier"]) for row in rows))
    columns = list(dict.fromkeys(str(row["outcome"]) for row in rows))
    base = alt.Chart(values(rows)).encode(
        x=alt.X("outcome:N", sort=columns, title=None).axis(orient="top", labelAngle=-40),
        y=alt.Y("classifier:N", sort=names, title=None),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", title="Examples (%)").scale(scheme="blues", domain=[0, 100])
    )
    texts = base.mark_text(fontSize=10).encode(
        text="text:N", color=alt.condition("datum.share > 50", alt.value("white"), alt.value("#1b1f24"))
    )
    return alt.layer(cells, texts).properties(width=alt.Step(58), height=alt.Step(18), title=titled(threat))
