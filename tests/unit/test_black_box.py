"""Attacks without gradients, and sparse ones: examples are searched as if alone, from what they are said to see."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustframe.attacks import HopSkipJump, RandomSearch, SigmaZero, make_attack
from robustframe.attacks.hopskipjump import _Walk
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.threat import ThreatModel

ROWS = 12
CASES = [
    ("sigma-zero", {"steps": 30}, "l0", 3.0),
    ("spsa", {"steps": 6, "samples": 20}, "l2", 0.3),
    ("spsa", {"steps": 6, "samples": 20}, "linf", 0.05),
    ("random-search", {"queries": 100}, "l0", 3.0),
    ("random-search", {"queries": 100}, "linf", 0.05),
    ("hopskipjump", {"steps": 5, "samples": 30}, "l2", 0.3),
    ("hopskipjump", {"steps": 5, "samples": 30}, "linf", 0.05),
]


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(64, 4))
        x = torch.rand(ROWS, 1, 8, 8)
    with torch.no_grad():
        # Near all boundaries at once.
        model[3].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(("use", "settings", "norm", "eps"), CASES)
def test_examples_together_find_what_each_finds_alone(small, use, settings, norm, eps):
    model, x, y = small
    threat, attack = ThreatModel(norm=norm, eps=eps), make_attack(use, settings)
    together = attack.run(model, x, y, threat, Draws((0,), ROWS), known_correct=True)
    # Some are broken on the way, so the others change places in the search's own arrays.
    assert 1 < together.success.sum() < ROWS
    for row in range(ROWS):
        one = torch.tensor([row])
        alone = attack.run(model, x[one], y[one], threat, Draws((0,), ROWS, one), known_correct=True)
        assert torch.equal(alone.forwards, together.forwards[one])
        torch.testing.assert_close(alone.adversarial, together.adversarial[one], rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hopskipjump_learns_nothing_from_logits_but_the_class(small, norm):
    class Decisions(nn.Module):
        def forward(self, x):
            return F.one_hot(small[0](x).argmax(1), 4).float()

    _, x, y = small
    threat = ThreatModel(norm=norm, eps={"l2": 0.3, "linf": 0.05}[norm])
    attack = HopSkipJump(steps=4, samples=20)
    plain, decisions = (
        attack.run(model, x, y, threat, Draws((0,), ROWS), known_correct=True) for model in (small[0], Decisions())
    )
    assert torch.equal(plain.success, decisions.success)
    assert torch.equal(plain.forwards, decisions.forwards)
    assert torch.equal(plain.adversarial[plain.success], decisions.adversarial[plain.success])


def test_hopskipjump_comes_nearer_with_every_step(small):
    model, x, y = small
    threat = ThreatModel(norm="l2", eps=8.0)
    found = [
        HopSkipJump(steps=steps).run(model, x, y, threat, Draws((0,), ROWS), known_correct=True, closest=True)
        for steps in (1, 4, 16)
    ]
    assert all(result.success.all() for result in found)
    first, middle, last = (result.distance for result in found)
    assert (middle < first).all()
    assert (last < middle).all()
    # So near to the boundaries the model is all but linear.
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    reach = []
    for other in range(4):
        gap = logits.gather(1, y.unsqueeze(1)).squeeze(1) - logits[:, other]
        (slope,) = torch.autograd.grad(gap.sum(), leaf, retain_graph=True)
        reach.append(torch.where(y == other, torch.inf, gap / slope.flatten(1).norm(dim=1)))
    ratio = last / torch.stack(reach).amin(0).detach()
    assert (ratio > 0.98).all()
    assert ratio.median() < 1.05


def test_a_leap_is_halved_until_it_lands_among_the_misclassified():
    class Stripe(nn.Module):
        """Class 1 between 0.6 and 0.7."""

        def forward(self, x):
            return torch.stack([0 * x[:, 0], 0.05 - (x[:, 0] - 0.65).abs()], 1)

    x = torch.tensor([[0.0], [0.3], [1.0]])
    threat = ThreatModel(norm="l2", eps=0.01)
    probe = Probe(Stripe(), x, torch.zeros(3, dtype=torch.long), threat)
    walk = _Walk(probe, x, threat)
    walk.at, walk.started = torch.tensor([[0.65], [0.61], [0.69]]), torch.tensor([True, True, True])
    walk.leap(torch.arange(3), torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([0.32, 0.04, 0.32]))
    # 0.97, 0.81, 0.73, 0.69; at once; and 0.37, 0.53, 0.61.
    torch.testing.assert_close(walk.at, torch.tensor([[0.69], [0.65], [0.61]]))
    assert probe.forwards.tolist() == [4, 1, 3]


def test_an_example_that_no_random_image_misclassifies_is_left_alone():
    class Same(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]

    x = torch.full((2, 3), 0.5)
    threat = ThreatModel(norm="l2", eps=0.1)
    result = HopSkipJump().run(Same(), x, torch.zeros(2, dtype=torch.long), threat, Draws((0,), 2))
    assert not result.success.any()
    assert torch.equal(result.adversarial, x)
    # The clean image, a hundred starts, and the clean image again as the last point.
    assert result.forwards.tolist() == [102, 102]


def test_sigma_zero_looks_for_fewer_changes_than_it_needs(small):
    model, x, y = small
    threat = ThreatModel(norm="l0", eps=64.0)
    few, many = (
        SigmaZero(steps=steps).run(model, x, y, threat, Draws((0,), ROWS), known_correct=True, closest=True)
        for steps in (10, 200)
    )
    assert many.success.all()
    assert many.distance.mean() < few.distance.mean()
    assert many.distance.mean() < 6
    random = RandomSearch(queries=200).run(
        model, x, y, ThreatModel(norm="l0", eps=many.distance.max().item()), Draws((0,), ROWS), known_correct=True
    )
    assert random.success.sum() < ROWS
