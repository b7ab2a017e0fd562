"""How the gradient of a solution is taken: through all sweeps, the last ones, or at the fixed point."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from robustframe.errors import InputError, unknown
from robustframe.frames import Frame
from robustframe.solvers.linear import gmres, neumann
from robustframe.solvers.loop import Adjoint, GradientReport, Solution, Solver, Unrolled, run
from robustframe.types import Images

__all__ = ["Adjoint", "Implicit", "OneStep", "Truncated", "Unrolled"]

Codes = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Truncated(Adjoint):
    """Differentiate through the last sweeps only, the state before them taken as a constant.

    Exact when ``last`` reaches all sweeps; else the error falls like the contraction of a sweep to that power.
    Memory grows with ``last``, not with the sweeps. Of a solver with a tolerance, whose examples end at different
    sweeps, it differentiates ``last`` more sweeps at each example's solution instead.

    Source: Shaban et al., 2019, arXiv:1810.10667.
    """

    last: int
    """Sweeps to differentiate through, at least 1."""

    def __post_init__(self) -> None:
        if self.last < 1:
            raise InputError(f"a truncated adjoint needs at least 1 last sweep, not {self.last}")

    def solve(self, solver: Solver[Any], frame: Frame, x: Images) -> Solution:
        if solver.tolerance is None or not torch.is_grad_enabled():
            return run(solver, frame, x, last=self.last)
        solution = run(solver, frame, x, last=0)
        codes = solution.codes
        for _ in range(self.last):
            codes = solver.refine(frame, x, codes)
        return replace(solution, codes=_attach(lambda slopes: slopes, solution.codes, codes))


@dataclass(frozen=True, kw_only=True)
class OneStep(Truncated):
    """Differentiate through the last sweep only (Bolte et al., 2023, arXiv:2305.13768)."""

    last: int = field(default=1, init=False)


@dataclass(frozen=True, kw_only=True)
class Implicit(Adjoint):
    """Differentiate the fixed point itself, matrix-free, by the implicit function theorem.

    With J the Jacobian of one sweep in the codes, solves (I - J)^T u = g by vector-Jacobian products and hands u to one
    sweep's gradient. Exact where the solver has converged and no code sits on a kink; at an early stop it is the
    gradient of the solution that the solver was heading for, as seen from where it stopped. Memory is that
    of one sweep (and of ``restart`` vectors), however many sweeps were made.

    Source: Bai et al., 2019, arXiv:1909.01377, theorem 1.
    """

    tolerance: float = 1e-6
    """Relative residual of the adjoint equation at which an example stops."""
    steps: int = 200
    """Vector-Jacobian products at most; what is left over is in `Solution.gradient`."""
    method: str = "gmres"
    """``"gmres"``, or ``"neumann"``: the plain series, which needs no further vectors but more products."""
    restart: int = 20
    """Krylov vectors that GMRES keeps."""

    def __post_init__(self) -> None:
        if self.method not in ("gmres", "neumann"):
            raise unknown("method", self.method, ("gmres", "neumann"))
        if not self.tolerance > 0 or self.steps < 1 or self.restart < 1:
            raise InputError("an implicit adjoint needs tolerance > 0, steps >= 1 and restart >= 1")

    def solve(self, solver: Solver[Any], frame: Frame, x: Images) -> Solution:
        solution = run(solver, frame, x, last=0)
        if not torch.is_grad_enabled():
            return solution
        report = GradientReport(tolerance=self.tolerance)
        # One graph of one sweep serves both: its products with the codes solve the equation, those with x use it.
        leaves = tuple(code.detach().requires_grad_() for code in solution.codes)
        around = solver.refine(frame, x, leaves)

        def transposed(slopes: Codes) -> Codes:
            return torch.autograd.grad(around, leaves, slopes, retain_graph=True, materialize_grads=True)

        def adjoint(slopes: Codes) -> Codes:
            return self._solve_adjoint(transposed, slopes, report)

        codes = _attach(adjoint, solution.codes, around)
        return replace(solution, codes=codes, gradient=report)

    def _solve_adjoint(self, transposed: Callable[[Codes], Codes], slopes: Codes, report: GradientReport) -> Codes:
        sizes = [slope[0].numel() for slope in slopes]

        def product(flat: Tensor) -> Tensor:
            parts = [part.view_as(slope) for part, slope in zip(torch.split(flat, sizes, 1), slopes)]
            return _flat(transposed(tuple(parts)))

        right = _flat(slopes)
        if self.method == "neumann":
            found = neumann(product, right, steps=self.steps, tolerance=self.tolerance)
        else:
            found = gmres(product, right, steps=self.steps, tolerance=self.tolerance, restart=self.restart)
        report.residual, report.steps = found.residual, found.steps
        return tuple(part.view_as(slope) for part, slope in zip(torch.split(found.u, sizes, 1), slopes))


def _flat(codes: Codes) -> Tensor:
    return torch.cat([code.flatten(1) for code in codes], 1)


class _Attached(torch.autograd.Function):
    """Codes with the gradient of others: the value of the first half of the tensors, the graph of the second."""

    @staticmethod
    def forward(ctx: Any, adjoint: Callable[[Codes], Codes], *tensors: Tensor) -> Codes:
        ctx.adjoint = adjoint
        return tuple(tensor.clone() for tensor in tensors[: len(tensors) // 2])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *[None] * len(slopes), *ctx.adjoint(slopes))


def _attach(adjoint: Callable[[Codes], Codes], codes: Codes, graph: Codes) -> Codes:
    attached: Codes = _Attached.apply(adjoint, *(code.detach() for code in codes), *graph)
    return attached
