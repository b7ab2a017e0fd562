"""Recipes parse, results belong to their recipe, tables are current, and a replay agrees."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import robustframe
from robustframe.attacks import ATTACKS, make_attack
from robustframe.calls import call_in_batches
from robustframe.data import load
from robustframe.draws import Draws
from robustframe.evaluation import load_task
from robustframe.recipe import Recipe, batteries, load_battery, read_toml, recipes, shipped_folder
from robustframe.record import read_record
from robustframe.report.readme import fill
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
from robustframe.threat import ThreatModel

ROOT = Path(robustframe.__file__).parents[1]
RESULTS = [path.parent for path in sorted(shipped_folder("evaluations").glob("*/results/record.json"))]


@pytest.mark.parametrize("path", recipes().values(), ids=str)
def test_every_recipe_loads_everything_it_names(path: Path) -> None:
    task = load_task(path, device=torch.device("cpu"))
    assert task.name == path.parent.name
    assert (path.parent / "README.md").is_file()


def test_there_is_a_published_result() -> None:
    assert RESULTS


@pytest.mark.parametrize("folder", RESULTS, ids=str)
def test_a_result_answers_its_recipe_as_it_stands(folder: Path) -> None:
    record = read_record(folder)
    assert record.status == "complete"
    recipe = read_toml(folder.parent / "recipe.toml", Recipe)
    assert record.recipe == recipe.model_dump(by_alias=True), "stale: evaluate the recipe and publish the run"
    task = load_task(folder.parent / "recipe.toml", device=torch.device("cpu"))
    assert record.classifiers == [classifier.entry for classifier in task.classifiers]
    assert record.data.sha256 == task.data.sha256
    assert record.batteries == [battery.model_dump(by_alias=True) for battery in task.batteries]
    verdicts = (folder / "verdicts.parquet").read_bytes()
    assert hashlib.sha256(verdicts).hexdigest() == record.verdicts_sha256


@pytest.mark.parametrize("folder", RESULTS, ids=str)
def test_counts_and_tables_follow_from_the_verdicts(folder: Path) -> None:
    record = read_record(folder)
    verdicts = pl.read_parquet(folder / "verdicts.parquet")
    for result in record.results or []:
        rows = verdicts.filter((pl.col("classifier") == result.classifier) & (pl.col("threat") == result.threat))
        assert len(rows) == result.examples
        assert rows["clean_correct"].sum() == result.clean_correct
        assert rows["robust"].sum() == result.robust_correct
    table = robustness_table(record, folder)
    for format in ("md", "tex", "csv"):
        assert (folder / f"table.{format}").read_bytes() == render(table, format).encode()


def test_the_readme_shows_the_published_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table: evaluations/default/results -->" in text
    assert fill(text, ROOT) == text, "stale: run `make tables`"


def test_the_docs_show_the_published_pages() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert "<!-- page: benchmarks/results/attacks.md -->" in text
    assert fill(text, ROOT) == text, "stale: run `make tables`"


def test_clean_verdicts_of_the_default_evaluation_replay() -> None:
    folder = shipped_folder("evaluations") / "default" / "results"
    verdicts = pl.read_parquet(folder / "verdicts.parquet")
    task = load_task(folder.parent / "recipe.toml", device=torch.device("cpu"))
    images = load(task.data.name).images[:200]
    for classifier in task.classifiers:
        with torch.no_grad():
            logits = call_in_batches(classifier.module, images, 100)
        rows = verdicts.filter((pl.col("classifier") == classifier.entry.name) & (pl.col("index") < 200))
        stored = torch.from_numpy(rows["clean_prediction"].to_numpy().copy())
        # Kernels of another machine round differently: only a near tie may come out the other way.
        top = logits.topk(2, dim=1).values
        assert ((logits.argmax(1) == stored) | (top[:, 0] - top[:, 1] < 1e-3)).all()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readmes_python_runs_as_typed(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "clean_correct" in run.stdout
    assert (tmp_path / "my-run" / "record.json").is_file()


def test_the_python_on_trust_runs_as_typed(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "docs" / "trust.md", "python")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "claimed breaks were replayed on the exact model" in run.stdout


@pytest.mark.slow
def test_the_commands_on_trust_run_as_typed(tmp_path: Path) -> None:
    lines = [line for block in blocks(ROOT / "docs" / "trust.md", "sh") for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["evaluate", "verify", "evaluate", "compare", "doctor"]
    for line in lines:
        words = [sys.executable, "-m", "robustframe", *line.split()[1:]]
        run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{line}: {run.stdout} {run.stderr}"


@pytest.mark.parametrize("folder", RESULTS, ids=str)
def test_a_published_result_verifies(folder: Path) -> None:
    found = robustframe.verify(folder, device="cpu")
    assert found.ok, str(found)


def test_the_recipe_in_the_docs_is_a_recipe(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "evaluating.md", "toml")
    (tmp_path / "recipe.toml").write_text(text)
    assert read_toml(tmp_path / "recipe.toml", Recipe).battery == ["quick@1"]


def test_the_docs_on_attacks_run_as_typed(tmp_path: Path) -> None:
    page = ROOT / "docs" / "attacks.md"
    (text,) = blocks(page, "toml")
    (tmp_path / "battery.toml").write_text(text)
    assert load_battery(str(tmp_path / "battery.toml")).votes == 11
    code, own = blocks(page, "python")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    broken = re.fullmatch(r"(\d+) of 20 broken and verified\n", run.stdout)
    assert broken is not None, run.stdout
    assert int(broken[1]) > 0
    (tmp_path / "mine.py").write_text(own)
    attack = make_attack("file:mine.py:Straight", {}, folder=tmp_path)
    data = load("digits").first(20)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    labels = flat(data.images).argmax(1)
    found = attack.run(flat, data.images, labels, ThreatModel.parse("linf:0.5"), Draws((0,), 20))
    assert found.success.any()
    assert found.forwards.max() <= 13


def test_the_docs_name_every_battery_and_every_attack() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    for name in [*ATTACKS, *(battery.cited for battery in batteries())]:
        assert f"`{name}`" in text, name
