"""FAB, targeted and not, and its projections, against the reference of AutoAttack (pyautoattack 0.2.0) and SciPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from robustframe.attacks import FAB, FABT, fab
from robustframe.attacks.hyperplane import step_to_hyperplane
from robustframe.draws import Draws
from robustframe.threat import ThreatModel

pytest.importorskip("pyautoattack")
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT

ROWS, CLASSES = 24, 10
EPS = {"linf": 0.04, "l2": 0.6, "l1": 3.0}
THEIR_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
PROJECTION = {"linf": projection_linf, "l2": projection_l2, "l1": projection_l1}
ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}
every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


class Reference(FABAttack_PT):
    """Remembers the points that it judges; the first call and the ranking of targets are no steps."""

    def _get_predicted_label(self, x):
        self.judged = [*getattr(self, "judged", []), x.clone()]
        return super()._get_predicted_label(x)


def reference_points(model, x, y, norm, *, steps, rank=None, random=False):
    attack = Reference(model, norm=THEIR_NORM[norm], n_iter=steps, eps=EPS[norm], targeted=rank is not None)
    attack.target_class = None if rank is None else rank + 2
    attack.attack_single_run(x, y, use_rand_start=random, is_targeted=rank is not None)
    return torch.stack(attack.judged[1:])


def our_points(model, x, y, norm, monkeypatch, attack):
    """Every point our attack steps to. In so large a ball, and looking for the closest, no example ends early."""
    points, step = [], fab.step_between

    def noted(*args):
        points.append(step(*args))
        return points[-1].clone()

    monkeypatch.setattr(fab, "step_between", noted)
    everywhere = ThreatModel(norm=norm, eps={"linf": 1.0}.get(norm, 1e4))
    attack.run(model, x, y, everywhere, Draws((0,), len(x)), known_correct=True, closest=True)
    return torch.stack(points)


def assert_same_steps(ours, theirs):
    apart = (ours - theirs).abs().flatten(2).amax(2)
    assert apart[:30].max() <= 1e-4
    # Later, a point that lies on the boundary to rounding is misclassified by one and not by the other.
    assert (apart <= 1e-4).all(0).float().mean() >= 0.8


@every_norm
@pytest.mark.parametrize("rank", [0, 4])
def test_targeted_fab_takes_the_steps_of_the_reference(trained, norm, rank, monkeypatch):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    theirs = reference_points(model, x, y, norm, steps=60, rank=rank)
    ours = our_points(model, x, y, norm, monkeypatch, FABT(steps=60, targets=rank + 1))
    assert_same_steps(ours[60 * rank :], theirs)


@every_norm
def test_untargeted_fab_takes_the_steps_of_the_reference(trained, norm, monkeypatch):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    theirs = reference_points(model, x, y, norm, steps=60)
    assert_same_steps(our_points(model, x, y, norm, monkeypatch, FAB(steps=60)), theirs)


@every_norm
def test_restarts_begin_where_those_of_the_reference_begin(trained, norm, monkeypatch):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    stream = Draws((0,), ROWS).child("target", 0).child("restart", 1)
    noise = (stream.uniform if norm == "linf" else stream.normal)(3, 10, 10)
    monkeypatch.setattr(torch, "rand" if norm == "linf" else "randn", lambda *_: noise)
    theirs = reference_points(model, x, y, norm, steps=1, rank=0, random=True)
    monkeypatch.undo()
    starts, walk = [], FAB._walk
    monkeypatch.setattr(FAB, "_walk", lambda *args: starts.append(args[4]) or walk(*args))
    points, step = [], fab.step_between
    monkeypatch.setattr(fab, "step_between", lambda *args: points.append(step(*args)) or points[-1])
    FABT(steps=1, restarts=2, targets=1).run(
        model, x, y, ThreatModel(norm=norm, eps=EPS[norm]), Draws((0,), ROWS), known_correct=True
    )
    assert torch.equal(starts[0], x)
    assert (starts[1] - x).abs().max() > 1e-3
    # At a fixed eps only those that are still right after the first start begin anew.
    assert len(points[1]) >= ROWS / 4
    gaps = (points[1].unsqueeze(1) - theirs[0].unsqueeze(0)).abs().flatten(2).amax(2)
    assert gaps.amin(1).max() <= 1e-5


@every_norm
def test_robust_accuracy_is_that_of_the_reference(trained, norm):
    model, x, y = trained
    for targeted in (False, True):
        attack = FABT(steps=15, targets=5) if targeted else FAB(steps=15)
        found = attack.run(model, x, y, ThreatModel(norm=norm, eps=EPS[norm]), Draws((0,), len(x)), known_correct=True)
        reference = FABAttack_PT(
            model, norm=THEIR_NORM[norm], n_iter=15, eps=EPS[norm], targeted=targeted, n_target_classes=5
        )
        robust = 1 - found.success.float().mean().item()
        expected = (model(reference.perturb(x.clone(), y.clone())).argmax(1) == y).float().mean().item()
        assert 0.05 < expected < 0.95
        # We judge what the reference judges, and also the point it goes back to.
        assert expected - 0.03 <= robust <= expected + 0.004


def problem(rows, dims, seed, reach=0.4):
    """Points in the box, some pixels at its faces, and slopes some of which are zero; heights of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((rows, dims), generator=generator)
    points[:, ::3], points[:, 1::7] = 0.0, 1.0
    slope = torch.randn((rows, dims), generator=generator)
    slope[:, ::5] = 0.0
    height = reach * slope.abs().sum(1) * (2 * torch.rand(rows, generator=generator) - 1)
    return points, slope, height


