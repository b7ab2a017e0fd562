"""On another device everything says what it says on the CPU, and nothing is left behind on the other side.

That is a CUDA GPU where there is one, or else a pretended device, which refuses to mix as a GPU does.
"""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import DEVICE, NAME, There, pretended
from test_attacks import OURS, Small, classify, images
from torch import nn

import robustframe
from robustframe.attacks import make_attack
from robustframe.attacks.parts import divide
from robustframe.certify import lipschitz_radius
from robustframe.data import load
from robustframe.draws import Draws
from robustframe.evaluation.api import evaluate
from robustframe.pairs import TrainingPlan, train_pair
from robustframe.prepared import choose
from robustframe.recipe import Battery
from robustframe.threat import ThreatModel
from robustframe.train import TrainingRecipe, new_pair
from robustframe.zoo import load_card

OTHER = "cuda" if torch.cuda.is_available() else NAME


def on_another() -> contextlib.AbstractContextManager[None]:
    """Let the other device be there."""
    return contextlib.nullcontext() if OTHER == "cuda" else pretended()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    with pretended():
        there, here = torch.ones(3, device=NAME), torch.ones(3)
        assert isinstance(there, There)
        assert there.device == DEVICE
        with pytest.raises(RuntimeError, match="are on the CPU, others on pretend:0"):
            there + here
        with pytest.raises(RuntimeError, match="are on the CPU"):
            torch.stack([there, torch.zeros(3)])
        with pytest.raises(TypeError, match=r"has no array; move it with Tensor\.cpu"):
            there.numpy()
        assert (there + 1).cpu().tolist() == [2.0, 2.0, 2.0]
        assert there[torch.tensor([0, 2])].device == DEVICE
        torch.manual_seed(0)
        model = nn.Linear(3, 2).to(NAME)
        model(there).sum().backward()
        assert model.weight.grad is not None
        assert model.weight.grad.cpu().tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(("use", "settings", "norm"), [pytest.param(*each, id=f"{each[0]}-{each[2]}") for each in OURS])
def test_every_attack_has_the_same_outcome(use: str, settings: dict[str, Any], norm: Any) -> None:
    model, x = Small(), images(rows=8)
    y = classify(model, x)
    threat = ThreatModel(norm=norm, eps={"l0": 6.0, "l1": 3.0, "l2": 0.6, "linf": 0.05}[norm])
    here = make_attack(use, settings).run(model, x, y, threat, Draws((0, use), 8))
    with on_another():
        draws = Draws((0, use), 8, device=torch.device(OTHER))
        there = make_attack(use, settings).run(copy.deepcopy(model).to(OTHER), x.to(OTHER), y.to(OTHER), threat, draws)
    assert torch.equal(there.success.cpu(), here.success)
    torch.testing.assert_close(there.adversarial.cpu(), here.adversarial, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["linf:0.1 on 1:5,2:", "linf:1 on rotation:40,shift:1", "mask", "eps"])
