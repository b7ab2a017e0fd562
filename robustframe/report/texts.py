"""What several writers read of a grid: headings above its groups, a cell as one text, the paragraphs below."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from robustframe.report.layout import PLAIN, UNKNOWN, Column, Grid, Measured, TextCell, one_line, written
from robustframe.terminal import text_width

# With the longest numbers and threats this still leaves a robustness table within 100 columns.
_LONGEST_NAME = 22
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Lines = list[list[TextCell | Measured]]


def headed(grid: Grid) -> tuple[list[Column], list[tuple[str, Lines]]]:
    """Return a grid with what all lines of a group share above them, as a heading, and not in columns.

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
    first, found = columns.index(body), []
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
            f"{column.head.lower()} {one_line(cell.text)}"
            for column, cell in zip(grid.columns[1:], rest[:-1])
            if not column.hidden and cell.text != UNKNOWN
        ]
        found.append(("" if alone else "   ".join([one_line(name.text), *named]), [line[first:] for line in lines]))
    return columns[first:], found


def cell_text(cell: TextCell | Measured, escaped: Callable[[str], str] = one_line) -> str:
    """Return a cell as one text."""
    if isinstance(cell, TextCell):
        return escaped(cell.text) + superscript(cell.notes)
    value, interval, p = written(cell.cell, cell.p, signed=cell.signed)
    return ", ".join(filter(None, [" ".join(filter(None, [value, interval])), p]))


def below(grid: Grid, escaped: Callable[[str], str] = one_line) -> list[str]:
    """Return the paragraphs below a table."""
    notes = [f"{superscript([number])} {escaped(note)}" for number, note in enumerate(grid.notes, start=1)]
    return [text for text in (escaped(grid.caption), *notes) if text]


def superscript(numbers: Iterable[int]) -> str:
    """Write numbers as the marks of notes."""
    return ",".join(str(number).translate(_SUPERSCRIPT) for number in numbers)
