"""The door to the model: what it counts, what it lets through, and how it leaves the model."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from robustframe.calls import borrowed, call_in_batches, padded, predict
from robustframe.errors import InputError
from robustframe.losses import margin
from robustframe.probe import Probe, SearchOver
from robustframe.threat import ThreatModel

THREAT = ThreatModel(norm="linf", eps=0.1)


class Level(nn.Module):
    """Class 1 when the mean is above a half; counts its calls and remembers their sizes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def level_probe(values=(0.45, 0.2, 0.3, 0.45), **options):
    x = torch.tensor(values).view(-1, 1).expand(-1, 4).contiguous()
    model = Level()
    return Probe(model, x, torch.zeros(len(values), dtype=torch.long), THREAT, **options), model


def test_every_pass_of_every_row_is_counted():
    probe, model = level_probe()
    probe.logits(probe.x)
    probe.gradient(probe.x, margin)
    probe.gradient(probe.x, margin)
    assert probe.forwards.tolist() == [3] * 4
    assert probe.backwards.tolist() == [2] * 4
    assert model.sizes == [16] * 3


def test_the_gradient_is_that_of_the_loss_and_the_value_too():
    probe, _ = level_probe()
    result = probe.gradient(probe.x, margin)
    # The margin is twice the mean minus one.
    torch.testing.assert_close(result.gradient, torch.full((4, 4), 0.5))
    torch.testing.assert_close(result.value, torch.tensor([-0.1, -0.6, -0.4, -0.1]))
    assert result.logits.shape == (4, 2)


def test_a_broken_row_is_not_evaluated_again_and_comes_back_as_zeros():
    probe, _ = level_probe()
    points = probe.x + 0.09
    first = probe.logits(points)
    assert probe.broken.tolist() == [True, False, False, True]
    assert probe.active.tolist() == [1, 2]
    assert (first != 0).all()
    second = probe.logits(points)
    assert torch.equal(second[[0, 3]], torch.zeros(2, 2))
    torch.testing.assert_close(second[[1, 2]], first[[1, 2]])
    result = probe.gradient(points, margin)
    assert torch.equal(result.gradient[[0, 3]], torch.zeros(2, 4))
    assert torch.equal(result.value[[0, 3]], torch.zeros(2))
    assert probe.forwards.tolist() == [1, 3, 3, 1]
    assert probe.backwards.tolist() == [0, 1, 1, 0]


def test_the_search_ends_when_the_last_row_breaks_and_stays_ended():
    probe, model = level_probe((0.45, 0.48))
    with pytest.raises(SearchOver):
        probe.logits(probe.x + 0.09)
    calls = len(model.sizes)
    for evaluate in (probe.logits, lambda x: probe.gradient(x, margin), probe.differentiable, probe.settle):
        with pytest.raises(SearchOver):
            evaluate(probe.x)
    assert len(model.sizes) == calls


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5])
def test_no_row_costs_more_than_the_budget(budget):
    probe, _ = level_probe(budget=budget)

    def search():
        for _ in range(10):
            probe.gradient(probe.x, margin)

    with pytest.raises(SearchOver):
        search()
    assert (probe.forwards + probe.backwards).tolist() == [budget - budget % 2] * 4


def test_the_best_allowed_point_is_kept():
    probe, _ = level_probe((0.3,))
    for shift in (0.05, 0.08, 0.02):
        probe.logits(probe.x + shift)
    torch.testing.assert_close(probe.best, probe.x + 0.08)


@pytest.mark.parametrize("shift", [0.11, -2.0, float("nan")])
def test_a_point_outside_the_threat_never_succeeds(shift):
    # With label 1, dark points would succeed; with label 0, bright ones and NaN.
    label = int(shift < 0)
    x = torch.full((1, 4), 0.45 + 0.1 * label)
    probe = Probe(Level(), x, torch.tensor([label]), THREAT)
    probe.logits(x)
    probe.logits(x + shift)
    assert not probe.broken.any()
    torch.testing.assert_close(probe.best, x)


def test_a_point_outside_the_box_never_succeeds():
    model = nn.Flatten()
    x = torch.tensor([[0.95, 0.98]])
    probe = Probe(model, x, torch.tensor([1]), ThreatModel(norm="linf", eps=0.1))
    probe.logits(torch.tensor([[1.02, 0.98]]))
    assert not probe.broken.any()
    with pytest.raises(SearchOver):
        probe.logits(torch.tensor([[1.0, 0.98]]))


class NanAbove(nn.Module):
    def forward(self, x):
        logits = Level()(x)
        return torch.where(x.mean(1, keepdim=True) > 0.35, torch.nan, logits)


