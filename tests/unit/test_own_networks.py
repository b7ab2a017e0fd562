"""A network of a user's own as a pair: trained on, evaluated, reported on, in records and tables."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import (
    SMALL,
    Chance,
    Twice,
    drawn,
    images,
    make_own,
)
from torch import Tensor, nn
from typer.testing import CliRunner

import robustframe
from robustframe.certify import lipschitz_radius
from robustframe.cli import app
from robustframe.cli.shared import json_text
from robustframe.data import load as load_data
from robustframe.errors import InputError, IntegrityError
from robustframe.frames.coherence import coherence
from robustframe.models.framed import with_frames
from robustframe.models.given import classify_given
from robustframe.pairs import ReframedPair, reframe
from robustframe.report.cards import card_text
from robustframe.train import find_training_recipe, new_pair, train
from robustframe.zoo import load_card


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_own`."""
    return make_own(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def settled(own: Path) -> Path:
    """The card of the pair that the network of the folder has become."""
    recipe = find_training_recipe(str(own / "settle.toml"))
    return train(recipe, own / "out", device=torch.device("cpu"), source=own)


def test_training_starts_from_a_network_and_its_card_needs_no_code(own: Path, settled: Path) -> None:
    begun = new_pair(find_training_recipe(str(own / "settle.toml")), load_data("digits", "train"), own)
    test = load_data("digits", "test")
    pair, card = load_card(settled)
    assert isinstance(begun, ReframedPair)
    assert isinstance(pair, ReframedPair)
    assert card.structure == "branched"
    assert card.sweeps == pair.sweeps == 6
    assert card.recipe["start"]["from"] == "file:net.py:build"
    assert "pair" not in card.recipe

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(test.images).argmax(1) == test.labels).float().mean())

    # The feed-forward twin stays about what it was, and the recurrent one learns to agree with it.
    assert right(pair.feedforward) > right(begun.feedforward) - 0.05
    assert right(pair.recurrent) > max(right(begun.recurrent), 0.8)
    assert card.clean_accuracy.by_sweeps["1"] == pytest.approx(right(pair.feedforward), abs=1e-6)
    assert "branched" in card_text(card)


def test_a_damaged_card_of_branches_is_refused(settled: Path, tmp_path: Path) -> None:
    card_file = tmp_path / settled.name
    (tmp_path / "settled.safetensors").write_bytes(settled.with_suffix(".safetensors").read_bytes())
    good = json.loads(settled.read_text())

    def refused(change: Callable[[dict[str, Any]], Any], sentence: str) -> None:
        content = copy.deepcopy(good)
        change(content)
        card_file.write_text(json.dumps(content))
        with pytest.raises(IntegrityError, match=sentence):
            load_card(card_file)

    refused(lambda card: card["layers"][1]["branches"][0].update(reads=2), "layer 2 can read the input")
    refused(lambda card: card["layers"][1]["branches"][0].update(reads=-1), "greater than or equal to 0")
    refused(lambda card: card["layers"][0].update(code=[6, 9, 8]), "does not make codes of shape")
    refused(lambda card: card["layers"][0]["branches"][0].update(weight=[6, 1, 3]), "weight")
    refused(lambda card: card["layers"][0]["branches"][0].update(stride=[0, 1]), "stride|describes no pair")
    refused(lambda card: card["layers"][1]["branches"][0].update(weight=[10**6, 10**5, 4, 4]), "would hold more than")
    refused(lambda card: card.update(head=None), "a frame with branches has layers with branches, and a head")
    refused(lambda card: card.update(structure="chain"), "describes no pair")
    refused(lambda card: card["head"].update(padding=[1, 0]), "a head that makes .* makes no 10 logits")
    refused(lambda card: card["head"].update(box=[2, 2]), "do not fit codes of shape")
    refused(lambda card: card["layers"].clear(), "describes no pair|layers")


