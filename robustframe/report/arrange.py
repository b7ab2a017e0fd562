"""A table put in order for the writers: which columns, which rows below which, and what of it is repeated."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from robustframe.errors import InputError, unknown
from robustframe.report.layout import PLAIN, TWINS, UNKNOWN, Cell, Row, Table, Written, coherence_text, written

COLUMNS = ("coherence", "clean", "robust", "certified", "verdict")
"""What can be chosen; model, twin and threat say what a row is and are always there."""
GROUPS = ("model", "threat", "twin")
SORTS = ("robust", "clean", "coherence", "name")
_HEADS = {"clean": "Clean accuracy (%)", "robust": "Robust accuracy (%)", "certified": "Certified (%)"}


@dataclass(frozen=True)
class Look:
    """How a table is shown."""

    columns: tuple[str, ...] = ()
    """Of `COLUMNS`; those that have something in them when empty."""
    group_by: str = "model"
    """One of `GROUPS`."""
    sort: str = ""
    """One of `SORTS`, descending with a minus before it; the order of the rows when empty."""
    pairs: bool = False
    """One line a model and threat, with the twins and their difference beside each other."""

    def __post_init__(self) -> None:
        for column in self.columns:
            if column not in COLUMNS:
                raise unknown("column", column, COLUMNS)
        if self.group_by not in GROUPS:
            raise unknown("group", self.group_by, GROUPS)
        if self.sort.removeprefix("-") not in ("", *SORTS) or self.sort == "-":
            raise unknown("order", self.sort, [*SORTS, *(f"-{each}" for each in SORTS)])
        if self.pairs and self.group_by == "twin":
            raise InputError("pairs have their twins on one line, so that they cannot be grouped by twin")


@dataclass(frozen=True)
class Column:
    """One column, or two where numbers have intervals."""

    name: str
    """In CSV."""
    head: str
    kind: Literal["text", "number", "measured"] = "text"
    hidden: bool = False
    """Only machines want it: nothing is in it."""
    tested: bool = False
    """Whether a p-value may stand in it."""


@dataclass(frozen=True)
class Entry:
    """A text in a table."""

    text: str
    raw: str
    """As a machine reads it: unknown is empty."""
    repeated: bool = False
    """The line above says the same."""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A fraction in a table."""

    cell: Cell
    p: float | None = None
    signed: bool = False

    def written(self) -> Written:
        """Write it in percent."""
        return written(self.cell, self.p, signed=self.signed)


Line = tuple[Entry | Measured, ...]


@dataclass(frozen=True)
class Arranged:
    """A table that is ready to be written."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...]
    """The first has number 1."""
    note_of: tuple[tuple[str, ...], ...]
    """The note of each line, in order, for machines."""
    heading: int
    """How many columns, from the first, say the same in a whole group."""


def arranged(table: Table, look: Look | None = None) -> Arranged:
    """Put a table in order.

    Args:
        table: its rows, in any order.
        look: columns, grouping and order.

    Returns:
        Lines in groups, with every line as long as the columns.
    """
    look = look or Look()
    return _pairs(table, look) if look.pairs else _rows(table, look)


def _rows(table: Table, look: Look) -> Arranged:
    columns = _columns(table, look)
    marked = "model" if all(row.twin == PLAIN for row in table.rows) else "twin"
    notes = _Notes()
    groups = []
    for rows in _grouped(table, look):
        lines: list[Line] = []
        for at, row in enumerate(rows):
            numbers = notes.numbers(row)
            cells = [_content(column.name, table, row, numbers if column.name == marked else ()) for column in columns]
            lines.append(_unrepeated(cells, columns, look, row, rows[at - 1] if at else None))
        groups.append(tuple(lines))
    heading = 2 if look.group_by == "model" else 1
    return Arranged(table.title, table.caption, columns, tuple(groups), tuple(notes.texts), tuple(notes.lines), heading)


class _Notes:
    """The notes of a table, numbered from 1 in the order in which their lines are shown."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}
        self.lines: list[tuple[str, ...]] = []

    def numbers(self, *rows: Row) -> tuple[int, ...]:
        """Number the notes of the rows that make one line."""
        own = tuple(dict.fromkeys(row.note for row in rows if row.note))
        self.lines.append(own)
        return tuple(self.texts.setdefault(text, len(self.texts) + 1) for text in own)


