"""What certificates rest on: norms from above, constants that nothing exceeds, and the facts of the proofs."""

import copy

import pytest
import torch
from torch import Tensor

from robustframe.certify import (
    lipschitz_constants,
    lipschitz_radius,
    norm_bounds,
    pursuit_radius,
    sulam_radius,
)
from robustframe.certify.norms import absolute_norm_bound, norm_bound, smallest_eigenvalue
from robustframe.certify.rounding import Sweep, travel
from robustframe.errors import InputError
from robustframe.frames import Conv, Dense, Frame, Operator, PooledConv, build_frame
from robustframe.frames.coherence import babel
from robustframe.pairs import Pair
from robustframe.pairs.pair import Twin
from robustframe.solvers import AcceleratedPursuit, DeepPursuit, solve

CONV = {"filters": 3, "kernel": 3, "padding": 1}
FRAMES = {
    "chain": ((9,), [{"atoms": 7}, {"atoms": 5}, {"atoms": 6}], "chain"),
    "conv": ((2, 7, 6), [{"filters": 4, "kernel": 4, "stride": 2, "padding": 1}, {"atoms": 5}], "chain"),
    "residual": (
        (3, 4, 4),
        [
            CONV,
            CONV,
            CONV,
            {"filters": 4, "kernel": 3, "stride": 2, "padding": 1},
            {"filters": 4, "kernel": 3, "padding": 1},
        ],
        "residual",
    ),
    "dense": ((2, 4, 4), [CONV, CONV, CONV], "dense"),
}


def frame_of(kind: str, seed: int = 0) -> Frame:
    torch.manual_seed(seed)
    frame = build_frame(*FRAMES[kind]).double()
    for layer in frame.blocks:
        layer.threshold.data.fill_(0.003)
    return frame


def pair_of(frame: Frame, classes: int = 3) -> Pair:
    torch.manual_seed(1)
    pair = Pair(frame, classes=classes, sweeps=4).double()
    pair.gain.fill_(1.5)
    return pair


def explicit(operator: Operator) -> Tensor:
    atoms = int(torch.Size(operator.code_shape).numel())
    with torch.no_grad():
        return operator.synthesis(torch.eye(atoms, dtype=torch.float64).view(-1, *operator.code_shape)).flatten(1).T


@pytest.mark.parametrize(
    ("operator", "slack"),
    [
        (Dense((6,), 9), 1e-6),
        (Dense((2, 3, 3), 4), 1e-6),
        # On a large image zero padding hardly matters: the bound must be tight there, and a bound everywhere.
        (Conv((1, 16, 16), 2, 3, padding=1), 0.03),
        (Conv((2, 18, 18), 3, 6, stride=2, padding=2), 0.06),
        (Conv((1, 16, 16), 3, 4, stride=2, padding=1), 0.03),
        (Conv((2, 5, 7), 3, 3, padding=0), 0.5),
        (Conv((3, 11, 11), 2, 3, stride=2), 0.05),
        (Conv((3, 6, 6), 5, 1), 1e-6),
        (PooledConv((3, 6, 6), 4, 2), 1e-6),
    ],
)
def test_norms_are_bounded_from_above_and_closely(operator: Operator, slack: float) -> None:
    torch.manual_seed(0)
    operator.weight.data.normal_()
    operator = operator.double()
    exact = float(torch.linalg.matrix_norm(explicit(operator), 2))
    assert exact <= norm_bound(operator) <= (1 + slack) * exact


def test_the_smallest_eigenvalue_is_bounded_from_below() -> None:
    torch.manual_seed(0)
    tall, wide = Dense((8,), 5).double(), Dense((5,), 8).double()
    exact = float(torch.linalg.svdvals(tall.weight.detach())[-1] ** 2)
    assert 0.99 * exact < smallest_eigenvalue(tall) <= exact
    assert smallest_eigenvalue(wide) == 0
    assert smallest_eigenvalue(Conv((1, 4, 4), 1, 3)) == 0


def test_what_has_no_bound_is_refused() -> None:
    broken = Dense((3,), 2)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        norm_bound(broken)

    class Other(Operator):
        analysis = synthesis = atom_norms = correlations = normalize_ = None  # type: ignore[assignment]

    Other.__abstractmethods__ = frozenset()
    other = Other()
    other.weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(InputError, match="no bound on the norm of a Other is known"):
        norm_bound(other)


