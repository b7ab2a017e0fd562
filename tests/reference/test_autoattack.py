"""APGD, targeted APGD and Square against the reference implementation of AutoAttack (pyautoattack 0.2.0)."""

import copy
import math

import pytest
import torch
from torch import nn

from robustframe.attacks import APGD, APGDT, Square
from robustframe.attacks.apgd import ascend, checkpoints, surface_start
from robustframe.attacks.apgd_l1 import ascend_l1, large_radii, large_start
from robustframe.attacks.base import Runs
from robustframe.attacks.square import _MassMoves, _pattern
from robustframe.draws import Draws
from robustframe.losses import LOSSES, targeted_dlr
from robustframe.probe import Evaluation
from robustframe.targets import rank_targets
from robustframe.threat import ThreatModel

pytest.importorskip("pyautoattack")
from pyautoattack import autopgd_base, square
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack

ROWS, CLASSES = 24, 10
EPS = {"linf": 0.04, "l2": 0.6, "l1": 6.0}
THEIR_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
THEIR_LOSS = {"cross_entropy": "ce", "dlr": "dlr"}


class Tape(nn.Module):
    """Remembers every batch of points that the model is called with."""

    def __init__(self, model):
        super().__init__()
        self.model, self.points = model, []

    def forward(self, points):
        self.points.append(points.detach().clone())
        return self.model(points)


class Unstopped(Runs):
    """Runs whose examples are searched to the end, broken or not, as the reference does."""

    def __init__(self, model, x, y, loss, targets=None):
        self.model, self.x, self.y, self.loss = model, x, y, loss
        self.targets = () if targets is None else (targets,)

    clean = property(lambda self: self.x)

    def gradient(self, points):
        leaf = points.detach().requires_grad_()
        logits = self.model(leaf)
        value = self.loss(logits, self.y, *self.targets)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return Evaluation(value.detach(), gradient, logits.detach())

    def compact(self, finished=None):
        return None


def gaps(ours, theirs, steps):
    """The largest difference of a pixel, for each point evaluated and each example."""
    assert len(ours.points) == steps + 1
    assert len(theirs.points) >= steps + 1
    return torch.stack([(a - b).flatten(1).abs().amax(1) for a, b in zip(ours.points, theirs.points)])


