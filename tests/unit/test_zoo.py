"""Nothing is parsed before its hash is right, and nothing is evaluated that is not what its card says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robustframe.errors import InputError, IntegrityError
from robustframe.frames import mutual_coherence
from robustframe.train import check_pair
from robustframe.zoo import ZOO, load, load_card, names, read_card


def rewrite(card: Path, **changes: object) -> None:
    content = json.loads(card.read_text()) | changes
    card.write_text(json.dumps(content))


def resign(card: Path) -> None:
    """Make the card's hash fit the weights as they are now."""
    weights = card.with_suffix(".safetensors")
    rewrite(card, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())


def flip_byte(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def truncate(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])


def reshape(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    tensors = load_file(weights)
    save_file(tensors | {"head.bias": torch.zeros(11)}, weights)
    resign(card)


def drop_tensor(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    tensors = load_file(weights)
    del tensors["head.bias"]
    save_file(tensors, weights)
    resign(card)


def add_tensor(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    save_file(load_file(weights) | {"more": torch.zeros(1)}, weights)
    resign(card)


def poison(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    tensors = load_file(weights)
    tensors["head.bias"][0] = torch.nan
    save_file(tensors, weights)
    resign(card)


def page(card: Path) -> None:
    card.with_suffix(".safetensors").write_text("<!DOCTYPE html><title>Sign in</title>")
    resign(card)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (flip_byte, "is not the file its card describes"),
        (truncate, "is not the file its card describes"),
        (lambda card: card.with_suffix(".safetensors").unlink(), "cannot be read"),
        (lambda card: card.unlink(), "cannot be read"),
        (lambda card: card.write_text(card.read_text()[:-30]), "is not a card"),
        (lambda card: rewrite(card, extra=1), "extra"),
        (lambda card: rewrite(card, sweeps="3"), "sweeps"),
        (lambda card: rewrite(card, weights="../tiny.safetensors"), "must be a file name"),
        (lambda card: rewrite(card, layers=[{"atoms": 48}, {"atom": 24}]), "describes no pair"),
        (reshape, r"head.bias has shape \(11,\), the card says \(10,\)"),
        (drop_tensor, "lacks the tensor head.bias"),
        (add_tensor, "holds a tensor more"),
        (poison, "not finite"),
        (page, "is not a safetensors file"),
    ],
)
def test_a_damaged_pair_is_refused_in_a_sentence(harm: Callable[[Path], None], sentence: str, tiny_copy: Path) -> None:
    load_card(tiny_copy)
    harm(tiny_copy)
    with pytest.raises(IntegrityError, match=sentence) as caught:
        load_card(tiny_copy)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_pair_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"did you mean 'fmnist-chain3'\?"):
        load("fmnist-chian3")


@pytest.mark.parametrize("name", names())
def test_a_shipped_pair_is_what_its_card_says(name: str) -> None:
    pair, card = load(name)
    assert card.name == name
    assert sum(parameter.numel() for parameter in pair.parameters()) == card.parameters
    assert mutual_coherence(pair.frame) == pytest.approx(card.mutual_coherence, abs=1e-5)
    assert card.licence
    assert (ZOO.parent / "recipes" / f"{name}.toml").is_file()
    assert "%" in check_pair(name)


def test_the_first_pairs_classify_well() -> None:
    for name, least in (("fmnist-chain3", 0.88), ("fmnist-chain3-linf", 0.80)):
        card = read_card(ZOO / f"{name}.json")
        assert card.clean_accuracy.count == 10_000
        for sweeps in ("1", str(card.sweeps)):
            assert card.clean_accuracy.by_sweeps[sweeps] >= least