@pytest.mark.parametrize("sweeps", [1, 2, 5])
@pytest.mark.parametrize("kind", FRAMES)
def test_no_code_moves_more_than_its_constant(kind: str, sweeps: int) -> None:
    frame = frame_of(kind)
    constants = lipschitz_constants(frame, sweeps)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(60, *frame.in_shape, dtype=torch.float64, generator=generator)
    ratios = torch.zeros(len(constants), dtype=torch.float64)
    for scale in (1e-3, 0.3):
        z = x + scale * torch.randn(x.shape, dtype=x.dtype, generator=generator)
        with torch.no_grad():
            ends = [solve(DeepPursuit(sweeps=sweeps), frame, point).codes for point in (x, z)]
        moved = torch.linalg.vector_norm((x - z).flatten(1), dim=1)
        for j, (one, other) in enumerate(zip(*ends)):
            ratio = torch.linalg.vector_norm((one - other).flatten(1), dim=1) / moved
            ratios[j] = torch.maximum(ratios[j], ratio.max())
    assert (ratios <= torch.tensor(constants, dtype=torch.float64)).all()
    assert ratios.min() > 0


def test_the_constant_of_one_sweep_of_a_chain_is_the_product_of_norms() -> None:
    frame = frame_of("chain")
    expected = 1.0
    for layer, norm, found in zip(frame.blocks, norm_bounds(frame), lipschitz_constants(frame, 1)):
        expected *= norm * float(layer.step_size)
        assert found == pytest.approx(expected)
    with pytest.raises(InputError, match="at least 1 sweep, not 0"):
        lipschitz_constants(frame, 0)


def worst_step(frame: Frame, j: int, code: float, target: float) -> float:
    """The longest (I - s H) w + s B^T t with ||w|| = code and ||t|| = target that turns of w and t find."""
    layer = frame.blocks[j - 1]
    synthesis, size = explicit(layer.operator), float(layer.step_size)
    hessian = synthesis.T @ synthesis + frame.pull(j) * torch.eye(synthesis.shape[1], dtype=torch.float64)
    keep, take = torch.eye(len(hessian), dtype=torch.float64) - size * hessian, size * synthesis.T
    longest = 0.0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        ends = [torch.randn(n, dtype=torch.float64, generator=generator) for n in (keep.shape[1], take.shape[1])]
        for _ in range(300):
            ends = [scale * end / torch.linalg.vector_norm(end) for scale, end in zip((code, target), ends)]
            moved = keep @ ends[0] + take @ ends[1]
            # The gradient of the length, then back to the spheres.
            ends = [keep.T @ moved + 1e-9 * ends[0], take.T @ moved + 1e-9 * ends[1]]
        longest = max(longest, float(torch.linalg.vector_norm(moved)))
    return longest


@pytest.mark.parametrize(("code", "target"), [(1.0, 1.0), (0.2, 1.0), (1.0, 0.3)])
@pytest.mark.parametrize("kind", ["chain", "conv"])
def test_a_step_is_bounded_closely_and_below_the_sum_of_norms(kind: str, code: float, target: float) -> None:
    frame = frame_of(kind)
    last = len(frame.blocks)
    sweep = Sweep(frame)
    for j in range(1, last + 1):
        d = [torch.tensor(each, dtype=torch.float64) for each in [target] * j + [code] + [0.0] * (last - j)]
        bound, found = float(sweep.step(j, d)), worst_step(frame, j, code, target)
        assert found <= bound * (1 + 1e-9)
        # Convolutions at the borders of a small image reach no norm of the endless one.
        assert bound <= (1.1 if kind == "chain" else 1.4) * found
        zero = torch.zeros((), dtype=torch.float64)
        apart = [float(sweep.step(j, [d[0]] * j + [zero] * (last + 1 - j))), float(sweep.step(j, [zero] * j + d[j:]))]
        assert bound < 0.95 * sum(apart) or min(apart) < 0.1 * max(apart)


