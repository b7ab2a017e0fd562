"""README and docs do what they say: every code block runs, links lead somewhere, pictures and lists are current."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from readme import output
from typer.testing import CliRunner

import robustframe
from robustframe.cli import app
from robustframe.recipe import Battery, Recipe
from robustframe.runs.record import Record
from robustframe.runs.units import ATTACK_SCHEMA, CLEAN_SCHEMA
from robustframe.runs.verdicts import VERDICT_SCHEMA
from robustframe.train import TrainingGrid, TrainingRecipe

ROOT = Path(robustframe.__file__).parents[1]
DOCS = ROOT / "docs"
# The page of the notebook is run as the notebook that it shows.
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.glob("*.md") if page.name != "notebook.md")]
ALL_PAGES = [*PAGES, DOCS / "notebook.md", *sorted((DOCS / "api").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TOML: list[type[BaseModel]] = [Recipe, Battery, TrainingRecipe, TrainingGrid]


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    language: str
    code: str
    title: str | None
    """The file that it is; it is written, not executed."""
    reason: str | None
    """Why it is not run."""


def blocks(page: Path) -> Iterator[Block]:
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield Block(match["language"], match["code"], match["title"], match["reason"])


BLOCKS = {page: list(blocks(page)) for page in PAGES}


def test_every_fence_is_a_block_of_a_language_that_is_executed() -> None:
    for page, found in BLOCKS.items():
        fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(found), page
        # What is no code is marked as text.
        assert {block.language for block in found} <= {"python", "sh", "toml", "text"}, page
    assert sum(map(len, BLOCKS.values())) >= 30


def test_what_is_not_run_is_little_and_says_why() -> None:
    left_out = [(page.name, block.reason) for page, found in BLOCKS.items() for block in found if block.reason]
    assert len(left_out) <= 2, left_out
    for _, reason in left_out:
        assert reason is not None
        assert len(reason.split()) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_as_typed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Whoever runs them has the folder on the path, as a script or a notebook does.
    monkeypatch.syspath_prepend(tmp_path)
    for block in BLOCKS[page]:
        if block.reason:
            continue
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        if block.language == "toml":
            check_toml(block.code)
        elif block.language == "python" and not block.title:
            exec(compile(block.code, f"{page.name}", "exec"), {"__name__": "__main__"})
        elif block.language == "sh":
            for line in block.code.splitlines():
                run_line(line)


def check_toml(code: str) -> None:
    content, problems = tomllib.loads(code), []
    for model in TOML:
        try:
            model.model_validate(content)
        except ValidationError as error:
            problems.append(str(error))
        else:
            return
    raise AssertionError("neither recipe nor battery nor training recipe:\n" + "\n".join(problems))


def run_line(line: str) -> None:
    """One line of a shell; our own commands in this process, which saves the seconds of importing torch."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "robustframe" and not set(words) & {"|", "&&", ">", ";"}:
        found = CliRunner().invoke(app, words[1:])
        assert found.exit_code == 0, f"{line}: {found.output} {found.exception}"
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-ec", line], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"{line}: {run.stdout} {run.stderr}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("http:", "https:")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {match[0]}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {match[0]}"


def test_every_page_is_reached_from_the_first_one() -> None:
    linked = {match["target"] for match in LINK.finditer((DOCS / "index.md").read_text(encoding="utf-8"))}
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_the_api_pages_show_modules_that_are_there_and_every_public_room() -> None:
    shown = {
        name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)
    }
    package = ROOT / "robustframe"
    for name in shown:
        parts = name.split(".")[1:]
        places = [package.joinpath(*parts[:-1], f"{parts[-1]}.py"), package.joinpath(*parts, "__init__.py")]
        function = package.joinpath(*parts[:-1]).with_suffix(".py")
        named = function.is_file() and f"def {parts[-1]}(" in function.read_text(encoding="utf-8")
        assert named or any(place.is_file() for place in places), name
    inside = {
        "bar",
        "cli",
        "calls",
        "children",
        "devices",
        "lending",
        "plugins",
        "terminal",
        "types",
        "userfile",
        "templates",
        "__main__",
        "__init__",
    }
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - inside <= {name.split(".")[1] for name in shown}
    attacks = {path.stem for path in (package / "attacks").glob("*.py")} - {"__init__", "hyperplane", "apgd_l1"}
    assert attacks <= {name.split(".")[-1] for name in shown}


