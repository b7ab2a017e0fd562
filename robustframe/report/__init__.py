"""What is shown of runs: tables in every format, figures, the board."""

from robustframe.report.robustness import robustness_table, robustness_tables
from robustframe.report.tables import render

__all__ = ["render", "robustness_table", "robustness_tables"]
