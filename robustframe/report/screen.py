"""A table as text for a terminal: what does not fit is shortened, folded and left out, always in the same order."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from robustframe.report.layout import Column, Grid, Measured, TextCell, one_line, written
from robustframe.report.texts import Lines, below, cell_text, headed
from robustframe.terminal import columns as terminal_columns
from robustframe.terminal import painted, text_width, wrapped

_LEAST_TEXT, _LEAST_HEAD = 16, 14
"""Columns that a text and a head keep, however narrow the terminal."""


class Fit(NamedTuple):
    """What a table gives up to fit."""

    short: bool = False
    """Texts that can be said more shortly are, and heads take several lines."""
    folds: int = 0
    """1: a p-value stands below its number; 2: so does the interval."""
    dropped: int = 0
    """Columns up to this number of `Column.drop` are left out."""


_FITS = (
    Fit(),
    Fit(short=True),
    Fit(short=True, dropped=1),
    Fit(short=True, dropped=1, folds=1),
    Fit(short=True, dropped=2, folds=1),
    Fit(short=True, dropped=2, folds=2),
    Fit(short=True, dropped=3, folds=2),
    Fit(short=True, dropped=4, folds=2),
)


class _Piece(NamedTuple):
    """A line of a cell, in parts that are aligned apart, and its colour."""

    parts: tuple[str, ...]
    tone: str = ""


_Cell = list[_Piece]


class _Drawing(NamedTuple):
    heads: list[str]
    columns: list[Column]
    groups: list[tuple[str, list[list[_Cell]]]]


def terminal(grid: Grid) -> str:
    """Write a grid for a terminal: groups below a heading, decimal points below each other, as wide as there is room.

    Args:
        grid: the grid.

    Returns:
        Lines no wider than the terminal, with a sentence on what was left out for that.
    """
    width = terminal_columns()
    whole, groups = headed(grid)
    for fit in _FITS:
        drawing = _drawing(whole, groups, fit)
        if _wide(drawing, short=fit.short) <= width:
            break
    blocks = [drawing]
    if _wide(drawing, short=True) > width:
        drawing = _narrowed(drawing, width)
        blocks = list(_blocks(drawing, width))
    lines = [line for block in blocks for line in _lines(block, width, short=fit.short)]
    title = wrapped(one_line(grid.title))
    names = [
        column.head.partition(" (")[0].partition(",")[0].lower() for column in whole if 1 < column.drop <= fit.dropped
    ]
    left = [f"Left out to fit {width} columns: {', '.join(dict.fromkeys(names))}."] if names else []
    return "\n".join([*title, *lines, *(line for text in [*below(grid), *left] for line in wrapped(text))]) + "\n"


def _drawing(columns: list[Column], groups: list[tuple[str, Lines]], fit: Fit) -> _Drawing:
    kept = [at for at, column in enumerate(columns) if not 0 < column.drop <= fit.dropped]
    drawn = [
        (heading, [[_cell(line[at], fit, indented=bool(heading) and at == 0) for at in kept] for line in lines])
        for heading, lines in groups
    ]
    heads = [columns[at].head.replace(" accuracy", "").replace(" (%)", " %") for at in kept]
    return _Drawing(heads, [columns[at] for at in kept], drawn)


def _cell(cell: TextCell | Measured, fit: Fit, *, indented: bool) -> _Cell:
    if isinstance(cell, TextCell):
        if fit.short and cell.short is not None:
            cell = replace(cell, text=cell.short)
        return [_Piece((("  " if indented else "") + cell_text(cell),), cell.tone)]
    value, interval, p = written(cell.cell, cell.p, signed=cell.signed)
    if fit.folds == 0:
        return [_Piece((value, interval, p))]
    if fit.folds == 1:
        return [_Piece((value, interval)), *[_Piece(("", p))] * bool(p)]
    return [_Piece((text,)) for text in (value, interval, p) if text]


def _widths(cells: Sequence[_Cell]) -> list[int]:
    """How wide each part of a column is."""
    pieces = [piece.parts for cell in cells for piece in cell]
    return [max(map(text_width, parts)) for parts in zip(*pieces, strict=True)]


def _text(piece: _Piece, widths: Sequence[int], column: Column) -> str:
    # The value of a number that stands above its interval is a text like it.
    right = column.kind == "number" or (column.kind == "measured" and len(widths) > 1)
    first = _padded(piece.parts[0], widths[0], right=right)
    rest = [_padded(text, width, right=False) for text, width in zip(piece.parts[1:], widths[1:], strict=True)]
    return " ".join([first, *rest]).rstrip()


def _column(drawing: _Drawing, at: int, *, short: bool) -> tuple[list[str], list[list[tuple[str, str]]], int]:
    """The lines of a column's head, those of each cell with their colours, and how wide it is."""
    cells = [line[at] for _, lines in drawing.groups for line in lines]
    column, parts = drawing.columns[at], _widths(cells)
    texts = [[(_text(piece, parts, column), piece.tone) for piece in cell] for cell in cells]
    body = max((text_width(text) for cell in texts for text, _ in cell), default=0)
    head = drawing.heads[at]
    if short and head:
        # The unit stays with the word before it.
        joined = head.replace(" %", "\0%")
        room = max([body, min(_LEAST_HEAD, text_width(joined)), *map(text_width, joined.split())])
        broken = textwrap.wrap(joined, room, break_long_words=False, break_on_hyphens=False)
        head_lines = [line.replace("\0", " ") for line in broken]
    else:
        head_lines = [head]
    return head_lines, texts, max([body, *map(text_width, head_lines)])


