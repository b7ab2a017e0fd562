"""The solvers: what one sweep is, how a solve ends, and that batch mates do not matter."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame, build_frame
from robustframe.solvers import (
    ADMM,
    AcceleratedPursuit,
    DeepPursuit,
    LayeredPursuit,
    MultilayerPursuit,
    NonnegativeL1,
    Penalty,
    SignedL1,
    Solver,
    check_step_sizes,
    iterate,
    optimality,
    penalised_objective,
    smooth_gradient,
    solve,
)
from robustframe.types import Status

CONV = {"filters": 4, "kernel": 3, "padding": 1}
FRAMES = {
    "chain": ((12,), [{"atoms": 16}, {"atoms": 10}, {"atoms": 8}], "chain"),
    "conv": ((1, 6, 6), [{"filters": 6, "kernel": 3, "stride": 2, "padding": 1}, {"atoms": 9}], "chain"),
    "residual": ((2, 6, 6), [CONV, CONV, CONV], "residual"),
    "dense": ((2, 6, 6), [CONV, CONV, CONV], "dense"),
}
PENALTIES = {"nonnegative": NonnegativeL1(), "signed": SignedL1()}
ANYWHERE = {
    "deep": lambda **kw: DeepPursuit(**kw),
    "accelerated": lambda **kw: AcceleratedPursuit(**kw),
    "plain": lambda **kw: AcceleratedPursuit(momentum=False, **kw),
    "admm": lambda **kw: ADMM(**kw),
}
CHAINS = {
    "layered": lambda **kw: LayeredPursuit(**kw),
    "layered fista": lambda **kw: LayeredPursuit(accelerated=True, **kw),
    "ml-ista": lambda **kw: MultilayerPursuit(**kw),
    "ml-fista": lambda **kw: MultilayerPursuit(accelerated=True, **kw),
}
SOLVERS = ANYWHERE | CHAINS
CASES = [(name, kind) for kind in FRAMES for name in (ANYWHERE if kind in ("residual", "dense") else SOLVERS)]


def frame_of(kind: str, *, threshold: float = 0.002, seed: int = 0) -> Frame:
    torch.manual_seed(seed)
    frame = build_frame(*FRAMES[kind]).double()
    for layer in frame.blocks:
        layer.threshold.data.uniform_(0.5 * threshold, 1.5 * threshold)
    return frame


def images_of(frame: Frame, rows: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(rows, *frame.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(frame: Frame, x: Tensor, signed: bool) -> list[Tensor]:
    """The feed-forward network with these parameters, written as anybody would without a frame."""
    w = [x]
    for layer in frame.blocks:
        signal = torch.cat([w[k] for k in layer.sources], 1)
        if len(layer.operator.code_shape) == 1:
            u = F.linear(signal.flatten(1), layer.operator.weight)
        else:
            u = F.conv2d(signal, layer.operator.weight, stride=layer.operator.stride, padding=layer.operator.padding)
        if layer.skip is not None:
            u = u + (w[layer.skip] if w[layer.skip].shape == u.shape else layer.shortcut.apply(w[layer.skip]))
        u, b = layer.step_size * u, layer.step_size * layer.threshold
        w.append(u.sign() * (u.abs() - b).clamp_min(0) if signed else (u - b).clamp_min(0))
    return w[1:]


@pytest.mark.parametrize(
    ("name", "kind", "penalty"),
    [(*case, penalty) for case in CASES for penalty in PENALTIES if case[0] != "deep" or penalty == "nonnegative"],
)
def test_one_sweep_is_the_feedforward_network(name: str, kind: str, penalty: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    settings = {} if name == "deep" else {"penalty": PENALTIES[penalty]}
    solution = solve(SOLVERS[name](sweeps=1, **settings), frame, x)
    for code, expected in zip(solution.codes, network(frame, x, penalty == "signed"), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(code, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", FRAMES)
def test_plain_sweeps_of_accelerated_pursuit_are_those_of_deep_pursuit(kind: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    ours = solve(AcceleratedPursuit(sweeps=7, momentum=False), frame, x)
    for code, expected in zip(ours.codes, solve(DeepPursuit(sweeps=7), frame, x).codes):
        torch.testing.assert_close(code, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_answer_does_not_depend_on_the_batch(name: str, kind: str) -> None:
    frame = frame_of(kind)
    # Examples of very different sizes stop after different numbers of sweeps.
    x = images_of(frame) * torch.tensor([1.0, 0.01, 30.0, 0.3]).view(-1, *[1] * len(frame.in_shape))
    solver = SOLVERS[name](sweeps=60, tolerance=1e-3)
    with torch.no_grad():
        together = solve(solver, frame, x)
        assert len(set(together.sweeps.tolist())) > 1
        for row in range(len(x)):
            alone = solve(solver, frame, x[row : row + 1])
            assert alone.sweeps.item() == together.sweeps[row].item()
            assert alone.status[0] == together.status[row]
            for one, many in zip(alone.codes, together.codes):
                torch.testing.assert_close(one[0], many[row], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_how_a_solve_ended_is_a_status_of_each_example(name: str, kind: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    x[1] = torch.nan
    with torch.no_grad():
        fixed = solve(SOLVERS[name](sweeps=3), frame, x)
        short = solve(SOLVERS[name](sweeps=3, tolerance=1e-9), frame, x)
        full = solve(SOLVERS[name](sweeps=4000, tolerance=1e-5), frame, x[[0, 2]])
    assert fixed.status == [Status.SWEEPS_DONE, Status.NOT_FINITE, Status.SWEEPS_DONE, Status.SWEEPS_DONE]
    assert short.status == [Status.NOT_CONVERGED, Status.NOT_FINITE, Status.NOT_CONVERGED, Status.NOT_CONVERGED]
    assert (short.residual > 1e-9).all()
    assert full.status == [Status.CONVERGED] * 2
    assert (full.residual <= 1e-5).all()
    assert (full.sweeps < 4000).all()


@pytest.mark.parametrize("name", ["layered", "layered fista", "ml-ista", "ml-fista"])
@pytest.mark.parametrize("kind", ["residual", "dense"])
def test_solvers_for_chains_refuse_skips(name: str, kind: str) -> None:
    frame = frame_of(kind)
    with pytest.raises(InputError, match=f"defined for chains only, not for a {kind} frame"):
        solve(SOLVERS[name](sweeps=2), frame, images_of(frame))


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "deep"])
@pytest.mark.parametrize("size", [0.0, -1.0, 2.0, float("nan")])
def test_a_step_that_does_not_converge_is_refused(name: str, size: float) -> None:
    with pytest.raises(InputError, match="above 0 and below 2"):
        SOLVERS[name](sweeps=2, step_size=size)


@pytest.mark.parametrize("name", ["accelerated", "admm", "layered fista", "ml-fista"])
def test_accelerated_steps_longer_than_one_over_the_constant_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="at most 1"):
        SOLVERS[name](sweeps=2, step_size=1.5)


def test_other_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 sweep, not 0"):
        ADMM(sweeps=0)
    with pytest.raises(InputError, match="tolerance must be above 0"):
        LayeredPursuit(sweeps=1, tolerance=0.0)
    with pytest.raises(InputError, match=r"rho above 0, not -1\.0"):
        ADMM(sweeps=1, rho=-1.0)
    frame = frame_of("chain")
    with pytest.raises(InputError, match=r"inputs of shape \(3,\) given to a frame for \(12,\)"):
        solve(ADMM(sweeps=1), frame, torch.zeros(2, 3, dtype=torch.float64))


def test_step_sizes_of_a_frame_are_checked_in_a_sentence() -> None:
    frame = frame_of("residual")
    check_step_sizes(frame)
    frame.blocks[1].step_size.mul_(2.1)
    with pytest.raises(InputError, match=r"layer 2 has step size .* call update_step_sizes_\(\)"):
        check_step_sizes(frame)


def test_layered_pursuit_solves_each_layer_with_the_one_below_fixed() -> None:
    frame = frame_of("chain")
    x = images_of(frame)
    with torch.no_grad():
        solution = solve(LayeredPursuit(sweeps=5000, tolerance=1e-12), frame, x)
        fast = solve(LayeredPursuit(sweeps=5000, tolerance=1e-12, accelerated=True), frame, x)
        below = x
        for layer, code, other in zip(frame.blocks, solution.codes, fast.codes):
            slope = layer.operator.analysis(layer.operator.synthesis(code) - below) + layer.threshold
            assert (slope[code > 0].abs() < 1e-9).all()
            assert (slope[code == 0] > -1e-9).all()
            torch.testing.assert_close(code, other, atol=1e-8, rtol=0)
            below = code


def test_layered_pursuit_yields_the_layers_begun_so_far() -> None:
    frame = frame_of("chain")
    x = images_of(frame)
    codes = list(iterate(LayeredPursuit(sweeps=3), frame, x))
    assert [len(c) for c in codes] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for one, other in zip(codes[-1], solve(LayeredPursuit(sweeps=3), frame, x).codes, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("accelerated", [False, True])
def test_multilayer_pursuit_is_the_published_iteration(accelerated: bool) -> None:
    """Algorithms 2 and 3 of Sulam et al. in matrices, for three dense layers."""
    frame = frame_of("chain")
    x = images_of(frame)
    d1, d2, d3 = (layer.operator.weight.T for layer in frame.blocks)
    sizes = [float(layer.step_size) for layer in frame.blocks]
    b = [layer.threshold for layer in frame.blocks]

    def up(g0: Tensor, start: list[Tensor]) -> list[Tensor]:
        codes, below = [], g0
        for d, g, size, threshold in zip((d1, d2, d3), start, sizes, b):
            below = (g - size * (g @ d.T - below) @ d - size * threshold).clamp_min(0)
            codes.append(below)
        return codes

    g = up(x, [x.new_zeros(4, n) for n in (16, 10, 8)])
    z, t = g[2], 1.0
    for _ in range(4):
        previous = g[2]
        g = up(x, [z @ d3.T @ d2.T, z @ d3.T, z])
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z = g[2] + (t - 1) / t_new * (g[2] - previous) if accelerated else g[2]
        t = t_new
    solution = solve(MultilayerPursuit(sweeps=5, accelerated=accelerated), frame, x)
    for code, expected in zip(solution.codes, g, strict=True):
        torch.testing.assert_close(code, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", FRAMES)
def test_acceleration_reaches_the_same_solution_in_fewer_sweeps(kind: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    with torch.no_grad():
        plain = solve(AcceleratedPursuit(sweeps=5000, tolerance=1e-9, momentum=False), frame, x)
        fast = solve(AcceleratedPursuit(sweeps=5000, tolerance=1e-9), frame, x)
        assert (fast.sweeps < plain.sweeps).all()
        assert (optimality(frame, x, fast.codes) < 1e-7).all()


@pytest.mark.parametrize("kind", FRAMES)
def test_the_smooth_gradient_is_that_of_the_misfit(kind: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    codes = [torch.randn(4, *shape, dtype=torch.float64).requires_grad_() for shape in frame.code_shapes]
    value = penalised_objective(frame, x, codes, SignedL1())
    penalty = sum((layer.threshold * code.abs()).sum() for layer, code in zip(frame.blocks, codes))
    expected = torch.autograd.grad(value.sum() - penalty, codes)
    for one, other in zip(smooth_gradient(frame, x, codes), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_a_prox_minimises_and_violations_vanish_there_only(penalty: Penalty) -> None:
    point, shift = torch.linspace(-2, 2, 41, dtype=torch.float64), torch.tensor(0.55, dtype=torch.float64)
    found = penalty.prox(point, shift)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64).unsqueeze(1)
    cost = 0.5 * (grid - point) ** 2 + torch.stack([penalty.value(g.view(1, 1), shift) for g in grid])
    torch.testing.assert_close(found, grid[cost.argmin(0)].squeeze(1), atol=1.1e-3, rtol=0)
    assert (penalty.violation(found, found - point, shift) < 1e-12).all()
    away = found + 0.1
    assert (penalty.violation(away, away - point, shift) > 0.05).all()


def test_a_nonnegative_penalty_forbids_negative_codes() -> None:
    code, threshold = torch.tensor([[0.5, 1.0], [-0.5, 1.0]]), torch.tensor([0.1, 0.2])
    torch.testing.assert_close(NonnegativeL1().value(code, threshold), torch.tensor([0.25, torch.inf]))
    torch.testing.assert_close(SignedL1().value(code, threshold), torch.tensor([0.25, 0.25]))


def test_a_solver_without_a_fixed_point_map_says_so() -> None:
    class Bare(Solver[tuple[Tensor, ...]]):
        def init(self, frame: Frame, x: Tensor) -> tuple[Tensor, ...]:
            return (x,)

        def step(self, frame: Frame, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return state

        def codes(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return state

    with pytest.raises(InputError, match="Bare cannot be differentiated at its solution"):
        Bare(sweeps=1).refine(frame_of("chain"), torch.zeros(1, 12), ())
