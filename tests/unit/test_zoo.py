"""Nothing is parsed before its hash is right, and nothing is evaluated that is not what its card says."""

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from robustframe.cli.zoo import app
from robustframe.errors import InputError, IntegrityError
from robustframe.frames import mutual_coherence
from robustframe.train import check_pair, training_recipes
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


def weights_are(content: bytes, *, signed: bool) -> Callable[[Path], None]:
    """Put something else where the weights were; signed: with a card that has its hash."""

    def harm(card: Path) -> None:
        card.with_suffix(".safetensors").write_bytes(content)
        if signed:
            resign(card)

    return harm


PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def link(target: str) -> Callable[[Path], None]:
    def harm(card: Path) -> None:
        weights = card.with_suffix(".safetensors")
        (card.parent / "away").mkdir()
        weights.rename(card.parent / "away" / "tiny.safetensors")
        weights.symlink_to(target)

    return harm


def pipe(card: Path) -> None:
    card.with_suffix(".safetensors").unlink()
    os.mkfifo(card.with_suffix(".safetensors"))


def renamed(card: Path) -> None:
    (card.parent / "other.safetensors").write_bytes(b"another pair's")
    rewrite(card, weights="other.safetensors")


def half(card: Path) -> None:
    weights = card.with_suffix(".safetensors")
    tensors = load_file(weights)
    save_file(tensors | {"head.bias": tensors["head.bias"].half()}, weights)
    resign(card)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (flip_byte, "is not the file its card describes"),
        (truncate, "truncated: 100 of [0-9,]+ bytes are missing"),
        (lambda card: card.with_suffix(".safetensors").unlink(), "cannot be read"),
        (lambda card: card.unlink(), "cannot be read"),
        (lambda card: card.write_text(card.read_text()[:-30]), "is not a card"),
        (lambda card: rewrite(card, extra=1), "extra"),
        (lambda card: rewrite(card, sweeps="3"), "sweeps"),
        (lambda card: rewrite(card, weights="../tiny.safetensors"), "must be a file name"),
        (lambda card: rewrite(card, layers=[{"atoms": 48}, {"atom": 24}]), "describes no pair"),
        (reshape, r"head.bias has shape \(11,\), the card says \(10,\)"),
        (drop_tensor, "lacks the tensor head.bias"),
        (add_tensor, "holds a tensor 'more'"),
        (poison, "not finite"),
        (weights_are(PAGE, signed=False), "it is a web page"),
        (weights_are(PAGE, signed=True), "is not a safetensors file: it is a web page"),
        (weights_are(b"", signed=False), "it is empty"),
        (weights_are(b"version https://git-lfs.github.com/spec/v1", signed=False), "git lfs pull"),
        (renamed, "altered or another file"),
        (half, "head.bias is torch.float16, a pair has torch.float32"),
        (link("/dev/zero"), "leads out of"),
        (link("../../../../../../../etc/hostname"), "leads out of|No such file"),
        (pipe, "it is not a plain file"),
        *[
            (lambda card, name=name: rewrite(card, weights=name), "must be a file name")
            for name in ("/etc/passwd", "a\\b", "..", ".", "", "a\0b", "a/b")
        ],
        # What a card claims is looked at before memory is taken for it.
        (lambda card: rewrite(card, layers=[{"atoms": 10**12}]), "would hold more than"),
        (lambda card: rewrite(card, layers=[{"atoms": 2}] * 2000), "too deep"),
        (lambda card: rewrite(card, classes=10**9), "head.weight has shape"),
        (lambda card: rewrite(card, sweeps=10**9), "sweeps never end"),
        (lambda card: rewrite(card, in_shape=[10**6, 10**6]), "would hold more than"),
        (lambda card: rewrite(card, in_shape=[-1, 64]), "sizes of at least 1"),
    ],
)
def test_a_damaged_pair_is_refused_in_a_sentence(harm: Callable[[Path], None], sentence: str, tiny_copy: Path) -> None:
    load_card(tiny_copy)
    harm(tiny_copy)
    with pytest.raises(IntegrityError, match=sentence) as caught:
        load_card(tiny_copy)
    assert len(str(caught.value).splitlines()) == 1


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def archive(bomb: Bomb, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save({"head.bias": bomb}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def old_archive(bomb: Bomb) -> bytes:
    return archive(bomb, zipped=False)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("make", [pickle.dumps, archive, old_archive])
def test_code_in_a_pickle_does_not_run(
    make: Callable[[Bomb], bytes], signed: bool, tiny_copy: Path, tmp_path: Path
) -> None:
    weights, mark = tiny_copy.with_suffix(".safetensors"), tmp_path / "it ran"
    content = make(Bomb(mark))
    weights.write_bytes(content)
    if signed:
        resign(tiny_copy)
    with pytest.raises(IntegrityError, match=r"pickle.*could run code and is never opened"):
        load_card(tiny_copy)
    assert not mark.exists()
    # The bomb is a real one.
    if make is pickle.dumps:
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)
    assert mark.exists()


def test_a_renamed_card_is_no_pair_of_the_zoo(monkeypatch: pytest.MonkeyPatch, tiny_copy: Path) -> None:
    monkeypatch.setattr("robustframe.zoo.store.ZOO", tiny_copy.parent)
    tiny_copy.rename(tiny_copy.with_name("renamed.json"))
    with pytest.raises(IntegrityError, match="is the card of another pair, 'tiny'"):
        load("renamed")


def test_an_unknown_pair_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"did you mean 'fmnist-chain3'\?"):
        load("fmnist-chian3")


