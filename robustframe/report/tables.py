"""One robustness table in Markdown, LaTeX, CSV and as text for a terminal."""

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Callable

from robustframe.errors import unknown
from robustframe.report.layout import (
    PLAIN,
    UNKNOWN,
    Cell,
    Group,
    Row,
    Table,
    Written,
    coherence_text,
    grouped,
    notes,
    one_line,
    written,
)

__all__ = ["FORMATS", "Cell", "Row", "Table", "markdown_escaped", "render", "text_width"]

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_TERMINAL_WIDTH = 100
# With the longest numbers and threats this still leaves the table within that width.
_LONGEST_NAME = 22


def render(table: Table, format: str) -> str:
    """Write a table in one format.

    Args:
        table: its rows, in fractions.
        format: ``"md"``, ``"tex"`` (needs the package booktabs only), ``"csv"`` (raw fractions, one column a
            number, empty where unknown, RFC 4180 with its line ends) or ``"terminal"``.

    Returns:
        The text, with a line end after its last line.

    Raises:
        InputError: for an unknown format.
    """
    if format not in FORMATS:
        raise unknown("table format", format, FORMATS)
    return FORMATS[format](table)


def _written(row: Row) -> tuple[Written, Written]:
    signed = row.twin == "difference"
    return written(row.clean, row.p_clean, signed=signed), written(row.robust, row.p_robust, signed=signed)


def _threats(group: Group) -> list[str]:
    """The threat of each row, left out where the row above has the same."""
    shown = [row.threat for row in group.rows]
    return [text if at == 0 or shown[at - 1] != text else "" for at, text in enumerate(shown)]


def _columns(table: Table) -> tuple[bool, bool]:
    """Whether the table has coherences, and whether it has twins."""
    return any(row.coherence is not None for row in table.rows), any(row.twin != PLAIN for row in table.rows)


def _trailing(table: Table, certified: str, verdict: str) -> tuple[str, ...]:
    """The cells after the numbers, of the heading or a row: a column is there where any row has something in it."""
    cells = (certified,) if any(row.certified is not None for row in table.rows) else ()
    return (*cells, verdict) if any(row.verdict for row in table.rows) else cells


def _certified(row: Row) -> str:
    """The lower bound in percent, and how far below the upper one it lies."""
    if row.certified is None or row.robust.value is None:
        return "" if row.twin == "difference" else UNKNOWN
    return f"{100 * row.certified:.1f} (gap {100 * (row.robust.value - row.certified):.1f})"


def _leading(
    table: Table, group: Group, at: int, escape: Callable[[str], str], mark: Callable[[int], str]
) -> list[str]:
    """The cells before the numbers: model and coherence once a model, twin, threat once a change."""
    row, (has_coherence, has_twin) = group.rows[at], _columns(table)
    cells = [escape(group.model) if at == 0 else ""]
    if has_coherence:
        cells.append(escape(coherence_text(group.coherence)) if at == 0 else "")
    if has_twin:
        cells.append(escape(row.twin))
    cells.append(escape(_threats(group)[at]))
    if row.note:
        cells[-2 if has_twin else 0] += mark(notes(table)[row.note])
    return cells


def _markdown(table: Table) -> str:
    has_coherence, has_twin = _columns(table)
    head = ["Model", *["Coherence"] * has_coherence, *[table.column] * has_twin, "Threat"]
    head += ["Clean accuracy (%)", "Robust accuracy (%)", *_trailing(table, "Certified (%)", "Verdict")]
    rule = [":--", *["--:"] * has_coherence, *[":--"] * has_twin, ":--", ":--", ":--", *_trailing(table, ":--", ":--")]
    lines = [f"**{markdown_escaped(table.title)}**", ""] if one_line(table.title) else []
    lines += ["| " + " | ".join(cells) + " |" for cells in (head, rule)]
    for group in grouped(table):
        for at, row in enumerate(group.rows):
            cells = _leading(table, group, at, markdown_escaped, _superscript)
            cells += [", ".join(filter(None, [_join(c.value, c.interval), c.p])) for c in _written(row)]
            cells += _trailing(table, _certified(row), row.verdict)
            lines.append("| " + " | ".join(cells) + " |")
    if caption := markdown_escaped(table.caption):
        lines += ["", caption]
    for note, number in notes(table).items():
        lines += ["", _join(_superscript(number), markdown_escaped(note))]
    return "\n".join(lines) + "\n"


