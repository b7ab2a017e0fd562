"""Every attack, ours and through the adapter, against the contract of `Attack.run`."""

import copy
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustframe import calls
from robustframe.attacks import ATTACKS, Attack, make_attack
from robustframe.calls import call_in_batches, predict
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.threat import ThreatModel

EPS = {"l0": 4.0, "l1": 2.0, "l2": 0.4, "linf": 0.03}
OURS = [
    ("fgsm", {}, "l1"),
    ("fgsm", {}, "l2"),
    ("fgsm", {}, "linf"),
    ("pgd", {"steps": 5, "restarts": 2}, "l2"),
    ("pgd", {"steps": 5, "restarts": 2}, "linf"),
    ("mi-fgsm", {"steps": 4, "neighbours": 2}, "l2"),
    ("mi-fgsm", {"steps": 4, "neighbours": 2}, "linf"),
    ("transfer", {"steps": 4}, "l2"),
    ("transfer", {"steps": 4}, "linf"),
    ("apgd", {"steps": 8}, "l2"),
    ("apgd", {"steps": 8, "loss": "dlr", "restarts": 2}, "linf"),
    ("apgd", {"steps": 8}, "l1"),
    ("apgd-t", {"steps": 5, "targets": 3, "together": 2}, "l1"),
    ("apgd-t", {"steps": 5, "targets": 3}, "l2"),
    ("apgd-t", {"steps": 5, "targets": 3}, "linf"),
    ("square", {"queries": 12}, "l1"),
    ("square", {"queries": 12}, "l2"),
    ("square", {"queries": 12}, "linf"),
    ("fab", {"steps": 4}, "l1"),
    ("fab", {"steps": 4, "restarts": 2}, "l2"),
    ("fab", {"steps": 4}, "linf"),
    ("fab-t", {"steps": 5, "targets": 2}, "l1"),
    ("fab-t", {"steps": 5, "targets": 2}, "l2"),
    ("fab-t", {"steps": 5, "targets": 2, "restarts": 2}, "linf"),
    ("ddn", {"steps": 6}, "l2"),
    ("fmn", {"steps": 6}, "l0"),
    ("fmn", {"steps": 6}, "l1"),
    ("fmn", {"steps": 6}, "l2"),
    ("fmn", {"steps": 6}, "linf"),
    ("cw", {"steps": 5, "searches": 2, "initial_weight": 1.0}, "l2"),
    ("deepfool", {"steps": 4}, "l2"),
    ("deepfool", {"steps": 4, "targets": 2}, "linf"),
    ("sigma-zero", {"steps": 8}, "l0"),
    ("spsa", {"steps": 3, "samples": 5}, "l2"),
    ("spsa", {"steps": 3, "samples": 5}, "linf"),
    ("random-search", {"queries": 12}, "l0"),
    ("random-search", {"queries": 12}, "l1"),
    ("random-search", {"queries": 12}, "l2"),
    ("random-search", {"queries": 12}, "linf"),
    ("hopskipjump", {"steps": 2, "samples": 20}, "l2"),
    ("hopskipjump", {"steps": 2, "samples": 20}, "linf"),
    ("universal", {"steps": 5}, "l2"),
    ("universal", {"steps": 5}, "linf"),
]
WHOLE_CHUNK = [
    ("torchattacks:MIFGSM", {"steps": 4}, "linf"),
    ("torchattacks:Jitter", {"steps": 4}, "linf"),
    ("torchattacks:TPGD", {"steps": 4}, "linf"),
    ("torchattacks:UPGD", {"steps": 4, "loss": "margin"}, "linf"),
    ("torchattacks:PGDL2", {"steps": 4}, "l2"),
    ("torchattacks:GN", {}, "l1"),
]
ROW_BY_ROW = [
    ("torchattacks:CW", {"steps": 4}, "l2"),
    ("torchattacks:DeepFool", {"steps": 2}, "l2"),
    ("torchattacks:FAB", {"steps": 2}, "linf"),
    ("torchattacks:Square", {"n_queries": 4}, "linf"),
    ("torchattacks:SPSA", {"nb_sample": 4, "max_batch_size": 4}, "linf"),
    ("torchattacks:EADL1", {"max_iterations": 10, "binary_search_steps": 1}, "l1"),
]
CASES = OURS + WHOLE_CHUNK + ROW_BY_ROW
every_attack = pytest.mark.parametrize(
    ("use", "settings", "norm"),
    [
        pytest.param(*case, id=f"{case[0]}-{case[2]}", marks=[pytest.mark.slow] if case in ROW_BY_ROW else [])
        for case in CASES
    ],
)
ROWS = 20
GOES_FAR = {"sigma-zero", "hopskipjump"}
"""Attacks whose points can lie nearer to the clean image of another example than to their own."""
COUNTED_IN = {"square": "l2", "ddn": "l2", "cw": "l2", "sigma-zero": "l0"}
"""The norm in which passes are counted, where it is not linf: there Square leaves out what it has evaluated."""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Small(nn.Module):
    """A convolution, a normalisation with statistics, a dropout and a linear layer."""

    def __init__(self, shape=(3, 6, 6), classes=5, dtype=torch.float32):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = nn.Conv2d(shape[0], 6, 3, 1, 1) if len(shape) == 3 else nn.Linear(shape[-1], 20)
            width = 6 * shape[1] * shape[2] if len(shape) == 3 else 20
            norm = nn.BatchNorm2d(6) if len(shape) == 3 else nn.BatchNorm1d(20)
            self.layers = nn.Sequential(
                first, norm, nn.Softplus(), nn.Dropout(), nn.Flatten(), nn.Linear(width, classes)
            ).to(dtype)
        self.eval()

    def forward(self, x):
        return self.layers(x)


