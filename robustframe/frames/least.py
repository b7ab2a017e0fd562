"""The least deep frame potential that a network's structure allows, in closed form."""

import math
from dataclasses import dataclass

from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import taps
from robustframe.frames.branches import Branch, BranchSpec
from robustframe.frames.frame import Frame
from robustframe.frames.operators import Conv, Operator, PooledConv


@dataclass(frozen=True)
class StructuralMinimum:
    """The least deep frame potential over all weights, atoms of unit norm in every branch, borders left aside."""

    value: float
    """F^2."""
    exact: bool
    """Whether some weights reach it; else no weights are below it."""
    nonzeros: int
    """N(G), of images that wrap around."""


def least_potential(frame: BranchedFrame) -> StructuralMinimum:
    """Return the least F^2 of a network's structure; its weights do not matter.

    Columns of two layers meet only where one reads the other, in entries whose squares sum up to a constant, since
    atoms have unit norm; so layers do not trade against one another, and each is best as a tight frame of its own. With
    K_j atoms, D_j numbers that its g_j convolutions reconstruct together, and n_j^2 = branches of an atom + rows that
    read its code the squares off the diagonal sum up to

        sum_j g_j^2 (K_j^2 / D_j - K_j)_+ / n_j^4  +  2 sum_(branches of j that read k) K_j / (n_j^2 n_k^2).

    It is reached where each layer has one convolution or matrix beside identities (chains, residual nets with identity
    skips). It is a lower bound where a sum of two convolutions or one of concatenated codes could do better or worse,
    where two branches of a row read one code and may cancel, and for convolutions that are dilated or do not close
    around the image.

    Args:
        frame: a network read as a frame.

    Source: derived, as is `closed_form_minimum` for chains, whose value it gives there; checked against minimisation.
    """
    squares = {j: _norm(frame, j) for j in range(1, len(frame.layers) + 1)}
    total, nonzeros, exact = 0.0, 0, True
    for j in range(1, len(frame.layers) + 1):
        positions = math.prod(frame.code_shapes[j - 1][1:])
        for first, end in _ranges(frame, j):
            parts = [part for part in frame.branches(j) if part.spec.first <= first and end <= part.spec.end]
            atoms = (end - first) * positions
            made = [part for part in parts if not part.spec.is_factor]
            groups = {part.spec.group for part in made}
            if made:
                numbers = sum(_numbers(part) for part in made)
                total += len(groups) ** 2 * max(0.0, atoms**2 / numbers - atoms) / squares[j] ** 2
                nonzeros += atoms * (_neighbours(made, end - first) - 1)
            exact &= len(made) <= 1 and all(_closes(part) and bool(taps(part.weight).all()) for part in made)
            reads = [part.spec.reads for part in parts if part.spec.reads > 0]
            exact &= len(set(reads)) == len(reads)
            for group in {part.spec.group for part in parts}:
                joined = [part for part in parts if part.spec.group == group]
                read = [part.spec.reads for part in joined]
                # Two branches that read one code may cancel.
                if min(read) > 0 and all(reads.count(k) == 1 for k in read):
                    total += 2 * atoms / (squares[j] * max(squares[k] for k in read))
                nonzeros += sum(2 * atoms * _entries(part) for part in joined if part.spec.reads > 0)
    return StructuralMinimum(total / nonzeros if nonzeros else 0.0, exact, nonzeros)


def _norm(frame: BranchedFrame, j: int) -> int:
    """Squared norm of the columns of layer j: one for each branch, one for each row that reads them."""
    most = 0
    for first, end in _ranges(frame, j):
        groups = {part.spec.group for part in frame.branches(j) if part.spec.first <= first and end <= part.spec.end}
        most = max(most, len(groups))
    return most + frame.pull(j)


def _ranges(frame: BranchedFrame, j: int) -> list[tuple[int, int]]:
    """The channels of layer j, cut where a branch begins or ends."""
    bounds = {0, frame.code_shapes[j - 1][0]}
    bounds |= {at for part in frame.branches(j) for at in (part.spec.first, part.spec.end)}
    ordered = sorted(bounds)
    return [(first, ordered[at + 1]) for at, first in enumerate(ordered[:-1])]


def _numbers(part: Branch) -> int:
    """Dimensions that the atoms of a branch span at most: the numbers that they reach, of averages one a box."""
    if part.spec.box != (1, 1):
        return part.inner[0] * math.prod(part.out)
    kernel, sides = part.spec.kernel, 1
    for at in (0, 1):
        covered = part.out[at] * min(kernel[at], part.spec.stride[at])
        sides *= min(part.inner[1 + at], covered) if kernel[at] < part.spec.stride[at] else part.inner[1 + at]
    return part.inner[0] * sides


def _closes(part: Branch) -> bool:
    """Whether positions and strides make up the image, so that it may wrap around; a matrix has one position."""
    closed = all(part.out[at] * part.spec.stride[at] == part.inner[1 + at] for at in (0, 1))
    return part.is_matrix or part.spec.box != (1, 1) or closed


def _neighbours(made: list[Branch], filters: int) -> int:
    """Atoms of its own layer that an atom overlaps with, itself among them."""
    most = 0
    for part in made:
        kernel = part.spec.kernel
        shifts = [min(2 * -(-kernel[at] // part.spec.stride[at]) - 1, part.out[at]) for at in (0, 1)]
        most = max(most, filters // part.spec.groups * math.prod(shifts))
    return most


def _entries(part: Branch) -> int:
    """Numbers of the code that it reads in one atom of a branch."""
    kernel = part.spec.kernel
    return part.spec.weight[1] * math.prod(min(kernel[at], part.inner[1 + at]) for at in (0, 1))


def as_branched(frame: Frame) -> BranchedFrame:
    """Return the structure of a frame of layers as one of branches; weights stay behind.

    A skip that subsamples and pads channels, as in our residual architectures, becomes a branch that reads the whole
    code, as that of a network does.
    """
    rows = []
    shapes: list[tuple[int, ...]] = [frame.in_shape, *frame.code_shapes]
    for layer in frame.blocks:
        specs = [_spec(layer.operator, k, shapes[k][0], shapes[k]) for k in layer.sources]
        if layer.skip is not None and layer.shortcut is not None:
            cut = layer.shortcut
            first = 0 if cut.is_identity else cut.before
            stride = (cut.stride, cut.stride)
            specs.append(
                BranchSpec(layer.skip, (cut.shape[0], 1, 1, 1), stride, groups=cut.shape[0], first=first, group=1)
            )
        rows.append(specs)
    return BranchedFrame(frame.in_shape, frame.code_shapes, rows)


def _spec(operator: Operator, k: int, channels: int, shape: tuple[int, ...]) -> BranchSpec:
    """The branch of one source among those that a layer reads side by side."""
    filters = operator.code_shape[0]
    if isinstance(operator, PooledConv):
        box = (operator.pool, operator.pool)
        return BranchSpec(k, (filters, channels, 1, 1), box, box=box)
    if isinstance(operator, Conv):
        side = operator.kernel
        stride, padding = (operator.stride, operator.stride), (operator.padding, operator.padding)
        return BranchSpec(k, (filters, channels, side, side), stride, padding)
    sides = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
    return BranchSpec(k, (filters, channels, *sides))
