"""The templates, which escape whatever goes into them."""

from collections.abc import Callable, Mapping
from typing import Any

from robustframe.errors import InputError

NORM_SIGNS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
MISSING = "the site needs the extra `report`: pip install 'robustframe[report]'"

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise InputError(MISSING) from error

__all__ = ["MISSING", "NORM_SIGNS", "Environment", "Markup", "environment"]


def environment(filters: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> Environment:
    """Return the templates; everything that goes into them is escaped and free of control characters.

    Args:
        filters: by what the templates call them; a text they return is escaped unless it is `Markup`.
        names: what every template knows.
    """
    found = Environment(
        loader=PackageLoader("robustframe.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _visible(value) if type(value) is str else value,
    )
    found.filters.update(filters)
    found.globals.update(names)
    return found


def _visible(text: str) -> str:
    """Replace line breaks, control and invisible characters by spaces."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