@every_norm
@pytest.mark.parametrize("dims", [3, 50, 784])
def test_the_step_is_that_of_the_reference(norm, dims):
    points, slope, height = problem(300, dims, seed=dims, reach=0.2)
    ours = step_to_hyperplane(points, slope, height, norm)
    points, slope, height = points.double(), slope.double(), height.double()
    theirs = PROJECTION[norm](points, slope, (slope * points).sum(1) - height)
    # Both round; where nearly all of the room is needed, the last pixels with a tiny slope are anyone's.
    room = (slope * torch.where(slope * height.unsqueeze(1) > 0, points, points - 1)).sum(1).abs()
    easy = height.abs() < 0.9 * room
    assert easy.float().mean() > 0.5
    assert (ours - theirs)[easy].abs().max() <= 1e-5


@every_norm
def test_the_step_ends_at_the_zero_and_in_the_box_and_no_other_is_shorter(norm):
    points, slope, height = (part.double() for part in problem(200, 12, seed=1, reach=0.15))
    step = step_to_hyperplane(points, slope, height, norm)
    assert (points + step >= 0).all()
    assert (points + step <= 1).all()
    left = height + (slope * step).sum(1)
    reached = left.abs() <= 1e-9
    assert reached.float().mean() > 0.8
    length = torch.linalg.vector_norm(step, ord=ORDER[norm], dim=1)
    generator = torch.Generator().manual_seed(2)
    for _ in range(300):
        # Any point of the box beyond the zero: the way to it crosses the hyperplane, so to there it is no shorter.
        other = torch.where(
            torch.rand(points.shape, generator=generator) < 0.5, points, torch.rand(points.shape, generator=generator)
        )
        beyond = (height + (slope * (other - points)).sum(1)) * height.sign() <= 0
        away = torch.linalg.vector_norm(other - points, ord=ORDER[norm], dim=1)
        assert (away >= length - 1e-9)[beyond & reached].all()
        # And small moves along the hyperplane do not shorten it.
        along = 1e-3 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
        near = (points + step + along).clamp(0, 1) - points
        crossed = (height + (slope * near).sum(1)) * height.sign() <= 0
        assert (torch.linalg.vector_norm(near, ord=ORDER[norm], dim=1) >= length - 1e-9)[crossed & reached].all()


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_length_of_the_step_is_that_of_a_linear_program(norm):
    points, slope, height = problem(25, 10, seed=3, reach=0.15)
    step = step_to_hyperplane(points, slope, height, norm)
    length = torch.linalg.vector_norm(step, ord=ORDER[norm], dim=1)
    solved = 0
    for t, w, h, found in zip(points.numpy(), slope.numpy(), height.numpy(), length.tolist()):
        dims = len(t)
        # Variables: the step, then the size of each pixel (l1) or of all (linf), whose sum is made small.
        sizes = dims if norm == "l1" else 1
        spread = np.eye(dims) if norm == "l1" else np.ones((dims, 1))
        rows = np.block([[np.eye(dims), -spread], [-np.eye(dims), -spread]])
        answer = linprog(
            np.r_[np.zeros(dims), np.ones(sizes)],
            A_ub=rows, b_ub=np.zeros(2 * dims),
            A_eq=np.r_[w, np.zeros(sizes)][None], b_eq=[-h],
            bounds=[(-a, 1 - a) for a in t] + [(0, None)] * sizes,
        )  # fmt: skip
        if answer.success:
            solved += 1
            assert found == pytest.approx(answer.fun, abs=1e-5)
    assert solved > 15


