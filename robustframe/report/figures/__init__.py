"""Figures of runs and frames as Altair charts: built from plain data, written as SVG, PDF and PNG without a browser."""

from robustframe.report.figures.style import MISSING, ROOM, Figure, Paper, caption, check_path, svg, write  # isort: skip

from robustframe.report.figures.architectures import rank_figure
from robustframe.report.figures.association import ModelPoint, association_figure
from robustframe.report.figures.curves import ModelCurve, curve_figure
from robustframe.report.figures.descents import descent_figure
from robustframe.report.figures.examples import Example, example_figure
from robustframe.report.figures.filters import filters_figure
from robustframe.report.figures.gather import (
    gather_curves,
    gather_examples,
    gather_outcomes,
    gather_points,
    gather_sweeps,
    most_robust,
)
from robustframe.report.figures.gram import gram_figure
from robustframe.report.figures.outcomes import ModelOutcome, outcome_figure
from robustframe.report.figures.sweeps import SweepPoint, sweeps_figure
from robustframe.report.figures.transfer import TransferShare, transfer_figure
from robustframe.report.look import THEMES, Theme

__all__ = [
    "MISSING",
    "ROOM",
    "THEMES",
    "Example",
    "Figure",
    "ModelCurve",
    "ModelOutcome",
    "ModelPoint",
    "Paper",
    "SweepPoint",
    "Theme",
    "TransferShare",
    "association_figure",
    "caption",
    "check_path",
    "curve_figure",
    "descent_figure",
    "example_figure",
    "filters_figure",
    "gather_curves",
    "gather_examples",
    "gather_outcomes",
    "gather_points",
    "gather_sweeps",
    "gram_figure",
    "most_robust",
    "outcome_figure",
    "rank_figure",
    "svg",
    "sweeps_figure",
    "transfer_figure",
    "write",
]
