"""The one loop that every solver runs in: iteration limit, stopping rule, status of each example."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.types import Images, PerExample, Status

State = TypeVar("State")


@dataclass
class GradientReport:
    """How well an adjoint solved for the gradient; filled in by the backward pass, empty before it."""

    residual: Tensor | None = None
    """Relative residual of the adjoint equation, one number per example, shape (b,)."""
    steps: int = 0
    """Vector-Jacobian products that were made."""
    tolerance: float = 0.0

    @property
    def converged(self) -> bool | None:
        """Whether every example's residual reached the tolerance; None before a backward pass."""
        return None if self.residual is None else bool((self.residual <= self.tolerance).all())


@dataclass(frozen=True)
class Solution:
    """What a solver found, example by example, and how well."""

    codes: tuple[Tensor, ...]
    """The codes of every layer, each of shape (b, *code_shape)."""
    sweeps: Tensor
    """Sweeps made for each example; the most in any layer where a solver finishes one layer after the other."""
    residual: PerExample
    """Largest relative change of a layer's code in the last sweep; infinite after a first sweep."""
    tolerance: float | None
    gradient: GradientReport | None = field(default=None, compare=False)
    """Of adjoints that solve an equation in the backward pass: how well they did."""

    @property
    def status(self) -> list[Status]:
        """How the solve of each example ended."""
        finite = torch.stack([code.isfinite().flatten(1).all(1) for code in self.codes]).all(0)
        return [
            Status.NOT_FINITE
            if not ok
            else Status.SWEEPS_DONE
            if self.tolerance is None
            else Status.CONVERGED
            if residual <= self.tolerance
            else Status.NOT_CONVERGED
            for ok, residual in zip(finite.tolist(), self.residual.tolist())
        ]


