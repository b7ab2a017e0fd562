"""What the minimal-norm attacks are made of, and what other implementations get wrong about them."""

import itertools

import pytest
import torch
from torch import nn

from robustframe.attacks import CW, DDN, FMN, DeepFool
from robustframe.attacks.ddn import anneal
from robustframe.attacks.fmn import into_ball
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.threat import ThreatModel


def model_and_images(classes=4, rows=6, level=None):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn((classes, 25), generator=generator))
        model[1].bias.zero_()
    x = torch.rand((rows, 1, 5, 5), generator=generator) if level is None else torch.full((rows, 1, 5, 5), level)
    return model, x, model(x).argmax(1)


def test_half_a_cosine_goes_from_the_first_value_to_nearly_the_last():
    assert anneal(1.0, 0.01, 0, 50) == 1.0
    assert anneal(1.0, 0.01, 25, 50) == pytest.approx(0.505)
    assert anneal(1.0, 0.01, 50, 50) == pytest.approx(0.01)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_ball_of_its_own_radius_for_each_row(norm):
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn((6, 1, 4, 4), generator=generator, dtype=torch.float64)
    radii = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 50.0], dtype=torch.float64)
    got = into_ball(delta.flatten(1), radii, norm)
    for row, radius in enumerate(radii.tolist()):
        wide = ThreatModel(norm=norm, eps=radius, low=-100.0, high=100.0)
        expected = wide.project(torch.zeros_like(delta[[row]]), delta[[row]])
        torch.testing.assert_close(got[[row]], expected.flatten(1))
    assert torch.equal(got[5], delta[5].flatten())
    assert into_ball(delta.flatten(1), torch.zeros(6, dtype=torch.float64), norm).abs().max() == 0


def test_the_largest_entries_stay_in_l0():
    delta = torch.tensor([[0.1, -0.5, 0.0, 0.3], [1.0, 2.0, -3.0, 4.0], [1.0, 2.0, -3.0, 4.0]])
    kept = into_ball(delta, torch.tensor([2.0, 1.0, 9.0]), "l0")
    assert torch.equal(kept, torch.tensor([[0, -0.5, 0, 0.3], [0, 0, 0, 4.0], [1.0, 2.0, -3.0, 4.0]]))


def test_fmn_changes_as_few_numbers_as_it_takes():
    model, x, y = model_and_images(classes=2)
    everywhere = ThreatModel(norm="l2", eps=100.0)
    probe = Probe(model, x, y, everywhere, closest=True)
    few = ThreatModel(norm="l2", eps=25.0)
    object.__setattr__(few, "norm", "l0")
    fewest = torch.full((len(x),), 99)
    observe = probe.observe

    def noted(rows, points, logits, **options):
        changed = (points != x[rows]).flatten(1).sum(1)
        wrong = logits.argmax(1) != y[rows]
        fewest[rows[wrong]] = torch.minimum(fewest[rows[wrong]], changed[wrong])
        observe(rows, points, logits, **options)

    probe.observe = noted
    FMN(steps=150, alpha=5.0).perturb(probe, x, few, Draws((0,), len(x)))
    slope = (model[1].weight[1 - y] - model[1].weight[y]).detach()
    gain = (slope * torch.where(slope > 0, 1 - x.flatten(1), -x.flatten(1))).sort(1, descending=True).values
    logits = model(x).detach()
    gap = logits.gather(1, y.unsqueeze(1)) - logits.gather(1, 1 - y.unsqueeze(1))
    needed = (gain.cumsum(1) <= gap).sum(1) + 1
    assert (fewest >= needed).all()
    assert (fewest <= needed + 1).all()


@pytest.mark.parametrize("attack", [CW(searches=4, initial_weight=0.1), DDN(steps=60), DeepFool()])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_pixels_at_the_faces_of_the_box_move(attack, level):
    model, x, y = model_and_images(level=level)
    with torch.no_grad():
        # Near the boundary, so that a short step suffices.
        model[1].bias.copy_(-model(x)[0] + 0.2 * torch.eye(4)[int(y[0])])
    found = attack.run(model, x, y, ThreatModel(norm="l2", eps=1.0), Draws((0,), 6), closest=True)
    assert found.success.all()


@pytest.mark.parametrize("attack", [CW(steps=60, searches=4, initial_weight=0.1), FMN(steps=60), DDN(steps=60)])
def test_a_shift_of_all_logits_changes_nothing(attack):
    model, x, y = model_and_images()
    found = [
        attack.run(each, x, y, ThreatModel(norm="l2", eps=5.0), Draws((0,), 6), closest=True)
        for each in (model, nn.Sequential(model, nn.LogSoftmax(1)))
    ]
    assert found[0].success.all()
    torch.testing.assert_close(found[0].distance, found[1].distance, rtol=1e-2, atol=0)


def test_a_stalled_example_of_cw_costs_nothing_while_the_others_go_on():
    class Half(nn.Module):
        """No slope at all in dark images."""

        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([torch.ones_like(mean), torch.where(mean > 0.2, 2 * mean, 0 * mean)], 1)

    x = torch.full((2, 1, 4, 4), 0.3)
    x[0] = 0.1
    attack, threat = CW(steps=100, searches=3, initial_weight=1.0), ThreatModel(norm="l2", eps=9.0)
    found = attack.run(Half(), x, torch.zeros(2, dtype=torch.long), threat, Draws((0,), 2), closest=True)
    assert found.success.tolist() == [False, True]
    assert found.forwards[0] < 0.4 * found.forwards[1]


def test_every_point_of_ddn_lies_on_its_sphere_and_the_radius_follows_the_verdicts(monkeypatch):
    model, x, y = model_and_images(classes=2)
    x = 0.5 + 0.01 * (x - 0.5)
    y = model(x).argmax(1)
    points = []
    gradient = Probe.gradient
    monkeypatch.setattr(Probe, "gradient", lambda self, at, *rest: points.append(at) or gradient(self, at, *rest))
    probe = Probe(model, x, y, ThreatModel(norm="l2", eps=100.0), closest=True)
    DDN(steps=30, initial_radius=0.2).perturb(probe, x, probe.threat, Draws((0,), len(x)))
    radius = torch.full((len(x),), 0.2)
    for before, after in itertools.pairwise(points):
        wrong = model(before).argmax(1) != y
        radius = radius * torch.where(wrong, 0.95, 1.05)
        inside = ((after > 0) & (after < 1)).flatten(1).all(1)
        size = (after - x).flatten(1).norm(dim=1)
        torch.testing.assert_close(size[inside], radius[inside], rtol=1e-3, atol=1e-5)