def test_nan_logits_are_never_right():
    assert predict(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])).tolist() == [1, -1]
    x = torch.full((1, 4), 0.3)
    probe = Probe(NanAbove(), x, torch.tensor([0]), THREAT)
    probe.logits(x)
    with pytest.raises(SearchOver):
        probe.logits(x + 0.08)
    assert probe.broken.all()


def test_settling_evaluates_only_what_was_not_the_last_evaluation():
    probe, _ = level_probe((0.2, 0.3))
    probe.logits(probe.x)
    probe.settle(probe.x)
    assert probe.forwards.tolist() == [1, 1]
    changed = probe.x.clone()
    changed[1] += 0.01
    probe.settle(changed)
    assert probe.forwards.tolist() == [1, 2]


def test_calls_are_padded_split_and_give_what_one_call_gives():
    model = Level()
    x = torch.rand((37, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(call_in_batches(model, x, 20), Level()(x))
    assert model.sizes == [24, 16]
    assert [padded(rows) for rows in (1, 16, 17, 25)] == [16, 16, 24, 32]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda x: x.mean(1), r"returned one number per image, shape \(16,\)"),
        (lambda x: x[:1], r"returned \(1, 4\) for 16 images; it must return logits of shape"),
        (lambda x: (x,), "returned a tuple of 1; say which are the logits"),
    ],
)
def test_a_model_that_does_not_return_logits_is_refused_in_words(answer, sentence):
    with pytest.raises(InputError, match=sentence):
        call_in_batches(answer, torch.zeros(3, 4), 16)


def test_an_outsider_gets_a_gradient_and_its_passes_are_counted():
    probe, _ = level_probe()
    probe.logits(probe.x + 0.09)
    leaf = probe.x.clone().requires_grad_()
    logits = probe.differentiable(leaf)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), leaf, retain_graph=True)
    expected = torch.zeros(4, 4)
    expected[[1, 2]] = 0.25
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(logits[[0, 3]], torch.zeros(2, 2))
    assert probe.forwards.tolist() == [1, 2, 2, 1]
    assert probe.backwards.tolist() == [0, 2, 2, 0]


def test_an_outsider_may_send_several_points_of_an_example():
    probe, _ = level_probe((0.45, 0.3))
    rows = torch.tensor([1, 1, 0, 1])
    points = probe.x[rows] + torch.tensor([0.01, 0.09, 0.02, 0.05]).view(-1, 1)
    logits = probe.differentiable(points, rows)
    torch.testing.assert_close(logits, Level()(points))
    assert probe.forwards.tolist() == [1, 3]
    torch.testing.assert_close(probe.best, torch.stack([points[2], points[1]]))
    with pytest.raises(SearchOver):
        probe.differentiable(points[2:3] + 0.08, torch.tensor([0]))
    assert probe.broken.tolist() == [True, False]
    with pytest.raises(SearchOver):
        probe.differentiable(points[2:3], torch.tensor([0]))
    assert probe.differentiable(points, rows)[2].tolist() == [0.0, 0.0]


def test_an_outsider_gets_a_zero_gradient_from_a_model_that_has_none():
    x = torch.full((2, 4), 0.3)
    probe = Probe(nn.Sequential(Level(), nn.Threshold(-9, 0)), x, torch.tensor([0, 0]), THREAT)
    probe.model.register_forward_hook(lambda *given: given[2].detach())
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(probe.differentiable(leaf).sum(), leaf)
    assert torch.equal(gradient, torch.zeros_like(x))
    assert probe.backwards.tolist() == [0, 0]


def mixed_model():
    """Modes, frozen parameters and gradients that differ from module to module."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(2)
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_a_borrowed_model_comes_back_as_it_was(fails):
    model = mixed_model()
    modes = [module.training for module in model.modules()]
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [parameter.grad for parameter in model.parameters()]
    assert gradients[-1] is not None
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    def use():
        with borrowed(model, seed=3):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            model.requires_grad_(True)
            model(torch.rand(8, 4)).sum().backward()
            model.train()
            random.random()
            np.random.rand()  # noqa: NPY002
            if fails:
                raise RuntimeError("inside")

    if fails:
        with pytest.raises(RuntimeError, match="inside"):
            use()
    else:
        use()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    assert all(now.grad is before for now, before in zip(model.parameters(), gradients))
    assert torch.equal(gradients[-1], torch.ones(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_a_borrowed_model_repeats_its_random_numbers():
    draws = []
    for _ in range(2):
        with borrowed(nn.Identity(), seed=5):
            draws.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert draws[0] == draws[1]