@pytest.mark.parametrize("name", names())
def test_a_shipped_pair_is_what_its_card_says(name: str) -> None:
    pair, card = load(name)
    assert card.name == name
    assert sum(parameter.numel() for parameter in pair.parameters()) == card.parameters
    coherence = max(mutual_coherence(frame) for frame in pair.frames)
    assert coherence == pytest.approx(card.mutual_coherence, abs=1e-5)
    assert card.licence
    assert name in training_recipes()
    assert "%" in check_pair(name, count=200)


def test_the_first_pairs_classify_well() -> None:
    for name, least in (("fmnist-chain3", 0.88), ("fmnist-chain3-linf", 0.80)):
        card = read_card(ZOO / f"{name}.json")
        assert card.clean_accuracy.count == 10_000
        for sweeps in ("1", str(card.sweeps)):
            assert card.clean_accuracy.by_sweeps[sweeps] >= least


def zoo(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_zoo_list_is_a_table_and_show_a_card() -> None:
    listed = zoo("list")
    (row,) = (line for line in listed.stdout.splitlines() if line.startswith("fmnist-chain3-linf "))
    assert row.split()[1:3] == ["69,690", "4"]
    # No accuracy at 128 sweeps, as its card is older.
    assert re.search(r"\d\d\.\d \| \d\d\.\d +– +0\.\d{3}$", row)
    rows = [line for line in listed.stdout.splitlines() if line.startswith(("digits", "fmnist", "pair"))]
    assert len(rows) == len(names()) + 1
    assert max(map(len, rows)) <= 80
    cards = json.loads(zoo("list", "--json").stdout)
    assert "fmnist-chain3" in [card["name"] for card in cards]
    shown = zoo("show", "fmnist-chain3")
    assert re.search(
        r"clean accuracy [^a-z]* % at 1, .* on 10,000 images of fashion-mnist test", " ".join(shown.stdout.split())
    )
    card = json.loads(zoo("show", "fmnist-chain3", "--json").stdout)
    assert card["clean_accuracy"]["count"] == 10_000
    assert card["sha256"] in shown.stdout


def test_zoo_check_has_a_line_a_pair_and_status_1_when_one_fails(tiny_copy: Path) -> None:
    checked = zoo("check", "fmnist-chain3", f"card:{tiny_copy}")
    assert checked.exit_code == 0, checked.stdout
    assert "on 1000 images" in checked.stdout
    assert checked.stdout.splitlines()[-1] == "All 2 pairs hold."
    weights = tiny_copy.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-7])
    failed = zoo("check", f"card:{tiny_copy}", "--json")
    assert failed.exit_code == 1
    (found,) = json.loads(failed.stdout)
    assert not found["ok"]
    assert "truncated: 7 of" in found["says"]