@every_norm
def test_no_step_where_there_is_no_slope_and_all_of_the_room_where_there_is_no_zero(norm):
    points = torch.tensor([[0.25, 0.5, 1.0]]).expand(5, -1)
    slope = torch.tensor([[0.0] * 3, [torch.nan, 1, 1], [1e-30, -1e-30, 0], [1e30, 1e30, 0], [1.0, -2.0, 3.0]])
    height = torch.tensor([1.0, 1.0, 1e-31, torch.inf, 100.0])
    step = step_to_hyperplane(points, slope, height, norm)
    assert step.isfinite().all()
    assert step[[0, 1, 3]].abs().max() == 0
    expected = {"linf": [-0.05, 0.05, 0.0], "l2": [-0.05, 0.05, 0.0], "l1": [-0.1, 0.0, 0.0]}[norm]
    if norm == "l1":
        assert step[2].abs().sum().item() == pytest.approx(0.1)
    else:
        torch.testing.assert_close(step[2], torch.tensor(expected))
    torch.testing.assert_close(step[4], torch.tensor([-0.25, 0.5, -1.0]))


@every_norm
def test_a_step_does_not_depend_on_the_other_rows(norm):
    points, slope, height = problem(40, 784, seed=4, reach=0.5)
    whole = step_to_hyperplane(points, slope, height, norm)
    for row in (0, 7, 39):
        alone = step_to_hyperplane(points[[row]], slope[[row]], height[[row]], norm)
        torch.testing.assert_close(whole[[row]], alone, rtol=0, atol=1e-7)


class Unmoved(nn.Module):
    """Always the same class, and no slope."""

    def forward(self, x):
        return torch.tensor([2.0, 1.0, 0.5]).to(x) + 0 * x.flatten(1).sum(1, keepdim=True)


class Brightness(nn.Module):
    """Two classes, with the boundary at a mean of one half."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1)


@every_norm
def test_a_step_costs_a_forward_and_a_backward_and_another_forward_once_the_boundary_was_crossed(norm):
    x, y = torch.full((3, 1, 4, 4), 0.2), torch.zeros(3, dtype=torch.long)
    threat = ThreatModel(norm=norm, eps=1e-3)
    never = FABT(steps=10).run(Unmoved(), x, y, threat, Draws((0,), 3), known_correct=True)
    assert never.forwards.tolist() == [1 + 2 * 11] * 3
    assert never.backwards.tolist() == [2 * 10] * 3
    if norm == "l1":
        # Pixels that stop at a face of the box cannot step beyond the boundary.
        return
    always = FABT(steps=10).run(Brightness(), x, y, threat, Draws((0,), 3), known_correct=True)
    # The ranking, the start, the first step, that back from it, eight more, the last; and the end, in the ball.
    assert always.forwards.tolist() == [1 + 1 + 1 + 1 + 8 * 2 + 1 + 1] * 3
    assert always.backwards.tolist() == [1 + 1 + 1 + 8] * 3


@every_norm
def test_the_closest_success_comes_near_the_boundary_and_restarts_begin_within_it(norm):
    x, y = torch.full((2, 1, 4, 4), 0.2), torch.zeros(2, dtype=torch.long)
    distance = {"linf": 0.3, "l2": 0.3 * 4, "l1": 0.3 * 16}[norm]
    everywhere = ThreatModel(norm=norm, eps={"linf": 1.0}.get(norm, 1e4))
    found = FAB(steps=30, restarts=3).run(Brightness(), x, y, everywhere, Draws((0,), 2), closest=True)
    assert found.success.all()
    assert (found.distance <= 1.01 * distance).all()
    assert (found.distance >= distance - 1e-6).all()
