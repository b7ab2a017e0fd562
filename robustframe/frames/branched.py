"""Frames whose rows have branches: what an ordinary network, with its skips and concatenations, is one sweep of."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.frame import Blocks, Frame, Layer
from robustframe.frames.maps import Map, Pick, Sides
from robustframe.frames.operators import Operator, lanczos_squared_norm
from robustframe.frames.structure import Row, Structure

Size = float | Tensor
Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class BranchSpec:
    """The shape of one branch of a row; everything but the numbers of its weights."""

    reads: int
    """The code that it reconstructs: from 1, or 0 for the image, or below 0 for what is no frame."""
    weight: tuple[int, ...]
    """Shape of its filters (filters, channels / groups, kernel y, kernel x)."""
    stride: Sides = (1, 1)
    padding: Sides = (0, 0)
    groups: int = 1
    box: Sides = (1, 1)
    first: int = 0
    """The layer's first code channel that its atoms belong to."""
    group: int = 0
    """Branches with one number are one synthesis, with unit atoms over all of them; others are added beside it."""
    pick: Pick | None = None
    """Max pooling between the code and the filters."""

    @property
    def end(self) -> int:
        """The channel after its last."""
        return self.first + self.weight[0]

    @property
    def is_factor(self) -> bool:
        """Whether it is one number a channel, such as the identity of a skip; as a unit atom it is fixed."""
        return self.groups == self.weight[0] and self.weight[1:] == (1, 1, 1)

    def map(self, weight: Tensor) -> Map:
        """Return the convolution with these weights."""
        return Map(weight, self.stride, self.padding, self.groups, self.box)

    def to_json(self) -> dict[str, Any]:
        """Return what a card stores."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "BranchSpec":
        """Read what a card stores."""
        pick = given.get("pick")
        sides = {key: tuple(given[key]) for key in ("weight", "stride", "padding", "box") if key in given}
        chosen = None
        if pick is not None:
            kernel, stride, padding, dilation = (
                _sides(pick[key]) for key in ("kernel", "stride", "padding", "dilation")
            )
            chosen = Pick(kernel, stride, padding, dilation, bool(pick["ceil"]))
        return cls(**{**given, **sides, "pick": chosen})


def _sides(given: Sequence[int]) -> Sides:
    return int(given[0]), int(given[1])


class Branch(nn.Module):
    """A synthesis from some channels of a layer's code to the code that it reads, and its adjoint.

    ``synthesis`` is ``ratio`` times the adjoint of ``analysis``: codes are kept at the size of the network's
    activations, so that a row counts with the square of the scale of what it reconstructs.

    Args:
        spec: its shape.
        shape: shape of the code that it reads, as an image.
    """

    ratio: Tensor

    def __init__(self, spec: BranchSpec, shape: Shape3) -> None:
        super().__init__()
        self.spec, self.shape = spec, shape
        size = (shape[1], shape[2])
        self.inner: Shape3 = (shape[0], *(size if spec.pick is None else spec.pick.sides(size)))
        kernel = spec.box if spec.box != (1, 1) else (spec.weight[2], spec.weight[3])
        self.leftover = tuple(
            (self.inner[1 + at] + 2 * spec.padding[at] - kernel[at]) % spec.stride[at] for at in (0, 1)
        )
        self.out = tuple(
            (self.inner[1 + at] + 2 * spec.padding[at] - kernel[at]) // spec.stride[at] + 1 for at in (0, 1)
        )
        fits = (
            self.inner[0] == spec.weight[1] * spec.groups and min(self.out) >= 1 and spec.weight[0] % spec.groups == 0
        )
        if not fits:
            raise InputError(f"filters of shape {spec.weight} do not fit codes of shape {shape}")
        self.is_matrix = (
            spec.groups == 1 and kernel == self.inner[1:] and spec.padding == (0, 0) == (0, 0) and spec.box == (1, 1)
        )
        self.weight = nn.Parameter(torch.zeros(spec.weight))
        self.register_buffer("ratio", torch.ones(()))
        self.overlaps = 1
        if spec.pick is not None:
            # How often a pixel may be chosen.
            sides = zip(spec.pick.kernel, spec.pick.stride)
            self.overlaps = math.prod(-(-kernel // stride) for kernel, stride in sides)

    def inside(self, signal: Tensor) -> Tensor:
        """Apply the filters to pooled signals (b, *inner); returns (b, filters, y, x)."""
        spec = self.spec
        if self.is_matrix:
            return F.linear(signal.flatten(1), self.weight.flatten(1))[..., None, None]
        return spec.map(self.weight).apply(signal)

    def outside(self, code: Tensor) -> Tensor:
        """Apply ``ratio`` times the adjoint of `inside` to (b, filters, y, x)."""
        spec = self.spec
        if self.is_matrix:
            made = torch.matmul(code.flatten(1), self.weight.flatten(1)).view(-1, *self.inner)
        elif spec.box != (1, 1):
            made = F.conv_transpose2d(code, self.weight / math.prod(spec.box), groups=spec.groups)
            made = made.repeat_interleave(spec.box[0], 2).repeat_interleave(spec.box[1], 3)
            made = F.pad(made, (0, self.leftover[1], 0, self.leftover[0])) if any(self.leftover) else made
        else:
            made = F.conv_transpose2d(
                code, self.weight, None, spec.stride, spec.padding, self.leftover, spec.groups
            )  # fmt: skip
        return made * self.ratio

    def analysis(self, signal: Tensor, chosen: Tensor | None) -> Tensor:
        """Apply the adjoint of the synthesis, up to ``ratio``.

        Args:
            signal: in the space of the code that is read, shape (b, channels, y, x).
            chosen: which pixels max pooling chose, as `Pick.apply` gives them; where it is missing, chosen here.
        """
        if self.spec.pick is not None:
            signal = self.spec.pick.apply(signal)[0] if chosen is None else _gather(signal, chosen)
        return self.inside(signal)

    def synthesis(self, code: Tensor, chosen: Tensor | None) -> Tensor:
        """Combine atoms with their codes (b, filters, y, x) into what the code that is read should be."""
        made = self.outside(code)
        if self.spec.pick is None:
            return made
        if chosen is None:
            raise InputError("max pooling chooses pixels in the first sweep; solve in frame.select(images)")
        return _scatter(made, chosen, self.shape)


def _gather(signal: Tensor, chosen: Tensor) -> Tensor:
    return signal.flatten(2).gather(2, chosen.flatten(2)).view(chosen.shape)


def _scatter(made: Tensor, chosen: Tensor, shape: Shape3) -> Tensor:
    flat = made.new_zeros(len(made), shape[0], shape[1] * shape[2])
    return flat.scatter_add(2, chosen.flatten(2), made.flatten(2)).view(-1, *shape)


class Branches(Operator):
    """The branches of one layer as one operator: its diagonal block D_j, on the signals of all branches in one row.

    Pixels that max pooling chooses are not its business: signals are those behind the pooling.

    Args:
        branches: the branches.
        code_shape: shape of the layer's code.
    """

    def __init__(self, branches: Sequence[Branch], code_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.code_shape = code_shape
        self.in_shape = (sum(math.prod(part.inner) for part in branches),)

    @property
    def parts(self) -> list[Branch]:
        """The branches in order."""
        return [cast(Branch, each) for each in self.branches]

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]
        """The first branch's weight: where the layer lies, and in which precision."""
        return self.parts[0].weight

    def sides(self, code: Tensor) -> Tensor:
        """Return codes as images."""
        return code if code.dim() == 4 else code[..., None, None]

    def split(self, code: Tensor) -> list[Tensor]:
        """Return the channels of a code that each branch has."""
        image = self.sides(code)
        return [image[:, part.spec.first : part.spec.end] for part in self.parts]

    def joined(self, found: Sequence[Tensor], like: int) -> Tensor:
        """Add up what the branches found, each in its channels; shape (b, *code_shape)."""
        whole = [part.spec.weight[0] == self.code_shape[0] for part in self.parts]
        if all(whole):
            made = torch.stack(list(found)).sum(0) if len(found) > 1 else found[0]
            return made.view(like, *self.code_shape)
        bounds = [(part.spec.first, part.spec.end) for part in self.parts]
        if bounds == _partition(bounds, self.code_shape[0]):
            return torch.cat(list(found), 1).view(like, *self.code_shape)
        made = found[0].new_zeros(like, self.code_shape[0], *found[0].shape[2:])
        for (first, end), each in zip(bounds, found):
            made = torch.cat([made[:, :first], made[:, first:end] + each, made[:, end:]], 1)
        return made.view(like, *self.code_shape)

    def synthesis(self, code: Tensor) -> Tensor:
        made = [part.outside(each) * part.overlaps for part, each in zip(self.parts, self.split(code))]
        return torch.cat([each.flatten(1) for each in made], 1)

    def analysis(self, signal: Tensor, *, scale: float | Tensor = 1.0, bias: Tensor | None = None) -> Tensor:
        sizes = [math.prod(part.inner) for part in self.parts]
        signals = [each.view(-1, *part.inner) for part, each in zip(self.parts, torch.split(signal, sizes, 1))]
        made = self.joined([part.inside(each) for part, each in zip(self.parts, signals)], len(signal)) * scale
        return made if bias is None else made + bias.view(-1, *[1] * (made.dim() - 2))

    def atom_norms(self) -> Tensor:
        """Return the norms of atoms that no border cuts off, shape ``code_shape``."""
        squares = torch.zeros(self.code_shape[0], dtype=torch.float64)
        for part in self.parts:
            squares[part.spec.first : part.spec.end] += _squares(part) * float(part.ratio)
        return squares.sqrt().view(-1, *[1] * (len(self.code_shape) - 1)).expand(self.code_shape)

    def correlations(self) -> Tensor:
        filters = self.code_shape[0]
        middle = [side // 2 for side in self.code_shape[1:]]
        own = torch.zeros(filters, *self.code_shape, dtype=self.parts[0].weight.dtype)
        own = own.to(self.parts[0].weight.device)
        own.view(filters, filters, -1)[torch.arange(filters), torch.arange(filters), _flat(middle, self.code_shape)] = 1
        return (self.analysis(self.synthesis(own)) * (1 - own)).flatten(1)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Scale every atom to unit norm over all branches, in place."""
        squares = torch.zeros(self.code_shape[0], dtype=torch.float64)
        for part in self.parts:
            squares[part.spec.first : part.spec.end] += _squares(part) * float(part.ratio)
        for part in self.parts:
            own = squares[part.spec.first : part.spec.end].clamp_min(torch.finfo(torch.float32).tiny)
            part.weight.mul_(own.rsqrt().to(part.weight).view(-1, 1, 1, 1))


def _flat(at: list[int], code_shape: tuple[int, ...]) -> int:
    """The place of a pixel among all pixels of a channel."""
    return at[0] * code_shape[2] + at[1] if at else 0


def _squares(part: Branch) -> Tensor:
    """Squared norms of the filters as they stand in the signal."""
    squares = part.weight.detach().cpu().double().square().flatten(1).sum(1)
    return squares / math.prod(part.spec.box)


def _partition(bounds: list[tuple[int, int]], channels: int) -> list[tuple[int, int]]:
    """The bounds, if in this order they are all channels one after the other; else nothing."""
    at = 0
    for first, end in bounds:
        if first != at:
            return []
        at = end
    return bounds if at == channels else []


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
        codes = self.first_sweep(images)
        w = [images, *codes]
        for j in range(1, len(w)):
            for b, part in enumerate(self.branches(j)):
                if part.spec.pick is not None:
                    bound._chosen[j, b] = part.spec.pick.apply(_as_image(w[part.spec.reads]))[1]
        return bound

    def first_sweep(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the codes after the first sweep: the network's own activations, up to factors of its channels."""
        w = [images]
        for j, layer in enumerate(self.blocks, start=1):
            moved = self.correlate(j, self.target(j, w)) - layer.threshold
            w.append(F.relu(layer.step_size * moved))
        return tuple(w[1:])

    def part_weights(self, j: int) -> tuple[float, ...]:
        logs = self.log_scales.tolist()
        return tuple(math.exp(2 * logs[max(part.spec.reads, 0)]) for part in self.branches(j))

    def code_weight(self, j: int) -> float:
        return math.exp(2 * float(self.log_scales[j]))

    def pull(self, j: int) -> int:
        return len(self._readers[j])

    def signal_readers(self, k: int) -> list[tuple[int, int]]:
        return [(j, 0) for j, _ in self._readers[k]]

    def skip_readers(self, k: int) -> list[int]:
        return []

    def target(self, j: int, w: Sequence[Tensor]) -> Blocks:
        return tuple(_as_image(w[part.spec.reads]) for part in self.branches(j))

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


def _image(shape: tuple[int, ...]) -> Shape3:
    if len(shape) not in (1, 3):
        raise InputError(f"codes of shape {shape} are neither images nor vectors")
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _as_image(code: Tensor) -> Tensor:
    return code if code.dim() == 4 else code[..., None, None]
