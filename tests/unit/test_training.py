"""Training: seeded, resumable to the bit, through both twins."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from robustframe.data import load
from robustframe.errors import InputError, IntegrityError
from robustframe.frames import build_frame
from robustframe.pairs import Adversary, Pair, Progress, Schedule, train_pair
from robustframe.threat import ThreatModel
from robustframe.train import clean_accuracy, find_training_recipe, read_training_recipe, training_recipes
from robustframe.zoo import read_card


class Stop(Exception):
    """Where a test ends a training."""


def fresh() -> Pair:
    torch.manual_seed(5)
    frame = build_frame((1, 8, 8), [{"filters": 6, "kernel": 3, "stride": 2, "padding": 1}, {"atoms": 20}])
    return Pair(frame, classes=10, sweeps=3)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load("digits", "train").first(320)
    return digits.images, digits.labels


SCHEDULE = Schedule(seed=1, epochs=3, batch=64, learning_rate=0.01, coherence=0.1, flip=True)
ADVERSARY = Adversary(threat=ThreatModel.parse("linf:0.05"), steps=2)


def same(first: Pair, second: Pair) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("adversary", [None, ADVERSARY])
def test_an_interrupted_training_ends_the_same_to_the_bit(adversary: Adversary | None, tmp_path: Path) -> None:
    x, y = data()
    straight = fresh()
    train_pair(straight, x, y, SCHEDULE, adversary=adversary)

    def stop(progress: Progress) -> None:
        if (progress.epoch, progress.batch) == (2, 3):
            raise Stop

    halted, resumed, checkpoint = fresh(), fresh(), tmp_path / "c"
    with pytest.raises(Stop):
        train_pair(halted, x, y, SCHEDULE, adversary=adversary, checkpoint=checkpoint, report=stop)
    train_pair(resumed, x, y, SCHEDULE, adversary=adversary, checkpoint=checkpoint)
    assert same(straight, resumed)
    assert not same(straight, halted)


def test_training_leaves_the_global_random_state_alone() -> None:
    x, y = data()
    pair = fresh()
    state = torch.get_rng_state()
    train_pair(pair, x, y, SCHEDULE, adversary=ADVERSARY)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    x, y = data()
    train_pair(fresh(), x, y, SCHEDULE, checkpoint=tmp_path / "c")
    with pytest.raises(IntegrityError, match="belongs to another training"):
        train_pair(fresh(), x, y, SCHEDULE, adversary=ADVERSARY, checkpoint=tmp_path / "c")
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:1000])
    with pytest.raises(IntegrityError, match="is damaged"):
        train_pair(fresh(), x, y, SCHEDULE, checkpoint=tmp_path / "c")


def test_both_twins_learn_and_the_parameters_stay_where_they_belong(tiny_card: Path) -> None:
    card = read_card(tiny_card)
    assert min(card.clean_accuracy.by_sweeps[sweeps] for sweeps in ("1", "3")) > 0.85
    tensors = load_file(tiny_card.with_suffix(".safetensors"))
    for layer in (0, 1):
        norms = tensors[f"frame.layers.{layer}.operator.weight"].norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert (tensors[f"frame.layers.{layer}.threshold"] >= 0).all()


def test_adversarial_training_gains_robustness() -> None:
    digits = load("digits", "train").first(640)
    x, y = digits.images, digits.labels
    threat = ThreatModel.parse("linf:0.1")
    robust = {}
    for name, adversary in (("normal", None), ("adversarial", Adversary(threat=threat, steps=2))):
        torch.manual_seed(5)
        pair = Pair(build_frame((1, 8, 8), [{"atoms": 48}, {"atoms": 24}]), classes=10, sweeps=2)
        schedule = Schedule(seed=1, epochs=20, batch=64, learning_rate=0.02, coherence=0.1)
        train_pair(pair, x, y, schedule, adversary=adversary)
        leaf = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(pair.recurrent(leaf), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf)
        attacked = threat.project(x, x + 0.1 * slope.sign())
        with torch.no_grad():
            robust[name] = float((pair.recurrent(attacked).argmax(1) == y).float().mean())
    assert robust["adversarial"] > robust["normal"] + 0.05


def test_every_training_recipe_reads_and_fits_its_pair() -> None:
    for name, path in training_recipes().items():
        recipe = read_training_recipe(path)
        assert recipe.name == name
    with pytest.raises(InputError, match=r"unknown training recipe 'fmnist-chan3'; did you mean"):
        find_training_recipe("fmnist-chan3")


RECIPE = """
schema = 1
name = "killed"
about = "For the tests."
seed = 2
[data]
use = "digits"
[pair]
layers = [{ atoms = 40 }, { atoms = 20 }]
sweeps = 3
[schedule]
epochs = 4
batch = 32
[adversary]
threat = "linf:0.05"
steps = 2
"""


@pytest.mark.slow
def test_a_killed_training_is_continued_by_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "robustframe", "train", "r.toml", "--device", "cpu", "--out"]
    subprocess.run([*command, "straight"], cwd=tmp_path, check=True, capture_output=True)
    checkpoint = tmp_path / "killed" / "killed.checkpoint"
    with subprocess.Popen([*command, "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "killed.json").exists()
    subprocess.run([*command, "killed"], cwd=tmp_path, check=True, capture_output=True)
    for name in ("killed.safetensors", "killed.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_clean_accuracy_is_a_plain_count(tiny_card: Path) -> None:
    from robustframe.zoo import load_card

    pair, card = load_card(tiny_card)
    test = load("digits")
    with torch.no_grad():
        right = (pair.feedforward(test.images).argmax(1) == test.labels).float().mean()
    assert clean_accuracy(pair, test, 1) == pytest.approx(float(right), abs=0.002)
    assert card.clean_accuracy.by_sweeps["1"] == pytest.approx(float(right), abs=0.002)


def test_a_residual_pair_trains_with_convergent_steps() -> None:
    x, y = data()
    torch.manual_seed(5)
    layers = [{"filters": 6, "kernel": 3, "padding": 1}] * 3
    pair = Pair(build_frame((1, 8, 8), layers, "residual"), classes=10, sweeps=2)
    seen = []

    def note(progress: Progress) -> None:
        seen.append([float(layer.step_size) for layer in pair.frame.blocks])

    train_pair(pair, x, y, Schedule(seed=1, epochs=1, batch=64, learning_rate=0.01), report=note)
    # Layer 1 is read by the row above and by the skip: two identities stand beside its own B^T B.
    assert all(step[0] < 1 / 2 for step in seen)
    assert seen[-1][0] == pytest.approx(float(pair.frame.blocks[0].step_size), rel=0.2)


def test_an_adversary_in_l0_is_refused_in_words():
    with pytest.raises(InputError, match="l0:24 does not allow"):
        Adversary(threat=ThreatModel.parse("l0:24"))
