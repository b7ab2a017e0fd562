"""The geometry of a threat: projections are nearest points, starts are inside, steps climb fastest."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.threat import ThreatModel, parse_eps

NORMS = ("l1", "l2", "linf")
SHAPES = ((1,), (5,), (2, 3, 2))
fast = settings(max_examples=25, deadline=None)


@st.composite
def cases(draw, dtype=torch.float64):
    """A threat, four centres in its box, and four points anywhere around them; some centres lie on faces."""
    norm = draw(st.sampled_from(NORMS))
    low = draw(st.sampled_from((0.0, -1.0)))
    dims = math.prod(shape := draw(st.sampled_from(SHAPES)))
    threat = ThreatModel(norm=norm, eps=draw(st.floats(0.01, 0.9)), low=low)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.rand((4, dims), generator=generator, dtype=dtype) * (1 - low) + low
    x[0], x[1, ::2] = low, 1.0
    spread = draw(st.sampled_from((0.02, 0.5, 20.0)))
    z = x + spread * torch.randn((4, dims), generator=generator, dtype=dtype)
    z[2, 0] = x[2, 0]
    return threat, x.view(4, *shape), z.view(4, *shape), generator


def test_the_cases_reach_both_sides_of_the_ball():
    threat = ThreatModel(norm="l2", eps=0.5)
    x = torch.full((2, 3), 0.5)
    z = x + torch.tensor([[0.1, 0.0, 0.0], [0.4, 0.4, 0.4]])
    assert threat.contains(x, z).tolist() == [True, False]


@fast
@given(cases())
def test_a_projection_is_allowed_and_idempotent(case):
    threat, x, z, _ = case
    p = threat.project(x, z)
    assert threat.contains(x, p).all()
    assert (threat.distance(x, p) <= threat.eps * (1 + 1e-12)).all()
    torch.testing.assert_close(threat.project(x, p), p, rtol=0, atol=1e-12)


@fast
@given(cases())
def test_an_allowed_point_stays_and_another_lands_on_the_ball_or_the_box(case):
    threat, x, z, _ = case
    p = threat.project(x, z)
    in_box = ((z >= threat.low) & (z <= threat.high)).flatten(1).all(1)
    allowed = in_box & (threat.distance(x, z) <= threat.eps)
    assert torch.equal(p[allowed], z[allowed])
    clipped = z.clamp(threat.low, threat.high)
    on_sphere = (threat.distance(x, p) - threat.eps).abs() < 1e-9
    clipped_fits = threat.distance(x, clipped) <= threat.eps
    if threat.norm != "linf":
        assert (on_sphere | clipped_fits).all()
    assert torch.equal(p[clipped_fits], clipped[clipped_fits])


@fast
@given(cases())
def test_no_allowed_point_is_nearer_than_the_projection(case):
    threat, x, z, generator = case
    p = threat.project(x, z)
    gap = (p - z).flatten(1).norm(dim=1)
    for _ in range(20):
        other = threat.project(x, x + threat.eps * torch.randn(x.shape, generator=generator, dtype=x.dtype))
        # Feasible by construction: half way from the centre, which is always feasible.
        for share in (0.3, 1.0):
            candidate = x + share * (other - x)
            assert (gap <= (candidate - z).flatten(1).norm(dim=1) + 1e-9).all()
    # The obtuse-angle property characterises the nearest point of a convex set.
    for feasible in (x, other):
        angle = ((z - p) * (feasible - p)).flatten(1).sum(1)
        assert (angle <= 1e-9 * (1 + gap)).all()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_projection_is_that_of_an_independent_solver(norm, seed):
    rng = np.random.default_rng(seed)
    dims, eps = 6, float(rng.uniform(0.2, 1.2))
    x = rng.uniform(0, 1, dims)
    x[0] = 0.0
    z = x + rng.normal(0, 0.6, dims)
    # x + up - down, with up and down at most what the box leaves: smooth constraints for both norms.
    bounds = [(0, 1 - value) for value in x] + [(0, value) for value in x]

    def gap(parts):
        return x + parts[:dims] - parts[dims:] - z

    def room(parts):
        return eps - parts.sum() if norm == "l1" else eps**2 - ((parts[:dims] - parts[dims:]) ** 2).sum()

    solution = minimize(
        lambda parts: (gap(parts) ** 2).sum(),
        np.full(2 * dims, 0.01),
        jac=lambda parts: 2 * np.concatenate([gap(parts), -gap(parts)]),
        bounds=bounds,
        constraints=[{"type": "ineq", "fun": room}],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    expected = x + solution.x[:dims] - solution.x[dims:]
    threat = ThreatModel(norm=norm, eps=eps)
    found = threat.project(torch.tensor(x)[None], torch.tensor(z)[None])[0].numpy()
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("spread", [0.03, 0.3, 3.0, 100.0])
def test_an_l1_projection_takes_the_same_from_every_coordinate_that_moves(spread):
    generator = torch.Generator().manual_seed(0)
    for dims in (1, 2, 7, 30):
        x = torch.rand((2000, dims), generator=generator, dtype=torch.float64)
        z = x + spread * torch.randn((2000, dims), generator=generator, dtype=torch.float64)
        threat = ThreatModel(norm="l1", eps=0.05 * dims)
        outside = threat.distance(x, z.clamp(0, 1)) > threat.eps
        x, z = x[outside], z[outside]
        size, step = (threat.project(x, z) - x).abs(), (z - x).abs()
        room = torch.where(z > x, 1 - x, x)
        torch.testing.assert_close(size.sum(1), torch.full((len(x),), threat.eps, dtype=torch.float64))
        taken = step - size
        moving = (size > 1e-12) & (size < room - 1e-12)
        shift = torch.where(moving, taken, -torch.inf).amax(1, keepdim=True)
        rounding = 1e-12 * (1 + spread)
        assert ((taken - shift).abs() <= rounding)[moving].all()
        # One at rest would go the other way, and one at its face of the box was stopped by it.
        known = shift.isfinite().expand_as(size)
        assert (step <= shift + rounding)[known & (size <= 1e-12)].all()
        assert (taken >= shift - rounding)[known & (size >= room - 1e-12) & (room > 1e-9)].all()


@fast
@given(cases(dtype=torch.float32))
def test_float32_projections_satisfy_the_check_of_the_verdict(case):
    threat, x, z, _ = case
    assert threat.contains(x, threat.project(x, z)).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_random_starts_are_inside_and_fill_the_ball(norm, shape):
    threat = ThreatModel(norm=norm, eps=0.3)
    x = torch.full((400, *shape), 0.5)
    starts = threat.random_start(x, Draws((0, norm), 400))
    assert threat.contains(x, starts).all()
    dims = math.prod(shape)
    # In a uniform ball, (distance / eps) ** dims is uniform on [0, 1].
    share = (threat.distance(x, starts) / 0.3) ** dims
    assert abs(share.mean().item() - 0.5) < 0.06
    assert share.min() < 0.05
    assert share.max() > 0.95
    assert abs((starts - x).mean().item()) < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_stay_in_the_box_at_its_faces(norm):
    threat = ThreatModel(norm=norm, eps=0.9)
    x = torch.zeros((50, 4))
    x[25:] = 1.0
    assert threat.contains(x, threat.random_start(x, Draws((1,), 50))).all()


@fast
@given(cases())
def test_the_steepest_step_has_unit_norm_and_no_other_climbs_faster(case):
    threat, x, _, generator = case
    gradient = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    step = threat.steepest_ascent(gradient)
    zero = torch.zeros_like(x)
    torch.testing.assert_close(threat.distance(zero, step), torch.ones(4, dtype=x.dtype))
    # By duality the largest climb over the unit ball is the dual norm of the gradient.
    dual = {"l1": torch.inf, "l2": 2, "linf": 1}[threat.norm]
    climb = (gradient * step).flatten(1).sum(1)
    torch.testing.assert_close(climb, torch.linalg.vector_norm(gradient.flatten(1), ord=dual, dim=1))


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_gives_a_zero_step(norm):
    step = ThreatModel(norm=norm, eps=0.1).steepest_ascent(torch.zeros(2, 3))
    assert torch.equal(step, torch.zeros(2, 3))


def test_nan_and_a_point_beyond_the_box_are_not_allowed():
    threat = ThreatModel(norm="linf", eps=0.5)
    x = torch.full((3, 2), 0.9)
    z = torch.tensor([[0.9, math.nan], [0.9, 1.0001], [0.9, 1.0]])
    assert threat.contains(x, z).tolist() == [False, False, True]


def test_a_box_that_bounds_nothing_does_not_widen_the_ball():
    threat = ThreatModel(norm="linf", eps=0.1, low=-1e9, high=1e9)
    assert threat.contains(torch.zeros(2, 3), torch.tensor([[0.1] * 3, [0.2] * 3])).tolist() == [True, False]
    with pytest.raises(InputError, match="a bound of the box is inf; it must be a finite number"):
        ThreatModel(norm="l2", eps=0.1, high=math.inf)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linf", "NORM:EPS"),
        ("lnf:0.1", "did you mean 'linf'"),
        ("l2:zero", "not a number"),
        ("l2:1/0", "not a number"),
        ("l2:-1", "above 0"),
        ("l2:inf", "not a number"),
        ("linf:2", "wider than the whole box"),
        ("l0:2.5", "whole number of at least 1"),
        ("l0:1/2", "whole number of at least 1"),
        ("l0:0", "above 0"),
    ],
)
def test_a_bad_threat_is_refused_in_words(text, words):
    with pytest.raises(InputError, match=words):
        ThreatModel.parse(text)


def test_a_fraction_is_read_exactly():
    assert parse_eps("8/255") == 8 / 255
    assert ThreatModel.parse("linf:8/255").eps == 8 / 255


@st.composite
def sparse_cases(draw, dtype=torch.float32):
    """An l0 threat, five centres in its box and five points around them; some centres lie on faces."""
    low = draw(st.sampled_from((0.0, -1.0)))
    dims = math.prod(shape := draw(st.sampled_from(SHAPES)))
    threat = ThreatModel(norm="l0", eps=float(draw(st.integers(1, dims))), low=low)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.rand((5, dims), generator=generator, dtype=dtype) * (1 - low) + low
    x[0], x[1, ::2] = low, 1.0
    z = x + draw(st.sampled_from((0.1, 1.0, 20.0))) * torch.randn((5, dims), generator=generator, dtype=dtype)
    z[2, ::2] = x[2, ::2]
    return threat, x.view(5, *shape), z.view(5, *shape), generator


@fast
@given(sparse_cases())
def test_an_l0_projection_is_allowed_idempotent_and_nearest(case):
    threat, x, z, _ = case
    p = threat.project(x, z)
    assert threat.contains(x, p).all()
    assert torch.equal(threat.project(x, p), p)
    inside = z.clamp(threat.low, threat.high)
    gap = (p.double() - z.double()).flatten(1).square().sum(1)
    dims = x[0].numel()
    for kept in itertools.islice(itertools.combinations(range(dims), int(threat.eps)), 300):
        other = x.flatten(1).clone()
        other[:, list(kept)] = inside.flatten(1)[:, list(kept)]
        assert (gap <= (other.double() - z.double().flatten(1)).square().sum(1) * (1 + 1e-12)).all()


@fast
@given(sparse_cases())
def test_an_l0_ball_is_counted_exactly(case):
    threat, x, _, generator = case
    dims, eps = x[0].numel(), int(threat.eps)
    flat = x.flatten(1)
    order = torch.rand((5, dims), generator=generator).argsort(1)
    for count in {eps, min(eps + 1, dims)}:
        # The smallest change there is.
        toward = torch.where(flat > threat.low, threat.low, threat.high)
        z = flat.scatter(1, order[:, :count], torch.nextafter(flat, toward).gather(1, order[:, :count]))
        z = z.view_as(x)
        assert threat.distance(x, z).tolist() == [count] * 5
        assert threat.contains(x, z).tolist() == [count <= eps] * 5
        assert threat.roughly_contains(x, z).tolist() == [count <= eps] * 5


def test_l0_starts_change_as_many_components_as_allowed_and_every_one_of_them_sometimes():
    threat = ThreatModel(norm="l0", eps=3.0)
    x = torch.full((500, 2, 3, 2), 0.5)
    starts = threat.random_start(x, Draws((0,), 500))
    assert threat.contains(x, starts).all()
    assert (threat.distance(x, starts) >= 2).all()
    changed = (starts != x).float().mean(0)
    assert ((changed - 3 / 12).abs() < 0.08).all()
    values = starts[starts != x]
    assert abs(values.mean().item() - 0.5) < 0.03
    assert values.min() < 0.02
    assert values.max() > 0.98


def test_the_steepest_step_in_l0_changes_one_component():
    step = ThreatModel(norm="l0", eps=2.0).steepest_ascent(torch.tensor([[0.1, -3.0, 2.0], [0.0, 0.0, 0.0]]))
    assert step.tolist() == [[0, -1, 0], [0, 0, 0]]


def test_an_l0_radius_is_a_count_of_components():
    threat = ThreatModel.parse("l0:24")
    assert (threat.norm, threat.eps, threat.label) == ("l0", 24, "l0:24")
    assert ThreatModel(norm="l0", eps=24.0).label == "l0:24"
    threat.check_shape((3, 8, 1))
    for use in (lambda: threat.check_shape((23,)), lambda: threat.random_start(torch.zeros(2, 23), Draws((0,), 2))):
        with pytest.raises(InputError, match="eps is above 23, the size of the whole box for images of 23"):
            use()
