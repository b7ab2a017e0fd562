"""Publishing copies a run of a shipped recipe, whole and unaltered, and nothing else."""

from pathlib import Path

import pytest
import torch

from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.report import publish
from robustframe.report.publish import publish_run
from robustframe.runs import open_run
from robustframe.runs.kept import MOST, read_kept

RECIPE = """
schema = 1
name = "shown"
seed = 0
threats = ["linf:0.1"]
battery = ["fgsm.toml"]
[data]
use = "digits"
count = 30
[[model]]
use = "card:{card}"
"""
BATTERY = 'schema = 1\nname = "fgsm"\nversion = "0.1"\n[[attack]]\nuse = "fgsm"\n'


@pytest.fixture
def recipe(tiny_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that stands in evaluations/shown of a checkout."""
    folder = tmp_path / "evaluations" / "shown"
    folder.mkdir(parents=True)
    (folder / "fgsm.toml").write_text(BATTERY)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(card=tiny_card))
    monkeypatch.setattr(publish, "recipes", lambda: {"shown": path})
    monkeypatch.setattr(publish, "shipped_folder", lambda kind: tmp_path / kind)
    return path


def test_a_run_is_copied_to_the_results_of_its_recipe(recipe: Path, tmp_path: Path) -> None:
    run = evaluate_recipe(recipe, runs=tmp_path / "runs", device="cpu")
    results = publish_run(run)
    assert results == recipe.parent / "results"
    assert {file.name for file in results.iterdir()} == {
        "record.json", "seal.sha256", "verdicts.parquet", "table.md", "table.tex", "table.csv", "broken.safetensors",
    }  # fmt: skip
    # The images kept beside the copy are those of the run.
    for (position, threat), images in read_kept(results).items():
        name = run.record.classifiers[position].name
        assert 0 < len(images) <= MOST
        for kept, stored in zip(images.values(), run.breaking_images(name, threat, list(images))):
            assert torch.equal(kept, stored)
    for name in ("record.json", "seal.sha256", "verdicts.parquet"):
        assert (results / name).read_bytes() == (run.folder / name).read_bytes()


def test_nothing_doubtful_is_published(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluate_recipe(recipe, runs=tmp_path / "runs", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "shipped_folder", lambda kind: tmp_path / "_shipped" / kind)
        with pytest.raises(InputError, match="in a checkout, not in an installed package"):
            publish_run(run)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "recipes", dict)
        with pytest.raises(InputError, match="which is not a recipe in evaluations/"):
            publish_run(run)
    text = recipe.read_text()
    recipe.write_text(text.replace("count = 30", "count = 40"))
    with pytest.raises(InputError, match="has changed since"):
        publish_run(run)
    recipe.write_text(text)
    verdicts = run.folder / "verdicts.parquet"
    content = verdicts.read_bytes()
    recipe.write_text(text.replace("count = 30", "count = 31"))
    other = evaluate_recipe(recipe, runs=tmp_path / "runs", device="cpu")
    recipe.write_text(text)
    verdicts.write_bytes((other.folder / "verdicts.parquet").read_bytes())
    with pytest.raises(InputError, match="is not what its record says"):
        publish_run(open_run(run.folder))
    assert not (recipe.parent / "results").exists()
    verdicts.write_bytes(content)
    publish_run(run)