@dataclass(frozen=True, kw_only=True)
class Solver(ABC, Generic[State]):
    """An algorithm: frozen hyperparameters, and how to begin and to make one sweep."""

    sweeps: int
    """Sweeps over all layers; the first starts from zero and is the feed-forward network."""
    tolerance: float | None = None
    """Stop an example once its residual falls to this; without one every example gets all sweeps."""

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"a solver needs at least 1 sweep, not {self.sweeps}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise InputError(f"a tolerance must be above 0, not {self.tolerance}")

    @abstractmethod
    def init(self, frame: Frame, x: Images) -> State:
        """Return the state before the first sweep."""

    @abstractmethod
    def step(self, frame: Frame, x: Images, state: State) -> State:
        """Make one sweep."""

    @abstractmethod
    def codes(self, state: State) -> tuple[Tensor, ...]:
        """Return the codes of a state after at least one sweep."""

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Make one sweep from given codes, with no memory of earlier ones; solutions are its fixed points.

        Adjoints that differentiate at the solution, rather than through the sweeps, need it.
        """
        raise InputError(f"{type(self).__name__} cannot be differentiated at its solution; use Unrolled()")

    def phases(self, frame: Frame) -> int:
        """Return how many solves follow one another, each with all of the sweeps; one unless a solver says more."""
        return 1

    def begin(self, frame: Frame, x: Images, phase: int, solved: tuple[Tensor, ...]) -> State:
        """Return the state before the first sweep of a phase, given the codes that the phases before it found."""
        return self.init(frame, x)


class Adjoint(ABC):
    """How the gradient of a solution is taken; it never changes the solution itself."""

    @abstractmethod
    def solve(self, solver: Solver[Any], frame: Frame, x: Images) -> Solution:
        """Run the solver so that its codes carry this adjoint's gradient."""


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Differentiate through every sweep: exact for the codes as computed; memory grows with the sweeps."""

    def solve(self, solver: Solver[Any], frame: Frame, x: Images) -> Solution:
        return run(solver, frame, x)


_UNROLLED = Unrolled()


def solve(solver: Solver[Any], frame: Frame, x: Images, adjoint: Adjoint = _UNROLLED) -> Solution:
    """Solve for the codes of each input; an example's answer does not depend on the others in its batch.

    Args:
        solver: the algorithm, its number of sweeps and its tolerance.
        frame: the frame to solve in.
        x: inputs, shape (b, *in_shape).
        adjoint: how gradients are taken; it changes no code.

    Returns:
        The codes, and how each example ended; not reaching the tolerance is a status, not an error.

    Raises:
        InputError: when the inputs do not have the frame's shape, or the solver does not know its structure.
    """
    if tuple(x.shape[1:]) != frame.in_shape:
        raise InputError(f"inputs of shape {tuple(x.shape[1:])} given to a frame for {frame.in_shape}")
    return adjoint.solve(solver, frame.select(x) if solver.sweeps > 1 else frame, x)


def iterate(solver: Solver[Any], frame: Frame, x: Images) -> Iterator[tuple[Tensor, ...]]:
    """Yield the codes after each sweep, without a stopping rule.

    A solver that finishes one layer after the other yields, after each sweep, the codes of the layers begun so far.

    Args:
        solver: the algorithm; its ``sweeps`` are made.
        frame: the frame to solve in.
        x: inputs, shape (b, *in_shape).
    """
    frame = frame.select(x) if solver.sweeps > 1 else frame
    codes: tuple[Tensor, ...] = ()
    for phase in range(solver.phases(frame)):
        state = solver.begin(frame, x, phase, codes)
        for _ in range(solver.sweeps):
            state = solver.step(frame, x, state)
            codes = solver.codes(state)
            yield codes


def run(solver: Solver[Any], frame: Frame, x: Images, *, last: int | None = None) -> Solution:
    """Run a solver to its end; adjoints call this, everyone else `solve`.

    Args:
        solver: the algorithm.
        frame: the frame to solve in.
        x: inputs, shape (b, *in_shape).
        last: record operations for gradients in so many last sweeps (of each phase) only; in all when ``None``.

    Returns:
        The codes and how each example ended.
    """
    found = Solution(
        codes=(),
        sweeps=torch.zeros(len(x), dtype=torch.long, device=x.device),
        residual=x.new_zeros(len(x)),
        tolerance=solver.tolerance,
    )
    for phase in range(solver.phases(frame)):
        part = _run_phase(solver, frame, x, phase, found.codes, last)
        found = Solution(
            codes=part.codes,
            sweeps=torch.maximum(found.sweeps, part.sweeps),
            residual=torch.maximum(found.residual, part.residual),
            tolerance=solver.tolerance,
        )
    return found


def _run_phase(
    solver: Solver[Any],
    frame: Frame,
    x: Images,
    phase: int,
    solved: tuple[Tensor, ...],
    last: int | None,
) -> Solution:
    recording = torch.is_grad_enabled()
    first = 0 if last is None else solver.sweeps - last
    codes: tuple[Tensor, ...] = ()
    residual = x.new_full((len(x),), torch.inf)
    sweeps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with torch.set_grad_enabled(recording and first <= 0):
        state = solver.begin(frame, x, phase, solved)
    for sweep in range(solver.sweeps):
        with torch.set_grad_enabled(recording and sweep >= first):
            state = solver.step(frame, x, state)
            codes, previous = solver.codes(state), codes
            if previous and solver.tolerance is not None:
                codes = tuple(_keep(done, old, now) for old, now in zip(previous, codes))
        sweeps += ~done
        # Without a tolerance nobody looks at the changes on the way.
        if previous and (solver.tolerance is not None or sweep == solver.sweeps - 1):
            residual = torch.where(done, residual, _change(previous, codes))
        if solver.tolerance is not None:
            done = residual <= solver.tolerance
            if done.all():
                break
    return Solution(codes=codes, sweeps=sweeps, residual=residual, tolerance=solver.tolerance)


def _keep(done: Tensor, old: Tensor, new: Tensor) -> Tensor:
    if not done.any():
        return new
    return torch.where(done.view(-1, *[1] * (new.dim() - 1)), old, new)


@torch.no_grad()
def _change(previous: tuple[Tensor, ...], codes: tuple[Tensor, ...]) -> Tensor:
    changes = []
    for old, new in zip(previous, codes):
        size = torch.linalg.vector_norm(new.flatten(1), dim=1)
        step = torch.linalg.vector_norm((new - old).flatten(1), dim=1)
        # A code that stays zero has settled; one that is not finite never has.
        changes.append(torch.where(step == 0, 0.0, step / size.clamp_min(torch.finfo(size.dtype).tiny)))
    return torch.stack(changes).amax(0).nan_to_num(torch.inf)
