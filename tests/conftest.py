"""What several test files share: a small pair, really trained."""

from pathlib import Path

import pytest
import torch

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