def assert_same_run(ours, theirs, norm, height):
    apart = gaps(ours, theirs, 100)
    if norm == "linf":
        assert apart.max() <= 1e-6
        return
    # In l2 we round otherwise. On a plateau rounding decides whether a step rose or a review finds a gain, so
    # the runs of a few examples part there; on the average they must still climb equally high.
    assert apart[:13].max() <= 1e-5
    assert (apart[:60] <= 1e-4).all(0).float().mean() >= 0.85
    ours_high, theirs_high = (
        torch.stack([height(points) for points in tape.points]).amax(0).mean() for tape in (ours, theirs)
    )
    torch.testing.assert_close(ours_high, theirs_high, rtol=0.01, atol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_takes_the_steps_of_the_reference(trained, norm, loss):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat = ThreatModel(norm=norm, eps=EPS[norm])
    start = surface_start(x, threat, Draws((0,), ROWS))
    ours, theirs = Tape(model), Tape(model)
    ascend(Unstopped(ours, x, y, LOSSES[loss]), start, threat, steps=100, rho=0.75)
    reference = APGDAttack(theirs, n_iter=100, norm=THEIR_NORM[norm], eps=EPS[norm], loss=THEIR_LOSS[loss])
    reference.init_hyperparam(x)
    reference.attack_single_run(x, y, x_init=start)
    # DLR has poles where the first and the third logit meet; one row near such a pole would be the whole average.
    bounded = torch.atan if loss == "dlr" else torch.Tensor.clone
    assert_same_run(ours, theirs, norm, lambda points: bounded(LOSSES[loss](model(points), y)))


class Walking(nn.Module):
    """Logits whose margin walks up and down by a script, with slopes in the image that are scripted too."""

    def __init__(self, heights, slopes=None):
        super().__init__()
        self.heights, self.calls = heights, 0
        self.slopes = torch.full((len(heights), 1), -1e-4) if slopes is None else slopes

    def forward(self, x):
        height = self.heights[self.calls] + ((x - x.detach()).flatten(1) * self.slopes[self.calls]).sum(1)
        self.calls += 1
        return torch.stack([torch.zeros_like(height), height, height - 1, height - 2], 1)


def test_apgd_reviews_its_steps_like_the_reference_on_losses_that_rise_and_fall():
    rows, steps = 300, 100
    generator = torch.Generator().manual_seed(0)
    # From losses that hardly ever rise to some that nearly always do; ties with rho, and plateaus, are frequent.
    chance = torch.linspace(0.1, 1, rows)
    rises = torch.rand((steps, rows), generator=generator) < chance
    still = torch.rand((steps, rows), generator=generator) < 0.05
    walk = torch.where(still, 0.0, torch.where(rises, 0.01, -0.02))
    # Some start high and fall far at once, so that their rises beat neither the start nor, at first, zero.
    walk[0, ::3], walk[0, 1::3] = -0.4, -0.6
    walk = walk.cumsum(0)
    model = Walking(torch.cat([torch.full((1, rows), 0.5), 0.5 + walk]))
    x, y = torch.full((rows, 3, 2, 2), 0.5), torch.zeros(rows, dtype=torch.long)
    threat = ThreatModel(norm="linf", eps=0.1)
    start = surface_start(x, threat, Draws((0,), rows))
    ours, theirs = Tape(model), Tape(Walking(model.heights))
    ascend(Unstopped(ours, x, y, LOSSES["margin"]), start, threat, steps=steps, rho=0.75)
    reference = APGDAttack(theirs, n_iter=steps, norm="Linf", eps=0.1, loss="margin")
    reference.dlr_loss = LOSSES["margin"]
    reference.loss = "dlr"
    reference.init_hyperparam(x)
    reference.attack_single_run(x, y, x_init=start)
    assert gaps(ours, theirs, steps).max() <= 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_apgd_takes_the_steps_of_the_reference(trained, norm):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat = ThreatModel(norm=norm, eps=EPS[norm])
    start = surface_start(x, threat, Draws((0,), ROWS))
    targets = rank_targets(model(x), y, 9)
    for rank in (0, 4):
        target = targets[:, rank]
        ours, theirs = Tape(model), Tape(model)
        ascend(Unstopped(ours, x, y, targeted_dlr, target), start, threat, steps=100, rho=0.75)
        reference = APGDAttack_targeted(theirs, n_iter=100, norm=THEIR_NORM[norm], eps=EPS[norm])
        reference.init_hyperparam(x)
        reference.y_target = model(x).sort(dim=1)[1][:, -(rank + 2)]
        assert torch.equal(reference.y_target, target)
        reference.attack_single_run(x, y, x_init=start)
        assert_same_run(ours, theirs, norm, lambda points, to=target: targeted_dlr(model(points), y, to))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_starts_where_the_reference_starts(trained, norm, monkeypatch):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat = ThreatModel(norm=norm, eps=EPS[norm])
    start = surface_start(x, threat, Draws((3,), ROWS))
    uniform, normal = Draws((3,), ROWS).uniform(3, 10, 10), Draws((3,), ROWS).normal(3, 10, 10)
    monkeypatch.setattr(torch, "rand", lambda shape: uniform)
    monkeypatch.setattr(torch, "randn", lambda shape: normal)
    theirs = Tape(model)
    reference = APGDAttack(theirs, n_iter=1, norm=THEIR_NORM[norm], eps=EPS[norm])
    reference.init_hyperparam(x)
    reference.attack_single_run(x, y)
    assert (theirs.points[0] - start).abs().max() <= 1e-6


@pytest.fixture
def exact_count(monkeypatch):
    """In the reference rounding can leave a trace of a change that was taken back; it shall not count as one."""
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda delta: (delta.abs() > 1e-6).flatten(1).sum(1))


def assert_same_sparse_run(ours, theirs, height):
    apart = gaps(ours, theirs, len(ours.points) - 1)
    # Where two slopes or two losses are nearly equal, rounding decides, and runs part there.
    assert apart[:8].max() <= 1e-5
    assert (apart <= 1e-4).all(0).float().mean() >= 0.8
    ours_high, theirs_high = (
        torch.stack([height(points) for points in tape.points]).amax(0).mean() for tape in (ours, theirs)
    )
    torch.testing.assert_close(ours_high, theirs_high, rtol=0.01, atol=0)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("steps", [30, 100])
def test_apgd_takes_the_sparse_steps_of_the_reference_in_l1(trained, steps, loss, exact_count):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat = ThreatModel(norm="l1", eps=6.0)
    start = threat.project(x, x + Draws((0,), ROWS).normal(3, 10, 10))
    ours, theirs = Tape(model), Tape(model)
    ascend_l1(Unstopped(ours, x, y, LOSSES[loss]), start, threat, steps=steps)
    reference = APGDAttack(theirs, n_iter=steps, norm="L1", eps=6.0, loss=THEIR_LOSS[loss])
    reference.init_hyperparam(x)
    reference.attack_single_run(x, y, x_init=start)
    assert_same_sparse_run(ours, theirs, lambda points: LOSSES[loss](model(points), y))


