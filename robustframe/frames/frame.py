"""The structured overcomplete frame of a network: one block row a layer."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.operators import Conv, Dense, Operator, squared_norm


class Layer(nn.Module):
    """One block row: a synthesis operator B_j, its thresholds b_j and its step size 1 / L_j.

    Args:
        operator: the operator B_j.
    """

    step_size: Tensor

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        channels = operator.code_shape[0]
        self.threshold = nn.Parameter(torch.zeros(channels, *[1] * (len(operator.code_shape) - 1)))
        """One threshold an atom or filter, at least 0: the weight of its nonnegative l1 penalty."""
        self.register_buffer("step_size", torch.ones(()))


class ChainFrame(nn.Module):
    """The frame of a feed-forward chain: block lower bidiagonal, B_j on the diagonal and -I below it.

    Its codes w_1..w_l minimise ``sum_j 1/2 ||w_{j-1} - B_j w_j||^2 + b_j . w_j`` over w_j >= 0 with w_0 = x
    (Murdock et al., 2021, arXiv:2103.05804; `docs/frames.md`).

    Args:
        operators: B_1..B_l; the signal of each has the shape of the code of the one before.

    Raises:
        InputError: when the shapes do not chain.
    """

    structure = "chain"

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        if not operators:
            raise InputError("a frame needs at least one layer")
        for number, (lower, upper) in enumerate(itertools.pairwise(operators), start=1):
            if lower.code_shape != upper.in_shape:
                raise InputError(
                    f"layer {number} makes codes of shape {lower.code_shape}, "
                    f"but layer {number + 1} takes signals of shape {upper.in_shape}"
                )
        self.layers = nn.ModuleList(Layer(operator) for operator in operators)

    @property
    def blocks(self) -> list[Layer]:
        """The layers in order, lowest first."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.blocks[0].operator.in_shape

    @property
    def code_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's code."""
        return [layer.operator.code_shape for layer in self.blocks]

    @torch.no_grad()
    def project_(self) -> None:
        """Bring the parameters back to where they belong: unit atoms, thresholds of at least 0; in place."""
        for layer in self.blocks:
            layer.operator.normalize_()
            layer.threshold.clamp_(min=0)

    @torch.no_grad()
    def update_step_sizes_(self, *, steps: int = 200) -> None:
        """Set every step size to 1 / L_j, with the block Lipschitz constant L_j = ||B_j||^2 + 1 (||B_l||^2 on top)."""
        for number, layer in enumerate(self.blocks, start=1):
            bound = squared_norm(layer.operator, steps=steps) + (number < len(self.blocks))
            layer.step_size.fill_(1 / bound)


def build_frame(in_shape: Sequence[int], layers: Sequence[dict[str, Any]]) -> ChainFrame:
    """Build a chain frame from a description, such as the ``layers`` of a card.

    Args:
        in_shape: shape of one input, such as (1, 28, 28) or (64,).
        layers: one mapping a layer: ``{"filters": 32, "kernel": 6, "stride": 2, "padding": 2}`` for a
            convolutional layer, ``{"atoms": 200}`` for a dense one.

    Returns:
        A frame with random unit atoms, thresholds 0 and the step sizes that belong to them.

    Raises:
        InputError: when a layer is described wrongly or the shapes do not chain.
    """
    shape = tuple(in_shape)
    operators: list[Operator] = []
    for number, layer in enumerate(layers, start=1):
        operators.append(_build_operator(shape, layer, f"layer {number}"))
        shape = operators[-1].code_shape
    frame = ChainFrame(operators)
    frame.project_()
    frame.update_step_sizes_()
    return frame


def _build_operator(shape: tuple[int, ...], layer: dict[str, Any], where: str) -> Operator:
    if set(layer) == {"atoms"}:
        return Dense(shape, layer["atoms"])
    if {"filters", "kernel"} <= set(layer) <= {"filters", "kernel", "stride", "padding"}:
        if len(shape) != 3:
            raise InputError(f"{where} is convolutional but its input has shape {shape}")
        return Conv((shape[0], shape[1], shape[2]), **layer)
    raise InputError(
        f"{where}: give either atoms, or filters and kernel (stride, padding); found {sorted(layer)}"
    )
