"""A plain table of texts, in Markdown and for a terminal."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from robustframe.errors import unknown
from robustframe.report.layout import one_line
from robustframe.report.tables import markdown_escaped, text_width

FORMATS = ("terminal", "md")
_WIDTH = 100


@dataclass(frozen=True)
class Grid:
    """Rows of texts below a head; the first column stands left, the others right."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def render_grid(grid: Grid, format: str) -> str:
    """Write a grid as ``"md"`` or ``"terminal"``, with a line end after its last line.

    Raises:
        InputError: for an unknown format.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return _markdown(grid) if format == "md" else _terminal(grid)


def paragraph(text: str, format: str) -> str:
    """Write a paragraph for a format, with a line end."""
    lines = [markdown_escaped(text)] if format == "md" else textwrap.wrap(one_line(text), _WIDTH)
    return "\n".join(lines) + "\n"


def _markdown(grid: Grid) -> str:
    rule = [":--", *["--:"] * (len(grid.head) - 1)]
    lines = [f"**{markdown_escaped(grid.title)}**", ""]
    for cells in (grid.head, rule, *grid.rows):
        texts = cells if cells is rule else [markdown_escaped(cell) for cell in cells]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join([*lines, *(["", markdown_escaped(grid.caption)] if grid.caption else [])]) + "\n"


def _terminal(grid: Grid) -> str:
    table = [[one_line(cell) for cell in row] for row in (grid.head, *grid.rows)]
    widths = [max(text_width(row[at]) for row in table) for at in range(len(grid.head))]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in table]
    below = textwrap.wrap(one_line(grid.caption), _WIDTH)
    return "\n".join([one_line(grid.title), rule, lines[0], rule, *lines[1:], rule, *below]) + "\n"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0] + " " * (widths[0] - text_width(row[0]))
    rest = (" " * (width - text_width(cell)) + cell for cell, width in zip(row[1:], widths[1:]))
    return "  ".join([first, *rest]).rstrip()
