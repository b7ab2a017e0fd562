"""Recipes parse, results belong to their recipe, tables are current, and a replay agrees."""

import hashlib
from pathlib import Path

import polars as pl
import pytest
import torch
from readme import fill

import robustframe
from robustframe.attacks import ATTACKS
from robustframe.calls import call_in_batches
from robustframe.data import load
from robustframe.evaluation import load_task
from robustframe.recipe import Recipe, batteries, read_toml, recipes, shipped_folder
from robustframe.report import render, robustness_table
from robustframe.runs import open_run
from robustframe.runs.kept import read_kept

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
    record = open_run(folder).record
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
    run = open_run(folder)
    verdicts = pl.read_parquet(folder / "verdicts.parquet")
    for result in run.results:
        rows = verdicts.filter((pl.col("classifier") == result.classifier) & (pl.col("threat") == result.threat))
        assert len(rows) == result.examples
        assert rows["clean_correct"].sum() == result.clean_correct
        assert rows["robust"].sum() == result.robust_correct
    table = robustness_table(run)
    for format in ("md", "tex", "csv"):
        assert (folder / f"table.{format}").read_bytes() == render(table, format).encode()


def test_images_beside_a_result_are_what_broke_it() -> None:
    found = 0
    for folder in RESULTS:
        run = open_run(folder)
        task = load_task(folder.parent / "recipe.toml", device=torch.device("cpu")) if read_kept(folder) else None
        for (position, threat), images in read_kept(folder).items():
            assert task is not None
            said = run.rows(run.record.classifiers[position].name, threat).filter(pl.col("index").is_in(list(images)))
            with torch.no_grad():
                logits = call_in_batches(task.classifiers[position].module, torch.stack(list(images.values())), 32)
            assert logits.argmax(1).tolist() == said["adversarial_prediction"].to_list()
            clean = task.data.images[list(images)]
            far = run.threat(threat).distance(clean, torch.stack(list(images.values())))
            assert far.tolist() == pytest.approx(said["distance"].to_list(), abs=1e-6)
            found += len(images)
    assert found > 32


def test_the_readme_shows_a_published_finding() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- finding: aware -->" in text
    assert fill(text, ROOT) == text, "stale: run `make tables`"


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("attacks", "page: benchmarks/results/attacks.md"),
        ("cli", "commands: all"),
        ("reframe", "page: benchmarks/results/coherence_cost.md#Networks"),
    ],
)
def test_the_docs_show_the_published_pages(name: str, region: str) -> None:
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert f"<!-- {region} -->" in text
    assert fill(text, ROOT, page=page) == text, "stale: run `make tables`"


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


@pytest.mark.slow
@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.parent.name)
def test_a_published_result_verifies(folder: Path) -> None:
    # The code beside a recipe of ours may run.
    found = robustframe.verify(folder, device="cpu", code=sorted(folder.parent.glob("*.py")))
    assert found.ok, str(found)


def test_the_docs_name_every_battery_and_every_attack() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    for name in [*ATTACKS, *(battery.cited for battery in batteries())]:
        assert f"`{name}`" in text, name
