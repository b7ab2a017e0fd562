"""Frames whose rows have branches: what an ordinary network, with its skips and concatenations, is one sweep of."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.branches import Branch, Branches, BranchSpec, Shape3, as_image
from robustframe.frames.frame import Blocks, Frame, Layer
from robustframe.frames.operators import lanczos_squared_norm
from robustframe.frames.structure import Row, Structure

Size = float | Tensor


class BranchedFrame(Frame):
    """A frame whose rows each have one branch or more, with codes at the size of a network's activations.

    With a_j the network's activations the frame's codes are w_j = m_j a_j, m_j > 0. Row j has a part for each branch,
    which reconstructs the code that the branch reads: ``1/2 ||w_k - D_jb w_j||^2``. Since m_j falls along a deep
    network to less than what numbers can hold, sweeps use only its ratios (`Branch.ratio`), and work on the a_j.

    Args:
        in_shape: shape of one input.
        code_shapes: shape of each layer's code.
        rows: the branches of each layer.
        opaque: shapes of what is no frame and yet read, by its number below 0.
        per_pixel: of each layer whether its thresholds differ from pixel to pixel, and not only by channel.

    Raises:
        InputError: where shapes do not fit.
    """

    log_scales: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        code_shapes: Sequence[Sequence[int]],
        rows: Sequence[Sequence[BranchSpec]],
        opaque: Mapping[int, Shape3] | None = None,
        *,
        per_pixel: Sequence[bool] = (),
    ) -> None:
        nn.Module.__init__(self)
        # Not that of `Frame`, whose rows have one operator each.
        self._in_shape = tuple(in_shape)
        self._chosen: dict[tuple[int, int], Tensor] = {}
        shapes = {0: _image(self._in_shape), **(opaque or {})}
        self._readers: list[list[tuple[int, int]]] = [[] for _ in range(len(rows) + 1)]
        layers = []
        for j, (given, specs) in enumerate(zip(code_shapes, rows), start=1):
            code_shape = tuple(given)
            shapes[j] = _image(code_shape)
            branches = []
            for b, spec in enumerate(specs):
                if spec.reads >= j or spec.reads not in shapes:
                    raise InputError(f"layer {j} can read the input (0) and layers below it, not {spec.reads}")
                branches.append(Branch(spec, shapes[spec.reads]))
                if branches[-1].out != shapes[j][1:] or spec.end > code_shape[0]:
                    raise InputError(f"layer {j}: a branch does not make codes of shape {code_shape}")
                if spec.reads >= 0:
                    self._readers[spec.reads].append((j, b))
            operator = Branches(branches, code_shape)
            layer = Layer(operator, Row(tuple(dict.fromkeys(spec.reads for spec in specs))))
            if per_pixel and per_pixel[j - 1]:
                layer.threshold = nn.Parameter(torch.zeros(code_shape))
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        # The scales m_0 = 1, m_1, ... of codes, as logarithms: a number may not hold them.
        self.register_buffer("log_scales", torch.zeros(len(layers) + 1))

    @property
    def specs(self) -> list[list[BranchSpec]]:
        """The branches of each layer."""
        return [[part.spec for part in self.branches(j)] for j in range(1, len(self.layers) + 1)]

    def branches(self, j: int) -> list[Branch]:
        """Return the branches of row j (from 1)."""
        return cast(Branches, cast(Layer, self.layers[j - 1]).operator).parts

    def readers(self, k: int) -> list[tuple[int, int]]:
        """Return the branches that read code k, as pairs (row, branch)."""
        return self._readers[k]

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self._in_shape

    @property
    def structure(self) -> Structure:
        return "branched"

    @property
    def selects(self) -> bool:
        """Whether there is max pooling, so that every image has a frame of its own."""
        return any(spec.pick is not None for specs in self.specs for spec in specs)

    @torch.no_grad()
    def select(self, images: Tensor) -> "BranchedFrame":
        if not self.selects:
            return self
        bound = copy.copy(self)
        bound._chosen = {}
        w = [images, *self.sweep(images, (), [layer.step_size for layer in self.blocks])]
        for j in range(1, len(w)):
            for b, part in enumerate(self.branches(j)):
                if part.spec.pick is not None:
                    bound._chosen[j, b] = part.spec.pick.apply(as_image(w[part.spec.reads]))[1]
        return bound

    def part_weights(self, j: int) -> tuple[float, ...]:
        logs = self.log_scales.tolist()
        return tuple(_square(logs[max(part.spec.reads, 0)]) for part in self.branches(j))

    def code_weight(self, j: int) -> float:
        return _square(float(self.log_scales[j]))

    def pull(self, j: int) -> int:
        return len(self._readers[j])

    def target(self, j: int, w: Sequence[Tensor]) -> Blocks:
        return tuple(as_image(w[part.spec.reads]) for part in self.branches(j))

    def reconstruct(self, j: int, code: Tensor) -> Blocks:
        operator = cast(Branches, cast(Layer, self.layers[j - 1]).operator)
        parts = zip(operator.parts, operator.split(code))
        return tuple(part.synthesis(each, self._chosen.get((j, b))) for b, (part, each) in enumerate(parts))

    def correlate(self, j: int, blocks: Blocks) -> Tensor:
        operator = cast(Branches, cast(Layer, self.layers[j - 1]).operator)
        found = [
            part.analysis(each, self._chosen.get((j, b))) for b, (part, each) in enumerate(zip(operator.parts, blocks))
        ]
        return operator.joined(found, len(blocks[0]))

    def feedback(self, k: int, residuals: Sequence[Blocks]) -> Tensor | None:
        parts = [residuals[j - 1][b] for j, b in self._readers[k]]
        if not parts:
            return None
        made = torch.stack(parts).sum(0)
        return made.view(len(made), *(self.code_shapes[k - 1] if k else self._in_shape))

    def _touches(self, row: int, j: int) -> bool:
        return row == j or any(r == row for r, _ in self._readers[j])

    def sweep(self, x: Tensor, codes: tuple[Tensor, ...], sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Make one ascending sweep of proximal gradient steps with ReLUs, each row synthesised once.

        Args:
            x: inputs, shape (b, *in_shape).
            codes: those before it; none for the first.
            sizes: the step size of every layer.
        """
        w = [x]
        made = [self.reconstruct(j, code) for j, code in enumerate(codes, start=1)]
        for j, (layer, size) in enumerate(zip(self.blocks, sizes), start=1):
            target = self.target(j, w)
            if not made:
                w.append(self.correlate(j, target).sub_(layer.threshold).mul_(size).relu_())
                continue
            # What nobody else reads is changed in place: half of a sweep is memory.
            moved = self.correlate(j, tuple(t - part for t, part in zip(target, made[j - 1])))
            code, readers = codes[j - 1], self._readers[j]
            moved.sub_(layer.threshold)
            for row, b in readers:
                moved.add_(made[row - 1][b].view_as(code))
            moved.sub_(code, alpha=len(readers))
            w.append(moved.mul_(size).add_(code).relu_())
        return tuple(w[1:])

    @torch.no_grad()
    def check(self) -> None:
        for j, layer in enumerate(self.blocks, start=1):
            tensors = [part.weight for part in self.branches(j)]
            if not all(bool(each.isfinite().all()) for each in (*tensors, layer.threshold)):
                raise InputError(f"layer {j} has weights or thresholds that are not finite; get or train them again")
            if not all(0 <= float(part.ratio) < math.inf for part in self.branches(j)):
                raise InputError(f"layer {j} has a scale that is no square; get or train it again")

    def norms(self, j: int) -> Tensor:
        """Return the norms of layer j's atoms away from borders by channel, float64; 1 but for atoms of zeros."""
        return cast(Branches, cast(Layer, self.layers[j - 1]).operator).channel_norms()

    def squared_norm(self, j: int, *, steps: int = 24) -> float:
        """Return the largest eigenvalue of D_j^T D_j; an upper bound where the windows of max pooling overlap."""
        return lanczos_squared_norm(cast(Layer, self.layers[j - 1]).operator, steps=steps)

    @torch.no_grad()
    def update_step_sizes_(self, *, steps: int = 200, quick: bool = False) -> None:
        self.check()
        for j, layer in enumerate(self.blocks, start=1):
            norm = self.squared_norm(j, steps=12 if quick else 24)
            layer.step_size.fill_(1 / (norm + self.pull(j)))

    @torch.no_grad()
    def project_(self) -> None:
        for layer in self.blocks:
            layer.operator.normalize_()


def _square(log: float) -> float:
    """Return the square of a scale given as its logarithm, or the largest there is in place of a larger one."""
    return math.exp(min(2 * log, 700.0))


def _image(shape: tuple[int, ...]) -> Shape3:
    if len(shape) not in (1, 3):
        raise InputError(f"codes of shape {shape} are neither images nor vectors")
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)
