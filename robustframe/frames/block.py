"""One block of the global matrix of a frame."""

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from robustframe.frames.incidence import Axis


@dataclass(frozen=True, eq=False)
class Block:
    """One block of the global frame: what the codes of a column put into a row."""

    row: Hashable
    column: int
    weight: Tensor
    """float64, shape (filters, channels, taps, taps)."""
    y: Axis
    x: Axis
    first: int = 0
    """The row's channel at which the block begins."""
    learned: bool = False
    """Whether the entries are parameters, and so structurally not zero."""
