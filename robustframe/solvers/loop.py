"""The one loop that every solver runs in: iteration limit, stopping rule, status of each example."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import ChainFrame
from robustframe.types import Images, PerExample, Status

State = TypeVar("State")


@dataclass(frozen=True)
class Solution:
    """What a solver found, example by example, and how well."""

    codes: tuple[Tensor, ...]
    """The codes of every layer, each of shape (b, *code_shape)."""
    sweeps: Tensor
    """Sweeps made for each example."""
    residual: PerExample
    """Largest relative change of a layer's code in the last sweep; infinite after a first sweep."""
    tolerance: float | None

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
    def init(self, frame: ChainFrame, x: Images) -> State:
        """Return the state before the first sweep."""

    @abstractmethod
    def step(self, frame: ChainFrame, x: Images, state: State) -> State:
        """Make one sweep."""

    @abstractmethod
    def codes(self, state: State) -> tuple[Tensor, ...]:
        """Return the codes of a state after at least one sweep."""


def iterate(solver: Solver[Any], frame: ChainFrame, x: Images) -> Iterator[tuple[Tensor, ...]]:
    """Yield the codes after each sweep, without a stopping rule.

    Args:
        solver: the algorithm; its ``sweeps`` are made.
        frame: the frame to solve in.
        x: inputs, shape (b, *in_shape).
    """
    state = solver.init(frame, x)
    for _ in range(solver.sweeps):
        state = solver.step(frame, x, state)
        yield solver.codes(state)


def solve(solver: Solver[Any], frame: ChainFrame, x: Images) -> Solution:
    """Solve for the codes of each input; an example's answer does not depend on the others in its batch.

    Args:
        solver: the algorithm, its number of sweeps and its tolerance.
        frame: the frame to solve in.
        x: inputs, shape (b, *in_shape).

    Returns:
        The codes, and how each example ended; not reaching the tolerance is a status, not an error.

    Raises:
        InputError: when the inputs do not have the frame's shape.
    """
    if tuple(x.shape[1:]) != frame.in_shape:
        raise InputError(f"inputs of shape {tuple(x.shape[1:])} given to a frame for {frame.in_shape}")
    codes: tuple[Tensor, ...] = ()
    residual = x.new_full((len(x),), torch.inf)
    sweeps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for new in iterate(solver, frame, x):
        previous, codes = (
            codes,
            new if not codes else tuple(_keep(done, old, now) for old, now in zip(codes, new)),
        )
        sweeps += ~done
        if previous:
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
