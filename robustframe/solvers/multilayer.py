"""ML-ISTA and ML-FISTA: iterations on the deepest code, which makes all the others."""

import math
from dataclasses import dataclass

from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers.proximal import ProximalSolver, Size, feed_forward, require_chain
from robustframe.types import Images


@dataclass(frozen=True)
class _Deepest:
    sizes: tuple[Size, ...]
    codes: tuple[Tensor, ...] = ()
    point: Tensor | None = None
    """The deepest code, extrapolated."""
    age: float = 1.0


@dataclass(frozen=True, kw_only=True)
class MultilayerPursuit(ProximalSolver[_Deepest]):
    """ML-ISTA: synthesise every code from the deepest one, then one proximal step a layer on the way up; chains only.

    It aims at ``min 1/2 ||x - B_1 ... B_l w_l||^2 + sum_j penalty`` with w_{j-1} = B_j w_j, which is not the objective
    of deep pursuit, and approximates its solution: it need not decrease either objective. The first sweep is the
    feed-forward network.

    Source: Sulam, Aberdam, Beck and Elad, 2019, arXiv:1806.00701, algorithms 2 and 3. Departs from their code in step
    sizes of 1 / L_j and thresholds scaled with them, where they train a scale and a bias.
    """

    accelerated: bool = False
    """ML-FISTA: extrapolate the deepest code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accelerated and self.step_size > 1:
            raise InputError(
                f"ML-FISTA takes steps of at most 1 / L_j: give a step_size of at most 1, not {self.step_size}"
            )

    def init(self, frame: Frame, x: Images) -> _Deepest:
        require_chain(self, frame)
        return _Deepest(self.sizes(frame))

    def step(self, frame: Frame, x: Images, state: _Deepest) -> _Deepest:
        if state.point is None:
            codes = feed_forward(frame, x, self.penalty, state.sizes)
            return _Deepest(state.sizes, codes, codes[-1])
        codes = self._sweep(frame, x, state.point, state.sizes)
        age = (1 + math.sqrt(1 + 4 * state.age**2)) / 2
        point = codes[-1]
        if self.accelerated:
            point = point + (state.age - 1) / age * (point - state.codes[-1])
        return _Deepest(state.sizes, codes, point, age)

    def codes(self, state: _Deepest) -> tuple[Tensor, ...]:
        return state.codes

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._sweep(frame, x, codes[-1], self.sizes(frame))

    def _sweep(self, frame: Frame, x: Images, deepest: Tensor, sizes: tuple[Size, ...]) -> tuple[Tensor, ...]:
        layers = frame.blocks
        made = [deepest]
        for layer in reversed(layers):
            made.append(layer.operator.synthesis(made[-1]))
        made.reverse()
        # made[j] is what w_j synthesises to from the deepest code; made[0] is the image.
        codes: list[Tensor] = []
        below = x
        for j, (layer, size) in enumerate(zip(layers, sizes), start=1):
            rest = below - made[j - 1]
            below = self.penalty.prox(made[j] + size * layer.operator.analysis(rest), size * layer.threshold)
            codes.append(below)
        return tuple(codes)
