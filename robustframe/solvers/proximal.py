"""What the solvers that take proximal gradient steps share: step sizes, penalties, the plain sweep."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame, squared_norm
from robustframe.solvers.loop import Solver, State
from robustframe.solvers.penalties import NONNEGATIVE, Penalty
from robustframe.types import Images

Size = float | Tensor
"""A step size: a number, or on a GPU a tensor of it, shape (), which nobody has to wait for."""


def stored_sizes(frame: Frame) -> tuple[Size, ...]:
    """Return the step sizes that a frame carries."""
    sizes = torch.stack([layer.step_size for layer in frame.blocks])
    numbers: list[float] = sizes.tolist() if sizes.device.type == "cpu" else []
    return tuple(numbers) or sizes.unbind()


@dataclass(frozen=True, kw_only=True)
class ProximalSolver(Solver[State], ABC):
    """A solver with a penalty, whose steps are fractions of the frame's stored step sizes."""

    penalty: Penalty = NONNEGATIVE
    """The penalty of every layer."""
    step_size: float = 1.0
    """Steps as a fraction of the frame's 1 / L_j, below 2; at 1 the first sweep is the feed-forward network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step_size < 2:
            raise InputError(
                f"{type(self).__name__}: a step of {self.step_size} / L_j does not converge; give a step_size "
                "above 0 and below 2, as a fraction of 1 / L_j"
            )

    def sizes(self, frame: Frame) -> tuple[Size, ...]:
        """Return the step size of every layer; they are read from the frame, never computed."""
        return tuple(self.step_size * size for size in stored_sizes(frame))


def require_chain(solver: Solver[State], frame: Frame) -> None:
    """Refuse a frame with skips.

    Raises:
        InputError: when a row reads anything but the layer below it.
    """
    if frame.structure != "chain":
        raise InputError(
            f"{type(solver).__name__} goes up one layer at a time and is defined for chains only, not for a "
            f"{frame.structure} frame; use DeepPursuit, AcceleratedPursuit or ADMM"
        )


def zero_codes(frame: Frame, x: Images) -> tuple[Tensor, ...]:
    """Return codes of zeros for every layer."""
    return tuple(x.new_zeros(len(x), *shape) for shape in frame.code_shapes)


def feed_forward(frame: Frame, x: Images, penalty: Penalty, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
    """Return w_j = prox(s_j D_j^T t_j, s_j b_j) for every layer, lowest first: the first sweep from zero."""
    w = [x]
    for j, (layer, size) in enumerate(zip(frame.blocks, sizes), start=1):
        w.append(penalty.prox(size * frame.correlate(j, frame.target(j, w)), size * layer.threshold))
    return tuple(w[1:])


def descend(
    frame: Frame,
    x: Images,
    codes: tuple[Tensor, ...],
    points: tuple[Tensor, ...],
    penalty: Penalty,
    sizes: Sequence[Size],
) -> tuple[Tensor, ...]:
    """Make one ascending Gauss-Seidel sweep of proximal gradient steps.

    Args:
        frame: the frame.
        x: inputs, shape (b, *in_shape).
        codes: the codes that other layers see, each of shape (b, *code_shape).
        points: where each layer's own step starts; the codes themselves without extrapolation.
        penalty: the penalty of every layer.
        sizes: the step size of every layer.

    Returns:
        The new codes.
    """
    w = [x, *codes]
    for j, (layer, point, size) in enumerate(zip(frame.blocks, points, sizes), start=1):
        w[j] = point
        w[j] = penalty.prox(point - size * frame.gradient(j, w), size * layer.threshold)
    return tuple(w[1:])


def check_step_sizes(frame: Frame) -> None:
    """Check the step sizes that a frame carries, once, such as after loading it.

    Args:
        frame: any frame.

    Raises:
        InputError: for a step size that is not above 0 or not below the convergent 2 / L_j.
    """
    for j, layer in enumerate(frame.blocks, start=1):
        size, limit = float(layer.step_size), 2 / (squared_norm(layer.operator) + frame.pull(j))
        if not 0 < size < limit:
            raise InputError(
                f"layer {j} has step size {size:.4g}, but steps converge only above 0 and below 2 / L = {limit:.4g}; "
                "call update_step_sizes_() on the frame"
            )
