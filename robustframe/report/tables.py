"""Tables in Markdown, LaTeX, CSV, HTML and as text for a terminal: one writer a format, for every table there is."""

import csv
import io
import itertools
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from robustframe.errors import unknown
from robustframe.report.arrange import TableStyle, arranged
from robustframe.report.latex import latex
from robustframe.report.layout import PLAIN, UNKNOWN, Column, Grid, Measured, Table, TextCell, grid, one_line, written

__all__ = ["FORMATS", "PROSE", "document", "markdown_escaped", "render", "text_width"]

PROSE = ("terminal", "md")
"""The formats in which paragraphs stand between tables."""
_WIDTH, _NARROW = 100, 40
"""Columns of running text: at most, and at least."""
# With the longest numbers and threats this still leaves a robustness table within that width.
_LONGEST_NAME = 22
_FORMULA = re.compile(r"[\s]*[=+\-@]|[\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


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


def _width() -> int:
    """Columns of running text: the terminal's, or what COLUMNS says, as far as that reads well."""
    return max(_NARROW, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


def listing(rows: Iterable[Sequence[str]]) -> str:
    """Write texts below each other for a terminal, aligned, without a head."""
    lines = [tuple(row) for row in rows]
    width = max(map(len, lines), default=0)
    return render(grid("", [""] * width, lines, left=range(width)), "terminal")


def _paragraph(text: str, format: str) -> list[str]:
    return [markdown_escaped(text)] if format == "md" else textwrap.wrap(one_line(text), _width())


def _headed(grid: Grid) -> tuple[list[Column], list[tuple[str, list[list[TextCell | Measured]]]]]:
    """A grid with what all lines of a group share above them, as a heading, and not in columns.

    A group that is one line without anything else to say has no heading: its name stands where the twins of others do.
    """
    if not grid.heading:
        columns, groups = grid.shown()
        return columns, [("", lines) for lines in groups]
    head = grid.columns[0].head + (f", {grid.columns[1].head.lower()}" if grid.heading == 1 else "")
    columns = list(grid.columns)
    # A column that is empty is there all the same, as the place of a name.
    columns[grid.heading] = body = replace(columns[grid.heading], head=head, hidden=False)
    columns, groups = replace(grid, columns=tuple(columns)).shown()
    first, headed = columns.index(body), []
    for group, lines in zip(grid.groups, groups, strict=True):
        name, *rest = [cell for cell in group[0][: grid.heading + 1] if isinstance(cell, TextCell)]
        nothing = all(cell.text in (UNKNOWN, PLAIN) for cell in rest)
        alone = len(group) == 1 and nothing and text_width(one_line(name.text)) <= _LONGEST_NAME
        for line in lines:
            below = line[first]
            if isinstance(below, TextCell):
                # Without twins the notes are the model's; they stand with the line all the same.
                line[first] = TextCell(name.text if alone else below.text, notes=below.notes or name.notes)
        named = [
            _join(column.head.lower(), one_line(cell.text))
            for column, cell in zip(grid.columns[1:], rest[:-1])
            if not column.hidden and cell.text != UNKNOWN
        ]
        headed.append(("" if alone else "   ".join([one_line(name.text), *named]), [line[first:] for line in lines]))
    return columns[first:], headed


def _text(cell: TextCell | Measured, escaped: Callable[[str], str] = one_line) -> str:
    """A cell as one text."""
    if isinstance(cell, TextCell):
        return escaped(cell.text) + superscript(cell.notes)
    value, interval, p = written(cell.cell, cell.p, signed=cell.signed)
    return ", ".join(filter(None, [_join(value, interval), p]))


def _below(grid: Grid, escaped: Callable[[str], str] = one_line) -> list[str]:
    """The paragraphs below a table."""
    notes = [_join(superscript([number]), escaped(note)) for number, note in enumerate(grid.notes, start=1)]
    return [text for text in (escaped(grid.caption), *notes) if text]


def superscript(numbers: Iterable[int]) -> str:
    """Write numbers as the marks of notes."""
    return ",".join(str(number).translate(_SUPERSCRIPT) for number in numbers)


def text_width(text: str) -> int:
    """Columns that a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _markdown(grid: Grid) -> str:
    columns, groups = grid.shown()
    rows = [
        [markdown_escaped(column.head) for column in columns],
        ["--:" if column.kind == "number" else ":--" for column in columns],
        *([_text(cell, markdown_escaped) for cell in line] for lines in groups for line in lines),
    ]
    lines = [f"**{markdown_escaped(grid.title)}**", ""] if one_line(grid.title) else []
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([*lines, *(line for text in _below(grid, markdown_escaped) for line in ("", text))]) + "\n"


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
    columns, groups = _headed(grid)
    texts = [(heading, [[_text(cell) for cell in line] for line in lines]) for heading, lines in groups]
    page: str = _page().render(title=one_line(grid.title), columns=columns, groups=texts, notes=_below(grid))
    return page


@cache
def _page() -> Any:
    from jinja2 import Environment

    source = files("robustframe.report").joinpath("table.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)


def _terminal(grid: Grid) -> str:
    """Groups below a heading, decimal points below each other; captions and notes are wrapped."""
    columns, groups = _headed(grid)
    every = [_parts(line, indented=bool(heading)) for heading, lines in groups for line in lines]
    heads = [column.head.replace(" accuracy", "").replace(" (%)", " %") for column in columns]
    texts = [
        _column(head, column.kind, [parts[at] for parts in every])
        for at, (head, column) in enumerate(zip(heads, columns, strict=True))
    ]
    head, *rows = ["  ".join(cells).rstrip() for cells in zip(*texts, strict=True)]
    drawn, rest = [], iter(rows)
    for heading, lines in groups:
        drawn += [*[heading] * bool(heading), *itertools.islice(rest, len(lines))]
    if head:
        rule = "─" * max(map(text_width, [head, *drawn]))
        drawn = [rule, head, rule, *drawn, rule]
    title = [one_line(grid.title)] if one_line(grid.title) else []
    below = (line for text in _below(grid) for line in textwrap.wrap(text, _width()))
    return "\n".join([*title, *drawn, *below]) + "\n"


Parts = tuple[str, ...]
"""A cell: one text, or value, interval and p, which are aligned apart."""


def _parts(line: Sequence[TextCell | Measured], *, indented: bool) -> list[Parts]:
    parts: list[Parts] = [
        (_text(cell),) if isinstance(cell, TextCell) else written(cell.cell, cell.p, signed=cell.signed)
        for cell in line
    ]
    return [("  " + parts[0][0],), *parts[1:]] if indented else parts


def _column(head: str, kind: str, cells: Sequence[Parts]) -> list[str]:
    """The head and the cells of a column, each as wide as the widest."""
    widths = [max(map(text_width, parts)) for parts in zip(*cells, strict=True)]
    texts = [head]
    for parts in cells:
        first = _padded(parts[0], widths[0], right=kind != "text")
        rest = [_padded(text, width, right=False) for text, width in zip(parts[1:], widths[1:], strict=True)]
        texts.append(" ".join([first, *rest]).rstrip())
    width = max(map(text_width, texts))
    return [_padded(text, width, right=kind == "number") for text in texts]


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - text_width(text))
    return space + text if right else text + space


FORMATS: dict[str, Callable[[Grid], str]] = {
    "md": _markdown,
    "tex": latex,
    "csv": _csv,
    "html": _html,
    "terminal": _terminal,
}
"""The writer of each format, by the name that `render` takes."""