@pytest.mark.parametrize("steps", [10, 35, 100])
def test_apgd_shrinks_the_radius_like_the_reference_in_l1(trained, steps, exact_count, monkeypatch):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat = ThreatModel(norm="l1", eps=2.0)
    ours, theirs = Tape(model), Tape(model)
    start = large_start(x, threat, Draws((0,), ROWS))
    large_radii(Unstopped(ours, x, y, LOSSES["cross_entropy"]), start, threat, steps=steps)
    assert threat.contains(x, ours.points[-1]).all()
    noise = Draws((0,), ROWS).normal(3, 10, 10)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    reference = APGDAttack(theirs, n_iter=steps, norm="L1", eps=2.0, use_largereps=True)
    reference.init_hyperparam(x)
    counts = [math.ceil(0.3 * steps)] * 2
    reference.decr_eps_pgd(x, y, [6.0, 4.0, 2.0], [*counts, steps - sum(counts)])
    assert len(ours.points) == len(theirs.points) == steps + 3
    assert_same_sparse_run(ours, theirs, lambda points: LOSSES["cross_entropy"](model(points), y))


@pytest.mark.parametrize("steps", [50, 300])
def test_apgd_in_l1_returns_to_its_best_point_like_the_reference(steps, exact_count, monkeypatch):
    rows = 60
    generator = torch.Generator().manual_seed(1)
    heights = torch.randn((steps + 3, rows), generator=generator).mul(0.02).cumsum(0)
    slopes = torch.randn((steps + 3, 48), generator=generator) ** 3
    x, y = torch.rand((rows, 3, 4, 4), generator=generator), torch.zeros(rows, dtype=torch.long)
    threat = ThreatModel(norm="l1", eps=1.5)
    ours, theirs = (Tape(Walking(heights, slopes)) for _ in range(2))
    start = large_start(x, threat, Draws((0,), rows))
    large_radii(Unstopped(ours, x, y, LOSSES["margin"]), start, threat, steps=steps)
    noise = Draws((0,), rows).normal(3, 4, 4)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    reference = APGDAttack(theirs, n_iter=steps, norm="L1", eps=1.5, loss="dlr")
    reference.dlr_loss = LOSSES["margin"]
    reference.init_hyperparam(x)
    reference.decr_eps_pgd(x, y, [4.5, 3.0, 1.5], [3 * steps // 10, 3 * steps // 10, 4 * steps // 10])
    apart = gaps(ours, theirs, steps + 2)
    assert (apart <= 1e-5).all(0).float().mean() >= 0.95


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_in_l1_end_inside_the_ball(trained, steps):
    model, x, y = trained
    x, y = x[:ROWS], y[:ROWS]
    threat, tape = ThreatModel(norm="l1", eps=2.0), Tape(model)
    start = large_start(x, threat, Draws((0,), ROWS))
    large_radii(Unstopped(tape, x, y, LOSSES["dlr"]), start, threat, steps=steps)
    assert threat.contains(x, tape.points[-1]).all()
    assert len(tape.points) == steps + (3 if steps == 3 else 1)


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 40, 60, 100, 250])
def test_step_sizes_are_reviewed_when_the_reference_reviews_them(steps):
    window, least, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    expected, counter = {}, 0
    for i in range(steps):
        counter += 1
        if counter == window:
            expected[i + 1] = window
            window, counter = max(window - shrink, least), 0
    assert checkpoints(steps) == expected


@pytest.mark.parametrize("resc_schedule", [False, True])
def test_square_shrinks_its_windows_when_the_reference_does(resc_schedule):
    ours = Square(queries=3000, resc_schedule=resc_schedule)
    theirs = SquareAttack(None, n_queries=3000, resc_schedule=resc_schedule, eps=0.1)
    for query in range(3000):
        assert ours.share(query) == theirs.p_selection(query)
    theirs.rescale_schedule = False
    assert [ours.share(0), Square().share(9000)] == [0.8, theirs.p_selection(9000)]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_square_patterns_are_those_of_the_reference(side, power, monkeypatch):
    reference = SquareAttack(None, norm=f"L{power}", eps=0.1)
    reference.device = "cpu"
    monkeypatch.setattr(torch, "rand", lambda *_: torch.zeros(1))
    torch.testing.assert_close(_pattern(side, side, power=power), reference.eta(side))


class Scripted(SquareAttack):
    """The reference with the windows, signs and turns of our draws, for a single example."""

    def __init__(self, draws, model, norm, eps, queries):
        super().__init__(model, norm=norm, eps=eps, n_queries=queries, resc_schedule=False)
        self.draws = draws

    def random_choice(self, shape):
        channels = [size for size in shape if size > 1] or [1]
        if self.norm == "Linf" and len(shape) == 4:
            return self.draws.sign(*shape[1:])
        return self.draws.sign(channels[0], 1, 1).view(shape)

    def random_int(self, low=0, high=1, shape=(1,)):
        # Ours also reaches the last place.
        return self.draws.integers(high - low + 1) + low

    def eta(self, s):
        lying = self.draws.uniform(1, 1, 1).view(()) > 0.5
        upright = _pattern(s, s, power=2 if self.norm == "L2" else 1)
        return upright.T if lying else upright