def test_the_page_on_the_record_names_every_key_and_column() -> None:
    text = (DOCS / "record.md").read_text(encoding="utf-8")
    keys = [field.alias or name for name, field in Record.model_fields.items()]
    for name in {*keys, *VERDICT_SCHEMA, *ATTACK_SCHEMA, *CLEAN_SCHEMA}:
        assert f"`{name}`" in text, name


def test_the_pictures_are_what_the_code_draws(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, DOCS / "pictures.py", tmp_path], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert drawn.keys() == {path.name for path in (DOCS / "pictures").iterdir()}
    for name, text in drawn.items():
        stored = (DOCS / "pictures" / name).read_text(encoding="utf-8")
        # Measured on images or filters: kernels of another machine round differently.
        exact = name not in ("sweeps.svg", "gram.svg")
        numbers = r"href=\"[^\"]*\"|[\d.]+"
        same = text == stored if exact else re.sub(numbers, "", text) == re.sub(numbers, "", stored)
        assert same, f"stale: {name}; run `make pictures`"


@pytest.mark.slow
# What Jupyter's own packages warn of on their way is no matter of ours.
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(DOCS / "first-hour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "store it without outputs"
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "claimed breaks were replayed on the exact model" in printed
    assert "fmnist-chain3-linf/recurrent" in printed


def test_the_readme_says_what_it_is_before_anything_else() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:60])
    wanted = [
        "models that",
        "RobustBench's rules exclude",
        "![",
        "<!-- finding: aware -->",
        "pip install",
        "```python",
        "Verdict",
    ]
    places = [first.index(text) for text in wanted]
    assert places == sorted(places)


def test_the_page_of_the_notebook_shows_its_cells_and_what_they_print() -> None:
    page = (DOCS / "notebook.md").read_text(encoding="utf-8")
    notebook = json.loads((DOCS / "first-hour.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if not line.startswith("!") and line != "import sys":
                assert line in page, f"stale: {line}; run `make notebook`"
    assert "claimed breaks were replayed on the exact model" in " ".join(page.split())


@pytest.mark.slow
def test_the_readme_shows_what_its_first_block_prints() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- output: first -->\n(.*?)\n<!-- end of output -->", text, re.DOTALL)
    assert shown is not None
    # Kernels of another machine round differently, and an example may come out differently.
    numbers = r"[0-9a-f]{8,}|[\d.]+|─+"
    printed, stated = (re.sub(numbers, "", each).split() for each in (output(text), shown[1]))
    assert printed == stated, "stale: run `make tables`"


def test_everything_that_the_docs_import_is_on_an_api_page() -> None:
    shown = set(re.findall(r"^::: ([\w.]+)$", "\n".join(p.read_text() for p in (DOCS / "api").glob("*.md")), re.M))
    missing = set()
    for page, found in BLOCKS.items():
        code = "\n".join(block.code for block in found if block.language == "python")
        # Names in brackets go over several lines.
        for module, names in re.findall(r"^from (robustframe[\w.]*) import (\([^)]*\)|.*)$", code, re.M):
            for name in re.findall(r"(\w+)(?: as \w+)?(?:,|\s|$)", names.strip("()")):
                home = getattr(getattr(importlib.import_module(module), name), "__module__", module)
                if home not in shown and f"{home}.{name}" not in shown:
                    missing.add((page.name, f"{home}.{name}"))
    assert not missing


def test_the_readme_names_every_extra_for_users() -> None:
    rows = re.findall(r"^\| `robustframe\[(\w+)\]` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(rows) == sorted(set(project["optional-dependencies"]) - {"dev", "docs", "all"})
    # What errors tell people to install is one of them.
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "robustframe").rglob("*.py"))
    assert set(re.findall(r"pip install 'robustframe\[(\w+)\]'", code)) <= set(rows)