def markdown_escaped(text: str) -> str:
    """Write a text as one line of Markdown that means itself."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$#])", r"\\\1", text)
    # Underscores inside a word mean nothing to Markdown, and names are full of them.
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^([-+=])(?=\s|[-=])|^(\d+)(?=[.)]\s)", lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\", text)


def _latex(table: Table) -> str:
    has_coherence, has_twin = _columns(table)
    # A number is two columns, so that the decimal points stand below each other.
    spec = "l" + "r" * has_coherence + "l" * has_twin + "l" + "r@{~}l" * 2 + "".join(_trailing(table, "l", "l"))
    head = ["Model", *["Coherence"] * has_coherence, *[table.column] * has_twin, "Threat"]
    head += [r"\multicolumn{2}{l}{Clean accuracy (\%)}", r"\multicolumn{2}{l}{Robust accuracy (\%)}"]
    head += _trailing(table, r"Certified (\%)", "Verdict")
    lines = [r"\begin{table}[t]", r"\centering"]
    title = _tex(table.title)
    caption = _join(rf"\textbf{{{title.rstrip('.')}.}}" if title else "", _tex(table.caption))
    if caption:
        lines.append(rf"\caption{{{caption}}}")
    if label := re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-"):
        lines.append(rf"\label{{tab:{label}}}")
    lines += [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", " & ".join(head) + r" \\"]
    for group in grouped(table):
        lines.append(r"\midrule")
        for at, row in enumerate(group.rows):
            cells = _leading(table, group, at, _tex, lambda number: f"$^{{{number}}}$")
            for c in _written(row):
                rest = [f"${part}$" for part in (c.interval, c.p) if part]
                cells += ["--" if c.value == UNKNOWN else f"${c.value}$", ", ".join(rest)]
            cells += _trailing(table, _certified(row), row.verdict)
            lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize $^{{{n}}}$ {_tex(text)}}}" for text, n in notes(table).items()]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


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


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in one_line(text))


def _csv(table: Table) -> str:
    out = io.StringIO()
    # The module's own line ends are those of RFC 4180; with others it leaves a lone \r in a name unquoted.
    writer = csv.writer(out)
    numbers = [f"{name}{end}" for name in ("clean", "robust") for end in ("", "_low", "_high")]
    first = ["model", "coherence", "twin", "threat"]
    writer.writerow([*first, *numbers, "p_clean", "p_robust", "note", *_trailing(table, "certified", "verdict")])
    for group in grouped(table):
        for row in group.rows:
            cells = [number for c in (row.clean, row.robust) for number in (c.value, c.low, c.high)]
            lead = [
                row.model,
                "" if group.coherence is None else str(group.coherence),
                "" if row.twin == PLAIN else row.twin,
                row.threat,
            ]
            bound = "" if row.certified is None else str(row.certified)
            tail = _trailing(table, bound, row.verdict)
            writer.writerow([*lead, *cells, row.p_clean, row.p_robust, row.note, *tail])
    return out.getvalue()


def _terminal(table: Table) -> str:
    head = ("Model", "Threat", "Clean %", "", "", "Robust %", "", "", *_trailing(table, "Certified %", "Verdict"))
    lines: list[str | tuple[str, ...]] = [head]
    for group in grouped(table):
        name, alone = one_line(group.model), group.coherence is None and len(group.rows) == 1
        inline = alone and group.rows[0].twin == PLAIN and text_width(name) <= _LONGEST_NAME
        if not inline:
            known = group.coherence is not None
            lines.append(_join(name, f"  coherence {coherence_text(group.coherence)}" if known else ""))
        for row, threat in zip(group.rows, _threats(group), strict=True):
            first = name if inline else f"  {row.twin}"
            first += _superscript(notes(table)[row.note]) if row.note else ""
            parts = [part for c in _written(row) for part in (c.value, c.interval, c.p)]
            lines.append((first, one_line(threat), *parts, *_trailing(table, _certified(row), row.verdict)))
    body = _aligned(lines)
    rule = "─" * max(text_width(line) for line in body)
    text = [one_line(table.title)] if one_line(table.title) else []
    text += [rule, body[0], rule, *body[1:], rule]
    below = [table.caption, *(_join(_superscript(number), note) for note, number in notes(table).items())]
    text += [line for paragraph in below for line in textwrap.wrap(one_line(paragraph), _TERMINAL_WIDTH)]
    return "\n".join(text) + "\n"


def _aligned(lines: list[str | tuple[str, ...]]) -> list[str]:
    """Pad the cells to columns; a line that is one text stands as it is."""
    head, *rows = [line for line in lines if not isinstance(line, str)]
    widths = [max(text_width(row[at]) for row in rows) for at in range(len(head))]
    for at in (0, 1, *range(8, len(head))):
        widths[at] = max(widths[at], text_width(head[at]))
    for at in (2, 5):
        # The heading stands over the number and its interval.
        widths[at + 1] = max(widths[at + 1], text_width(head[at]) - widths[at] - 1)
    done = []
    for line in lines:
        if isinstance(line, str):
            done.append(line)
            continue
        cells = [text + " " * (widths[at] - text_width(text)) for at, text in enumerate(line)]
        for at in (2, 5):
            number = f"{line[at]:>{widths[at]}} {cells[at + 1]}"
            if line is head:
                number = f"{line[at]:<{widths[at] + 1 + widths[at + 1]}}"
            cells[at] = number + (f" {cells[at + 2]}" if widths[at + 2] else "")
        done.append("  ".join((cells[0], cells[1], cells[2], cells[5], *cells[8:])).rstrip())
    return done


def text_width(text: str) -> int:
    """Columns that a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPT)


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


FORMATS: dict[str, Callable[[Table], str]] = {
    "md": _markdown,
    "tex": _latex,
    "csv": _csv,
    "terminal": _terminal,
}
"""The writer of each format, by the name that `render` takes."""
