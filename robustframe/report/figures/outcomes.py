"""Which attack broke what: how the examples of each classifier ended."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.style import ROOM, TWIN_COLOURS, Figure, headed, titled, values
from robustframe.report.layout import one_line

WRONG, ROBUST = "wrong without attack", "robust"
_COLOURS = {WRONG: "#8c959f", "": TWIN_COLOURS[0], ROBUST: TWIN_COLOURS[1]}
"""The empty kind is that of attacks."""
_LABEL, _LETTER, _NARROWEST, _WIDEST, _MARGIN = 260, 6, 30.0, 56.0, 50
"""Pixels of the name of a classifier at most, of a letter, of a column, and around all."""
_PLACE = re.compile(r"^(?:.*/)?\d\d-(?:torchattacks:)?")


@dataclass(frozen=True)
class ModelOutcome:
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


def outcome_figure(
    outcomes: Sequence[ModelOutcome], *, title: str = "What broke the examples", room: float = ROOM
) -> Figure:
    """Draw how the examples of each classifier ended, a row a classifier, a column an attack, a table a threat.

    Args:
        outcomes: at least one; columns keep the order in which they first appear.
        title: what stands above.
        room: width to lay it out in, in pixels.

    Returns:
        The chart; every row adds up to 100 percent of the classifier's examples.

    Raises:
        InputError: without outcomes.
    """
    if not outcomes:
        raise InputError("there are no outcomes to draw")
    threats = list(dict.fromkeys(outcome.threat for outcome in outcomes))
    parts = [_threat([outcome for outcome in outcomes if outcome.threat == threat], threat, room) for threat in threats]
    return alt.vconcat(*parts, spacing=24).properties(
        title=titled(title, "Examples in %, by the attack that broke them; a row adds up to 100."),
        description=title,
    )


def _threat(outcomes: list[ModelOutcome], threat: str, room: float) -> Figure:
    columns = list(dict.fromkeys(outcome.outcome for outcome in outcomes))
    heads = _heads(columns)
    rows = []
    for outcome in outcomes:
        share = None if outcome.count is None else 100 * outcome.count / outcome.examples
        twin = "" if outcome.twin == "single" else f", {outcome.twin}"
        rows.append(
            {
                "classifier": f"{one_line(outcome.model)}{twin}",
                "outcome": heads[outcome.outcome],
                "kind": outcome.outcome if outcome.outcome in _COLOURS else "",
                "share": share or 0,
                "text": "not run" if share is None else "0" if share == 0 else f"{share:.1f}",
                "faint": not share,
            }
        )
    names = list(dict.fromkeys(str(row["classifier"]) for row in rows))
    label = min(_LABEL, max(_LETTER * len(name) for name in names))
    step = max(_NARROWEST, min(_WIDEST, (room - label - _MARGIN) / len(columns)))
    base = alt.Chart(values(rows)).encode(
        x=alt.X("outcome:N", sort=list(heads.values()), title=None).axis(
            orient="top", labelAngle=-35, labelLimit=180, domain=False, ticks=False
        ),
        y=alt.Y("classifier:N", sort=names, title=None).axis(domain=False, ticks=False, labelLimit=_LABEL),
    )
    # The ground shines through a small share, so that the same cells are right on paper and in the dark.
    cells = base.mark_rect().encode(
        color=alt.Color("kind:N", legend=None).scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        opacity=alt.Opacity("share:Q", legend=None).scale(domain=[0, 100], range=[0.03, 0.75]),
    )
    texts = base.mark_text(fontSize=10).encode(
        text="text:N", opacity=alt.condition("datum.faint", alt.value(0.5), alt.value(1))
    )
    return alt.layer(cells, texts).properties(width=alt.Step(step), height=alt.Step(19), title=headed(threat))


def attack_name(label: str) -> str:
    """Return the name of an attack without its battery and its place there: ``apgd-t`` of ``swift@1/03-apgd-t``."""
    return one_line(_PLACE.sub("", label))


def _heads(columns: Sequence[str]) -> dict[str, str]:
    """Name attacks without their battery and place in it, where that is enough to tell them apart."""
    short = {column: attack_name(column) for column in columns}
    return {
        column: name if list(short.values()).count(name) == 1 else one_line(column) for column, name in short.items()
    }
