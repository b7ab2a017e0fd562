"""Layered basis pursuit: solve one layer to the end, then the next."""

import math
from dataclasses import dataclass

from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers.proximal import ProximalSolver, Size, require_chain
from robustframe.types import Images


@dataclass(frozen=True)
class _Layer:
    size: Size
    below: Tensor
    solved: tuple[Tensor, ...]
    code: Tensor | None = None
    point: Tensor | None = None
    """Where the next step starts: the code, extrapolated."""
    age: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LayeredPursuit(ProximalSolver[_Layer]):
    """Layer by layer min 1/2 ||w_{j-1} - B_j w_j||^2 + penalty by ISTA or FISTA, w_{j-1} fixed; chains only.

    Nothing feeds back from a layer to the one below, so the codes do not minimise the objective of the whole frame.
    ``sweeps`` counts the steps within each layer; with one it is the feed-forward network. Its first sweep over all
    layers is one step in each of them, so `iterate` yields ``sweeps`` times the number of layers.

    Source: Papyan, Romano and Elad, 2017, arXiv:1607.08194, section 5; as iterated by Sulam et al., 2019,
    arXiv:1806.00701. FISTA: Beck and Teboulle, 2009.
    """

    accelerated: bool = False
    """Take FISTA's extrapolated steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accelerated and self.step_size > 1:
            raise InputError(
                f"FISTA converges up to steps of 1 / L_j only: give a step_size of at most 1, not {self.step_size}"
            )

    def phases(self, frame: Frame) -> int:
        return len(frame.blocks)

    def init(self, frame: Frame, x: Images) -> _Layer:
        require_chain(self, frame)
        return _Layer(self.sizes(frame)[0], x, ())

    def begin(self, frame: Frame, x: Images, phase: int, solved: tuple[Tensor, ...]) -> _Layer:
        if phase == 0:
            return self.init(frame, x)
        return _Layer(self.sizes(frame)[phase], solved[-1], solved)

    def step(self, frame: Frame, x: Images, state: _Layer) -> _Layer:
        layer, size = frame.blocks[len(state.solved)], state.size
        shift = size * layer.threshold
        if state.code is None or state.point is None:
            new = self.penalty.prox(size * layer.operator.analysis(state.below), shift)
            return _Layer(size, state.below, state.solved, new, new)
        rest = state.below - layer.operator.synthesis(state.point)
        new = point = self.penalty.prox(state.point + size * layer.operator.analysis(rest), shift)
        age = (1 + math.sqrt(1 + 4 * state.age**2)) / 2
        if self.accelerated:
            point = new + (state.age - 1) / age * (new - state.code)
        return _Layer(size, state.below, state.solved, new, point, age)

    def codes(self, state: _Layer) -> tuple[Tensor, ...]:
        return state.solved if state.code is None else (*state.solved, state.code)

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        new: list[Tensor] = []
        below = x
        for layer, code, size in zip(frame.blocks, codes, self.sizes(frame)):
            rest = below - layer.operator.synthesis(code)
            below = self.penalty.prox(code + size * layer.operator.analysis(rest), size * layer.threshold)
            new.append(below)
        return tuple(new)
