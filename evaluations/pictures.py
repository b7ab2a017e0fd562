"""The pictures of the evaluations of the papers, drawn from published records and cards."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from findings import TWINS
from published import Published, card_of, least_potential, test_error
from studied import by_architecture, read_study

from robustframe.report.figures import (
    Figure,
    ModelPoint,
    association_figure,
    curve_figure,
    gather_curves,
    gather_points,
    gather_sweeps,
    sweeps_figure,
    write,
)
from robustframe.report.figures.style import legend_of_marks, titled, twin_channels, values
from robustframe.runs import open_run


def draw_pictures(evaluations: Path) -> None:
    """Draw ``picture.svg`` beside the results of every evaluation and study that has one.

    Args:
        evaluations: the folder with a folder per evaluation, each with its ``results``.

    Raises:
        InputError: for a record that is missing or incomplete, or without the report extra.
    """
    for name, draw in PICTURES.items():
        path = evaluations / name / "results" / "picture.svg"
        write(draw(path.parent), path)


def _generalisation(folder: Path) -> Figure:
    evaluation = Published.read(folder)
    points = [
        ModelPoint(
            name,
            TWINS[twin],
            least_potential(name),
            100 * test_error(evaluation, name, twin),
            group=card_of(name).structure,
        )
        for name in evaluation.models(lambda card: card.least_potential is not None)
        for twin in TWINS
    ]
    return association_figure(
        points,
        x="Least deep frame potential F of the architecture",
        y="Test error (%)",
        title="Least potential and test error",
    )


def _curves(folder: Path) -> Figure:
    return curve_figure(gather_curves([open_run(folder)]))


def _coherence(folder: Path) -> Figure:
    return association_figure(gather_points([open_run(folder)]))


def _sweeps(folder: Path) -> Figure:
    return sweeps_figure(gather_sweeps([open_run(folder)]))


def _regularised(folder: Path) -> Figure:
    nets = read_study(folder.parent)
    ways = list(dict.fromkeys(each.way for each in nets))
    rows = [
        {"way": f"trained {way}", "depth": len(own[0].pair.layers), "parameters": own[0].net.parameters,
         "least": own[0].net.least_potential, "error": 100 * float(np.mean([each.error() for each in own]))}
        for way in ways
        for own in by_architecture([each for each in nets if each.way == way]).values()
    ]  # fmt: skip
    legend = legend_of_marks().copy()
    legend.title = "layers"
    marks = alt.Chart(values(rows)).mark_point(filled=True, size=70, opacity=1)
    return (
        alt.layer(marks)
        .encode(
            x=alt.X("least:Q", title="Least potential F").axis(tickCount=4),
            y=alt.Y("error:Q", title="Test error (%), mean of three seeds")
            .scale(type="log", domain=[1.5, 100])
            .axis(values=_PERCENTS),
            color=alt.Color("parameters:Q", title="parameters").scale(type="log", scheme="viridis"),
            shape=alt.Shape("depth:N", legend=legend),
        )
        .properties(width=230, height=260)
        .facet(alt.Facet("way:N", sort=[f"trained {way}" for way in ways], title=None), columns=len(ways))
        .properties(
            title=titled(
                "Least potential and test error", "Fully connected nets on the digits; each mark an architecture."
            ),
            description=f"Least potential and test error of {len(nets)} nets",
        )
    )


_PERCENTS = [2, 3, 5, 10, 20, 50, 90]


def _doses(folder: Path) -> Figure:
    nets = read_study(folder.parent)
    titles = {threat: f"Robust, {threat} (%)" for threat in nets[0].net.robust_accuracy}
    rows = [
        {"architecture": each.architecture, "dose": f"{each.dose:g}", "twin": word, "dash": word,
         "Clean (%)": 100 * each.net.test_accuracy[twin],
         **{title: 100 * each.net.robust_accuracy[threat][twin] for threat, title in titles.items()}}
        for each in nets
        for twin, word in TWINS.items()
    ]  # fmt: skip
    # Both twins share their frame.
    frames = [
        {"architecture": each.architecture, "dose": f"{each.dose:g}",
         "Mutual coherence": each.net.mutual_coherence, "Potential F": each.net.potential}
        for each in nets
    ]  # fmt: skip
    parts = [_dose_row(frames, "Mutual coherence"), _dose_row(frames, "Potential F"), _dose_row(rows, "Clean (%)")]
    parts += [_dose_row(rows, title) for title in titles.values()]
    return alt.vconcat(*parts, spacing=10).properties(
        title=titled(
            "What a coherence penalty does", "Over its weight; lines: mean of three seeds; marks: single nets."
        ),
        description=f"What a coherence penalty does: {len(nets)} nets",
    )


def _dose_row(rows: Sequence[Mapping[str, Any]], field: str) -> Figure:
    """Draw one quantity against the dose, a panel an architecture."""
    architectures = list(dict.fromkeys(row["architecture"] for row in rows))
    looks = twin_channels(TWINS.values()) if "twin" in rows[0] else {}
    data = values([{**row, "y": row[field]} for row in rows])
    base = alt.Chart(data).encode(x=alt.X("dose:O", title=None).axis(labelAngle=0))
    line = base.mark_line(strokeWidth=1.6).encode(
        y=alt.Y("mean(y):Q", title=field).scale(zero=False), **{k: v for k, v in looks.items() if k != "shape"}
    )
    marks = base.mark_point(filled=True, size=26, opacity=0.6).encode(
        y="y:Q", **{k: v for k, v in looks.items() if k != "strokeDash"}
    )
    row: Figure = (
        alt.layer(line, marks)
        .properties(width=190, height=100)
        .facet(alt.Facet("architecture:N", sort=architectures, title=None), columns=len(architectures))
    )
    return row


PICTURES: dict[str, Callable[[Path], Figure]] = {
    "generalisation": _generalisation,
    "generalisation-digits": _generalisation,
    "unaware": _curves,
    "aware": _curves,
    "coherence": _coherence,
    "sweeps": _sweeps,
    "regularised": _regularised,
    "doses": _doses,
}
"""What is drawn of each evaluation."""
