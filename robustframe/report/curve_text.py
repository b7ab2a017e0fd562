"""The security curves of a run: robust accuracy over eps, median distance, and what contradicts them."""

from dataclasses import asdict
from typing import Any

from robustframe.report.layout import PLAIN, Grid, grid
from robustframe.report.tables import document
from robustframe.runs.curve import Curve

_STEPS = 8
"""Radii shown of a curve whose run asked for one only."""
_CAPTION = (
    "Robust accuracy in % at each radius, an upper bound; the median distance of an adversarial example over all "
    "images; the mean robust accuracy up to the largest radius."
)


def curves_text(curves: list[Curve], format: str = "terminal") -> str:
    """Write curves out, one table per kind of threat; its radii are those of its first curve.

    Args:
        curves: at least one; see `security_curves`.
        format: ``"terminal"`` or ``"md"``.

    Returns:
        The text, with a line end after its last line.

    Raises:
        InputError: for an unknown format.
    """
    kinds = dict.fromkeys(curve.kind for curve in curves)
    tables = [_table([curve for curve in curves if curve.kind == kind]) for kind in kinds]
    weak = [f"WEAK ATTACK {violation}" for curve in curves for violation in curve.violations]
    return document([*tables, _CAPTION, *weak], format)


def _table(curves: list[Curve]) -> Grid:
    first = curves[0]
    # A run that asked for one radius is shown at some up to it.
    radii = first.asked if len(first.asked) > 1 else [first.reach * part / _STEPS for part in range(1, _STEPS + 1)]
    rows = []
    for curve in curves:
        median = curve.median_distance()
        shares = [f"{100 * curve.at(eps).value:.1f}" for eps in radii]
        rows.append([curve.classifier, *shares, PLAIN if median is None else f"{median:.3g}", f"{curve.area():.3f}"])
    return grid(
        f"Security curves, {first.kind}", ["Classifier", *(f"{eps:.3g}" for eps in radii), "Median", "Area"], rows
    )


def curves_json(curves: list[Curve]) -> list[dict[str, Any]]:
    """Return curves for machines: every point with its Wilson interval, and the violations."""
    return [
        {
            "classifier": curve.classifier,
            "norm": curve.norm,
            "kind": curve.kind,
            "median_distance": curve.median_distance(),
            "area": curve.area(),
            "points": [
                {"eps": point.eps, "robust_accuracy": point.robust.value, **asdict(point.robust.interval())}
                for point in curve.points()
            ],
            "violations": [str(violation) for violation in curve.violations],
        }
        for curve in curves
    ]
