"""The branches of a row: what one layer of an ordinary network is as a synthesis operator."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.maps import Map, Pick, Sides, sides_after
from robustframe.frames.operators import Operator

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
    def kernel(self) -> Sides:
        """Pixels that one atom reaches."""
        return self.box if self.box != (1, 1) else (self.weight[2], self.weight[3])

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
        self.out = sides_after((self.inner[1], self.inner[2]), spec.kernel, spec.stride, spec.padding)
        # Rows and columns at the far edge that no atom reaches.
        self.leftover = tuple(
            (self.inner[1 + at] + 2 * spec.padding[at] - spec.kernel[at]) % spec.stride[at] for at in (0, 1)
        )
        fits = (
            self.inner[0] == spec.weight[1] * spec.groups and min(self.out) >= 1 and spec.weight[0] % spec.groups == 0
        )
        # An average of boxes is taken box by box, and its weights are numbers.
        fits &= spec.box == (1, 1) or (spec.weight[2:], spec.stride, spec.padding) == ((1, 1), spec.box, (0, 0))
        if not fits:
            raise InputError(f"filters of shape {spec.weight} do not fit codes of shape {shape}")
        self.is_matrix = (
            spec.groups == 1 and spec.kernel == self.inner[1:] and spec.padding == (0, 0) and spec.box == (1, 1)
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

    def split(self, code: Tensor) -> list[Tensor]:
        """Return the channels of a code that each branch has."""
        image = as_image(code)
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
        return self.channel_norms().view(-1, *[1] * (len(self.code_shape) - 1)).expand(self.code_shape)

    @torch.no_grad()
    def channel_norms(self) -> Tensor:
        """Return them channel by channel, over all branches; float64 on the CPU."""
        squares = torch.zeros(self.code_shape[0], dtype=torch.float64)
        for part in self.parts:
            filters = part.weight.cpu().double().square().flatten(1).sum(1)
            squares[part.spec.first : part.spec.end] += filters * float(part.ratio) / math.prod(part.spec.box)
        return squares.sqrt()

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
        norms = self.channel_norms().clamp_min(torch.finfo(torch.float32).tiny)
        for part in self.parts:
            own = norms[part.spec.first : part.spec.end].to(part.weight)
            part.weight.div_(own.view(-1, 1, 1, 1))


def _flat(at: list[int], code_shape: tuple[int, ...]) -> int:
    """The place of a pixel among all pixels of a channel."""
    return at[0] * code_shape[2] + at[1] if at else 0


def _partition(bounds: list[tuple[int, int]], channels: int) -> list[tuple[int, int]]:
    """The bounds, if in this order they are all channels one after the other; else nothing."""
    at = 0
    for first, end in bounds:
        if first != at:
            return []
        at = end
    return bounds if at == channels else []


def as_image(code: Tensor) -> Tensor:
    """Return codes as images; vectors are images of one pixel."""
    return code if code.dim() == 4 else code[..., None, None]
