"""Training: seeded, resumable to the bit, through both twins."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cifar_files import put_cifar
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from robustframe.data import load
from robustframe.errors import InputError, IntegrityError
from robustframe.frames import build_frame
from robustframe.pairs import Adversary, Pair, TrainingPlan, TrainingProgress, Twin, Untied, train_pair
from robustframe.solvers import DeepPursuit, LayeredPursuit
from robustframe.threat import ThreatModel
from robustframe.train import (
    clean_accuracy,
    find_training_recipe,
    new_pair,
    read_training_recipe,
    train,
    training_recipes,
)
from robustframe.zoo import ZOO, load_card, names, read_card
from robustframe.zoo import load as load_zoo


class Stop(Exception):
    """Where a test ends a training."""


def fresh() -> Pair:
    torch.manual_seed(5)
    frame = build_frame((1, 8, 8), [{"filters": 6, "kernel": 3, "stride": 2, "padding": 1}, {"atoms": 20}])
    return Pair(frame, classes=10, sweeps=3)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load("digits", "train").first(320)
    return digits.images, digits.labels


SCHEDULE = TrainingPlan(seed=1, epochs=3, batch=64, learning_rate=0.01, coherence=0.1, flip=True)
ADVERSARY = Adversary(threat=ThreatModel.parse("linf:0.05"), steps=2)


def same(first: Pair, second: Pair) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("adversary", [None, ADVERSARY])
def test_an_interrupted_training_ends_the_same_to_the_bit(adversary: Adversary | None, tmp_path: Path) -> None:
    x, y = data()
    straight = fresh()
    train_pair(straight, x, y, SCHEDULE, adversary=adversary)

    def stop(progress: TrainingProgress) -> None:
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
        schedule = TrainingPlan(seed=1, epochs=20, batch=64, learning_rate=0.02, coherence=0.1)
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
    killed, straight = (load_card(tmp_path / folder / "killed.json")[1] for folder in ("killed", "straight"))
    assert killed.sha256 == straight.sha256
    # Only the clock tells them apart, and the learning curve is whole.
    curves = [card.learning_curve for card in (killed, straight)]
    assert curves[0] is not None and curves[1] is not None  # noqa: PT018
    assert (curves[0].loss, curves[0].accuracy) == (curves[1].loss, curves[1].accuracy)
    assert len(curves[0].seconds) == 4
    assert killed.model_copy(update={"learning_curve": None}) == straight.model_copy(update={"learning_curve": None})


def test_clean_accuracy_is_a_plain_count(tiny_card: Path) -> None:
    pair, card = load_card(tiny_card)
    assert isinstance(pair, Pair)
    test = load("digits")
    with torch.no_grad():
        right = (pair.feedforward(test.images).argmax(1) == test.labels).float().mean()
    assert clean_accuracy(pair.feedforward, test) == pytest.approx(float(right), abs=0.002)
    assert card.clean_accuracy.by_sweeps["1"] == pytest.approx(float(right), abs=0.002)


def test_a_residual_pair_trains_with_convergent_steps() -> None:
    x, y = data()
    torch.manual_seed(5)
    layers = [{"filters": 6, "kernel": 3, "padding": 1}] * 3
    pair = Pair(build_frame((1, 8, 8), layers, "residual"), classes=10, sweeps=2)
    seen = []

    def note(progress: TrainingProgress) -> None:
        seen.append([float(layer.step_size) for layer in pair.frame.blocks])

    train_pair(pair, x, y, TrainingPlan(seed=1, epochs=1, batch=64, learning_rate=0.01), report=note)
    # Layer 1 is read by the row above and by the skip: two identities stand beside its own B^T B.
    assert all(step[0] < 1 / 2 for step in seen)
    assert seen[-1][0] == pytest.approx(float(pair.frame.blocks[0].step_size), rel=0.2)


def test_an_adversary_in_l0_is_refused_in_words():
    with pytest.raises(InputError, match="l0:24 does not allow"):
        Adversary(threat=ThreatModel.parse("l0:24"))


def learned(
    schedule: TrainingPlan, *, pursuit: str = "deep", untied: bool = False
) -> tuple[Pair | Untied, list[float]]:
    """A small training; returns the model and the training accuracies of its first and last sweep."""
    x, y = data()
    torch.manual_seed(5)
    layers = [{"filters": 6, "kernel": 3, "stride": 2, "padding": 1}, {"atoms": 20}]
    frames = [build_frame((1, 8, 8), layers) for _ in range(3 if untied else 1)]
    pair = Untied(frames, classes=10) if untied else Pair(frames[0], classes=10, sweeps=3, pursuit=pursuit)
    curve = train_pair(pair, x, y, schedule)
    assert len(curve) == schedule.epochs
    assert curve[-1].loss < curve[0].loss
    with torch.no_grad():
        both = pair.first_and_last(x)
    return pair, [float((logits.argmax(1) == y).float().mean()) for logits in both]


LONGER = replace(SCHEDULE, epochs=12, flip=False, rescale=True)


def test_a_training_minimises_the_loss_it_was_asked_for() -> None:
    from robustframe.pairs.training import _Trainer

    (x, y), pair = data(), fresh()
    with torch.no_grad():
        first, last = (cross_entropy(logits, y, reduction="sum") for logits in pair.first_and_last(x))
    for trained_for, expected in (("first", first), ("last", last), ("joint", (first + last) / 2)):
        trainer = _Trainer(pair, replace(SCHEDULE, trained_for=trained_for), None, len(x))
        torch.testing.assert_close(trainer.loss(x, y)[0], expected)
    _, accuracies = learned(replace(LONGER, trained_for="first"))
    assert accuracies[0] > 0.9


def test_a_layered_pair_is_the_feed_forward_net_at_one_sweep_and_layered_pursuit_beyond() -> None:
    pair, accuracies = learned(LONGER, pursuit="layered")
    assert min(accuracies) > 0.85
    assert isinstance(pair, Pair)
    x = data()[0][:40]
    first, last = pair.first_and_last(x)
    torch.testing.assert_close(first, Twin(pair, 1, solver=DeepPursuit(sweeps=1))(x))
    torch.testing.assert_close(last, Twin(pair, 1, solver=LayeredPursuit(sweeps=3))(x))
    torch.testing.assert_close(pair(x), last)
    assert not torch.allclose(last, Twin(pair, 1, solver=DeepPursuit(sweeps=3))(x))
    layers = [{"filters": 4, "kernel": 3, "padding": 1}] * 3
    with pytest.raises(InputError, match="layered pursuit is for chains, not for a residual frame"):
        Pair(build_frame((1, 8, 8), layers, "residual"), classes=10, sweeps=3, pursuit="layered")


def test_an_untied_net_of_equal_frames_is_the_recurrent_twin() -> None:
    net, accuracies = learned(LONGER, untied=True)
    assert min(accuracies) > 0.85
    assert len({float(frame.blocks[0].step_size) for frame in net.frames}) == 3
    pair = fresh()
    same = Untied([pair.frame] * 3, classes=10)
    same.head = pair.head
    x = data()[0][:20]
    torch.testing.assert_close(same(x), pair.recurrent(x))
    with pytest.raises(InputError, match="at least 2 frames"):
        Untied([pair.frame], classes=10)
    other = build_frame((1, 8, 8), [{"atoms": 5}])
    with pytest.raises(InputError, match="same shapes"):
        Untied([pair.frame, other], classes=10)


def test_rescaling_keeps_what_the_first_sweep_of_a_chain_computes() -> None:
    """Thresholds and gain follow the step sizes: other step sizes, the same feed-forward network."""
    from robustframe.pairs.training import _sizes, _Trainer

    pair, _ = learned(LONGER)
    assert isinstance(pair, Pair)
    trainer = _Trainer(pair, LONGER, None, 64)
    trainer.step(*(part[:64] for part in data()), 0)
    x = data()[0][:20]
    before, logits = _sizes(pair.frame), pair.feedforward(x)
    for layer, factor in zip(pair.frame.blocks, (0.5, 3.0)):
        layer.step_size.mul_(factor)
    assert not torch.allclose(pair.feedforward(x), logits, rtol=0.1)
    trainer.rescale(pair.frame, [new / old for old, new in zip(before, _sizes(pair.frame))])
    torch.testing.assert_close(pair.feedforward(x), logits)


def test_bfloat16_learns_too_and_leaves_parameters_in_float32() -> None:
    pair, accuracies = learned(replace(LONGER, precision="bf16"))
    assert min(accuracies) > 0.85
    assert {parameter.dtype for parameter in pair.parameters()} == {torch.float32}


@pytest.mark.slow
def test_the_smallest_pair_of_the_zoo_trains_to_its_shipped_accuracy_again(tmp_path: Path) -> None:
    name = min(names(), key=lambda each: read_card(ZOO / f"{each}.json").parameters)
    path = train(read_training_recipe(find_training_recipe(name)), tmp_path, device=torch.device("cpu"))
    made, shipped = read_card(path), read_card(ZOO / f"{name}.json")
    for sweeps, accuracy in shipped.clean_accuracy.by_sweeps.items():
        # Other kernels round differently, which a training amplifies: two standard errors of 500 images.
        assert made.clean_accuracy.by_sweeps[sweeps] == pytest.approx(accuracy, abs=0.02)


def test_every_shipped_pair_was_trained_by_the_recipe_that_ships() -> None:
    for name in names():
        stated = read_training_recipe(training_recipes()[name])
        card = read_card(ZOO / f"{name}.json")
        # A card older than a key of recipes lacks it, which then has its default.
        assert type(stated).model_validate(card.recipe) == stated
        pair, _ = load_zoo(name)
        assert type(pair) is (Untied if stated.pair.untied else Pair)


def test_an_untied_recipe_with_another_pursuit_is_refused() -> None:
    recipe = read_training_recipe(find_training_recipe("digits-fc2-8"))
    spec = recipe.pair.model_copy(update={"untied": True, "pursuit": "layered"})
    with pytest.raises(InputError, match="an untied net makes sweeps of deep pursuit"):
        new_pair(recipe.model_copy(update={"pair": spec}), load("digits"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10-resnet20", "cifar10-densenet40"])
def test_the_recipes_for_data_that_does_not_ship_run_on_files_of_its_format(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_cifar(tmp_path / "data", "CIFAR10", monkeypatch)
    recipe = read_training_recipe(find_training_recipe(name))
    # Two sweeps in place of four, one step in place of many: every layer is there.
    recipe = recipe.model_copy(
        update={
            "pair": recipe.pair.model_copy(update={"sweeps": 2}),
            "schedule": recipe.schedule.model_copy(update={"epochs": 1, "batch": 10}),
        }
    )
    card = read_card(train(recipe, tmp_path, device=torch.device("cpu"), data_root=tmp_path / "data"))
    assert card.in_shape == [3, 32, 32]
    assert len(card.layers) == {"cifar10-resnet20": 19, "cifar10-densenet40": 39}[name]
    assert card.least_potential is None
    assert card.trained_on.count == 10