def _unrepeated(
    cells: Sequence[Entry | Measured], columns: Sequence[Column], look: Look, row: Row, above: Row | None
) -> Line:
    """Note of each text of a line whether it only repeats the line above."""
    same = {name: False for name in GROUPS}
    if above is not None:
        same["model"] = above.model == row.model
        same["threat"] = above.threat == row.threat and (same["model"] or look.group_by == "threat")
        same["twin"] = look.group_by == "twin"
    same["coherence"] = same["model"]
    return tuple(
        replace(cell, repeated=True) if isinstance(cell, Entry) and same.get(column.name, False) else cell
        for cell, column in zip(cells, columns, strict=True)
    )


def _columns(table: Table, look: Look) -> tuple[Column, ...]:
    has_twin = any(row.twin != PLAIN for row in table.rows)
    filled = {
        "coherence": any(row.coherence is not None for row in table.rows),
        "clean": True,
        "robust": True,
        "certified": any(row.certified is not None for row in table.rows),
        "verdict": any(row.verdict for row in table.rows),
    }
    wanted = {name: name in look.columns if look.columns else there for name, there in filled.items()}
    model = [Column("model", "Model"), Column("coherence", "Coherence", "number", hidden=not wanted["coherence"])]
    twin, threat = Column("twin", table.column, hidden=not has_twin), Column("threat", "Threat")
    leading = {
        "model": [*model, twin, threat],
        "threat": [threat, *model, twin],
        "twin": [twin, *model, threat],
    }[look.group_by]
    measured = [Column(name, _HEADS[name], "measured", tested=True) for name in ("clean", "robust") if wanted[name]]
    trailing = [Column("certified", _HEADS["certified"])] * wanted["certified"]
    return (*leading, *measured, *trailing, *[Column("verdict", "Verdict")] * wanted["verdict"])


def _content(name: str, table: Table, row: Row, notes: tuple[int, ...]) -> Entry | Measured:
    signed = row.twin == "difference"
    match name:
        case "model":
            return Entry(row.model, row.model, notes=notes)
        case "coherence":
            known = _coherence(table, row.model)
            return Entry(coherence_text(known), "" if known is None else str(known))
        case "twin":
            return Entry(row.twin, "" if row.twin == PLAIN else row.twin, notes=notes)
        case "threat":
            return Entry(row.threat, row.threat, notes=notes)
        case "clean":
            return Measured(row.clean, row.p_clean, signed)
        case "robust":
            return Measured(row.robust, row.p_robust, signed)
        case "certified":
            return _certified(row)
        case _:
            return Entry(row.verdict, row.verdict)


def _coherence(table: Table, model: str) -> float | None:
    return next((row.coherence for row in table.rows if row.model == model and row.coherence is not None), None)


def _certified(row: Row) -> Entry:
    """The lower bound in percent, and how far below the upper one it lies."""
    if row.certified is None or row.robust.value is None:
        return Entry("" if row.twin == "difference" else UNKNOWN, "" if row.certified is None else str(row.certified))
    text = f"{100 * row.certified:.1f} (gap {100 * (row.robust.value - row.certified):.1f})"
    return Entry(text, str(row.certified))


