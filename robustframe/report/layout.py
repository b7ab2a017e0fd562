"""What a table is before it has a format: its columns, its rows in groups, and how a number in it is written."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from robustframe.errors import InputError, unknown

TWINS = ("feed-forward", "recurrent", "first", "second", "difference", "—")

UNKNOWN = "–"
PLAIN = "—"
"""The twin of a classifier that has none."""


@dataclass(frozen=True)
class Cell:
    """A fraction with the ends of its confidence interval; `None` is unknown, and never shown as 0."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for number in (self.value, self.low, self.high):
            if number is not None and not -1 <= number <= 1:
                raise InputError(f"{number} is not a fraction in [-1, 1]; divide percent by 100, unknown is None")
        if (self.low is None) != (self.high is None):
            raise InputError(f"the interval [{self.low}, {self.high}] has one end; give both or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(f"the interval [{self.low}, {self.high}] ends before it begins")


@dataclass(frozen=True)
class TableRow:
    """One classifier under one threat, or the difference between the twins of a pair."""

    model: str
    coherence: float | None
    """Of the model's frame; `None` when it has no frame or nobody measured it."""
    twin: str
    """One of `TWINS`: ``"difference"`` is the second less the first, ``"—"`` has no twin."""
    threat: str
    clean: Cell
    robust: Cell
    p_clean: float | None = None
    p_robust: float | None = None
    note: str = ""
    certified: float | None = None
    """Fraction that no attack can break, the lower bound beside ``robust``; `None` where no certificate is known."""
    corrupted: Cell = Cell()
    """Accuracy on corrupted images, the mean over kinds and severities; empty where nobody asked."""
    verdict: str = ""
    """Whether the number can be believed, such as "sound"; empty where nobody asked."""

    def __post_init__(self) -> None:
        if self.twin not in TWINS:
            raise unknown("twin", self.twin, TWINS)
        for p in (self.p_clean, self.p_robust):
            if p is not None and not 0 <= p <= 1:
                raise InputError(f"p = {p} is not a probability in [0, 1]; unknown is None")
        if self.coherence is not None and not (math.isfinite(self.coherence) and self.coherence >= 0):
            raise InputError(f"coherence {self.coherence} is not a number of at least 0; unknown is None")
        numbers = [getattr(cell, end) for cell in (self.clean, self.robust) for end in ("value", "low", "high")]
        if self.twin != "difference" and any(number is not None and number < 0 for number in numbers):
            raise InputError(f"{self.model} has an accuracy below 0; only a difference may be negative")


@dataclass(frozen=True)
class Table:
    """A robustness table: what a reader compares, in any order; `TableStyle` says how it is put in order."""

    title: str
    caption: str
    rows: tuple[TableRow, ...]
    column: str = "Twin"
    """What stands above the twins."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError(f"the table {self.title!r} has no rows")
        seen: dict[str, float] = {}
        for row in self.rows:
            if row.coherence is not None and seen.setdefault(row.model, row.coherence) != row.coherence:
                both = f"{seen[row.model]} and {row.coherence}"
                raise InputError(f"model {row.model!r} has two coherences, {both}; give each its own name")


@dataclass(frozen=True)
class Column:
    """One column of a grid; where its numbers have intervals, formats may make several of it."""

    name: str
    """In CSV."""
    head: str
    kind: Literal["text", "number", "measured"] = "text"
    """Texts stand left, numbers right; ``"measured"`` is a number with its interval."""
    hidden: bool = False
    """Only machines want it: nothing is in it."""
    tested: bool = False
    """Whether a p-value may stand in it."""
    once: bool = False
    """Left blank where it and every such column before it say what they say in the line above."""
    drop: int = 0
    """Where a terminal is too narrow, columns with a 1 go first, as the title says what is in them; 0 stays."""


@dataclass(frozen=True)
class TextCell:
    """A text in a grid."""

    text: str
    raw: str | None = None
    """As a machine reads it, where that differs: unknown is empty."""
    notes: tuple[int, ...] = ()
    short: str | None = None
    """As a narrow terminal shows it."""
    tone: str = ""
    """Its colour in a terminal; see `robustframe.terminal.painted`."""


@dataclass(frozen=True)
class Measured:
    """A fraction in a grid."""

    cell: Cell
    p: float | None = None
    signed: bool = False


Cells = tuple[TextCell | Measured, ...]


@dataclass(frozen=True)
class Grid:
    """A table in order, ready for any writer: every line has a cell for each column."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[Cells, ...], ...]
    keys: int = 1
    """How many columns, from the first, say what a line is; the others hold what was found."""
    heading: int = 0
    """How many columns, from the first, say the same in a whole group."""
    notes: tuple[str, ...] = ()
    """The first has number 1."""
    note_of: tuple[tuple[str, ...], ...] = ()
    """The notes of each line, in order, for machines; empty where lines have none."""

    def shown(self) -> tuple[list[Column], list[list[list[TextCell | Measured]]]]:
        """Return what people read: the columns that are not hidden, and the lines of each group without repetition."""
        at = [place for place, column in enumerate(self.columns) if not column.hidden]
        groups = [[[line[place] for place in at] for line in _unrepeated(group, self.columns)] for group in self.groups]
        return [self.columns[place] for place in at], groups


def _unrepeated(group: Sequence[Cells], columns: Sequence[Column]) -> Iterator[list[TextCell | Measured]]:
    """The lines of a group, blank where a column that is shown once only repeats the line above."""
    for above, line in itertools.pairwise([(), *group]):
        cells, same = list(line), bool(above)
        for at, (column, before, cell) in enumerate(zip(columns, above, line)):
            if column.once and isinstance(cell, TextCell) and isinstance(before, TextCell):
                same = same and before.text == cell.text
                cells[at] = replace(cell, text="") if same else cell
        yield cells


def grid(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", left: Collection[int] = (0,)
) -> Grid:
    """Make a grid of texts.

    Args:
        title: what stands above it.
        head: of each column; a grid whose heads are all empty is a plain list.
        rows: texts, as many as there are heads.
        caption: what stands below it.
        left: places of the columns that stand left; numbers stand right.
    """
    columns = tuple(Column(text, text, "text" if at in left else "number") for at, text in enumerate(head))
    return Grid(title, caption, columns, (tuple(tuple(map(TextCell, row)) for row in rows),))


class Written(NamedTuple):
    """A number as text, in the three parts that are aligned apart."""

    value: str
    interval: str
    p: str


def written(cell: Cell, p: float | None, *, signed: bool) -> Written:
    """Write a fraction as percent with one decimal.

    Args:
        cell: the fraction and its interval.
        p: of a test that the difference is 0.
        signed: whether a plus is shown, as for differences.

    Returns:
        Its parts, such as ``"+0.4"``, ``"[-0.3, +1.1]"`` and ``"p = 0.39"``; empty where there is none.

    >>> written(Cell(0.913, 0.894, 0.929), None, signed=False)
    Written(value='91.3', interval='[89.4, 92.9]', p='')
    """
    if cell.value is None:
        return Written(UNKNOWN, "", "")
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"[{_percent(cell.low, signed)}, {_percent(cell.high, signed)}]"
    return Written(_percent(cell.value, signed), interval, _p(p))


def coherence_text(coherence: float | None) -> str:
    """Write a coherence with three decimals."""
    return UNKNOWN if coherence is None else f"{coherence:.3f}"


def one_line(text: str) -> str:
    """Replace line breaks, control and invisible characters by spaces, so that no name breaks a table."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _percent(fraction: float, signed: bool) -> str:
    text = f"{100 * fraction:+.1f}" if signed else f"{100 * fraction:.1f}"
    # A difference that rounds to nothing has no sign to show.
    return "0.0" if text in ("+0.0", "-0.0") else text


def _p(p: float | None) -> str:
    if p is None:
        return ""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"
