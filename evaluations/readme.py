"""Figures in README and docs come from published records: this writes them, and says when they are stale."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from claims import claims, claims_table
from pictures import draw_pictures

from robustframe.errors import InputError
from robustframe.report import render, robustness_table
from robustframe.report.cards import zoo_table
from robustframe.report.publish import write_tables
from robustframe.runs import open_run

_REGION = re.compile(
    r"(?P<head><!-- (?P<kind>table|page|claims|zoo): (?P<what>\S+) -->\n).*?(?P<foot><!-- end of (?P=kind) -->)",
    re.DOTALL,
)
_BESIDE = re.compile(r"\]\(([\w.-]+\.md)\)")


def fill(text: str, root: Path, *, page: Path | None = None) -> str:
    """Put what records, benchmarks and cards say between the markers that ask for it.

    Args:
        text: a Markdown page with regions ``<!-- KIND: WHAT -->`` ... ``<!-- end of KIND -->``: ``table: FOLDER`` for
            the table of a published record; ``page: FILE`` for a page of a benchmark without its title, or
            ``page: FILE#SECTION`` for one section of it; ``claims: all`` or ``claims: EVALUATION`` for the claims that
            evaluations test; ``zoo: pairs`` for the shipped pairs.
        root: what folders and files are relative to.
        page: where the page lies, for links out of it; at the root when left out.

    Returns:
        The page with every region written anew.

    Raises:
        InputError: for a record that is missing or incomplete, or a page that is not there.
    """
    writers: dict[str, Callable[[str], str]] = {
        "table": lambda what: render(robustness_table(open_run(root / what)), "md"),
        "page": lambda what: _page(what, root, (page or root / "README.md").parent),
        "claims": lambda what: _claims(what, root, (page or root / "README.md").parent),
        "zoo": lambda what: zoo_table(),
    }

    def written(match: re.Match[str]) -> str:
        return f"{match['head']}{writers[match['kind']](match['what']).strip()}\n{match['foot']}"

    return _REGION.sub(written, text)


def _page(what: str, root: Path, folder: Path) -> str:
    name, _, section = what.partition("#")
    file = root / name
    if not file.is_file():
        raise InputError(f"there is no page {file}; `make bench` writes those of the benchmarks")
    # Links of the page are relative to where it lies.
    there = Path(os.path.relpath(file.parent, folder)).as_posix()
    text = _BESIDE.sub(rf"]({there}/\1)", file.read_text(encoding="utf-8"))
    if section:
        _, found, text = text.partition(f"\n## {section}\n")
        if not found:
            raise InputError(f"{file} has no section {section!r}")
        return text.partition("\n## ")[0]
    title, _, body = text.partition("\n")
    return body if title.startswith("# ") else title + body


def _claims(what: str, root: Path, folder: Path) -> str:
    if what == "all":
        link = Path(os.path.relpath(root / "evaluations", folder)).as_posix()
        return claims_table(claims(root / "evaluations"), evaluations=link)
    return claims_table(claims(root / "evaluations", only=what))


def main(pages: list[str]) -> None:
    """Write the tables and pictures of all published records anew, and the regions of the given pages and READMEs."""
    for record in sorted(Path("evaluations").glob("*/results/record.json")):
        write_tables(robustness_table(open_run(record)), record.parent)
    draw_pictures(Path("evaluations"))
    for page in [*map(Path, pages), *sorted(Path("evaluations").glob("*/README.md"))]:
        page.write_text(fill(page.read_text(encoding="utf-8"), Path(), page=page), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
