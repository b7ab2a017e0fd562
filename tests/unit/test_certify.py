"""What certificates rest on: norms from above, constants that nothing exceeds, and the facts of the proofs."""

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
from robustframe.certify.norms import norm_bound, smallest_eigenvalue
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


def test_the_constants_of_a_chain_follow_the_recursion_of_its_sweeps() -> None:
    """In matrices: (1 - S beta_below) d_new = (|1 - s H| + S beta_above) d_old + s_1 beta_1 e_1."""
    frame = frame_of("chain")
    beta, depth = norm_bounds(frame), 3
    size = [float(layer.step_size) for layer in frame.blocks]
    pulls = [1, 1, 0]
    lower, upper = torch.zeros(depth, depth, dtype=torch.float64), torch.zeros(depth, depth, dtype=torch.float64)
    for j, layer in enumerate(frame.blocks):
        eigenvalues = (
            torch.linalg.eigvalsh(layer.operator.weight.detach() @ layer.operator.weight.detach().T) + pulls[j]
        )
        upper[j, j] = (1 - size[j] * eigenvalues).abs().max()
        if j:
            lower[j, j - 1] = size[j] * beta[j]
        if j + 1 < depth:
            upper[j, j + 1] = size[j] * beta[j + 1]
    first = torch.tensor([size[0] * beta[0], 0, 0], dtype=torch.float64)
    d = torch.zeros(depth, dtype=torch.float64)
    for sweeps in range(1, 6):
        d = torch.linalg.solve(torch.eye(depth, dtype=torch.float64) - lower, upper @ d + first)
        torch.testing.assert_close(
            torch.tensor(lipschitz_constants(frame, sweeps), dtype=torch.float64), d, rtol=1e-6, atol=0
        )


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
