"""Coherence of a frame, exact with zero-padded borders."""

import torch
from torch import Tensor

from robustframe.frames.frame import ChainFrame
from robustframe.frames.operators import Operator, _double

_COLUMNS = 512


@torch.no_grad()
def mutual_coherence(frame: ChainFrame) -> float:
    """Return the largest normalised inner product between two different atoms of the whole frame.

    The frame is the one that is solved: atom a of layer j < l is the column [b_a; -e_a], so its norm is
    sqrt(||b_a||^2 + 1). Atoms that the border of the image cuts off count as they are.

    Args:
        frame: a chain frame.

    Returns:
        A number in [0, 1].
    """
    norms = column_norms(frame)
    largest = 0.0
    for number, layer in enumerate(frame.blocks):
        operator = _double(layer.operator)
        within = _largest_inner_product(operator, norms[number])
        largest = max(largest, within)
        if number > 0:
            largest = max(largest, _largest_entry(operator, norms[number - 1], norms[number]))
    return min(largest, 1.0)


def coherence_loss(frame: ChainFrame) -> Tensor:
    """Return the sum over layers of the mean squared inner products an atom has with all others, differentiable.

    It is the layers' own share of the frame potential, per atom; a penalty on it keeps the frame well conditioned
    (Murdock and Lucey, 2020, arXiv:2003.13866, regularise with the whole deep frame potential).
    """
    return torch.stack([layer.operator.correlations().square().sum(1).mean() for layer in frame.blocks]).sum()


@torch.no_grad()
def column_norms(frame: ChainFrame) -> list[Tensor]:
    """Return the l2 norm of every column of the whole frame, one float64 tensor of code shape a layer."""
    last = len(frame.blocks) - 1
    return [
        (_double(layer.operator).atom_norms() ** 2 + (number < last)).sqrt()
        for number, layer in enumerate(frame.blocks)
    ]


def _unit_codes(operator: Operator) -> list[Tensor]:
    """Unit codes in portions: together the identity over all atoms."""
    atoms = int(torch.Size(operator.code_shape).numel())
    portions = []
    for start in range(0, atoms, _COLUMNS):
        size = min(_COLUMNS, atoms - start)
        code = torch.zeros(size, atoms, dtype=torch.float64)
        code[torch.arange(size), torch.arange(start, start + size)] = 1
        portions.append(code)
    return portions


def _largest_inner_product(operator: Operator, norms: Tensor) -> float:
    """Largest |B^T B| off the diagonal over the column norms: the -I parts of two atoms never meet."""
    scale, start, largest = norms.flatten(), 0, 0.0
    for code in _unit_codes(operator):
        gram = operator.analysis(operator.synthesis(code.view(-1, *operator.code_shape))).flatten(1)
        rows = torch.arange(len(code))
        gram[rows, rows + start] = 0
        gram = gram.abs() / scale / scale[start : start + len(code)].unsqueeze(1)
        largest = max(largest, float(gram.max()))
        start += len(code)
    return largest


def _largest_entry(operator: Operator, lower: Tensor, upper: Tensor) -> float:
    """Largest |B_j| over the norms of its row's and its column's atoms: the Gram block next to the diagonal."""
    start, largest = 0, 0.0
    for code in _unit_codes(operator):
        columns = operator.synthesis(code.view(-1, *operator.code_shape)).flatten(1)
        scale = upper.flatten()[start : start + len(code)].unsqueeze(1)
        largest = max(largest, float((columns.abs() / lower.flatten() / scale).max()))
        start += len(code)
    return largest
