"""Figures in README and docs come from published records: this writes them, and says when they are stale."""

import re
import sys
from pathlib import Path

from robustframe.errors import InputError
from robustframe.record import read_record
from robustframe.report.publish import write_tables
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render

_TABLE = re.compile(r"(<!-- table: (?P<run>\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_BESIDE = re.compile(r"\]\(([\w.-]+\.md)\)")
_PAGE = re.compile(r"(<!-- page: (?P<file>\S+) -->\n).*?(<!-- end of page -->)", re.DOTALL)


def fill(text: str, root: Path) -> str:
    """Put the table of each named record, and each named page, between its markers.

    Args:
        text: a Markdown page with regions ``<!-- table: FOLDER -->`` ... ``<!-- end of table -->``, and ``<!-- page:
            FILE -->`` ... ``<!-- end of page -->`` for a page of a benchmark, which is shown without its title.
        root: what folders and files are relative to.

    Returns:
        The page with every region written anew.

    Raises:
        InputError: for a record that is missing or incomplete, or a page that is not there.
    """

    def table(match: re.Match[str]) -> str:
        folder = root / match["run"]
        return f"{match[1]}{render(robustness_table(read_record(folder), folder), 'md').strip()}\n{match[3]}"

    def page(match: re.Match[str]) -> str:
        file = root / match["file"]
        if not file.is_file():
            raise InputError(f"there is no page {file}; `make bench` writes those of the benchmarks")
        # Links of the page are relative to where it lies; the pages that show it lie in docs/.
        text = _BESIDE.sub(rf"](../{Path(match['file']).parent.as_posix()}/\1)", file.read_text(encoding="utf-8"))
        title, _, body = text.partition("\n")
        return f"{match[1]}{body.strip() if title.startswith('# ') else title + body}\n{match[3]}"

    return _PAGE.sub(page, _TABLE.sub(table, text))


def main(pages: list[str]) -> None:
    """Write the tables of every published record anew, and those inside the given pages."""
    for record in sorted(Path("evaluations").glob("*/results/record.json")):
        write_tables(robustness_table(read_record(record), record.parent), record.parent)
    for page in map(Path, pages):
        page.write_text(fill(page.read_text(encoding="utf-8"), Path()), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
