"""How gradients are taken: each look against what it stands for, and the model as it was afterwards."""

import pytest
import torch
from torch import nn

from robustframe.attacks import APGD, make_attack
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.gradients import Gradients
from robustframe.losses import cross_entropy
from robustframe.pairs import Twin
from robustframe.probe import Probe
from robustframe.solvers import Implicit, Truncated, iterate
from robustframe.threat import ThreatModel
from robustframe.zoo import load_card

THREAT = ThreatModel(norm="linf", eps=0.1)
ROWS = 8


@pytest.fixture(scope="module")
def pair(tiny_card):
    torch.set_num_threads(1)
    found = load_card(tiny_card)[0]
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def images(pair):
    return torch.rand((ROWS, *pair.frame.in_shape), generator=torch.Generator().manual_seed(0))


def slope(function, x, y):
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(leaf, y).sum(), leaf)
    return found


def through_probe(model, x, y, **how):
    probe = Probe(model, x, y, THREAT, gradients=Gradients(**how), closest=True)
    with probe.looking():
        return probe.gradient(x, cross_entropy), probe


def expected(pair, kind, x, y):
    twin, first = pair.recurrent, Twin(pair, 1)
    if kind in ("last:1", "cheap"):
        return slope(lambda z, y: cross_entropy(Twin(pair, 3, adjoint=Truncated(last=1))(z), y), x, y)
    if kind == "implicit":
        adjoint = Implicit(method="neumann", tolerance=1e-2, steps=8)
        return slope(lambda z, y: cross_entropy(Twin(pair, 3, adjoint=adjoint)(z), y), x, y)
    if kind == "iterates":

        def mean(z, y):
            heads = [pair.classify(codes[-1]) for codes in iterate(twin.solver, pair.frame, z)]
            return torch.stack([cross_entropy(head, y) for head in heads]).mean(0)

        return slope(mean, x, y)
    if kind == "times:2":
        return slope(lambda z, y: cross_entropy(Twin(pair, 6)(z), y), x, y)
    if kind == "transfer":
        return slope(lambda z, y: cross_entropy(first(z), y), x, y)
    if kind == "feedforward":
        leaf = twin(x).requires_grad_()
        (outer,) = torch.autograd.grad(cross_entropy(leaf, y).sum(), leaf)
        return slope(lambda z, y: first(z) * outer, x, y)
    return slope(lambda z, y: cross_entropy(twin(z), y), x, y)


