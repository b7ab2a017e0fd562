"""The pictures of the evaluations of the papers, drawn from published records and cards."""

from collections.abc import Callable
from pathlib import Path

from published import Published, card_of, least_potential, test_error

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
from robustframe.runs import open_run

_TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent"}


def draw_pictures(evaluations: Path) -> None:
    """Draw ``picture.svg`` beside the results of every evaluation that has one.

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
            _TWINS[twin],
            least_potential(name),
            100 * test_error(evaluation, name, twin),
            group=card_of(name).structure,
        )
        for name in evaluation.models(lambda card: card.least_potential is not None)
        for twin in _TWINS
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


PICTURES: dict[str, Callable[[Path], Figure]] = {
    "generalisation": _generalisation,
    "generalisation-digits": _generalisation,
    "unaware": _curves,
    "aware": _curves,
    "coherence": _coherence,
    "sweeps": _sweeps,
}
"""What is drawn of each evaluation."""
