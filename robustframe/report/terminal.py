"""A table as text for a terminal: groups below a heading, decimal points below each other."""

import textwrap
import unicodedata

from robustframe.report.arrange import Arranged, Column, Entry, Line, Measured
from robustframe.report.layout import PLAIN, UNKNOWN, one_line

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_WIDTH = 100
# With the longest numbers and threats this still leaves the table within that width.
_LONGEST_NAME = 22
Parts = tuple[str, ...]
"""A cell: one text, or value, interval and p, which are aligned apart."""


def terminal(table: Arranged) -> str:
    """Write an arranged table for a terminal; captions and notes are wrapped at 100 columns."""
    body = _body_columns(table)
    lines: list[str | list[Parts]] = []
    for group in table.groups:
        if table.heading and not _alone(group, table):
            lines.append(heading(group[0], table))
        for line in group:
            of = dict(zip(table.columns, line, strict=True))
            cells = [_parts(of[column]) for column in body]
            if table.heading:
                cells[0] = (_first(line, of[body[0]], table, alone=_alone(group, table)),)
            lines.append(cells)
    drawn = _aligned([_head(table, body), *lines], body)
    rule = "─" * max(map(text_width, drawn))
    title = [one_line(table.title)] if one_line(table.title) else []
    below = [table.caption, *(f"{superscript(number)} {note}" for number, note in enumerate(table.notes, start=1))]
    wrapped = [line for paragraph in below for line in textwrap.wrap(one_line(paragraph), _WIDTH)]
    return "\n".join([*title, rule, drawn[0], rule, *drawn[1:], rule, *wrapped]) + "\n"


def _first(line: Line, below: Entry | Measured, table: Arranged, *, alone: bool) -> str:
    """The first cell below a heading: alone, its name stands where the twins of others do."""
    if not isinstance(below, Entry) or not isinstance(line[0], Entry):
        return ""
    # Without twins the notes are the model's; they stand with the line all the same.
    marks = superscript(*(below.notes or (line[0].notes if table.heading > 1 else ())))
    return f"{one_line(line[0].text)}{marks}" if alone else f"  {'' if below.repeated else one_line(below.text)}{marks}"


def _body_columns(table: Arranged) -> list[Column]:
    """The columns below a heading; the first is there even where it is empty, as the place of a name."""
    rest = table.columns[table.heading :]
    return [column for at, column in enumerate(rest) if not column.hidden or (at == 0 and table.heading)]


def _head(table: Arranged, body: list[Column]) -> list[Parts]:
    heads = [column.head.replace(" accuracy", "").replace(" (%)", " %") for column in body]
    if table.heading:
        heads[0] = table.columns[0].head
        if table.columns[0].name != "model":
            heads[0] += f", {body[0].head.lower()}"
    return [(head, "", "") if column.kind == "measured" else (head,) for head, column in zip(heads, body, strict=True)]


def _alone(group: tuple[Line, ...], table: Arranged) -> bool:
    """Whether a group is one classifier without twin and frame, which needs no heading of its own."""
    if table.heading < 2 or len(group) > 1:
        return False
    name, coherence, twin = group[0][:3]
    texts = [cell.text for cell in (name, coherence, twin) if isinstance(cell, Entry)]
    return texts[1:] == [UNKNOWN, PLAIN] and text_width(one_line(texts[0])) <= _LONGEST_NAME


def heading(line: Line, table: Arranged) -> str:
    """Write what all lines of a group share."""
    texts = [one_line(cell.text) for cell in line[: table.heading] if isinstance(cell, Entry)]
    known = len(texts) > 1 and texts[1] != UNKNOWN and not table.columns[1].hidden
    return f"{texts[0]}   coherence {texts[1]}".strip() if known else texts[0]


def _parts(cell: Entry | Measured) -> Parts:
    if isinstance(cell, Entry):
        return (("" if cell.repeated else one_line(cell.text)) + superscript(*cell.notes),)
    number = cell.written()
    return (number.value, number.interval, number.p)


def _aligned(lines: list[str | list[Parts]], body: list[Column]) -> list[str]:
    """Pad the cells to columns; a line that is one text stands as it is."""
    head, *rows = [line for line in lines if not isinstance(line, str)]
    widths = []
    for at, column in enumerate(body):
        own = [max(text_width(row[at][part]) for row in rows) for part in range(len(head[at]))]
        if column.kind == "measured":
            # The heading stands over the number and its interval.
            own[1] = max(own[1], text_width(head[at][0]) - own[0] - 1)
        else:
            own[0] = max(own[0], text_width(head[at][0]))
        widths.append(own)
    drawn = []
    for line in lines:
        if isinstance(line, str):
            drawn.append(line)
            continue
        cells = [
            _padded(parts, own, column, line is head) for parts, own, column in zip(line, widths, body, strict=True)
        ]
        drawn.append("  ".join(cells).rstrip())
    return drawn


def _padded(parts: Parts, widths: list[int], column: Column, is_head: bool) -> str:
    if column.kind != "measured":
        space = " " * (widths[0] - text_width(parts[0]))
        return space + parts[0] if column.kind == "number" else parts[0] + space
    value, interval, p = parts
    both = f"{value:<{widths[0] + 1 + widths[1]}}" if is_head else f"{value:>{widths[0]}} {interval:<{widths[1]}}"
    return both + (f" {p:<{widths[2]}}" if widths[2] else "")


def text_width(text: str) -> int:
    """Columns that a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def superscript(*numbers: int) -> str:
    """Write numbers as the marks of notes."""
    return ",".join(str(number).translate(_SUPERSCRIPT) for number in numbers)