def _wide(drawing: _Drawing, *, short: bool) -> int:
    """How wide a drawing is, its headings apart, which are wrapped."""
    return sum(_column(drawing, at, short=short)[2] + 2 for at in range(len(drawing.columns))) - 2


def _narrowed(drawing: _Drawing, width: int) -> _Drawing:
    """The drawing with its longest texts on several lines, as far as that is needed."""
    sizes = [_column(drawing, at, short=True)[2] for at in range(len(drawing.columns))]
    too_wide = sum(size + 2 for size in sizes) - 2 - width
    texts = [at for at, column in enumerate(drawing.columns) if column.kind == "text"]
    for at in sorted(texts, key=lambda at: -sizes[at]):
        if too_wide <= 0:
            break
        words = [
            word
            for _, lines in drawing.groups
            for line in lines
            for piece in line[at]
            for word in piece.parts[0].split()
        ]
        # Names stay whole where that leaves room for anything beside them.
        longest = min(max(map(text_width, words), default=0) + 2, width // 2)
        room = min(sizes[at], max(_LEAST_TEXT, longest, sizes[at] - too_wide))
        too_wide -= max(0, sizes[at] - room)
        for _, lines in drawing.groups:
            for line in lines:
                line[at] = [piece for each in line[at] for piece in _split(each, room)]
    return drawing


def _split(piece: _Piece, room: int) -> _Cell:
    text = piece.parts[0]
    indent = " " * (len(text) - len(text.lstrip()))
    found = textwrap.wrap(text, room, subsequent_indent=indent, break_on_hyphens=False)
    return [_Piece((line,), piece.tone) for line in found or [text]]


def _blocks(drawing: _Drawing, width: int) -> Iterator[_Drawing]:
    """The drawing, its columns below each other in blocks where they do not fit beside each other."""
    sizes = [_column(drawing, at, short=True)[2] for at in range(len(drawing.columns))]
    block, used = [0], sizes[0]
    for at in range(1, len(sizes)):
        if used + 2 + sizes[at] > width and len(block) > 1:
            yield _chosen(drawing, block)
            block, used = [0], sizes[0]
        block, used = [*block, at], used + 2 + sizes[at]
    yield _chosen(drawing, block)


def _chosen(drawing: _Drawing, places: Sequence[int]) -> _Drawing:
    groups = [(heading, [[line[at] for at in places] for line in lines]) for heading, lines in drawing.groups]
    return _Drawing([drawing.heads[at] for at in places], [drawing.columns[at] for at in places], groups)


def _lines(drawing: _Drawing, width: int, *, short: bool) -> list[str]:
    found = [_column(drawing, at, short=short) for at in range(len(drawing.columns))]
    sizes = [size for _, _, size in found]
    rights = [column.kind == "number" for column in drawing.columns]
    high = max(len(head) for head, _, _ in found)
    head = [
        "  ".join(
            _padded(([""] * (high - len(lines)) + lines)[row], size, right=right)
            for (lines, _, size), right in zip(found, rights, strict=True)
        ).rstrip()
        for row in range(high)
    ]
    rows = iter(zip(*(texts for _, texts, _ in found), strict=True))
    drawn: list[tuple[str, str]] = []
    for heading, lines in drawing.groups:
        drawn += [
            (line, line) for line in textwrap.wrap(heading, width, subsequent_indent="  ", break_on_hyphens=False)
        ]
        drawn += [line for cells in itertools.islice(rows, len(lines)) for line in _row(cells, sizes, rights)]
    if not any(head):
        return [line for _, line in drawn]
    rule = "─" * max(text_width(line) for line in [*head, *(plain for plain, _ in drawn)])
    return [rule, *head, rule, *(line for _, line in drawn), rule]


def _row(
    cells: Sequence[Sequence[tuple[str, str]]], sizes: Sequence[int], rights: Sequence[bool]
) -> Iterator[tuple[str, str]]:
    """The lines of a row, without colours and with them."""
    for at in range(max(map(len, cells))):
        pieces = [cell[at] if at < len(cell) else ("", "") for cell in cells]
        padded = [
            _padded(text, size, right=right) for (text, _), size, right in zip(pieces, sizes, rights, strict=True)
        ]
        plain = "  ".join(padded).rstrip()
        coloured = [
            whole.replace(text, painted(text, tone), 1) if tone else whole
            for whole, (text, tone) in zip(padded, pieces, strict=True)
        ]
        yield plain, "  ".join(coloured).rstrip()


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - text_width(text))
    return space + text if right else text + space
