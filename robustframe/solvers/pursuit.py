"""Deep pursuit: block coordinate proximal descent over the layers of any frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames.frame import Blocks, Frame, Layer
from robustframe.solvers.loop import Solver
from robustframe.types import Images


@dataclass(frozen=True)
class _Sweep:
    step_sizes: tuple[float, ...]
    codes: tuple[Tensor, ...] = ()
    previous: tuple[Tensor, ...] = ()
    """Codes one sweep earlier, kept for extrapolation only."""
    signals: tuple[Tensor, ...] = ()
    """What those codes synthesise."""


@dataclass(frozen=True, kw_only=True)
class DeepPursuit(Solver[_Sweep]):
    """Ascending Gauss-Seidel sweeps of proximal gradient steps, each layer with step size 1 / L_j.

    Layer j sees the new codes below it and the old codes above it. The first sweep starts from zero, where the
    feedback from above vanishes, and so is the feed-forward network with the same parameters.

    Source: Cazenavette, Murdock and Lucey, 2021, arXiv:2011.14427; the gradient of block j is
    ``D_j^T (D_j w_j - t_j)`` plus, for each row above that reads code j, that row's residual; in a chain
    ``B_j^T (B_j w_j - w_{j-1}) + (w_j - B_{j+1} w_{j+1})``. Departs from them in step sizes that are not trained.
    """

    extrapolation: float = 0.0
    """Momentum in [0, 1): a step starts at w + extrapolation (w - w a sweep before); at 0 the objective never rises."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.extrapolation < 1:
            raise InputError(f"extrapolation must lie in [0, 1), not {self.extrapolation}")

    def init(self, frame: Frame, x: Images) -> _Sweep:
        sizes = torch.stack([layer.step_size for layer in frame.blocks])
        return _Sweep(tuple(sizes.tolist()))

    def step(self, frame: Frame, x: Images, state: _Sweep) -> _Sweep:
        layers, w = frame.blocks, [x]
        # Row j's own reconstruction is also what the codes it reads are pulled towards: one synthesis serves all.
        made = tuple(layer.operator.synthesis(code) for layer, code in zip(layers, state.codes))
        for j, (layer, size) in enumerate(zip(layers, state.step_sizes), start=1):
            target = frame.target(j, w)
            if made:
                w.append(self._update(frame, j, target, made, state).relu_())
            else:
                w.append(_first(layer, target, size).relu_())
        codes = tuple(w[1:])
        if self.extrapolation:
            return _Sweep(state.step_sizes, codes, state.codes, made)
        return _Sweep(state.step_sizes, codes)

    def _update(self, frame: Frame, j: int, target: Blocks, made: tuple[Tensor, ...], state: _Sweep) -> Tensor:
        """The point from which layer j's new code is the nonnegative part: a gradient step less the threshold."""
        layer, size = frame.blocks[j - 1], state.step_sizes[j - 1]
        start, signal = state.codes[j - 1], made[j - 1]
        if state.previous:
            # Synthesis is linear, so the extrapolated point's costs no further one.
            start = start + self.extrapolation * (start - state.previous[j - 1])
            signal = signal + self.extrapolation * (signal - state.signals[j - 1])
        moved = _analyse(layer, target[0] - signal, size)
        # All identities of the block's Hessian act on the old code at once.
        pull = frame.pull(j)
        moved = moved.add_(start, alpha=1 - size * pull if pull else 1.0)
        if len(target) == 2:
            moved = moved.add_(target[1], alpha=size)
        for row, first in frame.signal_readers(j):
            part = made[row - 1]
            if part.shape[1] != start.shape[1]:
                part = part.narrow(1, first, start.shape[1])
            moved = moved.add_(part, alpha=size)
        for row in frame.skip_readers(j):
            moved = moved.add_(_skipped(frame.blocks[row - 1], start, state.codes[row - 1]), alpha=size)
        return moved

    def codes(self, state: _Sweep) -> tuple[Tensor, ...]:
        return state.codes


def _first(layer: Layer, target: Blocks, size: float) -> Tensor:
    moved = _analyse(layer, target[0], size)
    return moved if len(target) == 1 else moved.add_(target[1], alpha=size)


def _analyse(layer: Layer, signal: Tensor, size: float) -> Tensor:
    return layer.operator.analysis(signal, scale=size, bias=-size * layer.threshold.flatten())


def _skipped(reader: Layer, code: Tensor, above: Tensor) -> Tensor:
    """What a row with a skip pulls a code towards: its own code, and where the skip does not look the code itself."""
    shortcut = reader.shortcut
    if shortcut is None or shortcut.is_identity:
        return above
    return code + shortcut.adjoint(above - shortcut.apply(code))