def _grouped(table: Table, look: Look) -> list[list[Row]]:
    """The rows of each group, models in the order asked for; twins of a model under a threat stay together."""
    threats = list(dict.fromkeys(row.threat for row in table.rows))
    shown = {name: list(dict.fromkeys(getattr(row, name) for row in table.rows)) for name in ("model", "threat")}
    shown["twin"] = [twin for twin in TWINS if any(row.twin == twin for row in table.rows)]
    if look.group_by == "model":
        shown["model"] = _ordered(table.rows, look.sort)
    groups = []
    for value in shown[look.group_by]:
        rows = [row for row in table.rows if getattr(row, look.group_by) == value]
        models = _ordered(rows, look.sort)
        rows.sort(key=lambda row: (models.index(row.model), threats.index(row.threat), TWINS.index(row.twin)))
        groups.append(rows)
    return groups


def _ordered(rows: Sequence[Row], sort: str) -> list[str]:
    """Models in the order asked for; what is unknown stands last.

    A model counts by the best of its classifiers, under the first of the threats.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    by = sort.removeprefix("-")
    if by == "name":
        return sorted(models, key=str.lower, reverse=sort != by)
    if not by:
        return models
    first = rows[0].threat

    def known(model: str) -> float | None:
        own = [row for row in rows if row.model == model and row.twin != "difference"]
        if by == "coherence":
            found = [row.coherence for row in own]
        else:
            found = [getattr(row, by).value for row in own if row.threat == first]
        return max((number for number in found if number is not None), default=None)

    numbers = {model: known(model) for model in models}
    there = [model for model in models if numbers[model] is not None]
    there.sort(key=lambda model: numbers[model] or 0, reverse=sort != by)
    return there + [model for model in models if numbers[model] is None]


def _pairs(table: Table, look: Look) -> Arranged:
    """One line a model and threat: each measure of each twin and of their difference in columns of their own."""
    twins = [twin for twin in TWINS if any(row.twin == twin for row in table.rows)]
    plain = _columns(table, look)
    leading = [column for column in plain if column.name in ("model", "coherence", "threat")]
    marked = next(column.name for column in reversed(leading) if column.name != "coherence")
    places = [
        (column, twin)
        for column in plain
        for twin in twins
        if column.kind == "measured" or (column.name == "certified" and look.columns and twin != "difference")
    ]
    verdict = [column for column in plain if column.name == "verdict"]
    columns = (*leading, *(_beside(column, twin) for column, twin in places), *verdict)
    notes = _Notes()
    groups = []
    for rows in _grouped(table, look):
        lines: list[Line] = []
        above = None
        for _, same in itertools.groupby(rows, key=lambda row: (row.model, row.threat)):
            of = {row.twin: row for row in same}
            row = next(iter(of.values()))
            numbers = notes.numbers(*of.values())
            cells = [_content(each.name, table, row, numbers if each.name == marked else ()) for each in leading]
            cells += [
                _content(column.name, table, of[twin], ()) if twin in of else _absent(column) for column, twin in places
            ]
            cells += [_verdicts(list(of.values()))] * len(verdict)
            lines.append(_unrepeated(cells, columns, look, row, above))
            above = row
        groups.append(tuple(lines))
    return Arranged(table.title, table.caption, columns, tuple(groups), tuple(notes.texts), tuple(notes.lines), 0)


def _beside(column: Column, twin: str) -> Column:
    """The column of one twin; a classifier without one keeps its own name."""
    if twin == PLAIN:
        return replace(column, tested=False)
    name, _, unit = column.head.partition(" (")
    head = f"{name}, {twin}" + (f" ({unit}" if unit else "")
    return replace(column, name=f"{column.name}_{twin.replace('-', '')}", head=head, tested=twin == "difference")


def _verdicts(rows: Sequence[Row]) -> Entry:
    """One verdict for a line: what all say, or what each says."""
    said = {row.twin: row.verdict for row in rows if row.verdict}
    text = "; ".join(f"{twin} {verdict}" for twin, verdict in said.items())
    if len(set(said.values())) == 1:
        text = next(iter(said.values()))
    return Entry(text, text)


def _absent(column: Column) -> Entry | Measured:
    return Measured(Cell()) if column.kind == "measured" else Entry("", "")
