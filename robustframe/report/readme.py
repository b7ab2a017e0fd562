"""Figures in README and docs come from published records: this writes them, and says when they are stale."""

import re
import sys
from pathlib import Path

from robustframe.errors import InputError
from robustframe.record import read_record
from robustframe.report.publish import write_tables
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render

_REGION = re.compile(r"(<!-- table: (?P<run>\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill(text: str, root: Path) -> str:
    """Put the table of each named record between its markers.

    Args:
        text: a Markdown page with regions ``<!-- table: FOLDER -->`` ... ``<!-- end of table -->``.
        root: what the folders are relative to.

    Returns:
        The page with every region written anew.

    Raises:
        InputError: for a record that is missing or incomplete.
    """

    def table(match: re.Match[str]) -> str:
        folder = root / match["run"]
        return f"{match[1]}{render(robustness_table(read_record(folder), folder), 'md').strip()}\n{match[3]}"

    return _REGION.sub(table, text)


def main(pages: list[str]) -> None:
    """Write the tables of every published record anew, and those inside the given pages."""
    for record in sorted(Path("evaluations").glob("*/results/record.json")):
        write_tables(robustness_table(read_record(record), record.parent), record.parent)
    for page in map(Path, pages):
        page.write_text(fill(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
