"""Gradients of solutions: exact against finite differences where they claim it, their error measured where not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame, build_frame
from robustframe.solvers import (
    ADMM,
    AcceleratedPursuit,
    Adjoint,
    DeepPursuit,
    Implicit,
    LayeredPursuit,
    MultilayerPursuit,
    OneStep,
    SignedL1,
    Solver,
    Truncated,
    Unrolled,
    solve,
)
from robustframe.solvers.linear import gmres, neumann

FRAMES = {
    "chain": ((10,), [{"atoms": 8}, {"atoms": 6}, {"atoms": 4}], "chain"),
    "residual": ((10,), [{"atoms": 6}, {"atoms": 6}, {"atoms": 6}], "residual"),
    "dense": ((10,), [{"atoms": 5}, {"atoms": 4}, {"atoms": 3}], "dense"),
}
MANY = 2000
SOLVERS = {
    "pursuit": DeepPursuit(sweeps=MANY, tolerance=1e-11),
    "accelerated": AcceleratedPursuit(sweeps=MANY, tolerance=1e-11),
    "signed": AcceleratedPursuit(sweeps=MANY, tolerance=1e-12, penalty=SignedL1()),
    "admm": ADMM(sweeps=MANY, tolerance=1e-11),
    "layered": LayeredPursuit(sweeps=MANY, tolerance=1e-11),
    "ml-ista": MultilayerPursuit(sweeps=MANY, tolerance=1e-11),
}


def frame_of(kind: str) -> Frame:
    torch.manual_seed(3)
    frame = build_frame(*FRAMES[kind]).double()
    for layer in frame.blocks:
        layer.threshold.data.fill_(0.003)
    return frame


def images_of(frame: Frame, rows: int = 3) -> Tensor:
    return torch.rand(rows, *frame.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def readout(codes: tuple[Tensor, ...]) -> Tensor:
    """One number per example that sees every code."""
    return torch.stack([(c.flatten(1) * torch.arange(1.0, 1 + c[0].numel()).cos()).sum(1) for c in codes]).sum(0)


def slope(solver: Solver[Any], frame: Frame, x: Tensor, adjoint: Adjoint) -> Tensor:
    """Gradient of the readout with respect to the images, example by example."""
    x = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(readout(solve(solver, frame, x, adjoint).codes).sum(), x)
    return result


def difference(solver: Solver[Any], frame: Frame, x: Tensor, direction: Tensor, step: float = 1e-6) -> Tensor:
    """Central difference of the readout along a direction."""
    with torch.no_grad():
        ends = [readout(solve(solver, frame, x + sign * step * direction).codes) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def error(found: Tensor, exact: Tensor) -> float:
    """Largest relative error of an example's gradient."""
    norms = torch.linalg.vector_norm((found - exact).flatten(1), dim=1) / torch.linalg.vector_norm(
        exact.flatten(1), dim=1
    )
    return float(norms.max())