KINDS = ["all", "cheap", "last:1", "last:3", "implicit", "iterates", "times:2", "feedforward", "transfer"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_what_it_is_taken_through_and_the_logits_are_the_models_own(pair, images, kind):
    y = pair.recurrent(images).argmax(1)
    found, probe = through_probe(pair.recurrent, images, y, through=kind)
    torch.testing.assert_close(found.gradient, expected(pair, kind, images, y), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.logits, pair.recurrent(images), rtol=1e-4, atol=1e-4)
    passes = 2 if kind in ("feedforward", "transfer") else 1
    assert probe.forwards.tolist() == [passes] * ROWS
    assert probe.backwards.tolist() == [1] * ROWS


def test_the_ways_differ(pair, images):
    y = pair.recurrent(images).argmax(1)
    found = {kind: through_probe(pair.recurrent, images, y, through=kind)[0].gradient for kind in KINDS}
    torch.testing.assert_close(found["last:3"], found["all"])
    assert torch.equal(found["cheap"], found["last:1"])
    apart = ["all", "last:1", "implicit", "iterates", "times:2", "feedforward", "transfer"]
    for i, one in enumerate(apart):
        for other in apart[:i]:
            assert (found[one] - found[other]).norm() > 1e-3 * found[one].norm(), (one, other)


@pytest.mark.parametrize("kind", ["last:1", "implicit", "iterates", "times:2", "feedforward", "transfer"])
def test_what_is_for_solvers_is_refused_for_others_in_words_and_left_out_by_an_evaluation(pair, images, kind):
    attack = APGD(through=kind)
    y = torch.zeros(ROWS, dtype=torch.long)
    for model, why in ((nn.Linear(3, 2), "which this model is not"), (pair.feedforward, "makes one sweep only")):
        assert why in attack.why_not(model)
        with pytest.raises(InputError, match=why):
            attack.run(model, images, y, THREAT, Draws((0,), ROWS))
    assert attack.why_not(pair.recurrent) is None
    assert APGD(through="cheap").why_not(nn.Linear(3, 2)) is None


@pytest.mark.parametrize("through", ["last", "last:0", "last:x", "sideways", "all:2", "times:-1", "implicit:3"])
def test_a_way_that_is_none_is_refused(through):
    with pytest.raises(InputError, match="through"):
        make_attack("apgd", {"through": through})


class Rounding(nn.Module):
    """Rounds its input to quarters, which has no gradient."""

    def forward(self, x):
        return (4 * x).round() / 4


class Masked(nn.Module):
    """A linear classifier behind rounding."""

    def __init__(self):
        super().__init__()
        self.round, self.linear = Rounding(), nn.Linear(6, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn((3, 6), generator=torch.Generator().manual_seed(2)))
            # No class is favoured at the middle of the box.
            self.linear.bias.copy_(-self.linear.weight.sum(1) / 2)

    def forward(self, x):
        return self.linear(self.round(x))


@pytest.fixture
def masked():
    model = Masked()
    x = torch.rand((16, 6), generator=torch.Generator().manual_seed(1))
    return model, x, model(x).argmax(1)


def test_a_step_without_gradient_is_replaced_on_the_way_back_only(masked):
    model, x, y = masked
    plain, probe = through_probe(model, x, y)
    assert (plain.gradient == 0).all()
    assert probe.zero_gradients.tolist() == [1] * 16
    found, probe = through_probe(model, x, y, bpda={"round": "identity"})
    assert probe.zero_gradients.tolist() == [0] * 16
    assert torch.equal(found.logits, plain.logits)
    beyond = model.round(x)
    torch.testing.assert_close(found.gradient, slope(lambda z, y: cross_entropy(model.linear(z), y), beyond, y))
    assert not model.round._forward_hooks
    doubled, _ = through_probe(model, x, y, bpda={"round": lambda z: 2 * z})
    torch.testing.assert_close(doubled.gradient, 2 * found.gradient)


def test_bpda_breaks_what_rounding_hides(masked):
    model, x, y = masked
    threat = ThreatModel(norm="linf", eps=0.3)
    blind, seeing = (
        APGD(steps=20, bpda=bpda).run(model, x, y, threat, Draws((0,), 16)).success.sum()
        for bpda in ({}, {"round": "identity"})
    )
    assert seeing > blind


def test_a_substitute_is_checked(masked):
    model, x, y = masked
    with pytest.raises(InputError, match="unknown submodule 'rounding'; did you mean 'round'"):
        through_probe(model, x, y, bpda={"rounding": "identity"})
    with pytest.raises(InputError, match=r"shape \(16, 1\) in place of \(16, 6\)"):
        through_probe(model, x, y, bpda={"round": lambda z: z[:, :1]})
    assert not model.round._forward_hooks


def test_a_surrogate_of_the_users_gives_the_gradient_and_not_the_verdict(masked):
    model, x, y = masked
    found, _ = through_probe(model, x, y, through=lambda model: model.linear)
    logits = model(x)
    assert torch.equal(found.logits, logits)
    outer = logits.softmax(1) - nn.functional.one_hot(y, 3)
    torch.testing.assert_close(found.gradient, outer @ model.linear.weight)


def test_a_battery_names_functions_by_file(tmp_path, masked):
    (tmp_path / "mine.py").write_text(
        "def straight(x):\n    return x\n\n\ndef hinge(logits, labels):\n"
        "    return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)\n"
    )
    settings = {"bpda": {"round": "file:mine.py:straight"}, "loss": "file:mine.py:hinge", "steps": 20}
    attack = make_attack("apgd", settings, folder=tmp_path)
    model, x, y = masked
    assert attack.run(model, x, y, ThreatModel(norm="linf", eps=0.3), Draws((0,), 16)).success.any()
    with pytest.raises(InputError, match=r"unknown function in .*mine.py 'strait'; did you mean 'straight'"):
        make_attack("apgd", settings | {"loss": "file:mine.py:strait"}, folder=tmp_path)


class Noisy(nn.Module):
    """A linear classifier of an image with noise, drawn anew at every call."""

    def forward(self, x):
        level = (x + 0.5 * torch.randn_like(x)).mean(1, keepdim=True)
        return torch.cat([0.5 - level, level - 0.5], 1)


def test_gradients_are_averaged_over_draws_and_the_passes_counted():
    class Weighted(nn.Module):
        def forward(self, x):
            return torch.randn_like(x[:, :1]) * torch.cat([-x, x], 1) + torch.cat([-x, x], 1)

    x, y = torch.full((16, 1), 0.4), torch.zeros(16, dtype=torch.long)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        single, _ = through_probe(Weighted(), x, y)
        many, probe = through_probe(Weighted(), x, y, eot=200)
    assert many.gradient.std() < 0.3 * single.gradient.std()
    assert probe.backwards.tolist() == [200] * 16
    assert (probe.forwards >= 200).all()


def test_the_verdict_on_a_random_model_is_that_of_the_majority_of_fresh_draws():
    # At 0.35 a single draw is wrong in about one of nine; nothing in the ball is wrong for most draws.
    x, y = torch.full((64, 16), 0.35), torch.zeros(64, dtype=torch.long)
    attack = make_attack("apgd", {"steps": 10, "eot": 1})
    threat = ThreatModel(norm="linf", eps=0.01)
    single = attack.run(Noisy(), x, y, threat, Draws((0,), 64))
    voted = attack.run(Noisy(), x, y, threat, Draws((0,), 64), votes=21)
    assert single.claimed.sum() > 20
    assert not voted.success.any()
    wide = attack.run(Noisy(), x, y, ThreatModel(norm="linf", eps=0.4), Draws((0,), 64), votes=21)
    assert wide.success.float().mean() > 0.9


def test_dead_relus_get_a_gradient_where_they_are_smoothed():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[0].bias.fill_(-2.0)
    x, y = torch.full((4, 4), 0.5), torch.zeros(4, dtype=torch.long)
    plain, probe = through_probe(model, x, y)
    assert (plain.gradient == 0).all()
    assert probe.zero_gradients.tolist() == [1] * 4
    smooth, probe = through_probe(model, x, y, smooth=2.0)
    assert (smooth.gradient != 0).any()
    assert torch.equal(smooth.logits, plain.logits)


def test_a_sharp_softplus_is_the_relu(pair, images):
    y = pair.recurrent(images).argmax(1)
    plain, _ = through_probe(pair.recurrent, images, y)
    sharp, _ = through_probe(pair.recurrent, images, y, smooth=1e6)
    torch.testing.assert_close(sharp.gradient, plain.gradient, rtol=1e-2, atol=1e-4)


def test_a_search_in_low_precision_claims_nothing_that_the_model_does_not_confirm(pair, images):
    y = pair.recurrent(images).argmax(1)
    result = APGD(steps=20, precision="bfloat16", loss="margin").run(
        pair.recurrent, images, y, THREAT, Draws((0,), ROWS)
    )
    assert result.success.any()
    assert torch.equal(result.claimed, result.success)
    assert torch.equal(pair.recurrent(result.adversarial).argmax(1) != y, result.success)


class Exploding(nn.Module):
    """A classifier whose gradient is infinite at black pixels."""

    def forward(self, x):
        level = x.sqrt().mean(1, keepdim=True)
        return torch.cat([0.6 - level, level - 0.6], 1)


def test_a_gradient_that_is_not_finite_is_counted_and_given_as_zero():
    x = torch.tensor([[0.0, 0.25], [0.25, 0.25]])
    found, probe = through_probe(Exploding(), x, torch.zeros(2, dtype=torch.long))
    assert found.gradient.isfinite().all()
    assert probe.nonfinite_gradients.tolist() == [1, 0]
    assert found.gradient[0, 0] == 0
    assert found.gradient[0, 1] > 0
