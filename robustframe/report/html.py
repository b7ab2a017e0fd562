"""A table as a page of HTML, made with great-tables."""

import hashlib

import polars as pl

from robustframe.errors import InputError
from robustframe.report.arrange import Arranged, Entry, Measured
from robustframe.report.layout import one_line
from robustframe.report.terminal import heading, superscript

MISSING = "tables in HTML need the extra `report`: pip install 'robustframe[report]'"


def html(table: Arranged) -> str:
    """Write an arranged table as a page that needs nothing else; names in it are text, whatever they hold.

    Raises:
        InputError: without great-tables.
    """
    try:
        from great_tables import GT
    except ImportError as error:
        raise InputError(MISSING) from error
    shown = [at for at, column in enumerate(table.columns) if at >= table.heading and not column.hidden]
    lines = [(group, line) for group in table.groups for line in group]
    # The names of columns are their places, as two may have one head.
    content = {str(at): [_text(line[at]) for _, line in lines] for at in shown}
    if table.heading:
        content["group"] = [heading(group[0], table) for group, _ in lines]
    own = hashlib.sha256(repr(table).encode()).hexdigest()[:8]
    page = GT(pl.DataFrame(content), groupname_col="group" if table.heading else None, id=f"table-{own}")
    page = page.cols_label({str(at): table.columns[at].head for at in shown})
    numbers = [str(at) for at in shown if table.columns[at].kind == "number"]
    page = page.cols_align("left").cols_align("right", columns=numbers)
    if title := one_line(table.title):
        page = page.tab_header(title=title)
    notes = [f"{superscript(number)} {note}" for number, note in enumerate(table.notes, start=1)]
    for text in filter(None, map(one_line, (table.caption, *notes))):
        page = page.tab_source_note(text)
    return page.tab_options(heading_align="left").as_raw_html(make_page=True).rstrip("\n") + "\n"


def _text(cell: Entry | Measured) -> str:
    if isinstance(cell, Entry):
        return ("" if cell.repeated else one_line(cell.text)) + superscript(*cell.notes)
    number = cell.written()
    return ", ".join(filter(None, [" ".join(filter(None, [number.value, number.interval])), number.p]))
