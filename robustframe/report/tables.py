"""Tables in Markdown, LaTeX, CSV, HTML and as text for a terminal: one writer per format, for every table there is."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from robustframe.errors import unknown
from robustframe.report.arrange import TableStyle, arranged
from robustframe.report.latex import latex
from robustframe.report.layout import Grid, Measured, Table, grid, one_line
from robustframe.report.screen import terminal
from robustframe.report.texts import below, cell_text, headed
from robustframe.terminal import wrapped

PROSE = ("terminal", "md")
"""The formats in which paragraphs stand between tables."""
_FORMULA = re.compile(r"[\s]*[=+\-@]|[\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")


def render(table: Table | Grid, format: str, style: TableStyle | None = None) -> str:
    """Write a table in one format.

    Args:
        table: a robustness table, or any other.
        format: ``"md"``, ``"tex"`` (its first line names the packages it needs), ``"csv"`` (raw fractions, one
            column a number, empty where unknown, RFC 4180 with its line ends), ``"html"`` (a page of its own) or
            ``"terminal"``.
        style: of a robustness table: columns, grouping and order; every column with something in it, by model, when
            ``None``.

    Returns:
        The text, with a line end after its last line.

    Raises:
        InputError: for an unknown format.
    """
    if format not in FORMATS:
        raise unknown("table format", format, FORMATS)
    return FORMATS[format](arranged(table, style) if isinstance(table, Table) else table)


def document(parts: Iterable[Table | Grid | str], format: str) -> str:
    """Write tables and paragraphs below each other, in one of the formats of `PROSE`.

    Raises:
        InputError: for an unknown format.
    """
    if format not in PROSE:
        raise unknown("format", format, PROSE)
    return "\n".join(
        render(part, format) if not isinstance(part, str) else "\n".join(_paragraph(part, format)) + "\n"
        for part in parts
    )


def listing(rows: Iterable[Sequence[str]]) -> str:
    """Write texts below each other for a terminal, aligned, without a head."""
    lines = [tuple(row) for row in rows]
    width = max(map(len, lines), default=0)
    return render(grid("", [""] * width, lines, left=range(width)), "terminal")


def _paragraph(text: str, format: str) -> list[str]:
    return [markdown_escaped(text)] if format == "md" else wrapped(one_line(text))


def _markdown(grid: Grid) -> str:
    columns, groups = grid.shown()
    rows = [
        [markdown_escaped(column.head) for column in columns],
        ["--:" if column.kind == "number" else ":--" for column in columns],
        *([cell_text(cell, markdown_escaped) for cell in line] for lines in groups for line in lines),
    ]
    lines = [f"**{markdown_escaped(grid.title)}**", ""] if one_line(grid.title) else []
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([*lines, *(line for text in below(grid, markdown_escaped) for line in ("", text))]) + "\n"


def markdown_escaped(text: str) -> str:
    """Write a text as one line of Markdown that means itself."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$#])", r"\\\1", text)
    # Underscores inside a word mean nothing to Markdown, and names are full of them.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^([-+=])(?=\s|[-=])|^(\d+)(?=[.)]\s)", lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\", text)


def _csv(grid: Grid) -> str:
    """What says what a line is, every number with its interval, p-values, the note, then what else was found."""
    numbers = [column for column in grid.columns if column.kind == "measured"]
    others = [column.name for column in grid.columns[grid.keys :] if column not in numbers]
    fields = [column.name for column in grid.columns[: grid.keys]]
    fields += [column.name + end for column in numbers for end in ("", "_low", "_high")]
    fields += [f"p_{column.name}" for column in numbers if column.tested] + ["note"] * bool(grid.note_of) + others
    out = io.StringIO()
    # The module's own line ends are those of RFC 4180; with others it leaves a lone \r in a name unquoted.
    writer = csv.DictWriter(out, fields, extrasaction="ignore")
    writer.writeheader()
    for line, notes in itertools.zip_longest(itertools.chain(*grid.groups), grid.note_of, fillvalue=()):
        row: dict[str, object] = {"note": _harmless("; ".join(map(str, notes)))}
        for column, cell in zip(grid.columns, line, strict=True):
            name = column.name
            if isinstance(cell, Measured):
                ends = {f"{name}_low": cell.cell.low, f"{name}_high": cell.cell.high}
                row |= {name: cell.cell.value, **ends, f"p_{name}": cell.p}
            else:
                row[name] = _harmless(cell.text if cell.raw is None else cell.raw)
        writer.writerow(row)
    return out.getvalue()


def _harmless(text: str) -> str:
    """Let no text be a formula to a spreadsheet, nor steer a terminal; numbers are what they are."""
    text = "".join(c if c.isprintable() or c in "\t\r\n" else ascii(c)[1:-1] for c in text)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _html(grid: Grid) -> str:
    """A page that needs nothing else; names in it are text, whatever they hold."""
    columns, groups = headed(grid)
    texts = [(heading, [[cell_text(cell) for cell in line] for line in lines]) for heading, lines in groups]
    page: str = _page().render(title=one_line(grid.title), columns=columns, groups=texts, notes=below(grid))
    return page


@cache
def _page() -> Any:
    from jinja2 import Environment

    source = files("robustframe.report").joinpath("table.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)


FORMATS: dict[str, Callable[[Grid], str]] = {
    "md": _markdown,
    "tex": latex,
    "csv": _csv,
    "html": _html,
    "terminal": terminal,
}
"""The writer of each format, by the name that `render` takes."""
