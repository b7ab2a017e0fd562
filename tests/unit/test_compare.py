"""Two runs compared: known counts, transfer that is measured independently, and no half-made comparison."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from made_up import ATTACK, make_run
from safetensors.torch import load_file
from tampering import R, V, begun, cell, cut, drop, pixels, put, record, reseal, resealed

from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.statistics import PairedDifference
from robustframe.verification.compare import compare_runs
from robustframe.verification.compare_text import render_comparison
from robustframe.zoo import load_card, save

RECIPE = """
schema = 1
name = "{name}"
seed = 3
chunk = 40
threats = ["linf:0.15"]
battery = ["small.toml"]
[data]
use = "digits"
count = 90
[[model]]
use = "card:{card}.json"
"""
BATTERY = 'schema = 1\nname = "small"\nversion = "0.1"\n[[attack]]\nuse = "pgd"\nsteps = 4\nstep_size = 0.4\n'


def mask(*right: int, n: int = 10) -> np.ndarray:
    return np.isin(np.arange(n), right)


def test_differences_and_outcomes_are_those_of_the_verdicts(tmp_path: Path) -> None:
    clean = mask(0, 1, 2, 3, 4, 5, 6, 7)
    one = make_run(tmp_path / "one", {("net", "linf:0.1"): (clean, mask(0, 1, 2)), ("net", "l2:1"): (clean, clean)})
    two = make_run(
        tmp_path / "two",
        {
            ("net", "linf:0.1"): (clean, mask(2, 3, 4, 5)),
            ("net", "l2:1"): (clean, mask()),
            ("net", "l1:5"): (clean, clean),
        },
    )
    found = compare_runs(one, two)
    same, linf, l2 = found.differences
    assert (same.measure, same.threat, same.value, same.p_value) == ("clean", None, 0, 1)
    assert (linf.threat, linf.first_value, linf.second_value) == ("linf:0.1", 0.3, 0.4)
    assert (linf.only_first, linf.only_second) == (2, 3)
    expected = PairedDifference.of(mask(0, 1, 2), mask(2, 3, 4, 5))
    assert (linf.p_value, linf.low, linf.high) == (expected.p_value, expected.interval().low, expected.interval().high)
    assert l2.p_value == pytest.approx(2 * 0.5**8)
    counts = {(e.first_outcome, e.second_outcome): e.count for e in found.outcomes if e.threat == "linf:0.1"}
    assert counts == {
        ("robust", "robust"): 1, ("robust", ATTACK): 2, (ATTACK, "robust"): 3, (ATTACK, ATTACK): 2,
        ("wrong without attack", "wrong without attack"): 2,
    }  # fmt: skip
    (average,) = found.averages
    assert (average.first_value, average.second_value) == pytest.approx((0.55, 0.2))
    assert average.low < average.value < average.high
    assert found.uncompared == ("l1:5",)
    assert found.transfer is None
    assert json.loads(json.dumps(found.to_json()))["differences"][1]["only_second"] == 3
    text = render_comparison(found, "terminal")
    assert "Transfer was left out: no images are stored in" in text
    assert "Not compared, as only one run has it: l1:5." in text
    assert "robust accuracy averaged over 2 threats: 55.0 and 20.0 %, difference -35.0" in text


def test_ranks_are_shared_where_the_examples_do_not_decide(tmp_path: Path) -> None:
    n = 400
    right = np.ones(n, dtype=bool)
    one = make_run(tmp_path / "one", {("net", "linf:0.1"): (right, np.arange(n) < 300)})
    two = make_run(
        tmp_path / "two",
        {("net", "linf:0.1"): (right, np.arange(n) < 303), ("other", "linf:0.1"): (right, np.arange(n) < 100)},
    )
    found = compare_runs(one, two)
    ranked = [(each.name, each.rank) for each in found.ranks["linf:0.1"]]
    assert ranked == [("net (second)", 1), ("net (first)", 1), ("other (second)", 3)]
    assert found.uncompared == ("other",)
    text = render_comparison(found, "md")
    assert "| net (first) | 1= | 75.0 |" in text
    assert "| other (second) | 3 | 25.0 |" in text


def test_classifiers_of_other_names_are_set_against_each_other(tmp_path: Path) -> None:
    right = mask(*range(10))
    one = make_run(tmp_path / "one", {("a", "linf:0.1"): (right, right), ("both", "linf:0.1"): (right, right)})
    two = make_run(tmp_path / "two", {("b", "linf:0.1"): (right, right), ("both", "linf:0.1"): (right, right)})
    pairs = {(each.first, each.second) for each in compare_runs(one, two).differences}
    assert pairs == {("both", "both"), ("a", "b")}
    assert "a vs. b" in render_comparison(compare_runs(one, two), "terminal")


@pytest.fixture(scope="module")
def honest(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two pairs, of which the second has other weights; do not change their files."""
    place = tmp_path_factory.mktemp("two")
    pair, card = load_card(tiny_card)
    save(pair, place, card)
    with torch.no_grad():
        for parameter in pair.head.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    save(pair, place, card.model_copy(update={"name": "other"}))
    (place / "small.toml").write_text(BATTERY)
    for name in ("tiny", "other"):
        (place / f"{name}.toml").write_text(RECIPE.format(name=name, card=name))
        evaluate_recipe(place / f"{name}.toml", out=place / f"run-{name}", device="cpu")
    return place


@pytest.fixture
def place(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "place"))


