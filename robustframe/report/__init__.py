"""What is shown of runs: tables in every format, figures, the board. Everything is imported on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustframe.report.arrange import TableStyle as TableStyle
    from robustframe.report.robustness import robustness_table as robustness_table
    from robustframe.report.robustness import robustness_tables as robustness_tables
    from robustframe.report.tables import render as render

_HOMES = {
    "TableStyle": "arrange",
    "render": "tables",
    "robustness_table": "robustness",
    "robustness_tables": "robustness",
}

__all__ = ["TableStyle", "render", "robustness_table", "robustness_tables"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
