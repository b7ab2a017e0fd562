"""Pairs of every structure: two classifiers with one set of parameters, stored and loaded with their structure."""

import json
from pathlib import Path

import pytest
import torch

from robustframe.errors import InputError
from robustframe.frames import build_frame
from robustframe.pairs import Pair
from robustframe.zoo import Accuracy, Card, TrainingData, save
from robustframe.zoo.store import load_card

LAYERS: list[dict[str, int]] = [{"filters": 4, "kernel": 3, "padding": 1}] * 3


def pair_of(structure: str) -> Pair:
    torch.manual_seed(0)
    return Pair(build_frame((1, 6, 6), LAYERS, structure), classes=3, sweeps=3)


def stored(pair: Pair, structure: str, folder: Path) -> Path:
    card = Card(
        name="small",
        about="for a test",
        licence="MIT",
        structure=structure,
        in_shape=[1, 6, 6],
        layers=LAYERS,
        classes=3,
        sweeps=3,
        parameters=1,
        mutual_coherence=0.5,
        clean_accuracy=Accuracy(use="none", split="test", count=1, by_sweeps={"1": 1.0}),
        trained_on=TrainingData(use="none", split="train", count=1, sha256=""),
        recipe={},
        seed=0,
        made_with={},
        weights="",
        sha256="",
    )
    return save(pair, folder, card)


@pytest.mark.parametrize("structure", ["chain", "residual", "dense"])
def test_a_pair_comes_back_with_its_structure(structure: str, tmp_path: Path) -> None:
    pair = pair_of(structure)
    path = stored(pair, structure, tmp_path)
    state = torch.random.get_rng_state()
    loaded, card = load_card(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert card.structure == loaded.frame.structure == structure
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for sweeps in ("feedforward", "recurrent"):
        assert torch.equal(getattr(loaded, sweeps)(x), getattr(pair, sweeps)(x))
    assert not torch.equal(loaded.feedforward(x), loaded.recurrent(x))


def test_a_card_from_before_structures_is_a_chain(tmp_path: Path) -> None:
    path = stored(pair_of("chain"), "chain", tmp_path)
    content = json.loads(path.read_text())
    del content["structure"]
    path.write_text(json.dumps(content))
    pair, card = load_card(path)
    assert card.structure == pair.frame.structure == "chain"


def test_a_stored_pair_with_a_zero_atom_is_refused(tmp_path: Path) -> None:
    pair = pair_of("residual")
    with torch.no_grad():
        pair.frame.blocks[2].operator.weight[1].zero_()
    with pytest.raises(InputError, match=r"small\.safetensors: atom 1 of layer 3 is zero"):
        load_card(stored(pair, "residual", tmp_path))


def test_a_pair_needs_two_sweeps() -> None:
    with pytest.raises(InputError, match="at least 2 sweeps, not 1"):
        Pair(build_frame((9,), [{"atoms": 4}]), classes=2, sweeps=1)
