"""Models that solve, and hide behind how they do it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from exhibits.backward import Borrowed, borrow, fixed
from exhibits.nets import fit, pair, trained
from exhibits.pieces import MASKED, MOVING, WRONG, broken
from robustframe.pairs import Twin
from robustframe.solvers import DeepPursuit, solve

IMPLICIT = "implicit models (Bai et al., 2019, arXiv:1909.01377; attacked by Yang et al., 2022)"
DEEP = "fmnist-chain7-6"


def recurrent() -> nn.Module:
    """The undefended solver."""
    return pair().recurrent


def deep() -> nn.Module:
    """The undefended solver of more layers."""
    return pair(DEEP).recurrent


class BlackBox(Twin):
    """Solves outside of autograd, as implicit models do, and forgets to say how to differentiate."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            solution = solve(self.solver, self.pair.frame, images)
        return self.pair.classify(solution.codes[-1])


@broken(
    about="A solver outside of autograd, without a backward pass.",
    source=IMPLICIT,
    checks=MASKED,
    undefended=recurrent,
    gradient="none",
    cure="fixed.toml",
)
def black_box_solver() -> nn.Module:
    return BlackBox(pair(), pair().sweeps)


@broken(
    about="A solver that stops an image once its codes move by less than a tenth.",
    source="adaptive solvers (Chen et al., 2018, arXiv:1806.07366)",
    checks=("input-dependent-computation", *MASKED),
    undefended=recurrent,
    answers="other",
    gradient="none",
    cure="fixed.toml",
)
def adaptive_solver() -> nn.Module:
    return BlackBox(pair(), 1, solver=DeepPursuit(sweeps=12, tolerance=0.1))


@broken(
    about="A solver stopped on its way to somewhere else: more sweeps would give other answers.",
    source=IMPLICIT,
    checks=("solver-not-converged", *WRONG),
    undefended=deep,
    answers="other",
    gradient="none",
    cure="fixed.toml",
)
def stops_too_early() -> nn.Module:
    return BlackBox(pair(DEEP), 2)


class StopsAnywhere(Twin):
    """Makes a random number of sweeps."""

    def forward(self, images: Tensor) -> Tensor:
        return Twin(self.pair, int(torch.randint(1, 2 * self.pair.sweeps, ())))(images)


@broken(
    about="A solver that makes a random number of sweeps.",
    source="random depth (Huang et al., 2016, arXiv:1603.09382, left on)",
    checks=MOVING,
    undefended=recurrent,
    answers="random",
    gradient="noisy",
    cure="eot.toml",
)
def random_stop() -> nn.Module:
    return StopsAnywhere(pair(), pair().sweeps)


class Watchful(Twin):
    """Solves for the mirrored image while gradients are asked for."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return borrow(super().forward(images), 1e-3 * super().forward(images.flip(-1)))
        return super().forward(images)


@broken(
    about="A solver that differentiates the solution of the mirrored image.",
    source="`for_attack` switches of published test-time defences",
    checks=WRONG,
    undefended=recurrent,
    cure="fixed.toml",
)
def watchful_solver() -> nn.Module:
    return Watchful(pair(), pair().sweeps)


@broken(
    about="A solver that is differentiated through its first sweep alone.",
    source="Jacobian-free backpropagation (Fung et al., 2022, arXiv:2103.12803) gone too far",
    checks=WRONG,
    undefended=recurrent,
)
def first_sweeps_gradient() -> nn.Module:
    return Borrowed(pair().recurrent, pair().feedforward)


@broken(
    about="A solver that is differentiated through a frame with errors of the size of its atoms.",
    source="a wrong adjoint of a linear operator",
    checks=WRONG,
    undefended=recurrent,
)
def wrong_adjoint() -> nn.Module:
    wrong = copy.deepcopy(pair())
    for at, weight in enumerate(wrong.frame.parameters()):
        weight.requires_grad_(False).add_(1.5 * weight.std() * fixed(*weight.shape, seed=at))
    return Borrowed(pair().recurrent, wrong.recurrent)


SIZE, TURNS = 48, 20


class Equilibrium(nn.Module):
    """A layer at its fixed point, z = relu(W z + U x): unrolled, or differentiated by a formula that may be wrong."""

    def __init__(self, way: str = "unrolled") -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(SIZE, SIZE, bias=False), nn.Linear(784, SIZE), nn.Linear(SIZE, 10)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        drive = self.outer(x.flatten(1))
        # Below a spectral norm of one, so that the iteration converges.
        inner = 0.8 * self.inner.weight / torch.linalg.matrix_norm(self.inner.weight, 2)
        if self.way == "unrolled":
            return self.head(settle(drive, inner))
        return self.head(_Settled.apply(drive, inner, self.way))


def settle(drive: Tensor, inner: Tensor) -> Tensor:
    """Iterate to the fixed point."""
    z = torch.zeros_like(drive)
    for _ in range(TURNS):
        z = (z @ inner.T + drive).relu()
    return z


class _Settled(torch.autograd.Function):
    """The fixed point by iteration; its backward pass solves with a matrix of choice."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, inner: Tensor, way: str) -> Tensor:
        z = settle(drive, inner)
        ctx.save_for_backward(z, inner)
        ctx.way = way
        return z

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        z, inner = ctx.saved_tensors
        back = {
            "transposed": -inner.T,
            "foreign": 0.9 * torch.linalg.qr(fixed(SIZE, SIZE).to(inner)).Q,
        }[ctx.way]
        active, sent = (z > 0).to(z), slope
        if ctx.way == "foreign":
            active = torch.ones_like(z)
        for _ in range(TURNS):
            sent = slope + (sent * active) @ back
        return sent * active, None, None


@trained
def equilibrium() -> nn.Module:
    """The honest one."""
    return fit(Equilibrium, epochs=3)


def _wrongly(way: str) -> nn.Module:
    wrong = Equilibrium(way)
    wrong.load_state_dict(equilibrium().state_dict())
    return wrong.eval().requires_grad_(False)


@broken(
    about="An equilibrium whose backward pass solves with the negative transpose of its matrix.",
    source=IMPLICIT,
    checks=WRONG,
    undefended=equilibrium,
)
def transposed_backward() -> nn.Module:
    return _wrongly("transposed")


@broken(
    about="An equilibrium whose backward pass solves with another matrix, and forgets where units are off.",
    source=IMPLICIT,
    checks=WRONG,
    undefended=equilibrium,
)
def foreign_backward() -> nn.Module:
    return _wrongly("foreign")