def l1_projection(x, delta, eps):
    """Theirs rounds to float32; ours is held to an independent solver elsewhere."""
    return ThreatModel(norm="l1", eps=eps).project(x, x + delta) - (x + delta)


def without_repeats(points, model, label):
    """Leave out the points that are the best before them again: we do not evaluate these."""
    best, kept = points[0], points[:1]
    for point in points[1:]:
        if (point - best).abs().max() > 1e-6:
            kept.append(point)
            best = max(best, point, key=lambda z: LOSSES["margin"](model(z), label).item())
    return kept


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_square_makes_the_proposals_of_the_reference(trained, norm, monkeypatch):
    model, x, y = trained
    if norm == "l1":
        # In float32 rounding leaves traces of changes that were taken back, and the reference scales them up.
        model, x = copy.deepcopy(model).double(), x.double()
        monkeypatch.setattr(square, "L1_projection", l1_projection)
    repeats = 0
    eps = {"linf": 0.01, "l2": 0.15, "l1": 0.8}[norm]
    for row in range(3):
        one, label = x[row : row + 1], y[row : row + 1]
        key = (row, "square")
        ours, theirs = Tape(model), Tape(model)
        result = Square(queries=120).run(
            ours, one, label, ThreatModel(norm=norm, eps=eps), Draws(key, 1), known_correct=True
        )
        assert not result.success.item()
        draws = Draws(key, 1).child("restart", 0)
        reference = Scripted(draws, theirs, THEIR_NORM[norm], eps, 120)
        reference.init_hyperparam(one)
        reference.attack_single_run(one, label)
        theirs.points = theirs.points[:121]
        if norm == "linf":
            # The last point is always evaluated.
            theirs.points = [*without_repeats(theirs.points[:-1], model, label), theirs.points[-1]]
            repeats += 121 - len(theirs.points)
        # The probe pads a call with copies of its first row.
        ours.points = [points[:1] for points in ours.points[: len(theirs.points)]]
        assert gaps(ours, theirs, len(theirs.points) - 1).max() <= 2e-5
        assert result.forwards.item() == len(theirs.points)
    assert (repeats > 0) == (norm == "linf")


def test_square_starts_in_l2_like_the_reference(trained):
    _, x, _ = trained
    delta = _MassMoves(ThreatModel(norm="l2", eps=0.5), Draws((0,), 4), False).start(x[:4]) - x[:4]
    # Ten pixels a side: tiles of two, five by five of them, no margin.
    assert (delta.flatten(1).norm(dim=1) <= 0.5 + 1e-6).all()
    tiles = delta.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert tiles.shape[2:4] == (5, 5)
    inner = ((x[:4] > 0.2) & (x[:4] < 0.8)).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).all(-1)
    assert inner.any()
    assert tiles.sum(-1)[inner].abs().max() < 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_robust_accuracy_is_that_of_the_reference(trained, norm):
    model, x, y = trained
    x, y = x[:200], y[:200]
    eps = {"linf": 0.04, "l2": 0.6, "l1": 4.0}[norm]
    threat = ThreatModel(norm=norm, eps=eps)
    kind = {"norm": THEIR_NORM[norm], "eps": eps}
    large = {"use_largereps": norm == "l1"}
    pairs = [
        (APGD(steps=50), APGDAttack(model, n_iter=50, **kind, **large)),
        (APGDT(steps=20, targets=5), APGDAttack_targeted(model, n_iter=20, n_target_classes=5, **kind, **large)),
        (Square(queries=300), SquareAttack(model, n_queries=300, **kind, resc_schedule=False)),
    ]
    figures = []
    for ours, theirs in pairs:
        found = ours.run(model, x, y, threat, Draws((0, "parity"), len(x)), known_correct=True)
        robust = 1 - found.success.float().mean().item()
        points = theirs.perturb(x.clone(), y.clone())
        expected = (model(points).argmax(1) == y).float().mean().item()
        figures.append((type(ours).__name__, robust, expected))
    for name, robust, expected in figures:
        assert 0.05 < expected < 0.95, figures
        # Another random start flips a borderline example of a gradient attack; Square is random search.
        noise = 0.01 if name != "Square" else 3 * math.sqrt(expected * (1 - expected) / len(x))
        assert abs(robust - expected) <= noise, figures
