"""Figures of runs and frames as Altair charts: built from plain data, written as SVG, PDF and PNG without a browser."""

from robustframe.report.figures.style import MISSING, THEMES, Figure, Theme, svg, write  # isort: skip

from robustframe.report.figures.association import Point, association_figure
from robustframe.report.figures.curves import ModelCurve, curve_figure
from robustframe.report.figures.examples import Example, example_figure
from robustframe.report.figures.gather import Loaded, gather_curves, gather_outcomes, gather_points, load_run
from robustframe.report.figures.outcomes import Outcome, outcome_figure
from robustframe.report.figures.sweeps import SweepPoint, sweeps_figure

__all__ = [
    "MISSING",
    "THEMES",
    "Example",
    "Figure",
    "Loaded",
    "ModelCurve",
    "Outcome",
    "Point",
    "SweepPoint",
    "Theme",
    "association_figure",
    "curve_figure",
    "example_figure",
    "gather_curves",
    "gather_outcomes",
    "gather_points",
    "load_run",
    "outcome_figure",
    "svg",
    "sweeps_figure",
    "write",
]