def images(shape=(3, 6, 6), rows=ROWS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((rows, *shape), generator=generator, dtype=dtype)
    # Faces of the box are where clipping and atanh go wrong.
    x.flatten(1)[:, ::5] = 0.0
    x.flatten(1)[:, 1::7] = 1.0
    return x


def run(use, settings, norm, model, x, y, *, rows=None, chunk=None, seed=0, **options):
    draws = Draws((seed, use), chunk or len(x), rows)
    threat = ThreatModel(norm=norm, eps=EPS[norm])
    return make_attack(use, settings).run(model, x, y, threat, draws, **options)


def classify(model, x):
    with torch.no_grad():
        return predict(call_in_batches(model, x, 256))


def assert_sound(result, model, x, y, norm):
    """What every result must be, whatever the attack."""
    assert result.adversarial.shape == x.shape
    assert result.adversarial.dtype == x.dtype
    assert result.adversarial.device == x.device
    assert result.adversarial.isfinite().all()
    distance = ThreatModel(norm=norm, eps=EPS[norm]).distance(x, result.adversarial)
    assert (distance <= EPS[norm] + 1e-5).all()
    assert torch.equal(distance, result.distance)
    assert (result.adversarial >= 0).all()
    assert (result.adversarial <= 1).all()
    predicted = classify(model, result.adversarial)
    assert torch.equal(result.success, predicted != y)
    assert torch.equal(result.prediction, predicted)


def test_the_table_has_every_attack_of_ours_in_each_of_its_norms():
    missing = {(use, norm) for use, cls in ATTACKS.items() for norm in cls.norms}
    # What tries motions has a table of its own, in tests/contract/test_spaces.py.
    assert missing - {("grid", "linf")} == {(use, norm) for use, _, norm in OURS}


@every_attack
def test_results_are_allowed_and_successes_are_real(use, settings, norm):
    model, x = Small(), images()
    y = classify(model, x)
    result = run(use, settings, norm, model, x, y)
    assert_sound(result, model, x, y, norm)


@every_attack
def test_the_model_and_the_random_states_come_back_as_they_were(use, settings, norm, monkeypatch):
    # The type checks of the tests draw Python's random numbers where they see a tuple.
    monkeypatch.setattr(ThreatModel, "check_part", lambda self, shape: None)
    model, x = Small(), images(rows=4)
    y = classify(model, x)
    model.train()
    model.layers[1].eval()
    model.layers[0].weight.requires_grad_(False)
    model.layers[5].weight.grad = torch.ones_like(model.layers[5].weight)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    images_before = x.clone()
    attack = make_attack(use, settings)
    draws, threat = Draws((0,), 4), ThreatModel(norm=norm, eps=EPS[norm])
    # Taken here, after all tuples.
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    attack.run(model, x, y, threat, draws)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model.layers[5].weight.grad, torch.ones_like(model.layers[5].weight))
    assert model.layers[5].bias.grad is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.equal(x, images_before)