def test_what_a_row_with_a_skip_reads_is_bounded_together_or_apart_whichever_is_less() -> None:
    frame, zero = frame_of("residual"), torch.zeros((), dtype=torch.float64)
    sweep = Sweep(frame)
    j = next(j for j, layer in enumerate(frame.blocks, start=1) if layer.skip is not None)
    layer, size, norm = frame.blocks[j - 1], sweep.sizes[j], sweep.norms[j]
    for below, skip in ((1.0, 0.3), (1.0, 0.9)):
        d = [zero] * (len(frame.blocks) + 1)
        d[layer.sources[0]], d[layer.skip or 0] = d[0].new_tensor(below), d[0].new_tensor(skip)
        apart, together = norm * below + skip, float((norm**2 + 1) ** 0.5 * (below**2 + skip**2) ** 0.5)
        assert float(sweep.step(j, d)) == pytest.approx(size * min(apart, together), rel=1e-6)


def near(x: Tensor, radius: Tensor, seed: int) -> Tensor:
    """A float32 image in the ball around each one, most of the way out in a random direction."""
    way = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scale = 0.999 * radius / torch.linalg.vector_norm(way.flatten(1), dim=1)
    return (x.double() + scale.view(-1, *[1] * (x.dim() - 1)) * way).float()


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("kind", FRAMES)
def test_no_code_is_rounded_more_than_its_bound(kind: str, sweeps: int) -> None:
    torch.manual_seed(0)
    frame = build_frame(*FRAMES[kind])
    for layer in frame.blocks:
        layer.threshold.data.fill_(0.003)
    frame.update_step_sizes_()
    exact = copy.deepcopy(frame).double().requires_grad_(False)
    x = torch.rand(100, *frame.in_shape, generator=torch.Generator().manual_seed(2))
    found = travel(exact, x.double(), sweeps)
    solver, worst = DeepPursuit(sweeps=sweeps), 0.0
    for seed, radius in enumerate((0.0, 0.1, 1.0)):
        z = near(x, torch.full((100,), radius, dtype=torch.float64), seed)
        with torch.no_grad():
            rounded, code = solve(solver, frame, z).codes[-1], solve(solver, exact, z.double()).codes[-1]
        off = torch.linalg.vector_norm((rounded.double() - code).flatten(1), dim=1)
        assert (off <= found.fixed + radius * found.growing).all()
        worst = max(worst, float((off / (found.fixed + radius * found.growing)).max()))
    # Not idle: sums in the worst order are rare, and a sweep adds norms that do not point the same way.
    assert worst > 1e-4
    assert found.fixed.max() < 0.01


def cancelling(numbers: int = 16) -> Pair:
    """A head with rows c and c + d, |c| about 100 and |d| about 0.01, and a bias that cancels both at grey images."""
    generator = torch.Generator().manual_seed(0)
    frame = build_frame((numbers,), [{"atoms": numbers}])
    frame.blocks[0].operator.weight.data.copy_(torch.eye(numbers))
    frame.blocks[0].step_size.fill_(1.0)
    pair = Pair(frame, classes=2, sweeps=2)
    large = 100 * torch.randn(numbers, generator=generator)
    pair.head.weight.data.copy_(torch.stack([large, large + 0.01 * torch.randn(numbers, generator=generator)]))
    pair.head.bias.data.copy_(-0.5 * pair.head.weight.double().sum(1))
    return pair


def flipped(pair: Pair, x: Tensor, y: Tensor, radius: Tensor) -> int:
    """How many float32 labels change on the straight way to the other class, inside the radius."""
    step = pair.head.weight[1].double() - pair.head.weight[0].double()
    way = torch.where(y == 1, -1.0, 1.0).double().unsqueeze(1) * step / torch.linalg.vector_norm(step)
    broken = torch.zeros(len(x), dtype=torch.bool)
    for part in torch.linspace(0.9, 0.9999, 30, dtype=torch.float64):
        z = (x.double() + part * radius.unsqueeze(1) * way).float()
        inside = torch.linalg.vector_norm(z.double() - x.double(), dim=1) < radius
        with torch.no_grad():
            broken |= inside & (pair.feedforward(z).argmax(1) != y)
    return int(broken.sum())


def test_rows_of_the_head_that_cancel_do_not_break_a_certificate_in_float32() -> None:
    pair = cancelling()
    x = 0.5 + 0.3 * (torch.rand(2000, 16, generator=torch.Generator().manual_seed(1)) - 0.5)
    with torch.no_grad():
        y = copy.deepcopy(pair).double().feedforward(x.double()).argmax(1)
    for certificate in (lipschitz_radius(pair.feedforward, x, y), sulam_radius(pair, x, y)):
        assert (certificate.radius > 0).sum() > 1000
        assert flipped(pair, x, y, certificate.radius) == 0
        # Margins that know nothing of rounding are found out.
        step = torch.linalg.vector_norm(pair.head.weight[1].double() - pair.head.weight[0].double())
        assert flipped(pair, x, y, certificate.margin / step) > 100


