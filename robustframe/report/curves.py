"""The security curves of a run as text: robust accuracy over eps, median distance, and what contradicts them."""

from typing import Any

from robustframe.runs.curve import Curve

_STEPS = 8
"""Radii shown of a curve whose run asked for one only."""


def radii(curve: Curve) -> list[float]:
    """Return the radii that a curve is shown at: those that were asked, or some up to the only one."""
    if len(curve.asked) > 1:
        return list(curve.asked)
    return [curve.reach * part / _STEPS for part in range(1, _STEPS + 1)]


def curves_text(curves: list[Curve]) -> str:
    """Write curves as Markdown, one table a norm; radii of one norm are those of its first curve.

    Args:
        curves: at least one; see `security_curves`.

    Returns:
        The text, with a line end after its last line.
    """
    lines: list[str] = []
    for norm in dict.fromkeys(curve.norm for curve in curves):
        same = [curve for curve in curves if curve.norm == norm]
        shown = radii(same[0])
        lines += ["| " + " | ".join([f"{norm}, robust (%)", *(f"{eps:.3g}" for eps in shown), "median", "area"]) + " |"]
        lines += ["|:--|" + "--:|" * (len(shown) + 2)]
        for curve in same:
            cells = [f"{100 * curve.at(eps).value:.1f}" for eps in shown]
            median = curve.median_distance()
            cells += ["—" if median is None else f"{median:.3g}", f"{curve.area():.3f}"]
            lines += ["| " + " | ".join([curve.classifier, *cells]) + " |"]
        lines += [""]
    lines += [
        "Robust accuracy at each radius, an upper bound; the median distance of an adversarial example over all "
        "images; the mean robust accuracy up to the largest radius.",
    ]
    lines += [f"WEAK ATTACK {violation}" for curve in curves for violation in curve.violations]
    return "\n".join(lines) + "\n"


def curves_json(curves: list[Curve]) -> list[dict[str, Any]]:
    """Return curves for machines: every point with its Wilson interval, and the violations."""
    return [
        {
            "classifier": curve.classifier,
            "norm": curve.norm,
            "median_distance": curve.median_distance(),
            "area": curve.area(),
            "points": [
                {
                    "eps": point.eps,
                    "robust_accuracy": point.robust.value,
                    "low": point.robust.interval().low,
                    "high": point.robust.interval().high,
                }
                for point in curve.points()
            ],
            "violations": [str(violation) for violation in curve.violations],
        }
        for curve in curves
    ]