def test_parts_and_motions_have_the_same_outcome(how: str) -> None:
    model, x = Small(), images(rows=8)
    y = classify(model, x)

    def found(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        if how in ("mask", "eps"):
            checks = (torch.arange(36).view(6, 6) % 2).to(x)
            options = {"mask": checks} if how == "mask" else {"eps": 0.05 + 0.1 * checks}
            (part,) = divide(ThreatModel(norm="linf", eps=0.1), x, **options)
            threat = part.threat
        else:
            threat = ThreatModel.parse(how)
        return make_attack("apgd", {"steps": 5}).run(model, x, y, threat, Draws((0,), 8, device=x.device))

    here = found(model, x, y)
    with on_another():
        there = found(copy.deepcopy(model).to(OTHER), x.to(OTHER), y.to(OTHER))
    assert torch.equal(there.success.cpu(), here.success)
    torch.testing.assert_close(there.adversarial.cpu(), here.adversarial, rtol=0, atol=1e-5)


def test_an_evaluation_with_its_checks_has_the_same_verdicts(tiny_card: Path, tmp_path: Path) -> None:
    data = load("digits").first(20)
    pair = load_card(tiny_card)[0]
    battery = Battery.model_validate(
        {
            "schema": 1,
            "name": "here",
            "version": "1",
            "attack": [
                {"use": "apgd", "steps": 5},
                {"use": "apgd", "steps": 4, "through": "implicit"},
                {"use": "fab-t", "steps": 2, "targets": 2},
                {"use": "square", "queries": 30},
            ],
        }
    )
    asked = {"threat": ["linf:0.1", "linf:0.2 to next"], "battery": battery, "report": robustframe.silent}
    here = evaluate(pair, data, out=tmp_path / "here", corruptions={"kinds": ["brightness"]}, **asked)
    with on_another():
        moved = copy.deepcopy(pair).to(OTHER)
        there = evaluate(moved, data, out=tmp_path / "there", corruptions={"kinds": ["brightness"]}, **asked)
    for one, other in zip(here.results, there.results, strict=True):
        assert (one.robust_correct, one.certified_correct) == (other.robust_correct, other.certified_correct)
        assert one.diagnosis is not None
        assert other.diagnosis is not None
        assert one.diagnosis.verdict == other.diagnosis.verdict


def test_a_prepared_copy_is_made_and_searched_there() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 3),
    )  # fmt: skip
    model.train()(images(rows=64))
    model, x = model.eval(), images(rows=20)
    asked = {"threat": "linf:0.3", "diagnose": False, "report": robustframe.silent}
    battery = [{"use": "apgd", "steps": 8}, {"use": "square", "queries": 20}]
    y = classify(model, x)
    here = evaluate(model, x, y, battery=battery, **asked)
    with on_another():
        moved = copy.deepcopy(model).to(OTHER)
        there = evaluate(moved, x, y, battery=battery, **asked)
        chosen = choose(moved, x, bfloat16=True)
    for run in (here, there):
        assert run.record.searched is not None
        assert "batch norm folded" in run.record.searched["model"].steps
    # The pretended device has no kernels for bfloat16.
    assert chosen.bfloat16 or "it fails: Could not run" in str(chosen.why_not_bfloat16)
    assert there.results[0].robust_correct == here.results[0].robust_correct
    assert 0 < here.results[0].robust_correct < 20


def test_certificates_are_the_same(tiny_card: Path) -> None:
    data, pair = load("digits").first(20), load_card(tiny_card)[0]
    here = lipschitz_radius(pair.recurrent, data.images, data.labels)
    with on_another():
        there = lipschitz_radius(copy.deepcopy(pair).to(OTHER).recurrent, data.images.to(OTHER), data.labels.to(OTHER))
    torch.testing.assert_close(there.radius.cpu(), here.radius)


@pytest.mark.parametrize("arm", ["joint", "feedforward", "recurrent"])
def test_a_training_ends_at_the_same_pair(arm: str) -> None:
    recipe = TrainingRecipe.model_validate(
        {
            "schema": 1,
            "name": "there",
            "about": "A training on another device.",
            "seed": 0,
            "data": {"use": "digits"},
            "pair": {"layers": [{"filters": 6, "kernel": 3, "padding": 1}, {"atoms": 12}], "sweeps": 3},
            "schedule": {"epochs": 1},
        }
    )
    later = {} if arm == "feedforward" else {"sweeps": (2, 5), "settle": 0.1}
    common = {"coherence": 0.02, "overlap": 0.9, "rescale": True, "average": 0.9, "active": (0.05, 0.4)}
    plan = TrainingPlan(epochs=2, batch=32, arm=arm, **later, **common)  # type: ignore[arg-type]
    data = load("digits", "train").first(96)
    here = new_pair(recipe, data)
    there = copy.deepcopy(here)
    train_pair(here, data.images, data.labels, plan)
    with on_another():
        there = there.to(OTHER)
        train_pair(there, data.images, data.labels, plan)
        found = {name: tensor.cpu() for name, tensor in there.state_dict().items()}
    for name, tensor in here.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