def test_what_may_overflow_is_not_certified() -> None:
    pair = orthonormal()
    x, y = torch.tensor([[0.6, 0.6, 0.0, 0.0]]), torch.tensor([0])
    assert lipschitz_radius(pair.feedforward, x, y).radius > 0
    pair.head.weight.data.mul_(1e37)
    assert lipschitz_radius(pair.feedforward, x, y).radius == 0


@pytest.mark.parametrize(
    "operator", [Dense((6,), 9), Conv((2, 9, 9), 3, 4, stride=2, padding=1), PooledConv((3, 6, 6), 4, 2)]
)
def test_the_norm_of_the_sizes_of_the_entries_is_bounded_from_above(operator: Operator) -> None:
    torch.manual_seed(0)
    operator.weight.data.normal_()
    operator = operator.double()
    exact = float(torch.linalg.matrix_norm(explicit(operator).abs(), 2))
    assert exact <= absolute_norm_bound(operator) <= 1.4 * exact


def orthonormal(classes: int = 2) -> Pair:
    """Atoms that are unit vectors: codes are ReLU(x - b), and every distance is known."""
    frame = build_frame((4,), [{"atoms": 4}])
    frame.blocks[0].operator.weight.data.copy_(torch.eye(4))
    frame.blocks[0].threshold.data.fill_(0.1)
    frame.update_step_sizes_()
    pair = Pair(frame, classes=classes, sweeps=50)
    pair.head.weight.data.zero_()
    pair.head.weight.data[0, :2] = torch.tensor([3.0, 4.0])
    pair.head.bias.data.copy_(torch.tensor([0.0, 2.0]))
    return pair


def test_radii_of_orthonormal_atoms_are_exact() -> None:
    pair = orthonormal()
    x = torch.tensor([[0.6, 0.6, 0.09, 0.0]])
    y = torch.tensor([0])
    # Margin 0.5 * 3 + 0.5 * 4 - 2 = 1.5, the slope of the difference of logits is 5; the third atom may enter at
    # 0.01, where nothing changes.
    for certificate in (pursuit_radius(pair, x, y), lipschitz_radius(pair.recurrent, x, y)):
        torch.testing.assert_close(certificate.radius, torch.tensor([0.3], dtype=torch.float64), atol=2e-5, rtol=0)
        torch.testing.assert_close(certificate.linf, certificate.radius / 2)
        assert certificate.proved.all()
    published = sulam_radius(pair, x, y)
    # Half of each gap: with all four atoms allowed nothing can enter any more.
    torch.testing.assert_close(published.radius, torch.tensor([0.3], dtype=torch.float64), atol=2e-5, rtol=0)


def test_an_example_that_is_wrong_or_not_solved_has_no_radius() -> None:
    pair = orthonormal()
    x = torch.tensor([[0.6, 0.6, 0.0, 0.0], [0.6, 0.6, 0.0, 0.0]])
    y = torch.tensor([0, 1])
    for certificate in (pursuit_radius(pair, x, y), sulam_radius(pair, x, y), lipschitz_radius(pair.feedforward, x, y)):
        assert certificate.radius[0] > 0
        assert certificate.radius[1] == 0
        assert certificate.margin[1] < 0 < certificate.margin[0]
    hard = pair_of(frame_of("chain"))
    images = torch.rand(3, 9, dtype=torch.float64)
    short = pursuit_radius(hard, images, torch.zeros(3, dtype=torch.long), sweeps=2)
    assert not short.proved.any()
    assert (short.radius == 0).all()