@every_attack
def test_the_same_seed_gives_the_same_result(use, settings, norm):
    model, x = Small(), images(rows=6)
    y = classify(model, x)
    first, again = (run(use, settings, norm, model, x, y) for _ in range(2))
    assert torch.equal(first.adversarial, again.adversarial)
    assert torch.equal(first.forwards, again.forwards)
    assert torch.equal(first.backwards, again.backwards)


@pytest.mark.parametrize("use", ["pgd", "apgd", "apgd-t", "square", "torchattacks:Jitter", "torchattacks:Square"])
def test_another_seed_gives_another_result(use):
    model, x = Small(), images(rows=6)
    y = classify(model, x)
    settings = {key: value for name, values, _ in CASES if name == use for key, value in values.items()}
    first, other = (run(use, settings, "linf", model, x, y, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.adversarial, other.adversarial)


@every_attack
def test_results_depend_neither_on_the_batch_size_nor_on_the_other_rows(use, settings, norm):
    model, x = Small(), images()
    y = classify(model, x)
    whole = run(use, settings, norm, model, x, y)
    small = run(use, settings, norm, model, x, y, batch_size=16)
    rows = torch.tensor([2, 3, 11, 17])
    others = [(small, slice(None))]
    if use != "universal":
        # What it finds is one for all rows.
        others.append((run(use, settings, norm, model, x[rows], y[rows], rows=rows, chunk=ROWS), rows))
    for other, picked in others:
        assert torch.equal(other.success, whole.success[picked])
        torch.testing.assert_close(other.adversarial, whole.adversarial[picked], rtol=0, atol=1e-6)
        assert torch.equal(other.forwards, whole.forwards[picked])
        assert torch.equal(other.backwards, whole.backwards[picked])


class Counting(nn.Module):
    """Counts the forwards and backwards of each example, which it knows by the clean image next to it."""

    def __init__(self, model, x):
        super().__init__()
        self.model, self.x = model, x
        self.forwards, self.backwards = (torch.zeros(len(x), dtype=torch.long) for _ in range(2))

    def forward(self, points):
        owners = torch.cdist(points.detach().flatten(1), self.x.flatten(1)).argmin(1)
        ones = torch.ones_like(owners)
        self.forwards.index_add_(0, owners, ones)
        logits = self.model(points)
        if logits.requires_grad:

            def count(_):
                self.backwards.index_add_(0, owners, ones)

            logits.register_hook(count)
        return logits


@every_attack
@pytest.mark.parametrize("known_correct", [False, True])
def test_the_counts_are_those_of_the_model(use, settings, norm, known_correct, monkeypatch):
    monkeypatch.setattr(calls, "_LEAST_ROWS", 1)
    monkeypatch.setattr(calls, "_ROWS", 1)
    model, x = Small(), images(rows=10)
    y = classify(model, x)
    counting = Counting(model, x)
    result = run(use, settings, norm, counting, x, y, known_correct=known_correct)
    if use in GOES_FAR:
        assert result.forwards.sum() == counting.forwards.sum()
        assert result.backwards.sum() == counting.backwards.sum()
        return
    assert torch.equal(result.forwards, counting.forwards)
    assert torch.equal(result.backwards, counting.backwards)


@pytest.mark.parametrize(
    ("use", "settings", "forwards", "backwards"),
    [
        ("fgsm", {}, 2, 1),
        ("pgd", {"steps": 4, "restarts": 3}, 3 * 5, 3 * 4),
        ("mi-fgsm", {"steps": 4, "neighbours": 2}, 4 * 3 - 2 + 1, 4 * 3 - 2),
        ("apgd", {"steps": 6, "restarts": 2}, 2 * 7, 2 * 7),
        ("apgd-t", {"steps": 6, "targets": 3, "restarts": 2}, 1 + 6 * 7, 6 * 7),
        ("apgd-t", {"steps": 6, "targets": 9}, 1 + 4 * 7, 4 * 7),
        ("apgd-t", {"steps": 6, "targets": 9, "together": 3}, 1 + 4 * 7, 4 * 7),
        ("square", {"queries": 9, "restarts": 2}, 2 * 10, 0),
        # Three boundaries lie outside the ball and are crossed from the first step on; then the end, in the ball.
        ("fab-t", {"steps": 6}, 1 + 3 * (1 + 2 + 4 * 2 + 1) + 7 + 1, 3 * (1 + 2 + 4) + 6),
        ("ddn", {"steps": 6}, 6 + 1, 6),
        ("fmn", {"steps": 6}, 6 + 1, 6),
        ("cw", {"steps": 6, "searches": 3, "initial_weight": 1e4}, 3 * (6 + 1), 3 * 6),
        # It sees the other side, outside the ball, after the first step; then the end, in the ball.
        ("deepfool", {"steps": 6}, 1 + 4 * 2 + 1, 4 * 2),
        ("fab", {"steps": 6}, 1 + 4 + 2 * 4 + 4 * (1 + 4) + 1 + 1, 4 * (1 + 2 + 4)),
        ("sigma-zero", {"steps": 7}, 7, 7),
        ("spsa", {"steps": 3, "samples": 20}, 3 * 41, 0),
        ("random-search", {"queries": 9}, 9, 0),
        ("universal", {"steps": 6}, 7 + 1, 7),
    ],
)
def test_a_survivor_costs_every_pass_of_the_algorithm(use, settings, forwards, backwards):
    model, x = Centres(), torch.full((2, 3, 6, 6), 0.1)
    model = nn.Sequential(model, nn.ConstantPad1d((0, 1), -9.0))
    norm = COUNTED_IN.get(use, "linf")
    result = run(use, settings, norm, model, x, torch.zeros(2, dtype=torch.long), known_correct=True)
    assert not result.success.any()
    assert result.forwards.tolist() == [forwards] * 2
    assert result.backwards.tolist() == [backwards] * 2


# All whose second evaluation lies inside the ball, and is shown to the probe that decides.
OTHERS = {"spsa", "hopskipjump", "grid", "universal"}


@pytest.mark.parametrize("use", [*sorted(set(ATTACKS) - OTHERS), "torchattacks:MIFGSM", "torchattacks:DeepFool"])
def test_a_success_that_does_not_repeat_is_claimed_but_not_granted(use):
    class Fickle(Small):
        calls = 0

        def forward(self, x):
            self.calls += 1
            logits = super().forward(x)
            # Wrong about everything in the second call only.
            return -logits if self.calls == 2 else logits

    x = images(rows=4)
    y = classify(Small(), x)
    norms = ("l2",) if use == "torchattacks:DeepFool" else make_attack(use, {}).norms
    norm = "linf" if "linf" in norms else norms[-1]
    # The attack of Carlini and Wagner starts a little off the faces of the box.
    threat = ThreatModel(norm=norm, eps={"cw": 1e-2, "sigma-zero": 1.0}.get(use, 1e-5))
    result = make_attack(use, {}).run(Fickle(), x, y, threat, Draws((0, use), 4))
    assert result.claimed.any()
    assert not result.success.any()
    assert torch.equal(result.prediction, y)


class Cheating(Attack):
    """Writes a point into the probe's memory that the probe never allowed, and that it was a success."""

    def __init__(self, shift):
        object.__setattr__(self, "shift", shift)

    def perturb(self, probe, x, threat, draws):
        probe.best = x + self.shift
        probe.succeeded[:] = True


@pytest.mark.parametrize(
    ("shift", "allowed"), [(0.02, True), (0.04, False), (-0.02, False)], ids=["inside", "past the ball", "past the box"]
)
def test_a_success_outside_ball_or_box_is_claimed_but_not_granted(shift, allowed):
    # Some pixels are 0, so that a step down leaves the box; the model is wrong about everything.
    model, x = Always(1), images(rows=4).clamp_max(0.9)
    result = Cheating(shift).run(
        model,
        x,
        torch.zeros(4, dtype=torch.long),
        ThreatModel(norm="linf", eps=0.03),
        Draws((0,), 4),
        known_correct=True,
    )
    assert result.claimed.all()
    assert (result.prediction == 1).all()
    assert (result.success == allowed).all()


@every_attack
def test_broken_examples_are_not_searched_further(use, settings, norm):
    model, x = Small(), images(rows=6)
    y = classify(model, x)
    y[[1, 4]] = (y[[1, 4]] + 1) % 5
    result = run(use, settings, norm, model, x, y)
    assert result.success[[1, 4]].all()
    assert torch.equal(result.adversarial[[1, 4]], x[[1, 4]])
    # The clean image, and its verification.
    assert result.forwards[[1, 4]].tolist() == [2, 2]
    assert result.backwards[[1, 4]].tolist() == [0, 0]
    everything_wrong = run(use, settings, norm, model, x, (classify(model, x) + 1) % 5)
    assert everything_wrong.success.all()
    assert torch.equal(everything_wrong.distance, torch.zeros(6, dtype=torch.float64))


@every_attack
def test_an_empty_batch_gives_an_empty_result(use, settings, norm):
    result = run(use, settings, norm, Small(), images(rows=4)[:0], torch.zeros(0, dtype=torch.long), chunk=4)
    assert result.adversarial.shape == (0, 3, 6, 6)
    assert result.success.shape == (0,)


@every_attack
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_any_number_of_classes(use, settings, norm, classes):
    model, x = Small(classes=classes), images(rows=4)
    y = classify(model, x)
    assert_sound(run(use, settings, norm, model, x, y), model, x, y, norm)


@every_attack
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 8), (3, 8, 5), (7,), (3, 2, 2)])
def test_grayscale_oblong_flat_and_tiny_inputs(use, settings, norm, shape):
    model, x = Small(shape), images(shape, rows=4)
    y = classify(model, x)
    assert_sound(run(use, settings, norm, model, x, y), model, x, y, norm)


