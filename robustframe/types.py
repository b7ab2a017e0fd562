"""Names that every room shares: norms, statuses and tensor shapes.

Shapes are checked at run time in the tests only (jaxtyping with beartype); a plain installation needs neither.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

if TYPE_CHECKING:
    Images = Tensor
    Labels = Tensor
    Logits = Tensor
    PerExample = Tensor
    Verdicts = Tensor
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:
        Images = Labels = Logits = PerExample = Verdicts = Tensor
    else:
        Images = Float[Tensor, "b *shape"]
        Labels = Int[Tensor, " b"]
        Logits = Float[Tensor, "b classes"]
        PerExample = Float[Tensor, " b"]
        Verdicts = Bool[Tensor, " b"]

Norm = Literal["l0", "l1", "l2", "linf"]
"""``l0`` counts the changed components: pixel values, so the channels of a pixel count one by one."""
NORMS: tuple[Norm, ...] = get_args(Norm)


class Status(StrEnum):
    """How a solve of one example ended; a value, never an exception."""

    CONVERGED = "converged"
    """The residual fell to the tolerance."""
    SWEEPS_DONE = "sweeps done"
    """All sweeps were made; without a tolerance this is the normal end."""
    NOT_CONVERGED = "not converged"
    """All sweeps were made and the residual is still above the tolerance."""
    NOT_FINITE = "not finite"
    """A code became infinite or NaN."""