def test_the_published_radius_is_the_formula_with_one_s_and_each_examples_gap() -> None:
    torch.manual_seed(0)
    frame = build_frame((12,), [{"atoms": 14}]).double()
    frame.blocks[0].operator.weight.data.copy_(
        torch.cat([torch.eye(12), torch.eye(12)[:2] @ torch.linalg.qr(torch.randn(12, 12))[0]])
    )
    frame.blocks[0].threshold.data.fill_(0.05)
    frame.update_step_sizes_()
    pair = pair_of(frame)
    x = torch.rand(6, 12, dtype=torch.float64) * (torch.rand(6, 12, dtype=torch.float64) < 0.4)
    with torch.no_grad():
        code = solve(AcceleratedPursuit(sweeps=5000, tolerance=1e-13), frame, x).codes[0]
        logits = pair.classify(code)
        y = logits.argmax(1)
        d = frame.blocks[0].operator.weight.T
        gaps = 0.05 - (x - code @ d.T) @ d
        coherence = [0.0, *babel(frame, 13).tolist()]
        weight = 1.5 * pair.head.weight
    found, tight = sulam_radius(pair, x, y), pursuit_radius(pair, x, y)
    for row in range(6):
        best = 0.0
        for s in range(1, 15):
            if coherence[s - 1] >= 1:
                break
            tau = float(gaps[row].sort().values[s]) if s < 14 else float("inf")
            rates = [
                float((logits[row, y[row]] - logits[row, c]) / torch.linalg.vector_norm(weight[y[row]] - weight[c]))
                for c in range(3)
                if c != y[row]
            ]
            best = max(best, min(tau / 2, min(rates) * (1 - coherence[s - 1]) ** 0.5))
        assert float(found.radius[row]) == pytest.approx(best, abs=1e-4)
    assert (found.radius > 0.01).any()
    assert (tight.radius >= found.radius - 1e-9).all()


@pytest.mark.parametrize("kind", FRAMES)
def test_the_facts_behind_the_pursuit_radius_hold(kind: str) -> None:
    """Residuals move by no more than the input, and ||B D||^2 <= <B D, E v>, whatever the structure."""
    frame = frame_of(kind)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(10, *frame.in_shape, dtype=torch.float64, generator=generator)
    v = 0.2 * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    solver = AcceleratedPursuit(sweeps=3000, tolerance=1e-10)
    with torch.no_grad():
        ends = [solve(solver, frame, point).codes for point in (x, x + v)]
        made = frame.synthesis([b - a for a, b in zip(*ends)])
        zero = [torch.zeros_like(code) for code in ends[0]]
        spread = [frame.residual(j, [v, *zero]) for j in range(1, len(zero) + 1)]
        flat_made, flat_spread = (
            torch.cat([part.flatten(1) for blocks in vectors for part in blocks], 1) for vectors in (made, spread)
        )
    copies = len(frame.signal_readers(0)) + len(frame.skip_readers(0))
    size = torch.linalg.vector_norm(flat_spread, dim=1)
    assert (size <= copies**0.5 * torch.linalg.vector_norm(v.flatten(1), dim=1) + 1e-12).all()
    assert (torch.linalg.vector_norm(flat_spread - flat_made, dim=1) <= size + 1e-6).all()
    assert (flat_made.square().sum(1) <= (flat_made * flat_spread).sum(1) + 1e-6).all()
    assert (flat_made.square().sum(1) > 1e-6).all()


def test_misuse_gets_a_sentence() -> None:
    pair = pair_of(frame_of("chain"))
    x = torch.rand(2, 9, dtype=torch.float64)
    y = torch.tensor([0, 1])
    with pytest.raises(InputError, match="for one layer, not 3; use pursuit_radius"):
        sulam_radius(pair, x, y)
    with pytest.raises(InputError, match="one label from 0 to 2 for each of the 2 images"):
        pursuit_radius(pair, x, torch.tensor([-1, 0]))
    with pytest.raises(InputError, match="one label from 0 to 2"):
        lipschitz_radius(pair.feedforward, x, torch.tensor([0, 3]))
    with pytest.raises(InputError, match="for DeepPursuit, not AcceleratedPursuit"):
        lipschitz_radius(Twin(pair, 2, solver=AcceleratedPursuit(sweeps=3)), x, y)
    cut = Pair(build_frame((1, 5, 5), [{"filters": 2, "kernel": 3, "padding": 1}]), classes=3, sweeps=2)
    with pytest.raises(InputError, match="atoms of unit norm, also at the borders"):
        sulam_radius(cut, torch.rand(2, 1, 5, 5), y)
    large = Pair(build_frame((1, 28, 28), [{"filters": 16, "kernel": 3, "padding": 1}]), classes=3, sweeps=2)
    with pytest.raises(InputError, match="12544 atoms is too large to write out"):
        pursuit_radius(large, torch.rand(2, 1, 28, 28), y)