@every_attack
def test_channels_last_inputs_and_non_contiguous_ones(use, settings, norm):
    model, x = Small(), images(rows=4)
    y = classify(model, x)
    plain = run(use, settings, norm, model, x, y)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        result = run(use, settings, norm, model, other, y)
        assert_sound(result, model, x, y, norm)
        torch.testing.assert_close(result.adversarial, plain.adversarial, rtol=0, atol=1e-5)


@every_attack
def test_float64_inputs(use, settings, norm):
    model, x = Small(dtype=torch.float64), images(rows=4, dtype=torch.float64)
    y = classify(model, x)
    assert_sound(run(use, settings, norm, model, x, y), model, x, y, norm)


@pytest.mark.parametrize(("use", "settings", "norm"), [pytest.param(*case, id=f"{case[0]}-{case[2]}") for case in OURS])
def test_a_target_is_reached_or_nothing_is(use, settings, norm, monkeypatch):
    monkeypatch.setattr(calls, "_LEAST_ROWS", 1)
    monkeypatch.setattr(calls, "_ROWS", 1)
    model, x = Small(), images(rows=10)
    y = classify(model, x)
    # Wide enough for a target now and then.
    threat = ThreatModel(norm=norm, eps={"l0": 40.0, "l1": 12.0, "l2": 2.0, "linf": 0.2}[norm], targets="next")
    attack, counting = make_attack(use, settings), Counting(model, x)
    found = attack.run(counting, x, y, threat, Draws((0, use), 10), known_correct=True, gallery=(x, y))
    assert torch.equal(found.success, found.prediction == (y + 1) % 5)
    assert torch.equal(found.prediction, classify(model, found.adversarial))
    assert threat.contains(x, found.adversarial).all()
    for count in ("forwards", "backwards"):
        assert getattr(found, count).sum() == getattr(counting, count).sum()


@pytest.mark.parametrize(("use", "settings", "norm"), [pytest.param(*case, id=f"{case[0]}-{case[2]}") for case in OURS])
def test_targets_by_rule_and_given_ones_are_the_same_in_any_batch(use, settings, norm):
    model, x, rows = Small(), images(rows=10), torch.tensor([1, 4, 8])
    y = classify(model, x)
    attack, ball = make_attack(use, settings), ThreatModel(norm=norm, eps=EPS[norm])
    found, alone, given = (
        attack.run(
            model, x[some], y[some], threat, Draws((0, use), 10, some), known_correct=True, gallery=(x, y), **how
        )
        for some, threat, how in (
            (torch.arange(10), ball.to("next"), {}),
            (rows, ball.to("next"), {"batch_size": 16}),
            (torch.arange(10), ball, {"targets": (y + 1) % 5}),
        )
    )
    torch.testing.assert_close(alone.adversarial, found.adversarial[rows], rtol=0, atol=1e-6)
    assert torch.equal(alone.forwards, found.forwards[rows])
    assert torch.equal(given.adversarial, found.adversarial)
    assert torch.equal(given.forwards + 1, found.forwards)


def test_what_cannot_aim_at_a_class_says_so():
    pytest.importorskip("torchattacks")
    model, x = Small(), images(rows=2)
    threat = ThreatModel(norm="linf", eps=0.1, targets="next")
    with pytest.raises(InputError, match="torchattacks:PGD is not run with targets"):
        make_attack("torchattacks:PGD", {}).run(model, x, classify(model, x), threat, Draws((0,), 2))


class Always(nn.Module):
    """Answers every image with one class."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return torch.nn.functional.one_hot(torch.full((len(x),), self.answer), 5).to(x)


class Centres(nn.Module):
    """A classifier without parameters: minus the distance to fixed levels of brightness."""

    def forward(self, x):
        levels = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=x.dtype)
        return -8 * (x.flatten(1).mean(1, keepdim=True) - levels) ** 2


class Saturated(nn.Module):
    """A classifier with logits that are far apart and do not change, so its gradient is zero everywhere."""

    def forward(self, x):
        return 50.0 * torch.nn.functional.one_hot((x.flatten(1).mean(1) > 2).long(), 4) + 0 * x.sum()


class Detached(nn.Module):
    """A classifier without a gradient."""

    def __init__(self):
        super().__init__()
        self.model = Small(classes=4)

    def forward(self, x):
        return self.model(x.detach())


@every_attack
@pytest.mark.parametrize("model", [Centres(), Saturated(), Detached()], ids=lambda model: type(model).__name__)
def test_models_without_parameters_or_gradient(use, settings, norm, model):
    x = images(rows=4)
    y = classify(model, x)
    assert_sound(run(use, settings, norm, model, x, y), model, x, y, norm)


@every_attack
def test_a_norm_that_an_attack_does_not_have_is_refused_in_words(use, settings, norm):
    del norm
    attack = make_attack(use, settings)
    model, x = Small(), images(rows=2)
    for other in {"l0", "l1", "l2", "linf"} - set(attack.norms):
        with pytest.raises(InputError, match=f"not defined for {other}; it takes {', '.join(attack.norms)}"):
            run(use, settings, other, model, x, torch.zeros(2, dtype=torch.long))


@every_attack
@pytest.mark.parametrize("budget", [1, 4, 7])
def test_the_budget_holds_before_the_verification(use, settings, norm, budget):
    model, x = Small(), images(rows=4)
    y = classify(model, x)
    result = run(use, settings, norm, model, x, y, budget=budget)
    spent = result.forwards + result.backwards - result.claimed.long()
    # Torchattacks makes as many backward passes of one forward as it likes.
    allowed = budget + (5 if use in ("torchattacks:DeepFool", "torchattacks:FAB") else 0)
    assert (spent <= allowed).all()


def test_importing_the_attacks_does_not_import_torchattacks():
    import subprocess

    code = "import sys, robustframe.attacks; sys.exit('torchattacks' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
