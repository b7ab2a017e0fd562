"""Attacks at work: robust accuracy over the passes spent on each example, a panel for what can be compared."""

from collections.abc import Sequence

import altair as alt

from robustframe.errors import InputError
from robustframe.report.figures.outcomes import attack_name
from robustframe.report.figures.style import ROOM, headed, panels, titled, values
from robustframe.report.layout import one_line
from robustframe.runs.ranking import Descent

_COLOURS = ("#0b6bb0", "#b84a00", "#00785a", "#9a5bb5", "#8c959f", "#a8870c", "#c2448c", "#4fa3c7")
"""Of attacks, in the order in which they come."""
_DASHES = ([1, 0], [5, 2], [2, 2], [8, 2, 2, 2])
_NOTE = "Each forward and backward is a pass, the clean one is the first; an attack meets what those before it left."


def descent_figure(
    descents: Sequence[Descent], *, title: str = "Attacks at work", room: float = ROOM
) -> alt.VConcatChart:
    """Draw robust accuracy over passes: a line a battery, its colour the attack that broke what falls.

    Args:
        descents: at least one; see `robustframe.Run.rank_attacks`. Those over the same classifiers, examples and threat
            share a panel.
        title: what stands above.
        room: width to lay it out in, in pixels.

    Returns:
        The chart; robust accuracy in percent over passes for each example, on a logarithmic axis.

    Raises:
        InputError: without descents.
    """
    if not descents:
        raise InputError("there is nothing to draw: which attack broke what at which pass is not in these runs")
    groups: dict[tuple[str, str, tuple[str, ...]], list[Descent]] = {}
    for each in descents:
        groups.setdefault((each.threat, each.data, each.classifiers), []).append(each)
    parts = [_panel(same, room) for same in groups.values()]
    columns, _ = panels(room, min(len(parts), 2))
    rows = [alt.hconcat(*parts[at : at + columns], spacing=40) for at in range(0, len(parts), columns)]
    chart: alt.VConcatChart = (
        alt.vconcat(*rows, spacing=24)
        .resolve_scale(color="independent", strokeDash="independent")
        .properties(title=titled(title, _NOTE), description=f"{title}: robust accuracy over passes")
    )
    return chart


def _panel(descents: Sequence[Descent], room: float) -> alt.Chart:
    rows = []
    for each in descents:
        path = one_line(each.path)
        for at, (passes, robust, attack) in enumerate(each.points):
            name = attack_name(attack or path)
            # Where the next attack sets in, its line begins at the end of the one before.
            if at and each.points[at - 1][2] != attack:
                before = each.points[at - 1]
                rows.append({"passes": before[0], "robust": 100 * before[1], "attack": name, "path": path, "at": at})
            rows.append({"passes": passes, "robust": 100 * robust, "attack": name, "path": path, "at": at + 0.5})
    names, paths = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("attack", "path"))
    _, width = panels(room, 2)
    legend = alt.Legend(title=None, symbolOpacity=1, columns=3)
    colours = [_COLOURS[at % len(_COLOURS)] for at in range(len(names))]
    # A path of one attack is told by its colour.
    several = len(paths) > 1 and len(paths) != len(names)
    dashes = [_DASHES[at % len(_DASHES) if several else 0] for at in range(len(paths))]
    chart: alt.Chart = (
        alt.Chart(values(rows))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("passes:Q", title="Passes for each example").scale(type="log", nice=False),
            y=alt.Y("robust:Q", title="Robust accuracy (%)").scale(domain=[0, 100]),
            color=alt.Color("attack:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            strokeDash=alt.StrokeDash(
                "path:N", scale=alt.Scale(domain=paths, range=dashes), legend=legend if several else None
            ),
            order="at:Q",
        )
        .properties(width=width, height=0.62 * width, title=headed(*_heads(descents[0])))
    )
    return chart


def _heads(descent: Descent) -> tuple[str, ...]:
    late = "Attacks go on after a success to come nearer: a break counts at their last pass." if descent.closest else ""
    shown = ", ".join(descent.classifiers[:2])
    rest = len(descent.classifiers) - 2
    return f"Under {descent.threat}, {descent.data}", shown + (f" and {rest} more" if rest > 0 else ""), late
