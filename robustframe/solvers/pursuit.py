"""Deep pursuit: block coordinate proximal descent over the layers of any frame."""

from dataclasses import dataclass

from torch import Tensor

from robustframe.frames.branched import BranchedFrame
from robustframe.frames.frame import Frame, Layer
from robustframe.solvers.loop import Solver
from robustframe.solvers.proximal import Size, stored_sizes
from robustframe.types import Images


@dataclass(frozen=True)
class _Sweep:
    step_sizes: tuple[Size, ...]
    codes: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeepPursuit(Solver[_Sweep]):
    """Ascending Gauss-Seidel sweeps of proximal gradient steps, each layer with step size 1 / L_j.

    Layer j sees the new codes below it and the old codes above it. The first sweep starts from zero, where the
    feedback from above vanishes, and so is the feed-forward network with the same parameters.

    Source: Cazenavette, Murdock and Lucey, 2021, arXiv:2011.14427; the gradient of block j is
    ``D_j^T (D_j w_j - t_j)`` plus, for each row above that reads code j, that row's residual; in a chain
    ``B_j^T (B_j w_j - w_{j-1}) + (w_j - B_{j+1} w_{j+1})``. Departs from them in fixed step sizes and no extrapolation
    (`AcceleratedPursuit` has one).
    """

    def init(self, frame: Frame, x: Images) -> _Sweep:
        return _Sweep(stored_sizes(frame))

    def step(self, frame: Frame, x: Images, state: _Sweep) -> _Sweep:
        if isinstance(frame, BranchedFrame):
            return _Sweep(state.step_sizes, frame.sweep(x, state.codes, state.step_sizes))
        layers, w = frame.blocks, [x]
        # Row j's own reconstruction is also what the codes it reads are pulled towards: one synthesis serves all.
        made = [layer.operator.synthesis(code) for layer, code in zip(layers, state.codes)]
        for j, (layer, size) in enumerate(zip(layers, state.step_sizes), start=1):
            target = frame.target(j, w)
            bias = -size * layer.threshold.flatten()
            if made:
                # Nothing above reads this synthesis any more, so its memory takes minus the residual.
                moved = layer.operator.analysis(made[j - 1].sub_(target[0]), scale=-size, bias=bias)
            else:
                moved = layer.operator.analysis(target[0], scale=size, bias=bias)
            if len(target) == 2:
                moved = _add(moved, target[1], size)
            if made:
                moved = _stay(frame, j, moved, size, state.codes, made)
            w.append(moved.relu_())
        return _Sweep(state.step_sizes, tuple(w[1:]))

    def codes(self, state: _Sweep) -> tuple[Tensor, ...]:
        return state.codes

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.step(frame, x, _Sweep(self.init(frame, x).step_sizes, codes)).codes


def _stay(frame: Frame, j: int, moved: Tensor, size: Size, codes: tuple[Tensor, ...], made: list[Tensor]) -> Tensor:
    """Add the old code, and the part of the step that pulls it towards what the rows above reconstruct; in place."""
    code, pull = codes[j - 1], frame.pull(j)
    # All identities of the block's Hessian act on the old code at once.
    moved = _add(moved, code, 1 - size * pull if pull else 1.0)
    for row, first in frame.signal_readers(j):
        moved = _add(moved, _channels(made[row - 1], first, code.shape[1]), size)
    for row in frame.skip_readers(j):
        moved = _add(moved, _skipped(frame.blocks[row - 1], code, codes[row - 1]), size)
    return moved


def _add(moved: Tensor, other: Tensor, factor: Size) -> Tensor:
    """Add a multiple of another tensor, in place."""
    return moved.addcmul_(other, factor) if isinstance(factor, Tensor) else moved.add_(other, alpha=factor)


def _channels(signal: Tensor, first: int, count: int) -> Tensor:
    return signal if signal.shape[1] == count else signal.narrow(1, first, count)


def _skipped(reader: Layer, code: Tensor, above: Tensor) -> Tensor:
    """What a row with a skip pulls a code towards: its own code, and where the skip does not look the code itself."""
    shortcut = reader.shortcut
    if shortcut is None or shortcut.is_identity:
        return above
    return shortcut.replace(code, above)
