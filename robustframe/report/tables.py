"""One robustness table in Markdown, LaTeX, CSV, HTML and as text for a terminal."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable

from robustframe.errors import unknown
from robustframe.report.arrange import Arranged, Entry, Line, Look, Measured, arranged
from robustframe.report.layout import UNKNOWN, Cell, Row, Table, one_line
from robustframe.report.terminal import superscript, terminal, text_width

__all__ = ["FORMATS", "Cell", "Look", "Row", "Table", "markdown_escaped", "render", "text_width"]


def render(table: Table, format: str, look: Look | None = None) -> str:
    """Write a table in one format.

    Args:
        table: its rows, in fractions.
        format: ``"md"``, ``"tex"`` (its first line names the packages it needs), ``"csv"`` (raw fractions, one
            column a number, empty where unknown, RFC 4180 with its line ends), ``"html"`` (needs the extra
            ``report``) or ``"terminal"``.
        look: columns, grouping and order; every column with something in it, by model, when ``None``.

    Returns:
        The text, with a line end after its last line.

    Raises:
        InputError: for an unknown format, and for HTML without great-tables.
    """
    if format not in FORMATS:
        raise unknown("table format", format, FORMATS)
    return FORMATS[format](arranged(table, look))


def _shown(line: Line, table: Arranged) -> Line:
    return tuple(cell for cell, column in zip(line, table.columns, strict=True) if not column.hidden)


def _texts(line: Line, table: Arranged) -> list[str]:
    """The cells of a line that are shown, each as one text of Markdown."""
    texts = []
    for cell in _shown(line, table):
        if isinstance(cell, Measured):
            number = cell.written()
            texts.append(", ".join(filter(None, [_join(number.value, number.interval), number.p])))
        else:
            texts.append(("" if cell.repeated else markdown_escaped(cell.text)) + superscript(*cell.notes))
    return texts


def _markdown(table: Arranged) -> str:
    shown = [column for column in table.columns if not column.hidden]
    lines = [f"**{markdown_escaped(table.title)}**", ""] if one_line(table.title) else []
    lines.append("| " + " | ".join(column.head for column in shown) + " |")
    lines.append("| " + " | ".join("--:" if column.kind == "number" else ":--" for column in shown) + " |")
    for group in table.groups:
        lines += ["| " + " | ".join(_texts(line, table)) + " |" for line in group]
    if caption := markdown_escaped(table.caption):
        lines += ["", caption]
    for number, note in enumerate(table.notes, start=1):
        lines += ["", _join(superscript(number), markdown_escaped(note))]
    return "\n".join(lines) + "\n"


def markdown_escaped(text: str) -> str:
    """Write a text as one line of Markdown that means itself."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$#])", r"\\\1", text)
    # Underscores inside a word mean nothing to Markdown, and names are full of them.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^([-+=])(?=\s|[-=])|^(\d+)(?=[.)]\s)", lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\", text)


def _latex(table: Arranged) -> str:
    shown = [column for column in table.columns if not column.hidden]
    lines = [
        r"% \usepackage{booktabs,graphicx,siunitx}",
        r"\begin{table}[t]",
        r"\centering",
    ]
    title = _tex(table.title)
    caption = _join(rf"\textbf{{{title.rstrip('.')}.}}" if title else "", _tex(table.caption))
    if caption:
        lines.append(rf"\caption{{{caption}}}\smallskip")
    if label := re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-"):
        lines.append(rf"\label{{tab:{label}}}")
    bodies = [[_shown(line, table) for line in group] for group in table.groups]
    spec = "".join(
        _tex_column(column.kind, [line[at] for body in bodies for line in body]) for at, column in enumerate(shown)
    )
    head = [_tex_head(column.head, column.kind) for column in shown]
    lines += [_TEX_FIT, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", " & ".join(head) + r" \\"]
    for body in bodies:
        lines += [
            r"\midrule",
            *(" & ".join(text for cell in line for text in _tex_cell(cell)) + r" \\" for line in body),
        ]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [
        rf"\par\smallskip{{\footnotesize $^{{{number}}}$ {_tex(text)}}}"
        for number, text in enumerate(table.notes, start=1)
    ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_TEX_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than the text is shrunk to it."""


def _tex_column(kind: str, cells: list[Entry | Measured]) -> str:
    """A number with an interval is two columns: one that aligns its decimal point, and the interval."""
    if kind != "measured":
        return "r" if kind == "number" else "l"
    numbers = [cell.written().value for cell in cells if isinstance(cell, Measured) and cell.cell.value is not None]
    sign = "+" if any(number[0] in "+-" for number in numbers) else ""
    plus = ",retain-explicit-plus" if sign else ""
    digits = max((len(number.lstrip("+-").partition(".")[0]) for number in numbers), default=1)
    return f"S[table-format={sign}{digits}.1{plus}]@{{~}}l"


def _tex_head(head: str, kind: str) -> str:
    text = _tex(head)
    return rf"\multicolumn{{2}}{{l}}{{{text}}}" if kind == "measured" else text


def _tex_cell(cell: Entry | Measured) -> list[str]:
    if isinstance(cell, Entry):
        return [("" if cell.repeated else _tex(cell.text)) + _tex_marks(cell.notes)]
    number = cell.written()
    rest = [f"${part}$" for part in (number.interval, number.p) if part]
    return ["{--}" if number.value == UNKNOWN else number.value, ", ".join(rest)]


def _tex_marks(notes: tuple[int, ...]) -> str:
    return f"$^{{{','.join(map(str, notes))}}}$" if notes else ""


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


def _csv(table: Arranged) -> str:
    measured = [column for column in table.columns if column.kind == "measured"]
    texts = [column for column in table.columns if column.kind != "measured"]
    trailing = [column for column in texts if column.name.startswith(("certified", "verdict"))]
    leading = [column for column in texts if column not in trailing]
    head = [column.name for column in leading]
    head += [f"{column.name}{end}" for column in measured for end in ("", "_low", "_high")]
    head += (
        [f"p_{column.name}" for column in measured if column.tested] + ["note"] + [column.name for column in trailing]
    )
    out = io.StringIO()
    # The module's own line ends are those of RFC 4180; with others it leaves a lone \r in a name unquoted.
    writer = csv.writer(out)
    writer.writerow(head)
    lines = [line for group in table.groups for line in group]
    for line, notes in zip(lines, table.note_of, strict=True):
        of = {column.name: cell for column, cell in zip(table.columns, line, strict=True)}
        numbers = [(column, cell) for column in measured if isinstance(cell := of[column.name], Measured)]
        cells: list[object] = [_raw(of[column.name]) for column in leading]
        cells += [number for _, each in numbers for number in (each.cell.value, each.cell.low, each.cell.high)]
        cells += [each.p for column, each in numbers if column.tested]
        writer.writerow([*cells, "; ".join(notes), *(_raw(of[column.name]) for column in trailing)])
    return out.getvalue()


def _raw(cell: Entry | Measured) -> str:
    return cell.raw if isinstance(cell, Entry) else ""


def _html(table: Arranged) -> str:
    from robustframe.report.html import html

    return html(table)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


FORMATS: dict[str, Callable[[Arranged], str]] = {
    "md": _markdown,
    "tex": _latex,
    "csv": _csv,
    "html": _html,
    "terminal": terminal,
}
"""The writer of each format, by the name that `render` takes."""
