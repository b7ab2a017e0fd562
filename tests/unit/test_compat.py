"""The peers' own examples run with the import line exchanged, and say what is not here."""

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from made_up import fitted
from torch import Tensor, nn

import robustframe
from robustframe import compat
from robustframe.attacks import PGD as OurPGD
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.models.sources import find_model
from robustframe.pairs import Pair
from robustframe.recipe import ModelSpec
from robustframe.threat import written_eps
from robustframe.zoo import load_named

DATA = load("digits").first(40)
LIGHT = {"attacks_to_run": ["apgd-ce", "square"], "version": "custom", "verbose": False}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return fitted(DATA)


def right(model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == DATA.labels).double().mean())


def test_autoattacks_own_example(model: nn.Module, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The README of fra31/auto-attack, on `standard@1`."""
    images, labels, forward_pass, epsilon, batch_size = DATA.images, DATA.labels, model.forward, 48 / 255, 64
    from robustframe.compat import AutoAttack

    log = tmp_path / "log.txt"
    adversary = AutoAttack(forward_pass, norm="Linf", eps=epsilon, version="standard", log_path=log)
    x_adv = adversary.run_standard_evaluation(images, labels, bs=batch_size)
    said = capsys.readouterr().out
    assert said == log.read_text()

    run = adversary.run
    result = run.results[0]
    assert result.threat == "linf:48/255"
    assert [battery.cited for battery in run.batteries] == ["standard@1"]
    assert 0 < result.robust_correct < result.clean_correct
    # What is given back holds the outcome of the run, example by example.
    assert right(model, x_adv) == result.robust_correct / result.examples
    assert bool(run.threats[0].contains(images, x_adv).all())
    assert torch.equal(x_adv[run.verdicts["robust"].to_torch()], images[run.verdicts["robust"].to_torch()])

    left = result.clean_correct
    lines = [f"initial accuracy: {left / 40:.2%}"]
    for attack in result.attacks:
        left -= attack.broken
        if attack.entered:
            lines.append(f"robust accuracy after {(attack.name or attack.use).upper()}: {left / 40:.2%}")
    assert [line.partition(" (total")[0] for line in said.splitlines()[1 : 1 + len(lines)]] == lines
    assert f"robust accuracy: {left / 40:.2%}" in said.splitlines()


def test_autoattack_by_one_attack_each(model: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    adversary = compat.AutoAttack(model, eps=0.1)
    adversary.attacks_to_run = ["apgd-ce", "apgd-t"]
    each = adversary.run_standard_evaluation_individual(DATA.images, DATA.labels, bs=64)
    assert list(each) == ["apgd-ce", "apgd-t"]
    said = capsys.readouterr().out
    for name, images in each.items():
        assert f"{name.upper()}\t{right(model, images):.2%}" in said
    both = adversary.run_standard_evaluation(DATA.images, DATA.labels)
    assert right(model, both) <= min(right(model, images) for images in each.values())
    assert [battery.cited for battery in adversary.run.batteries] == ["autoattack-standard@1"]
    assert adversary.clean_accuracy(DATA.images, DATA.labels) == right(model, DATA.images)


def test_autoattack_custom_takes_settings_and_gives_labels(model: nn.Module) -> None:
    adversary = compat.AutoAttack(model, norm="L2", eps=0.5, version="custom", verbose=False)
    adversary.attacks_to_run = ["apgd-ce", "fab"]
    adversary.apgd.n_restarts = 2
    adversary.fab.n_restarts, adversary.fab.n_iter = 3, 5
    x_adv, y_adv = adversary.run_standard_evaluation(DATA.images, DATA.labels, return_labels=True)
    with torch.no_grad():
        assert torch.equal(y_adv, model(x_adv).argmax(1))
    found = adversary.run.results[0]
    assert found.threat == "l2:0.5"
    assert [each.settings["restarts"] for each in found.attacks] == [2, 3]
    assert found.attacks[1].settings["steps"] == 5
    with pytest.raises(AttributeError, match="n_restart"):
        adversary.apgd.n_restart = 2


@pytest.mark.parametrize(
    ("version", "norm", "asked"),
    [
        ("plus", "Linf", {"apgd-ce": (5, 1), "apgd-dlr": (5, 1), "fab": (5, 1), "square": (1, 1)}),
        ("standard", "L1", {"apgd-ce": (5, 1)}),
        ("rand", "L2", {"apgd-ce": (1, 20), "apgd-dlr": (1, 20)}),
    ],
)
def test_autoattacks_versions_are_what_they_are_called(
    model: nn.Module, version: str, norm: str, asked: dict[str, tuple[int, int]]
) -> None:
    adversary = compat.AutoAttack(model, norm=norm, eps=0.05, version=version)
    words = [adversary._words(name) for name in adversary.attacks_to_run]
    found = {each.get("name", each["use"]): (each["restarts"], each.get("eot", 1)) for each in words}
    assert asked.items() <= found.items()
    assert [each.get("targets") for each in words if each["use"] == "apgd-t"] == {
        "plus": [9], "standard": [5], "rand": [],
    }[version]  # fmt: skip


def test_autoattacks_rand_is_our_battery_and_other_settings_are_not(model: nn.Module) -> None:
    adversary = compat.AutoAttack(model, eps=0.05, version="rand", verbose=False)
    few = DATA.images[:4], DATA.labels[:4]
    adversary.run_standard_evaluation(*few)
    assert [battery.cited for battery in adversary.run.batteries] == ["rand@1"]
    adversary.apgd.n_iter, adversary.apgd.eot_iter = 2, 3
    adversary.run_standard_evaluation(*few)
    (battery,) = adversary.run.batteries
    assert (battery.cited, battery.votes) == ("autoattack-rand@1", 21)
    assert [attack.settings["eot"] for attack in battery.attack] == [3, 3]


def test_autoattack_keeps_its_run_where_it_is_told(model: nn.Module, tmp_path: Path) -> None:
    first = compat.AutoAttack(model, eps=0.1, seed=3, **LIGHT)
    first.square.n_queries = 20
    x_adv = first.run_standard_evaluation(DATA.images, DATA.labels, state_path=tmp_path / "state")
    run = robustframe.open_run(tmp_path / "state")
    assert run.record.recipe["seed"] == 3
    assert run.seal == first.run.seal
    assert torch.equal(x_adv, first.run_standard_evaluation(DATA.images, DATA.labels, state_path=tmp_path / "state"))
    second = compat.AutoAttack(model, eps=0.1, seed=4, **LIGHT)
    with pytest.raises(InputError, match="another"):
        second.run_standard_evaluation(DATA.images, DATA.labels, state_path=tmp_path / "state")


def test_autoattack_takes_a_function(model: nn.Module) -> None:
    seen: list[torch.device] = []

    def logits(images: Tensor) -> Tensor:
        seen.append(images.device)
        return model(images)

    as_function, as_module = (compat.AutoAttack(each, eps=0.1, device="cpu", **LIGHT) for each in (logits, model))
    for adversary in (as_function, as_module):
        adversary.square.n_queries = 20
    images = [each.run_standard_evaluation(DATA.images, DATA.labels) for each in (as_function, as_module)]
    assert torch.equal(*images)
    assert set(seen) == {torch.device("cpu")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "L3"}, "L3.*known: L1, L2, Linf"),
        ({"eps": -1.0}, "above 0"),
        ({"version": "standart"}, "did you mean 'standard'"),
        ({"is_tf_model": True}, "PyTorch"),
        ({"attacks_to_run": ["square"]}, "version='custom'"),
        ({"model": 3}, "function that gives logits"),
        ({"model": load_named("zoo:digits-fc2-16")[0]}, "model.recurrent"),
        ({"version": "custom"}, "attacks_to_run"),
        ({"version": "custom", "attacks_to_run": ["apgd"]}, "did you mean 'apgd-t'|did you mean 'apgd-ce'"),
    ],
)
def test_autoattack_says_what_it_does_not_take(model: nn.Module, given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compat.AutoAttack(**{"model": model, "verbose": False, **given}).run_standard_evaluation(
            DATA.images, DATA.labels
        )


def test_what_was_not_run_has_no_run(model: nn.Module) -> None:
    with pytest.raises(InputError, match="run_standard_evaluation"):
        _ = compat.AutoAttack(model).run


def test_autoattacks_signature_is_the_originals() -> None:
    """Of commit a392200 of fra31/auto-attack."""
    assert defaults(compat.AutoAttack) == {
        "model": None, "norm": "Linf", "eps": 0.3, "seed": None, "verbose": True, "attacks_to_run": [],
        "version": "standard", "is_tf_model": False, "device": "cuda", "log_path": None,
    }  # fmt: skip
    assert defaults(compat.AutoAttack.run_standard_evaluation) == {
        "self": None, "x_orig": None, "y_orig": None, "bs": 250, "return_labels": False, "state_path": None,
    }  # fmt: skip
    assert defaults(compat.AutoAttack.clean_accuracy) == {"self": None, "x_orig": None, "y_orig": None, "bs": 250}


def defaults(call: object) -> dict[str, object]:
    parameters = inspect.signature(call).parameters.values()
    return {each.name: None if each.default is inspect.Parameter.empty else each.default for each in parameters}


OF_TORCHATTACKS = [name for name in compat.__all__ if name not in ("AutoAttack", "benchmark")]


@pytest.mark.parametrize("name", OF_TORCHATTACKS)
def test_names_and_defaults_are_those_of_torchattacks(name: str) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    assert list(defaults(getattr(compat, name)).items()) == list(defaults(getattr(torchattacks, name)).items())


def test_every_class_of_torchattacks_is_here_or_says_where() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    classes = {name for name, value in vars(torchattacks).items() if inspect.isclass(value)}
    assert set(OF_TORCHATTACKS) <= classes
    # LGV trains models of its own.
    for name in sorted(classes - set(compat.__all__) - {"LGV"}):
        with pytest.raises(InputError, match=f"{name}.*robustframe.attack"):
            getattr(compat, name)
    with pytest.raises(AttributeError, match="NoSuch"):
        _ = compat.NoSuch


def test_torchattacks_own_example(model: nn.Module) -> None:
    """The README of torchattacks."""
    images, labels = DATA.images, DATA.labels
    import robustframe.compat as torchattacks

    atk = torchattacks.PGD(model, eps=40 / 255, alpha=10 / 255, steps=4)
    adv_images = atk(images, labels)
    ours = robustframe.attack(model, images, labels, OurPGD(steps=4, step_size=0.25), "linf:40/255")
    assert torch.equal(adv_images, ours.images)
    assert right(model, adv_images) < right(model, images)

    atk1 = torchattacks.FGSM(model, eps=40 / 255)
    atk2 = torchattacks.PGD(model, eps=40 / 255, alpha=10 / 255, steps=40, random_start=True)
    both = torchattacks.MultiAttack([atk1, atk2])(images, labels)
    assert right(model, both) <= right(model, atk1(images, labels))
    assert float((both - images).abs().max()) <= 40 / 255 + 1e-7


@pytest.mark.parametrize("name", sorted(set(OF_TORCHATTACKS) - {"MultiAttack", "Square"}))
def test_what_the_tests_of_torchattacks_do_with_each_attack(name: str, model: nn.Module) -> None:
    """Its code_coverage/test_atks.py, which asks whether it can aim, and for no higher accuracy than before."""
    images, labels = DATA.images[:5], DATA.labels[:5]
    atk = getattr(compat, name)(model, **({"max_batch_size": 5} if name == "SPSA" else {}))
    with torch.enable_grad():
        adv_images = atk(images, labels)
    assert (model(adv_images).argmax(1) == labels).sum() <= (model(images).argmax(1) == labels).sum()
    assert atk.attack_mode == atk.get_mode() == "default"
    assert list(atk.supported_mode) == ["default", "targeted"]
    assert not atk.targeted
    assert atk.device == adv_images.device


def test_a_set_of_attacks_breaks_what_any_of_them_breaks(model: nn.Module) -> None:
    images, labels = DATA.images, DATA.labels
    attacks = [compat.BIM(model, eps=40 / 255, alpha=10 / 255), compat.FGSM(model, eps=60 / 255)]
    alone = [attack(images, labels) for attack in attacks]
    together = compat.MultiAttack(attacks)(images, labels)
    first = model(alone[0]).argmax(1) != labels
    second = (model(alone[1]).argmax(1) != labels) & ~first
    assert first.any()
    assert second.any()
    assert torch.equal(together[first], alone[0][first])
    assert torch.equal(together[second], alone[1][second])


def test_normalised_images_are_attacked_as_what_they_show(model: nn.Module) -> None:
    mean, std = [0.3], [0.4]

    class Unnormalise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * std[0] + mean[0]

    normalised = (DATA.images - mean[0]) / std[0]
    atk = compat.PGD(nn.Sequential(Unnormalise(), model), eps=0.1)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        atk(normalised, DATA.labels)
    atk.set_normalization_used(mean=mean, std=std)
    atk.set_mode_default()
    shown = atk(normalised, DATA.labels) * std[0] + mean[0]
    plain = compat.PGD(model, eps=0.1)(DATA.images, DATA.labels)
    assert float((shown - DATA.images).abs().max()) <= 0.1 + 1e-6
    assert right(model, shown) == pytest.approx(right(model, plain), abs=0.05)


@pytest.mark.parametrize("name", ["PGD", "APGDT", "CW"])
def test_targeted_modes_lead_to_their_targets(model: nn.Module, name: str) -> None:
    images, labels = DATA.images[:20], DATA.labels[:20]
    far: dict[str, float] = {"PGD": {"eps": 0.5, "alpha": 0.1, "steps": 20}, "CW": {"c": 10.0, "steps": 300}}.get(
        name, {"eps": 0.5}
    )
    atk = getattr(compat, name)(model, **far)
    targets = (labels + 3) % 10
    atk.set_mode_targeted_by_label(quiet=True)
    assert atk.targeted
    assert (model(atk(images, targets)).argmax(1) == targets).float().mean() > 0.7
    by_label = atk(images, targets)
    # What is the target already stays as it is.
    assert torch.equal(atk(images, model(images).argmax(1)), images)
    atk.set_mode_targeted_by_function(target_map_function=lambda images, labels: (labels + 3) % 10)
    assert atk.get_mode() == "targeted(custom)"
    right = model(images).argmax(1) == labels
    assert torch.equal(atk(images, labels)[right], by_label[right])
    atk.set_mode_targeted_least_likely(kth_min=9)
    likely = model(images).scatter(1, labels[:, None], -torch.inf).argmax(1)
    assert (model(atk(images, labels)).argmax(1) == likely).float().mean() > 0.7
    atk.set_mode_targeted_random()
    assert torch.equal(atk(images, labels), atk(images, labels))
    atk.set_mode_default()
    assert not atk.targeted


def test_without_a_random_start_nothing_is_drawn(model: nn.Module) -> None:
    kind = {"eps": 0.1, "alpha": 0.1, "steps": 1}
    one = compat.PGD(model, **kind, random_start=False)(DATA.images, DATA.labels)
    assert torch.equal(one, compat.BIM(model, **kind)(DATA.images, DATA.labels))
    assert torch.equal(one, compat.FGSM(model, eps=0.1)(DATA.images, DATA.labels))
    assert not torch.equal(one, compat.PGD(model, **kind)(DATA.images, DATA.labels))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("PGD", {"steps": 0}, "steps"),
        ("PGD", {"eps": 0.0}, "above 0"),
        ("PGDL2", {"alpha": -1.0}, "step_size"),
        ("APGD", {"loss": "mse"}, "'ce' or 'dlr'"),
        ("APGD", {"norm": "L0"}, "L0"),
        ("Square", {"loss": "ce"}, "margin"),
    ],
)
def test_what_an_attack_does_not_take_is_said(
    model: nn.Module, name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        getattr(compat, name)(model, **settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [("load", "torch.load"), ("save", "torch.save"), ("set_model_training_mode", "evaluation mode")],
)
def test_methods_that_are_not_here_say_what_to_do(model: nn.Module, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(compat.PGD(model), name)()


def test_settings_cannot_be_changed_without_effect(model: nn.Module) -> None:
    atk = compat.PGD(model)
    with pytest.raises(AttributeError, match="eps"):
        atk.eps = 0.1
    assert "steps=10" in repr(atk)


def test_attacks_of_several_models_are_no_set(model: nn.Module) -> None:
    with pytest.raises(InputError, match="same model"):
        compat.MultiAttack([compat.FGSM(model), compat.FGSM(nn.Sequential(model))])


@pytest.mark.slow
def test_robustbenchs_own_example(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README of RobustBench, with a threat and data that are here."""
    monkeypatch.chdir(tmp_path)
    from robustframe.compat import benchmark

    clean_acc, robust_acc = benchmark(
        model, model_name="Me2026First", n_examples=12, dataset="digits", threat_model="Linf", eps=48 / 255,
        device=torch.device("cpu"), aa_state_path="state",
    )  # fmt: skip
    run = robustframe.open_run("state")
    assert [battery.cited for battery in run.batteries] == ["standard@1"]
    assert run.record.data.sha256 == DATA.first(12).sha256
    found = run.results[0]
    assert (clean_acc, robust_acc) == (found.clean_correct / 12, found.robust_correct / 12)
    assert 0 < robust_acc < clean_acc


def test_benchmark_calls_its_data_by_name(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[compat.AutoAttack] = []

    class Fast(compat.AutoAttack):
        """The attack that is quickest, and the last one that was made."""

        def __init__(self, *given: object, **settings: object) -> None:
            super().__init__(*given, **settings, **LIGHT)  # type: ignore[arg-type]
            self.attacks_to_run = ["square"]
            self.square.n_queries = 5
            kept.append(self)

    monkeypatch.setattr("robustframe.compat.robustbench.AutoAttack", Fast)
    compat.benchmark(model, n_examples=12, dataset="digits", eps="48/255")
    run = kept[0].run
    assert (run.record.data.use, run.record.data.split, run.record.data.count) == ("digits", "test", 12)
    assert run.results[0].threat == "linf:48/255"
    assert robustframe.verify(run.folder, model, load("digits").first(12)).ok


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ({"eps": "8/255", "alpha": "2/255"}, {"eps": 8 / 255, "alpha": 2 / 255}),
        ({"eps": "0.1", "alpha": 0.05}, {"eps": 0.1, "alpha": 0.05}),
    ],
)
def test_a_radius_may_be_copied_as_a_fraction(
    model: nn.Module, words: dict[str, float | str], numbers: dict[str, float]
) -> None:
    images, labels = DATA.images[:8], DATA.labels[:8]
    for make in (compat.PGD, compat.BIM, compat.PGDL2):
        assert torch.equal(make(model, **words)(images, labels), make(model, **numbers)(images, labels))
    eps = words["eps"]
    assert torch.equal(compat.FGSM(model, eps)(images, labels), compat.FGSM(model, numbers["eps"])(images, labels))
    assert compat.AutoAttack(model, eps=eps).epsilon == numbers["eps"]
    with pytest.raises(InputError, match=r"eps '8/0' is not a number; write 0\.1 or '8/255'"):
        compat.PGD(model, eps="8/0")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eps": None}, "eps=8 / 255"),
        ({"eps": "eight"}, "eps 'eight' is not a number"),
        ({"threat_model": "corruptions"}, "not a ball"),
        ({"threat_model": "L7"}, "L7"),
        ({"to_disk": True}, "robustframe report"),
        ({"corruptions_data_dir": "x"}, "leave it out"),
        ({"preprocessing": "Res224"}, "recipe"),
        ({"dataset": "imagenet"}, "imagenet"),
        ({"n_examples": 501}, "500 examples"),
    ],
)
def test_benchmark_says_what_it_does_not_take(model: nn.Module, given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compat.benchmark(**{"model": model, "n_examples": 5, "dataset": "digits", "eps": 0.1, **given})


@pytest.mark.parametrize("eps", [8 / 255, 1 / 255, 0.5, 3.0, 0.2, 1e-3, 0.3 + 1e-9])
def test_a_radius_is_written_so_that_it_reads_back(eps: float) -> None:
    assert robustframe.ThreatModel.parse(f"linf:{written_eps(eps)}" if eps < 1 else f"l1:{written_eps(eps)}").eps == eps


def test_the_peers_calls_are_imported_on_use() -> None:
    code = (
        "import sys, robustframe.compat as c; assert 'torch' not in sys.modules; c.PGD; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_both_twins_of_a_pair_are_taken_one_by_one() -> None:
    pair, _ = load_named("zoo:digits-fc2-16")
    assert isinstance(pair, Pair)
    found = [
        right(twin, compat.PGD(twin, eps=0.1)(DATA.images, DATA.labels)) for twin in (pair.feedforward, pair.recurrent)
    ]
    assert all(each < 1 for each in found)


FAKE = """
import torch
from torch import nn

asked = []

def load_model(model_name, model_dir="./models", dataset="cifar10", threat_model="Linf"):
    asked.append((model_name, model_dir, dataset, threat_model))
    if model_name == "NoSuch":
        raise KeyError(model_name)
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def robustbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of RobustBench's name and call, and a working directory of its own."""
    package = tmp_path / "installed" / "robustbench"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(FAKE)
    monkeypatch.syspath_prepend(package.parent)
    for name in ("robustbench", "robustbench.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("robustbench.utils")
    for name in ("robustbench", "robustbench.utils"):
        sys.modules.pop(name, None)


RECIPE = """
schema = 1
name = "theirs"
seed = 0
threats = ["linf:0.05"]
battery = ["quick@1"]
[data]
use = "digits"
count = 10
[[model]]
use = "{use}"
"""


def test_a_model_of_robustbenchs_zoo_is_evaluated(robustbench: ModuleType, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(use="robustbench:Carmon2019Unlabeled"))
    with pytest.raises(InputError, match=r"models/cifar10/Linf/Carmon2019Unlabeled.pt; fetch them with --download"):
        robustframe.evaluate_recipe(recipe)
    assert not robustbench.asked
    run = robustframe.evaluate_recipe(recipe, download=True)
    assert set(robustbench.asked) == {("Carmon2019Unlabeled", "models", "cifar10", "Linf")}
    assert [each.name for each in run.record.classifiers] == ["Carmon2019Unlabeled"]
    weights = tmp_path / "models" / "cifar100" / "L2" / "Rice2020Overfitting.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    recipe.write_text(RECIPE.format(use="robustbench:cifar100/L2/Rice2020Overfitting"))
    robustframe.evaluate_recipe(recipe)
    assert robustbench.asked[-1] == ("Rice2020Overfitting", "models", "cifar100", "L2")


@pytest.mark.usefixtures("robustbench")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use": "robustbench:NoSuch"}, "robustbench:NoSuch cannot be loaded.*NoSuch"),
        ({"use": "robustbench:L2/Rice2020Overfitting"}, "robustbench:DATA/THREAT/NAME"),
        ({"use": "robustbench:Rice2020Overfitting", "classes": 10}, "leave both out"),
    ],
)
def test_what_robustbench_does_not_have_is_said(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_model(ModelSpec(**given), folder=Path(), download=True)


def test_robustbench_that_is_not_there_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(InputError, match=r"cannot be imported.*`pip install robustbench`"):
        find_model(ModelSpec(use="robustbench:Rice2020Overfitting"), folder=Path(), download=True)
