"""Figures of runs and frames as Altair charts: built from plain data, written as SVG, PDF and PNG without a browser."""

from robustframe.report.figures.style import MISSING, THEMES, Figure, Theme, check_path, svg, write  # isort: skip

from robustframe.report.figures.association import Point, association_figure
from robustframe.report.figures.curves import ModelCurve, curve_figure
from robustframe.report.figures.examples import Example, example_figure
from robustframe.report.figures.gather import (
    Loaded,
    gather_curves,
    gather_examples,
    gather_outcomes,
    gather_points,
    gather_sweeps,
    load_run,
    load_runs,
)
from robustframe.report.figures.gram import gram_figure
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
    "check_path",
    "curve_figure",
    "example_figure",
    "gather_curves",
    "gather_examples",
    "gather_outcomes",
    "gather_points",
    "gather_sweeps",
    "gram_figure",
    "load_run",
    "load_runs",
    "outcome_figure",
    "svg",
    "sweeps_figure",
    "write",
]