@pytest.mark.slow
def test_both_twins_of_ones_own_network_are_evaluated(own: Path, tmp_path: Path) -> None:
    asked = [
        "evaluate", "--model", "reframe:file:net.py:build", "--weights", "net.safetensors", "--data", "digits",
        "--count", "20", "--threat", "linf:0.05", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    ran = subprocess.run([sys.executable, "-m", "robustframe", *asked], cwd=own, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stderr
    run = robustframe.open_run(tmp_path / "run")
    assert [entry.twin for entry in run.record.classifiers] == ["feedforward", "recurrent"]
    assert run.record.classifiers[0].mutual_coherence is not None
    assert run.recipe().model[0].shape == [1, 8, 8]
    assert all(result.certified_correct is None for result in run.results)
    again = subprocess.run(
        [
            sys.executable, "-m", "robustframe", "verify", str(tmp_path / "run"), "--folder", str(own),
            "--code", str(own / "net.py"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr


def test_tables_state_the_coherence_of_any_network_or_why_it_is_no_frame() -> None:
    data = load_data("digits").first(10)
    frame = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    none = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).eval()
    before = copy.deepcopy(frame.state_dict())
    run = robustframe.evaluate(
        {"a": frame, "b": none}, data.images, data.labels, threat="linf:0.05", battery="quick", diagnose=False
    )
    known = {entry.name: entry for entry in run.record.classifiers}
    assert known["a"].mutual_coherence == pytest.approx(coherence(reframe(frame, (1, 8, 8)).frame).mutual, abs=1e-4)
    assert known["a"].no_frame is None
    assert known["b"].mutual_coherence is None
    assert known["b"].no_frame is not None
    assert "because of 2 (Tanh: " in known["b"].no_frame
    table = " ".join(run.table().split())
    assert f"coherence {known['a'].mutual_coherence:.3f}" in table
    assert "b: no frame, because of 2 (Tanh: " in table
    assert all(torch.equal(before[key], value) for key, value in frame.state_dict().items())


class Addressed(Twice):
    """Cannot be traced, for a reason that holds an address."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):
            raise TypeError(f"{object()} is in the way")
        return self.head(F.relu(self.one(x) + torch.randn(4)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [Addressed(), Chance()])
def test_why_there_is_no_frame_reads_the_same_each_time(model: nn.Module) -> None:
    first, second = (
        with_frames(classify_given(model.eval(), "a", images((4,)))[0], (4,))[0].entry.no_frame for _ in range(2)
    )
    assert first is not None
    assert first == second


def test_certificates_do_not_cover_thresholds_below_zero() -> None:
    pair = reframe(drawn(SMALL["mlp"][0]), (1, 6, 6)).pair
    with pytest.raises(InputError, match="the thresholds of a network that was read as a frame may be negative"):
        lipschitz_radius(pair.feedforward, images((1, 6, 6)), torch.tensor([0, 1]))


def test_frame_reports_on_networks(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    asked = ["frame", "file:net.py:build", "--weights", "net.safetensors", "--data", "digits"]
    said = CliRunner().invoke(app, [*asked, "--filters", str(tmp_path / "a.png"), "--plot", str(tmp_path / "g.png")])
    assert said.exit_code == 0, said.output
    assert "[  B1   . ]" in said.stdout
    assert "dense after max pool 2" in said.stdout
    assert "Some thresholds are negative" in said.stdout
    assert (tmp_path / "a.png").stat().st_size > 1000
    report = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert [layer["name"] for layer in report["layers"]] == ["0", "5"]
    assert len(report["sweeps"]) == 32
    assert report["coherence"]["between"] == sorted(report["coherence"]["between"])
    narrow = CliRunner().invoke(app, asked, env={"COLUMNS": "80"}).stdout
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_json_has_no_infinity() -> None:
    assert json_text({"a": [1.5, float("inf")], "b": (float("nan"), 2)}) == json.dumps(
        {"a": [1.5, None], "b": [None, 2]}, indent=2
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["file:net.py:build"], "a network does not say what images it takes; give --shape 1x28x28, or --data"),
        (["file:net.py:build", "--shape", "8x8"], "must read CHANNELSxHEIGHTxWIDTH"),
        (["file:net.py:build", "--shape", "3x8x8"], "does not take inputs of shape"),
        (["torchvision:resnet19"], "did you mean"),
        (["zoo:digits-fc2-8", "--weights", "x"], "--weights is for networks"),
        (["nothing:x"], "unknown kind of model"),
        (["file:net.py:build", "--shape", "1x8x8", "--classes", "-4"], "classes = -4: Input should be greater than"),
        (["file:net.py:build", "--shape", "1x8x8", "--normalise", "1/0"], r"std[1] = 0.0: Input should be greater"),
    ],
)
def test_frame_says_what_is_wrong(words: list[str], sentence: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    failed = CliRunner().invoke(app, ["frame", *words])
    assert isinstance(failed.exception, InputError)
    assert sentence in str(failed.exception)
