"""Deep pursuit with Nesterov's extrapolation and any penalty."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers.proximal import ProximalSolver, Size, descend, feed_forward
from robustframe.types import Images


@dataclass(frozen=True)
class _Momentum:
    sizes: tuple[Size, ...]
    codes: tuple[Tensor, ...] = ()
    previous: tuple[Tensor, ...] = ()
    age: Tensor | None = None
    """Nesterov's t of each example, shape (b,)."""


@dataclass(frozen=True, kw_only=True)
class AcceleratedPursuit(ProximalSolver[_Momentum]):
    """Deep pursuit whose steps start at extrapolated codes, restarted for each example when momentum points uphill.

    Without momentum it is plain deep pursuit for any penalty, and the objective never rises. With Nesterov's
    sequence it rises now and then, and ends sooner; the restart test is the gradient scheme of O'Donoghue and Candes.

    Source: Cazenavette, Murdock and Lucey, 2021, arXiv:2011.14427 (extrapolated block steps); O'Donoghue and Candes,
    2015, arXiv:1204.3982, section 3.2. Departs from the first in momentum that is Nesterov's, not trained.
    """

    momentum: bool = True
    """Extrapolate with Nesterov's sequence."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum and self.step_size > 1:
            raise InputError(
                f"extrapolated steps converge up to 1 / L_j only: give a step_size of at most 1, not {self.step_size}"
            )

    def init(self, frame: Frame, x: Images) -> _Momentum:
        return _Momentum(self.sizes(frame), age=x.new_ones(len(x)))

    def step(self, frame: Frame, x: Images, state: _Momentum) -> _Momentum:
        sizes, codes, age = state.sizes, state.codes, state.age
        if not codes:
            return _Momentum(sizes, feed_forward(frame, x, self.penalty, sizes), (), age)
        if not self.momentum or age is None:
            return _Momentum(sizes, descend(frame, x, codes, codes, self.penalty, sizes), (), age)
        points = codes
        older = (1 + (1 + 4 * age**2).sqrt()) / 2
        if state.previous:
            push = (age - 1) / older
            points = tuple(code + _rows(push, code) * (code - old) for code, old in zip(codes, state.previous))
        new = descend(frame, x, codes, points, self.penalty, sizes)
        return _Momentum(sizes, new, codes, torch.where(_uphill(points, codes, new), 1.0, older))

    def codes(self, state: _Momentum) -> tuple[Tensor, ...]:
        return state.codes

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return descend(frame, x, codes, codes, self.penalty, self.sizes(frame))


@torch.no_grad()
def _uphill(points: tuple[Tensor, ...], codes: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> Tensor:
    """Whether an example's step, taken from the extrapolated points, went against its momentum."""
    products = [((p - n) * (n - c)).flatten(1).sum(1) for p, c, n in zip(points, codes, new)]
    return torch.stack(products).sum(0) > 0


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
