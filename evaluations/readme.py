"""Figures in README and docs come from published records: this writes them, and says when they are stale."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from claims import claims
from findings import nets_table, study_claims, study_cost
from pictures import draw_pictures
from wording import claims_table

from robustframe.errors import InputError
from robustframe.report import render, robustness_table
from robustframe.report.cards import zoo_table
from robustframe.report.publish import write_tables
from robustframe.runs import open_run

_KINDS = "table|page|claims|study|nets|zoo|finding|speed|commands|output"
_REGION = re.compile(
    rf"(?P<head><!-- (?P<kind>{_KINDS}): (?P<what>\S+) -->\n).*?(?P<foot><!-- end of (?P=kind) -->)", re.DOTALL
)
_BESIDE = re.compile(r"\]\(([\w.-]+\.md)\)")
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_RACES = {
    ("pgd-broken", "PGD-40", "torchattacks PGD"): "a normally trained model",
    ("standard-broken-recurrent", "standard@1", "pyautoattack standard"): "its recurrent twin",
    ("standard-robust-feedforward", "standard@1", "pyautoattack standard"): "an adversarially trained model",
}
"""The rows of the benchmark that are shown where there is room for three."""


def fill(text: str, root: Path, *, page: Path | None = None, run: bool = False) -> str:
    """Put what records, benchmarks and cards say between the markers that ask for it.

    Args:
        text: a Markdown page with regions ``<!-- KIND: WHAT -->`` ... ``<!-- end of KIND -->``: ``table: FOLDER`` for
            the table of a published record; ``page: FILE`` for a page of a benchmark without its title, or
            ``page: FILE#SECTION`` for one section of it; ``claims: all`` or ``claims: EVALUATION`` for the claims that
            evaluations test, ``finding: EVALUATION`` for the first of them in a sentence, ``study: NAME`` for the
            claims that a study of many nets tests and ``nets: NAME`` for its table; ``speed: FILE`` for three rows of
            the benchmark; ``zoo: pairs`` for the shipped pairs; ``commands: all`` for the command line; ``output:
            first`` for what the first block of Python of the page prints.
        root: what folders and files are relative to.
        page: where the page lies, for links out of it; at the root when left out.
        run: run the blocks whose output is shown; it stays as it is otherwise, as that takes a minute.

    Returns:
        The page with every region written anew.

    Raises:
        InputError: for a record that is missing or incomplete, or a page that is not there.
    """
    writers: dict[str, Callable[[str], str]] = {
        "table": lambda what: render(robustness_table(open_run(root / what)), "md"),
        "page": lambda what: _page(what, root, (page or root / "README.md").parent),
        "claims": lambda what: _claims(what, root, _link(root, page)),
        "study": lambda what: _study(root / "evaluations" / what, _link(root, page)),
        "nets": lambda what: nets_table(root / "evaluations" / what),
        "zoo": lambda what: zoo_table(),
        "finding": lambda what: _finding(what, root),
        "speed": lambda what: _speed(root / what),
        "commands": lambda what: _commands(),
        "output": lambda what: output(text),
    }

    def written(match: re.Match[str]) -> str:
        if match["kind"] == "output" and not run:
            return match[0]
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


def _link(root: Path, page: Path | None) -> str:
    """The path of ``evaluations/`` as seen from a page."""
    return Path(os.path.relpath(root / "evaluations", (page or root / "README.md").parent)).as_posix()


def _claims(what: str, root: Path, link: str) -> str:
    if what == "all":
        return claims_table(claims(root / "evaluations"), evaluations=link)
    return claims_table(claims(root / "evaluations", only=what))


def _study(folder: Path, link: str) -> str:
    return f"{claims_table(study_claims(folder), evaluations=link)}\n\n{study_cost(folder)}"


def _finding(what: str, root: Path) -> str:
    first = claims(root / "evaluations", only=what)[0]
    return f"> *{first.text}*: {first.found} ({first.figures})."


def _speed(file: Path) -> str:
    """Three rows of the benchmark: ours, a peer's, and how many times as fast."""
    lines = ["| attack | on | robustframe (s) | other library (s) | ratio of times |", "|---|---|--:|--:|--:|"]
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        model = _RACES.get((cells[0], cells[3], cells[4])) if len(cells) > 10 else None
        if model is not None:
            _, name, _, ours, peer, our_time, their_time, ratio, *_ = cells
            lines.append(f"| `{ours}` | {model}, `{name}` | {our_time} | {their_time} ({peer}) | {ratio} |")
    return "\n".join(lines)


def _commands() -> str:
    """The help of every command, as Typer writes it."""
    import click
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from robustframe.cli import app

    command = get_command(app)
    context = click.Context(command, info_name="robustframe")  # type: ignore[arg-type]
    text = get_docs_for_click(obj=command, ctx=context, name="robustframe", title="-")  # type: ignore[arg-type]
    # Usage lines of a shell are no code to run; the title stands above already.
    text = text.partition("\n")[2].replace("```console\n$ ", "```text\n")
    return re.sub(r"\n{3,}", "\n\n", text)


def output(text: str) -> str:
    """Run the first block of Python of a page in an empty folder, and return what it prints, as a block."""
    found = _PYTHON.search(text)
    if found is None:
        raise InputError("the page has no block of Python whose output could be shown")
    environment = {
        **os.environ,
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", found[1]], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise InputError(f"the first block of Python fails: {done.stderr.strip()[-500:]}")
    return f"```text\n{done.stdout.rstrip()}\n```"


def main(pages: list[str]) -> None:
    """Write the tables and pictures of all published records anew, and the regions of the given pages and READMEs."""
    for record in sorted(Path("evaluations").glob("*/results/record.json")):
        write_tables(robustness_table(open_run(record)), record.parent)
    draw_pictures(Path("evaluations"))
    for page in [*map(Path, pages), *sorted(Path("evaluations").glob("*/README.md"))]:
        page.write_text(fill(page.read_text(encoding="utf-8"), Path(), page=page, run=True), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
