"""Deep pursuit: block coordinate proximal descent over the layers."""

from dataclasses import dataclass

from torch import Tensor

from robustframe.frames import ChainFrame
from robustframe.solvers.loop import Solver
from robustframe.types import Images


@dataclass(frozen=True)
class _Sweep:
    step_sizes: tuple[float, ...]
    codes: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeepPursuit(Solver[_Sweep]):
    """Ascending Gauss-Seidel sweeps of proximal gradient steps, each layer with step size 1 / L_j.

    Layer j sees the new code below it and the old code above it. The first sweep starts from zero, where the
    feedback from above vanishes, and so is the feed-forward network with the same parameters.

    Source: Cazenavette, Murdock and Lucey, 2021, arXiv:2011.14427; the gradient of a block is
    ``B_j^T (B_j w_j - w_{j-1}) + (w_j - B_{j+1} w_{j+1})``. Departs from them in fixed step sizes and no extrapolation.
    """

    def init(self, frame: ChainFrame, x: Images) -> _Sweep:
        return _Sweep(tuple(float(layer.step_size) for layer in frame.blocks))

    def step(self, frame: ChainFrame, x: Images, state: _Sweep) -> _Sweep:
        layers = frame.blocks
        # Layer j's own reconstruction is also what layer j - 1 is pulled towards: one synthesis serves both.
        made = [layer.operator.synthesis(code) for layer, code in zip(layers, state.codes)]
        codes: list[Tensor] = []
        below = x
        for number, (layer, size) in enumerate(zip(layers, state.step_sizes)):
            residual = below - made[number] if made else below
            bias = -size * layer.threshold.flatten()
            moved = layer.operator.analysis(residual, scale=size, bias=bias)
            if made:
                inner = number + 1 < len(layers)
                moved = moved.add_(state.codes[number], alpha=1 - size if inner else 1.0)
                if inner:
                    moved = moved.add_(made[number + 1], alpha=size)
            below = moved.relu_()
            codes.append(below)
        return _Sweep(state.step_sizes, tuple(codes))

    def codes(self, state: _Sweep) -> tuple[Tensor, ...]:
        return state.codes
