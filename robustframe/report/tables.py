"""Tables in Markdown, LaTeX, CSV, HTML and as text for a terminal: one writer a format, for every table there is."""

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from robustframe.errors import unknown
from robustframe.report.arrange import TableStyle, arranged
from robustframe.report.layout import PLAIN, UNKNOWN, Cells, Column, Grid, Measured, Table, TextCell, one_line, written

__all__ = ["FORMATS", "PROSE", "document", "markdown_escaped", "render", "text_width"]

PROSE = ("terminal", "md")
"""The formats in which paragraphs stand between tables."""
_WIDTH = 100
# With the longest numbers and threats this still leaves a robustness table within that width.
_LONGEST_NAME = 22
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


def _paragraph(text: str, format: str) -> list[str]:
    return [markdown_escaped(text)] if format == "md" else textwrap.wrap(one_line(text), _WIDTH)


def _lines(group: Sequence[Cells], grid: Grid) -> Iterator[list[TextCell | Measured]]:
    """The lines of a group as people read them: without what only repeats the line above."""
    above: Cells | None = None
    for line in group:
        cells, same = list(line), above is not None
        for at, (column, cell) in enumerate(zip(grid.columns, line, strict=True)):
            if column.once and isinstance(cell, TextCell):
                before = above[at] if above is not None else None
                same = same and isinstance(before, TextCell) and before.text == cell.text
                cells[at] = replace(cell, text="") if same else cell
        above = line
        yield cells


def _shown(grid: Grid, *, beside: bool = False) -> list[int]:
    """The places of the columns that people read; without those of the group's heading where it stands beside."""
    first = grid.heading if beside else 0
    return [at for at, column in enumerate(grid.columns) if at >= first and not column.hidden]


def _text(cell: TextCell | Measured, escaped: Callable[[str], str] = one_line) -> str:
    """A cell as one text."""
    if isinstance(cell, TextCell):
        return escaped(cell.text) + superscript(cell.notes)
    value, interval, p = written(cell.cell, cell.p, signed=cell.signed)
    return ", ".join(filter(None, [_join(value, interval), p]))


def _heading(line: Cells, grid: Grid) -> str:
    """What all lines of a group share."""
    first, *rest = [one_line(cell.text) for cell in line[: grid.heading] if isinstance(cell, TextCell)]
    named = [
        f"{column.head.lower()} {text}"
        for column, text in zip(grid.columns[1:], rest)
        if text != UNKNOWN and not column.hidden
    ]
    return "   ".join([first, *named]).strip()


def _notes(grid: Grid, escaped: Callable[[str], str] = one_line) -> list[str]:
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
    shown = _shown(grid)
    columns = [grid.columns[at] for at in shown]
    table = [
        [markdown_escaped(column.head) for column in columns],
        ["--:" if column.kind == "number" else ":--" for column in columns],
        *([_text(line[at], markdown_escaped) for at in shown] for group in grid.groups for line in _lines(group, grid)),
    ]
    lines = [f"**{markdown_escaped(grid.title)}**", ""] if one_line(grid.title) else []
    lines += ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join([*lines, *(line for text in _notes(grid, markdown_escaped) for line in ("", text))]) + "\n"


def markdown_escaped(text: str) -> str:
    """Write a text as one line of Markdown that means itself."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$#])", r"\\\1", text)
    # Underscores inside a word mean nothing to Markdown, and names are full of them.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^([-+=])(?=\s|[-=])|^(\d+)(?=[.)]\s)", lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\", text)


def _latex(grid: Grid) -> str:
    shown = _shown(grid)
    lines = [r"% \usepackage{booktabs,graphicx,siunitx}", r"\begin{table}[t]", r"\centering"]
    title = _tex(grid.title)
    if caption := _join(rf"\textbf{{{title.rstrip('.')}.}}" if title else "", _tex(grid.caption)):
        lines.append(rf"\caption{{{caption}}}\smallskip")
    if label := re.sub(r"[^a-z0-9]+", "-", grid.title.lower()).strip("-"):
        lines.append(rf"\label{{tab:{label}}}")
    every = [line for group in grid.groups for line in group]
    spec = "".join(_tex_column(grid.columns[at], [line[at] for line in every]) for at in shown)
    heads = [
        rf"\multicolumn{{2}}{{l}}{{{_tex(each.head)}}}" if each.kind == "measured" else _tex(each.head)
        for each in (grid.columns[at] for at in shown)
    ]
    lines += [_TEX_FIT, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", " & ".join(heads) + r" \\"]
    for group in grid.groups:
        lines.append(r"\midrule")
        lines += [" & ".join(_tex_cell(line[at]) for at in shown) + r" \\" for line in _lines(group, grid)]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    for number, text in enumerate(grid.notes, start=1):
        lines.append(rf"\par\smallskip{{\footnotesize $^{{{number}}}$ {_tex(text)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_TEX_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than the text is shrunk to it."""