def test_transfer_agrees_with_an_independent_replay(honest: Path) -> None:
    one, two = honest / "run-tiny", honest / "run-other"
    found = compare_runs(one, two, device="cpu", folder=honest)
    assert found.transfer is not None
    assert found.left_out is None
    assert len(found.transfer) == 8
    data = load("digits").first(90)
    other, _ = load_card(honest / "other.json")
    folder = one / "units/00-tiny_feedforward/linf_0.15/small_0.1_01-pgd"
    tensors = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    index, images = (torch.cat([each[name] for each in tensors]) for name in ("index", "adversarial"))
    with torch.no_grad():
        clean = other.recurrent(data.images[index]).argmax(1) == data.labels[index]
        wrong = other.recurrent(images).argmax(1) != data.labels[index]
    verdicts = pl.read_parquet(two / "verdicts.parquet").filter(pl.col("classifier") == "other/recurrent").sort("index")
    robust = torch.from_numpy(verdicts["robust"].to_numpy().copy())[index]
    (mine,) = [
        each
        for each in found.transfer
        if (each.source, each.target, each.direction) == ("tiny/feedforward", "other/recurrent", "first to second")
    ]
    assert (mine.shown, mine.broken) == (int(clean.sum()), int((clean & wrong).sum()))
    assert mine.new == int((robust & wrong).sum())
    assert mine.shown > mine.broken > 0
    assert "Stored adversarial images of one run" in render_comparison(found, "terminal")


def test_one_classifier_is_not_shown_its_own_images(honest: Path) -> None:
    found = compare_runs(honest / "run-tiny", honest / "run-tiny", device="cpu", folder=honest)
    assert found.transfer is not None
    assert {(each.source, each.target) for each in found.transfer} == {
        ("tiny/feedforward", "tiny/recurrent"), ("tiny/recurrent", "tiny/feedforward"),
    }  # fmt: skip
    assert all(each.value == 0 and each.p_value == 1 for each in found.differences)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place: (place / "other.json").unlink(), "cannot be loaded: the card"),
        (lambda place: shutil.copy(place / "tiny.json", place / "other.json"), "models or examples are not those of"),
        (lambda place: (place / "run-other" / "units").rename(place / "units"), "no images are stored in"),
    ],
)  # fmt: skip
def test_transfer_that_cannot_be_made_is_left_out_with_the_reason(
    change: Callable[[Path], object], reason: str, place: Path
) -> None:
    change(place)
    if not (place / "run-other" / "units").exists():
        (place / "run-other" / "evidence.sha256").unlink()
    found = compare_runs(place / "run-tiny", place / "run-other", device="cpu", folder=place)
    assert found.transfer is None
    assert reason in str(found.left_out)
    assert found.differences
    assert f"Transfer was left out: {found.left_out}." in render_comparison(found, "md").replace("\\", "")


PGD = "units/00-other_feedforward/linf_0.15/small_0.1_01-pgd/00000"


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        (drop(R), "is not a run"),
        (record(put("schema", 7)), "is not a record of this version"),
        (begun, "is not complete"),
        (resealed(put("data.sha256", "0" * 64)), "the runs are on different examples: .*digits test, 90"),
        (resealed(put("recipe.threats.0", "l2:3")), "no threat in common: linf:0.15 in .*l2:3 in"),
        (drop(V), "lacks 1 of the files in evidence.sha256, such as verdicts.parquet"),
        (cut(V), "is not what its record says"),
        (cell(V, pl.col("robust"), "robust", False), "is not what its record says"),
        (drop(f"{PGD}.parquet"), "lacks 1 of the files in evidence.sha256, such as units/"),
        (drop(f"{PGD}.safetensors"), "lacks 1 of the files"),
        (drop("evidence.sha256"), "evidence.sha256 is missing"),
        (cut(f"{PGD}.safetensors"), "is not what was written.*robustframe verify"),
        (resealed(put("classifiers.0.name", "mine")), "cannot be right: it has a result for 'other/feedforward'"),
        (record(put("data.sha256", "0" * 64)), "is not what seal.sha256 says"),
        (record(put("results", None)), "results and hashes of files belong to a complete run"),
    ],
)
def test_there_is_no_half_made_comparison(tamper: Callable[[Path], None], sentence: str, place: Path) -> None:
    tamper(place / "run-other")
    with pytest.raises(InputError, match=sentence) as caught:
        compare_runs(place / "run-tiny", place / "run-other", device="cpu", folder=place)
    assert len(str(caught.value).splitlines()) == 1


def test_an_image_outside_the_ball_is_no_transfer(place: Path) -> None:
    def far(images: torch.Tensor) -> torch.Tensor:
        return (images + 0.4) % 1

    pixels(far)(place / "run-tiny")
    reseal(place / "run-tiny")
    with pytest.raises(InputError, match=r"stores an image of tiny/feedforward that linf:0\.15 does not allow"):
        compare_runs(place / "run-tiny", place / "run-other", device="cpu", folder=place)


@pytest.mark.slow
def test_the_command_prints_text_or_json_and_refuses_with_status_2(honest: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "robustframe", "compare", *words]
        return subprocess.run(command, cwd=honest, capture_output=True, text=True, check=False)

    text = run("run-tiny", "run-other", "--format", "md", "--device", "cpu")
    assert text.returncode == 0, text.stderr
    assert "| tiny/feedforward vs. other/feedforward | first | linf:0.15 |" in text.stdout
    found = json.loads(run("run-tiny", "run-other", "--json", "--no-transfer").stdout)
    assert found["left_out"] == "not asked for"
    for words, sentence in (
        (("run-tiny", "nowhere"), "is not a run"),
        (("run-tiny", "run-other", "--format", "html"), "unknown format 'html'"),
    ):
        refused = run(*words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr
