"""Linear models, whose distance to the boundary is known: attacks reach it, and do not claim to beat it."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from robustframe.attacks import make_attack
from robustframe.draws import Draws
from robustframe.threat import ThreatModel

SIDE = 4
ROWS = 4
DISTANCE = {"l1": 0.3, "l2": 0.15, "linf": 0.05}
DUAL = {"l1": torch.inf, "l2": 2, "linf": 1}
NEAR, FAR = 1.05, 0.95
NEARER_IS_LUCK = {"square-l1": 1.6, "square-l2": 1.6, "torchattacks:CW-l2": 1.25}
"""Random search with fixed patterns, and steps of one length a pixel, only come near the best direction."""

ATTACKS = [
    ("fgsm", {}, ["l1", "l2", "linf"]),
    ("pgd", {}, ["l2", "linf"]),
    ("pgd", {"loss": "margin", "restarts": 2, "steps": 20}, ["l2", "linf"]),
    ("mi-fgsm", {}, ["l2", "linf"]),
    ("mi-fgsm", {"diversity": 0.5, "neighbours": 3}, ["l2", "linf"]),
    ("apgd", {"steps": 20}, ["l2", "linf"]),
    ("apgd", {"steps": 20, "loss": "dlr"}, ["l2", "linf"]),
    ("apgd", {"steps": 20, "loss": "margin"}, ["l2", "linf"]),
    ("apgd-t", {"steps": 20}, ["l2", "linf"]),
    ("apgd", {"steps": 60}, ["l1"]),
    ("apgd-t", {"steps": 60}, ["l1"]),
    ("square", {"queries": 600}, ["linf"]),
    ("fab", {"steps": 10}, ["l1", "l2", "linf"]),
    ("fab-t", {"steps": 10}, ["l1", "l2", "linf"]),
    ("square", {"queries": 300, "resc_schedule": True}, ["l1", "l2"]),
    ("ddn", {"steps": 40}, ["l2"]),
    ("fmn", {"steps": 40}, ["l1", "l2", "linf"]),
    ("cw", {"steps": 100, "searches": 6, "initial_weight": 0.01}, ["l2"]),
    ("deepfool", {}, ["l2", "linf"]),
    ("spsa", {"steps": 20, "samples": 32}, ["l2", "linf"]),
    ("hopskipjump", {"steps": 16}, ["l2", "linf"]),
    ("torchattacks:FGSM", {}, ["linf"]),
    ("torchattacks:PGD", {}, ["linf"]),
    ("torchattacks:MIFGSM", {}, ["linf"]),
    ("torchattacks:VMIFGSM", {}, ["linf"]),
    ("torchattacks:UPGD", {"loss": "margin"}, ["linf"]),
    ("torchattacks:SPSA", {"nb_iter": 10, "nb_sample": 128, "lr": 0.02}, ["linf"]),
    ("torchattacks:PGDL2", {}, ["l2"]),
    ("torchattacks:CW", {"steps": 100}, ["l2"]),
    ("torchattacks:DeepFool", {}, ["l2"]),
    ("torchattacks:FAB", {"steps": 20}, ["l2", "linf"]),
    ("torchattacks:EADL1", {"binary_search_steps": 3, "initial_const": 0.05, "beta": 0.05}, ["l1"]),
]
SLOW = {"torchattacks:SPSA", "torchattacks:CW", "torchattacks:FAB", "torchattacks:EADL1"}
CASES = [
    pytest.param(use, settings, norm, marks=[pytest.mark.slow] if use in SLOW else [])
    for use, settings, norms in ATTACKS
    for norm in norms
]


def linear(norm, classes, seed=0):
    """A model and examples of class 0, each at exactly `DISTANCE` from class 1 and far from all others."""
    generator = torch.Generator().manual_seed(seed)
    # A smooth weight with some noise: no attack needs luck, and none gets the sign of all pixels for free.
    ramp = torch.linspace(-1, 1, SIDE).view(1, SIDE, 1).expand(1, SIDE, SIDE).flatten()
    weight = ramp + 0.1 * torch.randn(SIDE * SIDE, generator=generator)
    weight = weight / torch.linalg.vector_norm(weight, ord=DUAL[norm])
    offset = 0.05 * torch.randn((ROWS, SIDE * SIDE), generator=generator)
    offset = offset - (offset @ weight).unsqueeze(1) * weight / weight.square().sum()
    x = (0.5 + offset).view(ROWS, 1, SIDE, SIDE)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1] = 8 * weight
        model[1].bias.fill_(-30.0)
        model[1].bias[0] = 0.0
        model[1].bias[1] = -8 * (0.5 * weight.sum() + DISTANCE[norm])
    return model, x, torch.zeros(ROWS, dtype=torch.long)


def test_the_distance_is_what_it_is_said_to_be():
    for norm, distance in DISTANCE.items():
        model, x, _ = linear(norm, 2)
        margin = (model(x)[:, 0] - model(x)[:, 1]) / 8
        torch.testing.assert_close(margin, torch.full((ROWS,), distance), rtol=1e-4, atol=0)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(("use", "settings", "norm"), CASES)
def test_an_attack_reaches_the_boundary_and_nothing_before_it(use, settings, norm, classes):
    if use.startswith("torchattacks"):
        pytest.importorskip("torchattacks")
    model, x, y = linear(norm, classes)
    attack = make_attack(use, settings)
    for factor in (NEARER_IS_LUCK.get(f"{use}-{norm}", NEAR), FAR):
        threat = ThreatModel(norm=norm, eps=factor * DISTANCE[norm])
        result = attack.run(model, x, y, threat, Draws((0, use), ROWS))
        assert result.success.tolist() == [factor > 1] * ROWS
        assert not (result.claimed & ~result.success).any()


@pytest.mark.parametrize("classes", [3, 4, 10])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    ("use", "settings"),
    [
        ("apgd-t", {"steps": 10}),
        ("fab", {"steps": 5}),
        ("fab-t", {"steps": 5}),
        ("deepfool", {}),
        pytest.param("torchattacks:FAB", {"steps": 5, "multi_targeted": True}, marks=pytest.mark.slow),
    ],
)
def test_targeted_attacks_find_the_nearest_of_many_boundaries(use, settings, norm, classes):
    generator = torch.Generator().manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn((classes, SIDE * SIDE), generator=generator))
        # Grey is on every boundary, so images near it have all kinds of neighbours.
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))
    x = 0.5 + 0.03 * torch.randn((80, 1, SIDE, SIDE), generator=generator)
    y = model(x).argmax(1)
    logits, weight = model(x), model[1].weight
    gap = logits.gather(1, y.unsqueeze(1)) - logits
    reach = torch.linalg.vector_norm(weight[y].unsqueeze(1) - weight, ord=DUAL[norm], dim=2)
    distance, nearest = torch.where(reach > 0, gap / reach, torch.inf).detach().min(1)
    # Examples whose ball stays clear of the faces of the box, and whose nearest boundary is not that of the
    # second best class.
    runner_up = logits.topk(2).indices[:, 1]
    clear = (distance > 0.003) & (distance < 0.3)
    hidden = clear & (nearest != runner_up)
    assert hidden.any()
    for row in hidden.nonzero()[:2, 0].tolist():
        for factor in (NEAR, FAR):
            threat = ThreatModel(norm=norm, eps=factor * distance[row].item())
            result = make_attack(use, settings).run(
                model, x[row : row + 1], y[row : row + 1], threat, Draws((0, row), 1)
            )
            assert result.success.item() == (factor == NEAR)


MINIMAL = [
    ("fab", {"steps": 20}, ["l1", "l2", "linf"], 1.05),
    ("fab-t", {"steps": 20}, ["l1", "l2", "linf"], 1.05),
    ("fmn", {"steps": 200}, ["l1", "l2", "linf"], 1.05),
    ("ddn", {"steps": 200}, ["l2"], 1.05),
    ("cw", {"searches": 6, "initial_weight": 0.01}, ["l2"], 1.05),
    ("deepfool", {}, ["l2", "linf"], 1.05),
]
ONE_WAY = {"fab": 1.05, "fmn": 1.05, "ddn": 1.1, "cw": 1.3}
"""Attacks that follow one boundary, which need not be the nearest where the box cuts; for these, the median factor."""
EVERYWHERE = {"l1": 1e4, "l2": 1e4, "linf": 1.0}


def exact_distance(x, slope, gap, norm):
    """The distance from a point of the box to a half space cut by the box, found by bisection or by greed."""
    weight, room = np.abs(slope), np.where(slope > 0, 1 - x, x)
    if gap > (weight * room).sum():
        return np.inf
    if norm == "l1":
        order = np.argsort(-weight)
        size = 0.0
        for w, r in zip(weight[order], room[order]):
            if gap <= w * r:
                return size + gap / w
            gap, size = gap - w * r, size + r
    speed = weight if norm == "l2" else np.ones_like(weight)
    low, high = 0.0, 1e6
    for _ in range(100):
        t = (low + high) / 2
        low, high = (t, high) if (weight * np.minimum(t * speed, room)).sum() < gap else (low, t)
    return np.linalg.norm(np.minimum(high * speed, room), ord=2 if norm == "l2" else np.inf)


def cut(norm, classes, seed=0):
    """A linear model, and examples with many pixels at the faces of the box, whose distances are known."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn((classes, SIDE * SIDE), generator=generator))
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))
    x = torch.rand((40, 1, SIDE, SIDE), generator=generator)
    x.flatten(1)[:, ::3], x.flatten(1)[:, 1::4] = 0.0, 1.0
    logits, weight = model(x).detach().double().numpy(), model[1].weight.detach().double().numpy()
    y = logits.argmax(1)
    distance = torch.tensor([
        min(
            exact_distance(row.flatten(), weight[other] - weight[label], logit[label] - logit[other], norm)
            for other in range(classes)
            if other != label
        )
        for row, label, logit in zip(x.double().numpy(), y, logits)
    ])  # fmt: skip
    # Very near the boundary every attack is at the mercy of rounding.
    kept = distance > {"l1": 0.1, "l2": 0.05, "linf": 0.01}[norm]
    return model, x[kept], torch.tensor(y)[kept], distance[kept]


MINIMAL_CASES = [
    pytest.param(use, settings, norm, factor, id=f"{use}-{norm}")
    for use, settings, norms, factor in MINIMAL
    for norm in norms
]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(("use", "settings", "norm", "factor"), MINIMAL_CASES)
def test_the_closest_success_is_nearly_at_the_boundary(use, settings, norm, factor, classes):
    model, x, y = linear(norm, classes)
    everywhere = ThreatModel(norm=norm, eps=EVERYWHERE[norm])
    found = make_attack(use, settings).run(model, x, y, everywhere, Draws((0, use), ROWS), closest=True)
    assert found.success.all()
    assert (found.distance <= factor * DISTANCE[norm]).all()
    assert (found.distance >= (1 - 1e-4) * DISTANCE[norm]).all()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("use", "settings", "norm", "factor"), MINIMAL_CASES)
def test_the_closest_success_is_nearly_at_the_boundary_where_the_box_cuts(use, settings, norm, factor, classes):
    model, x, y, distance = cut(norm, classes)
    assert len(x) > 20
    everywhere = ThreatModel(norm=norm, eps=EVERYWHERE[norm])
    found = make_attack(use, settings).run(model, x, y, everywhere, Draws((0, use), len(x)), closest=True)
    ratio = found.distance / distance
    assert found.success.all()
    assert (ratio >= 1 - 1e-4).all()
    if classes > 2 and use in ONE_WAY:
        assert ratio.median() <= ONE_WAY[use]
    else:
        assert (ratio <= factor).all()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("use", "settings", "norm", "factor"), MINIMAL_CASES)
def test_a_fixed_ball_that_the_box_cuts_is_broken_from_the_distance_on(use, settings, norm, factor, classes):
    if classes > 2 and use in ONE_WAY:
        pytest.skip("it follows one boundary, which need not be the nearest where the box cuts")
    model, x, y, distance = cut(norm, classes)
    attack = make_attack(use, settings)
    for row in range(0, 20, 4):
        for scale in (factor, FAR):
            threat = ThreatModel(norm=norm, eps=min(scale * distance[row].item(), 1.0 if norm == "linf" else 1e4))
            result = attack.run(model, x[row : row + 1], y[row : row + 1], threat, Draws((0, use), 1))
            assert result.success.item() == (scale > 1)
            assert not (result.claimed & ~result.success).any()


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize(("use", "settings"), [("sigma-zero", {"steps": 100})])
def test_a_sparse_attack_changes_as_many_pixels_as_it_takes_and_not_one_less(use, settings, count):
    model, x, y = linear("l2", 10)
    weight = model[1].weight[1]
    # What each pixel can give at most, and a boundary half way between what count - 1 and count pixels can.
    gains = (weight * torch.where(weight > 0, 1 - x.flatten(1), -x.flatten(1))).sort(1, descending=True).values
    least = gains[:, : count - 1].sum(1) + 0.5 * gains[:, count - 1]
    attack = make_attack(use, settings)
    for row in range(ROWS):
        one = slice(row, row + 1)
        with torch.no_grad():
            model[1].bias[1] = -(x[one].flatten(1) @ weight).item() - least[row].item()
        for eps, reached in ((count, True), (count - 1, False)):
            if eps:
                threat = ThreatModel(norm="l0", eps=float(eps))
                result = attack.run(model, x[one], y[one], threat, Draws((0, use), 1))
                assert result.success.item() == reached
                assert not (result.claimed & ~result.success).any()
        nearest = attack.run(model, x[one], y[one], ThreatModel(norm="l0", eps=16.0), Draws((0, use), 1), closest=True)
        assert nearest.distance.item() == count


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
def test_random_points_reach_a_boundary_in_two_dimensions(norm):
    model = nn.Linear(2, 2)
    weight = torch.tensor([1.0, 0.6])
    # In l0 one of two pixels has to go most of its way; no other change does it.
    gain = 0.45 if norm == "l0" else DISTANCE[norm] * torch.linalg.vector_norm(weight, ord=DUAL[norm]).item()
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(2), 8 * weight]))
        model.bias.copy_(torch.tensor([0.0, -8 * (0.5 * weight.sum().item() + gain)]))
    x, y = torch.full((ROWS, 2), 0.5), torch.zeros(ROWS, dtype=torch.long)
    attack = make_attack("random-search", {"queries": 300})
    for factor in (1.3, FAR):
        eps = 1.0 if norm == "l0" else factor * DISTANCE[norm]
        if norm == "l0" and factor == FAR:
            with torch.no_grad():
                model.bias[1] -= 8 * 0.1
        result = attack.run(model, x, y, ThreatModel(norm=norm, eps=eps), Draws((0, norm), ROWS))
        assert result.success.tolist() == [factor > 1] * ROWS


def to_reach(target, model, x, norm):
    """The least distance at which a linear model takes an image for a target, by linear or quadratic programming."""
    weight, bias = model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()
    point = x.double().flatten().numpy()
    others = [each for each in range(len(bias)) if each != target]
    # rows @ step <= lead: the target's logit is no less than any other.
    rows, lead = weight[others] - weight[target], (weight @ point + bias)[target] - (weight @ point + bias)[others]
    box = list(zip(-point, 1 - point))
    dims = len(point)
    if norm == "l2":
        found = minimize(
            lambda step: step @ step, np.zeros(dims), jac=lambda step: 2 * step, bounds=box, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda step: lead - rows @ step, "jac": lambda step: -rows},
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert found.success
        return float(np.linalg.norm(found.x))
    # |step_i| <= size_i, and the sizes are summed, or all the same.
    sizes = dims if norm == "l1" else 1
    each = np.eye(dims) if norm == "l1" else np.ones((dims, 1))
    bounded = np.block([[np.eye(dims), -each], [-np.eye(dims), -each], [rows, np.zeros((len(rows), sizes))]])
    cost = np.concatenate([np.zeros(dims), np.ones(sizes)])
    limits = np.concatenate([np.zeros(2 * dims), lead])
    found = linprog(cost, bounded, limits, bounds=[*box, *[(0, None)] * sizes])
    assert found.status == 0
    return float(found.fun)


TARGETED = [
    ("fgsm", {"loss": "margin"}, ["linf"], 3.0),
    ("pgd", {"steps": 100, "step_size": 0.02}, ["l2", "linf"], 1.5),
    ("pgd", {"steps": 100, "step_size": 0.02, "loss": "margin"}, ["l2", "linf"], 1.15),
    ("apgd", {}, ["l2", "linf"], 1.5),
    ("apgd", {"loss": "margin"}, ["l2", "linf"], 1.1),
    ("apgd-t", {}, ["l2", "linf"], 1.1),
    ("apgd-t", {"steps": 60}, ["l1"], 1.3),
    ("fab", {"steps": 100}, ["l1", "l2", "linf"], 1.3),
    ("fab-t", {"steps": 100}, ["l1", "l2", "linf"], 1.3),
    ("square", {"queries": 200}, ["linf"], 2.0),
    ("square", {"queries": 200}, ["l1", "l2"], 3.0),
    ("ddn", {"steps": 200}, ["l2"], 1.2),
    ("fmn", {"steps": 200}, ["l1", "l2", "linf"], 1.3),
    ("cw", {"searches": 5, "steps": 80, "initial_weight": 0.01}, ["l2"], 1.2),
    ("deepfool", {}, ["l2", "linf"], 2.0),
    ("spsa", {"steps": 40, "step_size": 0.05, "samples": 32}, ["l2", "linf"], 1.3),
    ("hopskipjump", {"steps": 12}, ["l2", "linf"], 2.0),
    ("random-search", {"queries": 300}, ["linf"], 4.0),
]
"""Attacks with the factor of the least distance at which they reach most targets: where three classes meet, going
along a gradient is a walk between two walls."""


@pytest.mark.parametrize(
    ("use", "settings", "norm", "factor"),
    [(use, settings, norm, factor) for use, settings, norms, factor in TARGETED for norm in norms],
)
def test_a_target_is_reached_where_it_can_be_and_not_before(use, settings, norm, factor):
    generator = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn((4, SIDE * SIDE), generator=generator))
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))
    x = 0.5 + 0.1 * torch.randn((4, 1, SIDE, SIDE), generator=generator)
    x = x.clamp(0, 1)
    y = model(x).argmax(1)
    targets = (y + 1) % 4
    attack, far = make_attack(use, settings), []
    for row in range(len(x)):
        one, at = slice(row, row + 1), targets[row : row + 1]
        least = to_reach(int(targets[row]), model, x[row], norm)
        outcomes = [
            attack.run(
                model, x[one], y[one], ThreatModel(norm=norm, eps=times * least), Draws((0, row), 1), targets=at,
                gallery=(x, y),
            ).success.item()
            for times in (factor, FAR)
        ]  # fmt: skip
        far.append(outcomes[0])
        assert not outcomes[1]
    assert sum(far) >= len(x) - 1
