"""What a layer's codes cost beside the misfit: the penalty that a network's nonlinearity is the prox of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.frames import Frame, misfit
from robustframe.types import Images, PerExample


class Penalty(ABC):
    """A convex penalty of every number of a code, weighted by the thresholds of its layer."""

    @abstractmethod
    def prox(self, point: Tensor, shift: Tensor) -> Tensor:
        """Return argmin_w 1/2 ||w - point||^2 + penalty with weights ``shift``.

        Args:
            point: shape (b, *code_shape).
            shift: step size times thresholds, at least 0; broadcasts to a code.
        """

    @abstractmethod
    def value(self, code: Tensor, threshold: Tensor) -> PerExample:
        """Return the penalty of each example's code, infinite where it is not allowed; shape (b,)."""

    @abstractmethod
    def violation(self, code: Tensor, gradient: Tensor, threshold: Tensor) -> Tensor:
        """Return how far minus the gradient is from the subdifferential, number by number; shape of the code."""


@dataclass(frozen=True)
class NonnegativeL1(Penalty):
    """b . w over w >= 0: its prox is ReLU with a bias of minus the threshold."""

    def prox(self, point: Tensor, shift: Tensor) -> Tensor:
        return (point - shift).relu()

    def value(self, code: Tensor, threshold: Tensor) -> PerExample:
        cost = (threshold * code).flatten(1).sum(1)
        return cost.masked_fill((code < 0).flatten(1).any(1), torch.inf)

    def violation(self, code: Tensor, gradient: Tensor, threshold: Tensor) -> Tensor:
        slope = gradient + threshold
        return torch.where(code > 0, slope.abs(), (-slope).clamp_min(0)) + (-code).clamp_min(0)


@dataclass(frozen=True)
class SignedL1(Penalty):
    """b . |w|: its prox is soft thresholding."""

    def prox(self, point: Tensor, shift: Tensor) -> Tensor:
        # Two rectifiers rather than sign and abs: the gradient is exactly that of the pieces.
        return (point - shift).relu() - (-point - shift).relu()

    def value(self, code: Tensor, threshold: Tensor) -> PerExample:
        return (threshold * code.abs()).flatten(1).sum(1)

    def violation(self, code: Tensor, gradient: Tensor, threshold: Tensor) -> Tensor:
        at_zero = (gradient.abs() - threshold).clamp_min(0)
        return torch.where(code == 0, at_zero, (gradient + threshold * code.sign()).abs())


NONNEGATIVE = NonnegativeL1()


def penalised_objective(frame: Frame, x: Images, codes: Sequence[Tensor], penalty: Penalty = NONNEGATIVE) -> PerExample:
    """Return the misfit plus the penalty of every layer, of each example.

    Args:
        frame: the frame.
        x: inputs, shape (b, *in_shape).
        codes: w_1..w_l, each of shape (b, *code_shape).
        penalty: the penalty of every layer.

    Returns:
        Shape (b,); infinite where the codes are not allowed.
    """
    costs = [
        frame.code_weight(j) * penalty.value(code, layer.threshold)
        for j, (layer, code) in enumerate(zip(frame.blocks, codes), start=1)
    ]
    return misfit(frame, x, codes) + torch.stack(costs).sum(0)


def smooth_gradient(frame: Frame, x: Images, codes: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the misfit with respect to every layer's code, all at the same point."""
    w, frame = [x, *codes], frame.select(x)
    residuals = [frame.residual(j, w) for j in range(1, len(w))]
    return [-part for part in frame.analysis(residuals)]


def optimality(frame: Frame, x: Images, codes: Sequence[Tensor], penalty: Penalty = NONNEGATIVE) -> PerExample:
    """Return how far each example's codes are from satisfying the optimality conditions of the objective.

    Args:
        frame: the frame.
        x: inputs, shape (b, *in_shape).
        codes: w_1..w_l, each of shape (b, *code_shape).
        penalty: the penalty of every layer.

    Returns:
        The largest distance of a number's gradient from minus the subdifferential, shape (b,); 0 exactly at a
        solution, in the units of the thresholds.
    """
    gradients = smooth_gradient(frame, x, codes)
    worst = [
        penalty.violation(code, gradient, layer.threshold).flatten(1).amax(1)
        for layer, code, gradient in zip(frame.blocks, codes, gradients)
    ]
    return torch.stack(worst).amax(0)