def _tex_column(column: Column, cells: Sequence[TextCell | Measured]) -> str:
    """A number with an interval is two columns: one that aligns its decimal point, and the interval."""
    if column.kind != "measured":
        return "r" if column.kind == "number" else "l"
    texts = [written(each.cell, None, signed=each.signed).value for each in cells if isinstance(each, Measured)]
    numbers = [text for text in texts if text != UNKNOWN]
    sign = "+" if any(number[0] in "+-" for number in numbers) else ""
    digits = max((len(number.lstrip("+-").partition(".")[0]) for number in numbers), default=1)
    return f"S[table-format={sign}{digits}.1{',retain-explicit-plus' if sign else ''}]@{{~}}l"


def _tex_cell(cell: TextCell | Measured) -> str:
    if isinstance(cell, TextCell):
        return _tex(cell.text) + (f"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")
    value, *rest = written(cell.cell, cell.p, signed=cell.signed)
    return f"{'{--}' if value == UNKNOWN else value} & {', '.join(f'${part}$' for part in rest if part)}"


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    # After the end of a row, these two would be read as its arguments.
    "[": "{[}",
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
_TEX_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}


def _tex(text: str) -> str:
    return "".join(_TEX[c] if c in _TEX else c if c.isascii() else _tex_foreign(c) for c in one_line(text))


def _tex_foreign(character: str) -> str:
    """Write a character that not every engine and font has: an accented letter, else its number in Unicode."""
    parts = list(unicodedata.normalize("NFD", character))
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _TEX_ACCENTS:
        return rf"\{_TEX_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"(U+{ord(character):04X})"


def _csv(grid: Grid) -> str:
    """What says what a line is, every number with its interval, p-values, the note, then what else was found."""
    at = range(len(grid.columns))
    keys = [each for each in at if each < grid.keys]
    measured = [each for each in at if grid.columns[each].kind == "measured"]
    tested = [each for each in measured if grid.columns[each].tested]
    others = [each for each in at if each not in (*keys, *measured)]
    names = [column.name for column in grid.columns]
    note = ["note"] * bool(grid.note_of)
    out = io.StringIO()
    # The module's own line ends are those of RFC 4180; with others it leaves a lone \r in a name unquoted.
    writer = csv.writer(out)
    head = [*(names[each] for each in keys), *(names[each] + end for each in measured for end in ("", "_low", "_high"))]
    writer.writerow([*head, *(f"p_{names[each]}" for each in tested), *note, *(names[each] for each in others)])
    lines = [line for group in grid.groups for line in group]
    for line, notes in zip(lines, grid.note_of or [()] * len(lines), strict=True):
        numbers = [cell for each in measured if isinstance(cell := line[each], Measured)]
        ps = [cell.p for each in tested if isinstance(cell := line[each], Measured)]
        cells: list[object] = [_raw(line[each]) for each in keys]
        cells += [number for each in numbers for number in (each.cell.value, each.cell.low, each.cell.high)]
        writer.writerow([*cells, *ps, *["; ".join(notes)] * len(note), *(_raw(line[each]) for each in others)])
    return out.getvalue()


def _raw(cell: TextCell | Measured) -> str:
    return "" if isinstance(cell, Measured) else cell.text if cell.raw is None else cell.raw


