"""For any small frame: plain descent never raises the objective, and where it stops nothing can be gained."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustframe.frames import Frame, build_frame, objective
from robustframe.solvers import (
    ADMM,
    AcceleratedPursuit,
    DeepPursuit,
    NonnegativeL1,
    SignedL1,
    iterate,
    optimality,
    penalised_objective,
    solve,
)


@dataclass(frozen=True)
class Problem:
    """A random frame of one to three layers of any structure, and two inputs; built outside of hypothesis."""

    shape: tuple[int, ...]
    layers: list[dict[str, int]]
    structure: str
    threshold: float
    scale: float
    seed: int

    def build(self) -> tuple[Frame, Tensor]:
        torch.manual_seed(self.seed)
        frame = build_frame(self.shape, self.layers, self.structure).double()
        for block in frame.blocks:
            block.threshold.data.uniform_(0, self.threshold)
        return frame, torch.randn(2, *self.shape, dtype=torch.float64) * self.scale


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    structure = draw(st.sampled_from(["chain", "residual", "dense"]))
    seed = draw(st.integers(0, 10_000))
    depth = draw(st.integers(1, 3)) if structure == "chain" else 3
    width = draw(st.integers(2, 7))
    if draw(st.booleans()):
        layer = {"filters": draw(st.integers(1, 3)), "kernel": draw(st.sampled_from([1, 3])), "stride": 1}
        layer["padding"] = layer["kernel"] // 2
        shape, layers = (2, 4, 3), [layer] * depth
    else:
        atoms = [width] * depth if structure != "chain" else draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
        shape, layers = (draw(st.integers(1, 8)),), [{"atoms": n} for n in atoms]
    threshold, scale = draw(st.sampled_from([0.0, 0.05, 0.5])), draw(st.sampled_from([0.1, 1.0, 20.0]))
    return Problem(shape, layers, structure, threshold, scale, seed)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(problem=problems(), step_size=st.sampled_from([0.3, 1.0, 1.9]), signed=st.booleans())
def test_plain_sweeps_never_raise_the_objective(problem: Problem, step_size: float, signed: bool) -> None:
    frame, x = problem.build()
    penalty = SignedL1() if signed else NonnegativeL1()
    solver = AcceleratedPursuit(sweeps=12, momentum=False, step_size=step_size, penalty=penalty)
    with torch.no_grad():
        values = [x.flatten(1).square().sum(1) / 2]
        values += [penalised_objective(frame, x, codes, penalty) for codes in iterate(solver, frame, x)]
    for before, after in itertools.pairwise(values):
        # Step sizes come from power iteration, so 1.9 may be a little more than 1.9 / L; and sums are rounded.
        assert (after <= before * (1 + 1e-12) + 1e-14).all()
    assert (values[-1] <= values[0]).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(problem=problems())
def test_deep_pursuit_never_raises_the_objective(problem: Problem) -> None:
    frame, x = problem.build()
    with torch.no_grad():
        values = [objective(frame, x, codes) for codes in iterate(DeepPursuit(sweeps=12), frame, x)]
    for before, after in itertools.pairwise(values):
        assert (after <= before * (1 + 1e-12) + 1e-14).all()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(problem=problems(), signed=st.booleans())
def test_no_feasible_direction_gains_where_a_solver_stops(problem: Problem, signed: bool) -> None:
    frame, x = problem.build()
    penalty = SignedL1() if signed else NonnegativeL1()
    with torch.no_grad():
        for solver in (
            AcceleratedPursuit(sweeps=500, tolerance=1e-10, penalty=penalty),
            ADMM(sweeps=3, penalty=penalty),
        ):
            solution = solve(solver, frame, x)
            stuck = optimality(frame, x, solution.codes, penalty)
            value = penalised_objective(frame, x, solution.codes, penalty)
            scale = float(x.abs().max())
            if isinstance(solver, ADMM):
                best = value
                continue
            done = torch.tensor([status == "converged" for status in solution.status])
            assert (stuck[done] <= 1e-7 * max(1.0, scale)).all()
            for seed in range(5):
                generator = torch.Generator().manual_seed(seed)
                moved = [
                    code + 1e-3 * scale * torch.randn(code.shape, dtype=code.dtype, generator=generator)
                    for code in solution.codes
                ]
                moved = moved if signed else [code.clamp_min(0) for code in moved]
                other = penalised_objective(frame, x, moved, penalty)
                assert (other[done] >= value[done] - 1e-9 * max(1.0, scale**2)).all()
            first = value
    # And no other algorithm is below it, however early it stopped.
    assert (best[done] >= first[done] - 1e-9 * max(1.0, scale**2)).all()


@pytest.mark.parametrize("step_size", [2.2, 3.0])
def test_longer_steps_than_allowed_do_raise_the_objective(step_size: float) -> None:
    """The check above can fail: beyond 2 / L the objective goes up."""
    torch.manual_seed(0)
    frame = build_frame((6,), [{"atoms": 5}, {"atoms": 4}]).double()
    for layer in frame.blocks:
        layer.step_size.mul_(step_size)
    x = torch.rand(2, 6, dtype=torch.float64)
    solver = AcceleratedPursuit(sweeps=60, momentum=False, penalty=SignedL1())
    with torch.no_grad():
        values = [penalised_objective(frame, x, codes, SignedL1()) for codes in iterate(solver, frame, x)]
    assert any((after > before).any() for before, after in itertools.pairwise(values))
