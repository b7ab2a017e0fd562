"""What a solver minimises, example by example."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robustframe.frames.frame import Frame
from robustframe.types import Images, PerExample


def misfit(frame: Frame, x: Images, codes: Sequence[Tensor]) -> PerExample:
    """Return the smooth part of the objective, ``sum_j 1/2 ||t_j - D_j w_j||^2``, of each example.

    Args:
        frame: the frame.
        x: inputs, shape (b, *in_shape).
        codes: w_1..w_l, each of shape (b, *code_shape).

    Returns:
        Shape (b,).
    """
    w, frame = [x, *codes], frame.select(x)
    parts = [
        weight * part.flatten(1).square().sum(1)
        for j in range(1, len(w))
        for weight, part in zip(frame.part_weights(j), frame.residual(j, w))
    ]
    return torch.stack(parts).sum(0) / 2


def objective(frame: Frame, x: Images, codes: Sequence[Tensor]) -> PerExample:
    """Return ``sum_j 1/2 ||t_j - D_j w_j||^2 + b_j . w_j`` of each example; infinite where a code is negative.

    Args:
        frame: the frame.
        x: inputs, shape (b, *in_shape).
        codes: w_1..w_l, each of shape (b, *code_shape).

    Returns:
        Shape (b,).

    Source: Murdock, Cazenavette and Lucey, 2021, arXiv:2103.05804, with the nonnegative l1 penalty.
    """
    pairs = list(zip(frame.blocks, codes))
    penalty = torch.stack(
        [
            frame.code_weight(j) * (layer.threshold * code).flatten(1).sum(1)
            for j, (layer, code) in enumerate(pairs, start=1)
        ]
    ).sum(0)
    negative = torch.stack([(code < 0).flatten(1).any(1) for code in codes]).any(0)
    return (misfit(frame, x, codes) + penalty).masked_fill(negative, torch.inf)