def _html(grid: Grid) -> str:
    """A page that needs nothing else; names in it are text, whatever they hold."""
    shown = _shown(grid, beside=True)
    groups = [
        (
            _heading(group[0], grid) if grid.heading else "",
            [[_text(line[at]) for at in shown] for line in _lines(group, grid)],
        )
        for group in grid.groups
    ]
    page: str = _page().render(
        title=one_line(grid.title),
        columns=[grid.columns[at] for at in shown],
        groups=list(zip(headings, texts, strict=True)),
        notes=_notes(grid),
    )
    return page


@cache
def _page() -> Any:
    from jinja2 import Environment

    source = files("robustframe.report").joinpath("table.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)


def _terminal(grid: Grid) -> str:
    """Groups below a heading, decimal points below each other; captions and notes are wrapped."""
    body = _shown(grid, beside=True)
    if grid.heading and grid.heading not in body:
        # A column that is empty is there all the same, as the place of a name.
        body = [grid.heading, *body]
    headings: dict[int, str] = {}
    lines: list[list[Parts]] = []
    for group in grid.groups:
        alone = _alone(group, grid)
        if grid.heading and not alone:
            headings[len(lines)] = _heading(group[0], grid)
        for cells in _lines(group, grid):
            lines.append([_parts(cells[at]) for at in body])
            if grid.heading:
                lines[-1][0] = (_named(group[0][0], cells[grid.heading], alone=alone),)
    heads = [grid.columns[at].head.replace(" accuracy", "").replace(" (%)", " %") for at in body]
    if grid.heading:
        heads[0] = grid.columns[0].head + (f", {heads[0].lower()}" if grid.heading == 1 else "")
    columns = [_column(heads[k], grid.columns[at].kind, [line[k] for line in lines]) for k, at in enumerate(body)]
    head, *rows = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    drawn = [each for at, row in enumerate(rows) for each in ([headings[at]] if at in headings else []) + [row]]
    if head:
        rule = "─" * max(map(text_width, [head, *drawn]))
        drawn = [rule, head, rule, *drawn, rule]
    title = [one_line(grid.title)] if one_line(grid.title) else []
    return "\n".join([*title, *drawn, *(line for text in _notes(grid) for line in textwrap.wrap(text, _WIDTH))]) + "\n"


Parts = tuple[str, ...]
"""A cell: one text, or value, interval and p, which are aligned apart."""


def _parts(cell: TextCell | Measured) -> Parts:
    return (_text(cell),) if isinstance(cell, TextCell) else written(cell.cell, cell.p, signed=cell.signed)


def _alone(group: Sequence[Cells], grid: Grid) -> bool:
    """Whether a group is one line that needs no heading: a short name, of which nothing is known to stand there."""
    name, *rest = [cell.text for cell in group[0][: grid.heading + 1] if isinstance(cell, TextCell)]
    nothing = all(text in (UNKNOWN, PLAIN) for text in rest)
    return len(group) == 1 and nothing and text_width(one_line(name)) <= _LONGEST_NAME


def _named(name: TextCell | Measured, below: TextCell | Measured, *, alone: bool) -> str:
    """The first cell below a heading: alone, its name stands where the twins of others do."""
    if not isinstance(name, TextCell) or not isinstance(below, TextCell):
        return ""
    # Without twins the notes are the model's; they stand with the line all the same.
    return (one_line(name.text) if alone else f"  {one_line(below.text)}") + superscript(below.notes or name.notes)


def _column(head: str, kind: str, cells: Sequence[Parts]) -> list[str]:
    """The head and the cells of a column, each as wide as the widest."""
    widths = [max(map(text_width, parts)) for parts in zip(*cells, strict=True)]
    texts = [head]
    for parts in cells:
        padded = [
            _padded(text, width, right=at == 0 and kind != "text")
            for at, (text, width) in enumerate(zip(parts, widths))
        ]
        texts.append(" ".join(padded).rstrip())
    width = max(map(text_width, texts))
    return [_padded(text, width, right=kind == "number") for text in texts]


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - text_width(text))
    return space + text if right else text + space


FORMATS: dict[str, Callable[[Grid], str]] = {
    "md": _markdown,
    "tex": _latex,
    "csv": _csv,
    "html": _html,
    "terminal": _terminal,
}
"""The writer of each format, by the name that `render` takes."""
