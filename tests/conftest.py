"""What several test files share: a small pair, really trained, and a run of it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from robustframe.evaluation import evaluate_recipe
from robustframe.runs.units import parquet
from robustframe.train import TrainingRecipe, train

TINY = {
    "schema": 1,
    "name": "tiny",
    "about": "Two dense layers on digits, for the tests.",
    "seed": 0,
    "data": {"use": "digits"},
    "pair": {"layers": [{"atoms": 48}, {"atoms": 24}], "sweeps": 3},
    "schedule": {"epochs": 3, "batch": 64, "learning_rate": 0.02, "coherence": 0.1},
}


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is remembered of a user's own runs out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_looks() -> Iterator[None]:
    """Text is as wide as where nobody looks, whatever the terminal of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def tiny_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a pair trained on digits in a second or two; do not change its files."""
    folder = tmp_path_factory.mktemp("tiny")
    return train(TrainingRecipe.model_validate(TINY), folder, device=torch.device("cpu"))


@pytest.fixture
def tiny_copy(tiny_card: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pair whose files a test may change; the path of its card."""
    for file in tiny_card.parent.glob("tiny.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / tiny_card.name


RUN = """
schema = 1
name = "shown"
seed = 3
chunk = 40
threats = ["linf:0.15", "l2:0.8"]
battery = ["shown.toml"]
[data]
use = "digits"
count = 90
[[model]]
use = "card:{card}"
"""
BATTERY = 'schema = 1\nname = "shown"\nversion = "0.1"\n[[attack]]\nuse = "pgd"\nsteps = 4\nstep_size = 0.4\n'


@pytest.fixture(scope="session")
def shown_run(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny pair under two threats, with diagnoses and images; do not change its files."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "shown.toml").write_text(BATTERY)
    (folder / "recipe.toml").write_text(RUN.format(card=tiny_card))
    return evaluate_recipe(folder / "recipe.toml", runs=folder / "runs", device="cpu").folder


@pytest.fixture(scope="session", name="disguise")
def disguise_fixture() -> Callable[..., Path]:
    """See `_disguise`."""
    return _disguise


def _disguise(run: Path, folder: Path, model: str, **changes: Any) -> Path:
    """Copy record and verdicts of a run of one pair under another name of its model.

    Args:
        run: the run.
        folder: where the copy goes.
        model: the new name, any text.
        changes: of the record; ``None`` results and hashes with status ``"started"`` make a run that is not finished.
    """
    record = json.loads((run / "record.json").read_text())
    old = record["classifiers"][0]["model"]
    names = {each["name"]: model + each["name"].removeprefix(old) for each in record["classifiers"]}
    for each in record["classifiers"]:
        each |= {"name": names[each["name"]], "model": model}
    for each in record["results"]:
        each["classifier"] = names[each["classifier"]]
    verdicts = pl.read_parquet(run / "verdicts.parquet").with_columns(pl.col("classifier").replace(names))
    content = parquet(verdicts)
    record |= {"verdicts_sha256": hashlib.sha256(content).hexdigest()} | changes
    folder.mkdir(parents=True)
    text = json.dumps(record)
    (folder / "record.json").write_text(text)
    if record["results"] is not None:
        (folder / "seal.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  record.json\n")
        (folder / "verdicts.parquet").write_bytes(content)
    return folder
