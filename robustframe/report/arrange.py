"""A robustness table put in order for the writers: which columns, which rows below which, twins beside each other."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from robustframe.errors import InputError, unknown
from robustframe.report.layout import (
    PLAIN,
    TWINS,
    UNKNOWN,
    Cell,
    Cells,
    Column,
    Grid,
    Measured,
    Table,
    TableRow,
    TextCell,
    coherence_text,
)

COLUMNS = ("coherence", "clean", "robust", "corrupted", "certified", "verdict")
"""What can be chosen; model, twin and threat say what a row is and are always there."""
GROUPS = {
    "model": ("model", "coherence", "twin", "threat"),
    "threat": ("threat", "model", "coherence", "twin"),
    "twin": ("twin", "model", "coherence", "threat"),
}
"""The columns that say what a row is, in order, by what rows are grouped by."""
SORTS = ("robust", "clean", "coherence", "name")
_FOUND = (
    Column("clean", "Clean accuracy (%)", "measured", tested=True, drop=4),
    Column("robust", "Robust accuracy (%)", "measured", tested=True),
    Column("corrupted", "Corrupted accuracy (%)", "measured", drop=3),
    Column("certified", "Certified (%)", drop=2),
    Column("verdict", "Verdict"),
)
_TONES = {"suspicious": "bad", "row failed": "bad", "run not finished": "doubtful", "sound": "good"}
"""The colour of a verdict, the gravest first."""


@dataclass(frozen=True)
class TableStyle:
    """How a robustness table is shown."""

    columns: tuple[str, ...] = ()
    """Of `COLUMNS`; those that have something in them when empty."""
    group_by: str = "model"
    """One of `GROUPS`."""
    sort: str = ""
    """One of `SORTS`, descending with a minus before it; the order of the rows when empty."""
    pairs: bool = False
    """One line per model and threat, with the twins and their difference beside each other."""

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


def arranged(table: Table, style: TableStyle | None = None) -> Grid:
    """Put a table in order.

    Args:
        table: its rows, in any order.
        style: columns, grouping and order.

    Returns:
        Lines in groups: of one row each, or with the twins of a model under a threat beside each other.
    """
    style = style or TableStyle()
    coherence = {row.model: row.coherence for row in table.rows if row.coherence is not None}
    leading, places = _leading(table, style, coherence), _places(table, style)
    names = [column.name for column in leading]
    # Notes are marked where a line differs from its neighbours.
    marked = "twin" if not style.pairs and any(row.twin != PLAIN for row in table.rows) else "model"
    if style.pairs and style.group_by == "model":
        marked = "threat"
    notes: dict[str, int] = {}
    note_of: list[tuple[str, ...]] = []
    groups = []
    for rows in _grouped(table, style, coherence):
        lines: list[Cells] = []
        for same in _lines(rows, style):
            own = tuple(dict.fromkeys(row.note for row in same if row.note))
            note_of.append(own)
            marks = tuple(notes.setdefault(text, len(notes) + 1) for text in own)
            said = [_key(name, same[0], coherence, marks if name == marked else ()) for name in names]
            found = [_found(column.name, [row for row in same if twin in ("", row.twin)]) for column, twin in places]
            lines.append((*said, *found))
        groups.append(tuple(lines))
    return Grid(
        table.title,
        table.caption,
        (*leading, *(_beside(column, twin) for column, twin in places)),
        tuple(groups),
        keys=len(leading),
        heading=0 if style.pairs else 2 if style.group_by == "model" else 1,
        notes=tuple(notes),
        note_of=tuple(note_of),
    )


def _leading(table: Table, style: TableStyle, coherence: Mapping[str, float]) -> list[Column]:
    """The columns that say what a line is."""
    asked = "coherence" in style.columns if style.columns else bool(coherence)
    twins = any(row.twin != PLAIN for row in table.rows)
    said = len({row.threat for row in table.rows}) == 1 and table.rows[0].threat in table.title
    # Beside each other, the threat carries the marks of notes.
    said = said and not (style.pairs and any(row.note for row in table.rows))
    known = {
        "model": Column("model", "Model", once=True),
        "coherence": Column("coherence", "Coherence", "number", once=True, hidden=not asked, drop=3),
        "twin": Column("twin", table.column, once=style.group_by == "twin", hidden=not twins),
        "threat": Column("threat", "Threat", once=True, drop=int(said)),
    }
    return [known[name] for name in GROUPS[style.group_by] if not (style.pairs and name == "twin")]


def _places(table: Table, style: TableStyle) -> list[tuple[Column, str]]:
    """The columns of what was found, each with the twin it is about: empty where a line is about one row.

    A column in which nothing is certified says no more than the sentence below the table.
    """
    filled = {
        "corrupted": any(row.corrupted.value is not None for row in table.rows),
        "certified": any(row.certified for row in table.rows),
        "verdict": any(row.verdict for row in table.rows),
    }
    shown = [each for each in _FOUND if (each.name in style.columns if style.columns else filled.get(each.name, True))]
    if not style.pairs:
        return [(column, "") for column in shown]
    twins = [twin for twin in TWINS if any(row.twin == twin for row in table.rows)]
    # Certificates beside each other make a line very long, so they are there only where they are asked for.
    alone = [twin for twin in twins if twin != "difference"]
    sides = {
        "verdict": [""],
        "corrupted": alone,
        "certified": [twin for twin in twins if style.columns and twin != "difference"],
    }
    return [(column, twin) for column in shown for twin in sides.get(column.name, twins)]


def _beside(column: Column, twin: str) -> Column:
    """The column of one twin; a classifier without one keeps its own name."""
    if not twin or twin == PLAIN:
        return replace(column, tested=column.tested and not twin)
    name, _, unit = column.head.partition(" (")
    head = f"{name}, {twin}" + (f" ({unit}" if unit else "")
    return replace(column, name=f"{column.name}_{twin.replace('-', '')}", head=head, tested=twin == "difference")


def _key(name: str, row: TableRow, coherence: Mapping[str, float], marks: tuple[int, ...]) -> TextCell:
    if name == "coherence":
        known = coherence.get(row.model)
        return TextCell(coherence_text(known), "" if known is None else str(known))
    text: str = getattr(row, name)
    return TextCell(text, "" if name == "twin" and text == PLAIN else text, marks)


def _found(name: str, rows: Sequence[TableRow]) -> TextCell | Measured:
    """What was found of a row, or of the rows beside each other; nothing where there is none."""
    if name == "verdict":
        said = {row.twin: row.verdict for row in rows if row.verdict}
        tone = next((tone for word, tone in _TONES.items() if word in said.values()), "doubtful")
        if len(set(said.values())) == 1:
            return TextCell(next(iter(said.values())), tone=tone)
        return TextCell("; ".join(f"{twin} {verdict}" for twin, verdict in said.items()), tone=tone)
    if not rows:
        return TextCell("") if name == "certified" else Measured(Cell())
    row = rows[0]
    if name == "certified":
        return _certified(row)
    if name == "corrupted":
        return Measured(row.corrupted, signed=row.twin == "difference")
    cell, p = (row.clean, row.p_clean) if name == "clean" else (row.robust, row.p_robust)
    return Measured(cell, p, signed=row.twin == "difference")


def _certified(row: TableRow) -> TextCell:
    """The lower bound in percent, and how far below the upper one it lies."""
    raw = "" if row.certified is None else str(row.certified)
    if row.certified is None or row.robust.value is None:
        return TextCell("" if row.twin == "difference" else UNKNOWN, raw)
    said = f"{100 * row.certified:.1f}"
    return TextCell(f"{said} (gap {100 * (row.robust.value - row.certified):.1f})", raw, short=said)


def _lines(rows: Sequence[TableRow], style: TableStyle) -> list[list[TableRow]]:
    """The rows of each line of a group."""
    if not style.pairs:
        return [[row] for row in rows]
    return [list(same) for _, same in itertools.groupby(rows, key=lambda row: (row.model, row.threat))]


def _grouped(table: Table, style: TableStyle, coherence: Mapping[str, float]) -> list[list[TableRow]]:
    """The rows of each group, models in the order asked for; twins of a model under a threat stay together."""
    threats = list(dict.fromkeys(row.threat for row in table.rows))
    groups: dict[str, list[TableRow]] = {}
    for row in table.rows:
        groups.setdefault(getattr(row, style.group_by), []).append(row)
    order = list(groups)
    if style.group_by == "model":
        order = _ordered(table.rows, style.sort, coherence)
    elif style.group_by == "twin":
        order.sort(key=TWINS.index)
    for rows in groups.values():
        models = _ordered(rows, style.sort, coherence)
        rows.sort(key=lambda row: (models.index(row.model), threats.index(row.threat), TWINS.index(row.twin)))
    return [groups[key] for key in order]


def _ordered(rows: Sequence[TableRow], sort: str, coherence: Mapping[str, float]) -> list[str]:
    """Models in the order asked for; what is unknown stands last.

    A model counts by the best of its classifiers, under the first of the threats.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    by = sort.removeprefix("-")
    if by == "name":
        return sorted(models, key=str.lower, reverse=sort != by)
    if not by:
        return models
    known = dict(coherence) if by == "coherence" else {}
    for row in rows if by != "coherence" else ():
        value = getattr(row, by).value
        if row.threat == rows[0].threat and row.twin != "difference" and value is not None:
            known[row.model] = max(value, known.get(row.model, value))
    there = sorted((model for model in models if model in known), key=known.__getitem__, reverse=sort != by)
    return there + [model for model in models if model not in known]
