"""Which earlier codes a block row reads: the rows of chain, residual and densely connected frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from robustframe.errors import InputError

Structure = Literal["chain", "residual", "dense", "branched"]
STRUCTURES: tuple[Structure, ...] = ("chain", "residual", "dense")
"""Those that a list of layers describes; `robustframe.frames.branched` has the one that networks are read as."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What block row j reconstructs: concatenated earlier codes, and beside them at most one skipped code.

    Layers are numbered from 1 as in the mathematics; 0 is the input.
    """

    sources: tuple[int, ...]
    """Layers whose codes, concatenated along the channels in this order, are the signal of B_j."""
    skip: int | None = None
    """A layer whose code is added to that of layer j: it extends the target to [signal; S w_skip] and the diagonal
    block to [B_j; I]."""


@dataclass(frozen=True)
class Shortcut:
    """The linear map S from a skipped code to the shape of the layer that it is added to, with its exact adjoint.

    The identity where both shapes agree; else it takes every stride-th position and puts zero channels around
    (option A of He et al., 2016, arXiv:1512.03385). S S^T is then a projection, so its norm is 1.
    """

    shape: Shape
    """Shape of the skipped code."""
    code_shape: Shape
    """Shape of the code it is added to."""
    stride: int
    before: int
    """Zero channels in front."""

    @classmethod
    def between(cls, shape: Shape, code_shape: Shape, where: str) -> "Shortcut":
        """Find the map from a shape to another.

        Args:
            shape: shape of the skipped code, such as (16, 32, 32).
            code_shape: shape of the code it is added to, such as (32, 16, 16).
            where: what to call the layer in an error, such as ``"layer 3"``.

        Raises:
            InputError: when no subsampling and zero channels lead from one to the other.
        """
        fault = InputError(
            f"{where}: a skip cannot add a code of shape {shape} to one of shape {code_shape}; the shapes must be "
            "equal, or every stride-th position of the skipped code must fit and its channels be no more"
        )
        if len(shape) != len(code_shape) or shape[0] > code_shape[0]:
            raise fault
        sizes, targets = shape[1:], code_shape[1:]
        strides = [s for s in range(1, max(sizes, default=1) + 1) if _strided(sizes, s) == targets]
        if not strides:
            raise fault
        return cls(shape, code_shape, strides[0], (code_shape[0] - shape[0]) // 2)

    @property
    def is_identity(self) -> bool:
        """Whether both shapes agree."""
        return self.shape == self.code_shape

    def apply(self, code: Tensor) -> Tensor:
        """Apply S to skipped codes (b, *shape); returns shape (b, *code_shape)."""
        if self.is_identity:
            return code
        after = self.code_shape[0] - self.shape[0] - self.before
        return F.pad(code[self._looked_at], (0, 0) * (len(self.shape) - 1) + (self.before, after))

    def adjoint(self, code: Tensor) -> Tensor:
        """Apply S^T to codes (b, *code_shape); returns shape (b, *shape)."""
        if self.is_identity:
            return code
        return self.replace(code.new_zeros(len(code), *self.shape), code)

    def replace(self, code: Tensor, above: Tensor) -> Tensor:
        """Put S^T above into a code where S looks: code + S^T (above - S code), without touching the rest.

        Args:
            code: shape (b, *shape).
            above: shape (b, *code_shape).

        Returns:
            Shape (b, *shape).
        """
        if self.is_identity:
            return above
        result = code.clone()
        result[self._looked_at] = above.narrow(1, self.before, self.shape[0])
        return result

    @property
    def _looked_at(self) -> tuple[slice, ...]:
        return (slice(None), slice(None), *[slice(None, None, self.stride)] * (len(self.shape) - 1))


def _strided(sizes: Shape, stride: int) -> Shape:
    return tuple(-(-size // stride) for size in sizes)


def check_rows(rows: Sequence[Row]) -> None:
    """Check that every row reads only what lies below it.

    Raises:
        InputError: for a row without sources, one that reads a code twice, or one from its own level or above.
    """
    for j, row in enumerate(rows, start=1):
        read = [*row.sources, *([] if row.skip is None else [row.skip])]
        if not row.sources:
            raise InputError(f"layer {j} reads no code: give at least one source")
        if len(set(row.sources)) < len(row.sources):
            raise InputError(f"layer {j} reads a code twice: its sources are {row.sources}")
        if not all(0 <= k < j for k in read):
            raise InputError(f"layer {j} can read the input (0) and layers below it (to {j - 1}), not {read}")


def join_shapes(shapes: Sequence[Shape], where: str) -> Shape:
    """Return the shape of codes concatenated along their channels.

    Args:
        shapes: shape of each code.
        where: what to call the layer in an error.

    Raises:
        InputError: when they differ in more than their channels.
    """
    if any(shape[1:] != shapes[0][1:] for shape in shapes):
        listed = ", ".join(str(shape) for shape in shapes)
        raise InputError(f"{where} cannot concatenate codes of shapes {listed}: only channels may differ")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])
