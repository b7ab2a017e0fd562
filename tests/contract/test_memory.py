"""Memory of an attack is bounded by batch and chunk, whatever it does; attacking in parts changes no byte."""

import importlib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import robustframe
from robustframe import draws
from robustframe.attacks import ATTACKS, Attack, base
from robustframe.draws import Draws
from robustframe.threat import ThreatModel
from robustframe.types import Norm

LONG = {"spsa", "hopskipjump"}
"""Attacks of many evaluations."""
CASES = [
    pytest.param(name, norm, marks=[pytest.mark.slow] if name in LONG else [])
    for name, kind in ATTACKS.items()
    for norm in kind.norms
    # It holds what its numbers are, which are no images.
    if name != "grid"
]
EPS: dict[Norm, float] = {"l0": 3.0, "l1": 2.0, "l2": 0.3, "linf": 0.02}


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    """The benchmark of the memory of attacks, imported and not run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(robustframe.__file__).parents[1] / "benchmarks"))
        return importlib.import_module("attack_memory")


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the images are, they are attacked and numbers are drawn in parts."""
    monkeypatch.setattr(base, "_LITTLE", 0)
    monkeypatch.setattr(draws, "_BLOCK", 2**10)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_an_attack_holds_twelve_batches_and_six_chunks_of_images_at_most(
    name: str, norm: Norm, memory: ModuleType
) -> None:
    attack = memory.short(ATTACKS[name])
    held = memory.held_by(attack, norm, examples=20, batch=16, shape=(3, 8, 8))
    assert held <= 12 * 16 + 6 * 20
    # What it says beforehand, for a dry run.
    assert held * 192 * 4 <= 1.2 * attack.memory(20, 192 * 4, norm, 16)


def test_what_is_held_is_seen(memory: ModuleType) -> None:
    class Greedy(Attack):
        def perturb(self, probe, x, threat, draws):
            return torch.stack([x + at for at in range(50)]).mean(0)

    assert memory.held_by(Greedy(), "l2", examples=40, batch=16, shape=(3, 8, 8)) > 12 * 16 + 6 * 40


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_attacking_in_parts_changes_no_byte(
    name: str, norm: Norm, memory: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((20, 3, 8, 8), generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn((5, 192), generator=generator) / 14)
        y = model(x).argmax(1)
    attack, threat = memory.short(ATTACKS[name]), ThreatModel(norm=norm, eps=EPS[norm])

    def found(together: int) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(Attack, "_together", lambda *_: together)
        result = attack.run(model, x, y, threat, Draws(("parts",), 20), known_correct=True)
        named = {each.name: getattr(result, each.name) for each in fields(result)}
        return {name: value for name, value in named.items() if value is not None}

    whole, parts = found(20), found(7)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