CASES = [("chain", name) for name in SOLVERS] + [
    (kind, name) for kind in ("residual", "dense") for name in ("pursuit", "signed", "admm")
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_implicit_gradient_is_that_of_the_converged_solution(kind: str, name: str) -> None:
    frame, solver = frame_of(kind), SOLVERS[name]
    x = images_of(frame)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = difference(solver, frame, x, direction)
    found = (slope(solver, frame, x, Implicit(tolerance=1e-11)) * direction).flatten(1).sum(1)
    assert expected.abs().min() > 1e-4
    # Central differences of a piecewise smooth solution, found to 1e-11 in float64.
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("adjoint", [Unrolled(), Truncated(last=9), Truncated(last=50)])
@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_through_all_sweeps_are_exact_without_convergence(name: str, adjoint: Adjoint) -> None:
    frame = frame_of("chain")
    solver = replace(SOLVERS[name], sweeps=9, tolerance=None)
    x = images_of(frame)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    found = (slope(solver, frame, x, adjoint) * direction).flatten(1).sum(1)
    torch.testing.assert_close(found, difference(solver, frame, x, direction), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("method", ["gmres", "neumann"])
def test_parameters_get_the_implicit_gradient_too(method: str) -> None:
    frame, solver = frame_of("chain"), SOLVERS["accelerated"]
    x = images_of(frame)
    weight, threshold = frame.blocks[0].operator.weight, frame.blocks[1].threshold
    adjoint = Implicit(method=method, tolerance=1e-11, steps=1000)
    found = torch.autograd.grad(readout(solve(solver, frame, x, adjoint).codes).sum(), (weight, threshold))
    for parameter, gradient in zip((weight, threshold), found):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter.add_(sign * 1e-6 * direction)
                values.append(float(readout(solve(solver, frame, x).codes).sum()))
        torch.testing.assert_close(
            float((gradient * direction).sum()), (values[0] - values[1]) / 2e-6, atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize(
    "adjoint", [Truncated(last=3), OneStep(), Implicit()], ids=["truncated", "one step", "implicit"]
)
@pytest.mark.parametrize("tolerance", [None, 1e-4])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_adjoint_changes_a_code(name: str, tolerance: float | None, adjoint: Adjoint) -> None:
    frame = frame_of("chain")
    solver = replace(SOLVERS[name], sweeps=30, tolerance=tolerance)
    x = images_of(frame)
    expected = solve(solver, frame, x)
    found = solve(solver, frame, x.clone().requires_grad_(), adjoint)
    assert found.status == expected.status
    assert torch.equal(found.sweeps, expected.sweeps)
    for code, other in zip(found.codes, expected.codes, strict=True):
        assert torch.equal(code, other)
        assert code.requires_grad


def test_the_error_of_truncation_falls_with_the_sweeps_kept() -> None:
    frame, solver = frame_of("chain"), SOLVERS["pursuit"]
    x = images_of(frame)
    exact = slope(solver, frame, x, Implicit(tolerance=1e-11))
    errors = [error(slope(solver, frame, x, Truncated(last=last)), exact) for last in (1, 5, 20, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6
    fixed = DeepPursuit(sweeps=1000)
    one = error(slope(fixed, frame, x, OneStep()), exact)
    # One step keeps the direct way of the input into the last sweep only; see the figures in `MEASURED`.
    assert one == pytest.approx(error(slope(fixed, frame, x, Truncated(last=1)), exact), rel=1e-9)
    assert [one, *errors[1:3]] == pytest.approx(MEASURED, rel=0.2)


MEASURED = [0.49, 0.078, 0.0056]
"""Relative errors of this chain's gradients through the last 1, 5 and 20 sweeps of plain pursuit, at convergence."""


def test_an_implicit_gradient_before_convergence_has_a_measured_error() -> None:
    frame = frame_of("chain")
    x = images_of(frame)
    errors = []
    for sweeps in (3, 30, 300):
        solver = DeepPursuit(sweeps=sweeps)
        exact = slope(solver, frame, x, Unrolled())
        errors.append(error(slope(solver, frame, x, Implicit(tolerance=1e-10)), exact))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


def test_what_the_implicit_adjoint_reached_is_reported() -> None:
    frame, solver = frame_of("chain"), SOLVERS["accelerated"]
    x = images_of(frame).requires_grad_()
    for adjoint, converged in (
        (Implicit(tolerance=1e-8), True),
        (Implicit(tolerance=1e-8, steps=2, method="neumann"), False),
    ):
        solution = solve(solver, frame, x, adjoint)
        assert solution.gradient is not None
        assert solution.gradient.converged is None
        readout(solution.codes).sum().backward()
        assert solution.gradient.converged is converged
        assert solution.gradient.residual.shape == (len(x),)
        assert bool((solution.gradient.residual <= 1e-8).all()) is converged
        assert solution.gradient.steps >= 2


def test_an_examples_gradient_does_not_depend_on_the_batch() -> None:
    frame, solver = frame_of("chain"), SOLVERS["accelerated"]
    x = images_of(frame) * torch.tensor([[1.0], [0.02], [4.0]])
    for method in ("gmres", "neumann"):
        adjoint = Implicit(method=method, tolerance=1e-3)
        together = slope(solver, frame, x, adjoint)
        for row in range(len(x)):
            alone = slope(solver, frame, x[row : row + 1], adjoint)
            torch.testing.assert_close(alone[0], together[row], atol=1e-12, rtol=1e-9)


def test_a_later_layer_that_no_loss_sees_leaves_the_gradient_finite() -> None:
    frame = frame_of("chain")
    x = images_of(frame).requires_grad_()
    x.data[1] = 0.0
    solution = solve(SOLVERS["pursuit"], frame, x, Implicit())
    solution.codes[0][:2].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[2] == 0).all()
    assert (x.grad[0] != 0).any()


def saved(solver: Solver[Any], frame: Frame, x: Tensor, adjoint: Adjoint) -> int:
    """Numbers that the graph of a solve keeps for the backward pass, parameters left out."""
    kept = {}
    own = {parameter.data_ptr() for parameter in frame.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        solution = solve(solver, frame, x, adjoint)
        assert solution.codes[-1].requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", ["pursuit", "accelerated", "admm", "layered", "ml-ista"])
@pytest.mark.parametrize(
    "adjoint", [Implicit(), Truncated(last=2), OneStep()], ids=["implicit", "truncated", "one step"]
)
def test_memory_does_not_grow_with_the_sweeps(name: str, adjoint: Adjoint) -> None:
    frame = frame_of("chain")
    x = images_of(frame).requires_grad_()
    few, many = (replace(SOLVERS[name], sweeps=sweeps, tolerance=None) for sweeps in (5, 40))
    assert saved(many, frame, x, adjoint) <= 1.1 * saved(few, frame, x, adjoint)
    assert saved(many, frame, x, Unrolled()) > 5 * saved(few, frame, x, Unrolled())
    assert saved(many, frame, x, adjoint) < 0.25 * saved(many, frame, x, Unrolled())


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 last sweep, not 0"):
        Truncated(last=0)
    with pytest.raises(InputError, match="did you mean 'gmres'"):
        Implicit(method="gmre")
    for settings in ({"tolerance": 0.0}, {"steps": 0}, {"restart": 0}):
        with pytest.raises(InputError, match="tolerance > 0, steps >= 1 and restart >= 1"):
            Implicit(**settings)


def test_without_gradients_an_adjoint_costs_nothing() -> None:
    frame = frame_of("chain")
    with torch.no_grad():
        solution = solve(SOLVERS["accelerated"], frame, images_of(frame), Implicit())
    assert solution.gradient is None
    assert not solution.codes[0].requires_grad


def matrices() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    matrix = 0.3 * torch.randn(4, 12, 12, dtype=torch.float64, generator=generator) / 12**0.5
    matrix[1] *= 2
    right = torch.randn(4, 12, dtype=torch.float64, generator=generator)
    right[2] = 0
    return matrix, right


@pytest.mark.parametrize("restart", [3, 12, 50])
def test_linear_solves_agree_with_a_direct_one(restart: int) -> None:
    matrix, right = matrices()
    exact = torch.linalg.solve(torch.eye(12, dtype=torch.float64) - matrix, right)
    found = gmres(lambda u: torch.einsum("bij,bj->bi", matrix, u), right, steps=500, tolerance=1e-12, restart=restart)
    series = neumann(lambda u: torch.einsum("bij,bj->bi", matrix, u), right, steps=500, tolerance=1e-11)
    for result in (found, series):
        torch.testing.assert_close(result.u, exact, atol=1e-10, rtol=0)
        assert (result.residual <= 1e-11).all()
        assert (result.u[2] == 0).all()
    # A symmetric-looking special case: the whole space is exhausted at once.
    nothing = gmres(lambda u: 0.5 * u, right, steps=60, tolerance=1e-12, restart=restart)
    torch.testing.assert_close(nothing.u, 2 * right)


def test_a_linear_solve_that_stops_early_says_so() -> None:
    matrix, right = matrices()
    found = gmres(lambda u: torch.einsum("bij,bj->bi", matrix, u), right, steps=1, tolerance=1e-12, restart=2)
    assert found.steps == 3
    assert (found.residual[[0, 1, 3]] > 1e-11).all()
    left = right - found.u + torch.einsum("bij,bj->bi", matrix, found.u)
    expected = torch.linalg.vector_norm(left, dim=1) / torch.linalg.vector_norm(right, dim=1)
    torch.testing.assert_close(found.residual[[0, 1, 3]], expected[[0, 1, 3]])
