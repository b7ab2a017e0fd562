"""Coherence of a frame: how much its atoms overlap, exact with zero-padded borders."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames.blocks import Borders, global_blocks
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import branch_weights, columns, unit_atoms
from robustframe.frames.branches import Branch
from robustframe.frames.frame import Frame
from robustframe.frames.gram import Gram, without_own
from robustframe.frames.incidence import Meeting, neighbourhoods
from robustframe.frames.operators import Conv
from robustframe.frames.products import Product, axes


@dataclass(frozen=True)
class Coherence:
    """What the Gram matrix G of a frame says about it; every column is normalised first."""

    mutual: float
    """Largest off-diagonal entry of |G|, in [0, 1]."""
    frame_potential: float
    """Sum of the squares of all entries of G."""
    deep_frame_potential: float
    """Mean square of the off-diagonal entries that the structure does not make zero, F^2, in [0, 1]."""
    nonzeros: int
    """Number of those entries, N(G)."""
    atoms: int
    """Columns of the frame."""
    numbers: int
    """Rows of the frame."""
    welch: float
    """Lower bound on the mutual coherence of any frame with as many atoms and numbers; see `welch_bound`."""
    between: tuple[int, int]
    """The layers, from 1, of two atoms whose inner product is the mutual coherence."""


@torch.no_grad()
def coherence(frame: Frame, *, borders: Borders = "exact") -> Coherence:
    """Measure mutual coherence, frame potential and deep frame potential of a frame's weights.

    The frame is the one that is solved: the column of an atom holds the atom and -1 in each row that reads its code
    (and +1 beside it where a skip is added), so atoms of inner layers have norms above 1. Everything is exact in
    float64 for every structure, stride and padding; atoms that the border cuts off count as they are.

    Args:
        frame: the frame.
        borders: ``"exact"``, or ``"periodic"`` for an image that wraps around, which is the limit of large images.

    Returns:
        The measures.

    Raises:
        InputError: for weights that are not finite, a zero atom, or periodic borders that do not close.

    Source: Murdock and Lucey, 2020, arXiv:2003.13866 (deep frame potential); Gram blocks derived and checked against
    explicit matrices.
    """
    gram = Gram(global_blocks(frame, borders=borders))
    mutual, squares, between = 0.0, 0.0, (gram.columns[0], gram.columns[0])
    for i, j, portion in gram.tiles():
        values = portion.others
        largest = float(values.abs().max())
        if largest > mutual:
            mutual, between = largest, (i, j)
        squares += (1 if i == j else 2) * float(values.square().sum((1, 2)) @ portion.counts.double())
    nonzeros, numbers = gram.nonzeros(), _numbers(frame)
    if isinstance(frame, BranchedFrame):
        layers = columns(frame)
        between = layers[between[0]][0], layers[between[1]][0]
    return Coherence(
        mutual=min(mutual, 1.0),
        frame_potential=squares + gram.atoms,
        deep_frame_potential=squares / nonzeros if nonzeros else 0.0,
        nonzeros=nonzeros,
        atoms=gram.atoms,
        numbers=numbers,
        welch=welch_bound(gram.atoms, numbers),
        between=between,
    )


@torch.no_grad()
def mutual_coherence(frame: Frame) -> float:
    """Return the largest normalised inner product between two different atoms of the whole frame.

    Args:
        frame: the frame; see `coherence` for what its columns are.

    Returns:
        A number in [0, 1].

    Raises:
        InputError: for weights that are not finite or a zero atom.
    """
    gram = Gram(global_blocks(frame))
    return min(1.0, max(float(portion.others.abs().max()) for _, _, portion in gram.tiles()))


@torch.no_grad()
def filter_gram(frame: Frame) -> dict[tuple[int, int], Tensor]:
    """Return how coherent each filter of one layer is with each of another: the largest |G| over all positions.

    Args:
        frame: the frame.

    Returns:
        By pair of layers i <= j (from 1) that are not orthogonal by structure, float64 of shape (filters of i,
        filters of j); an atom's product with itself is left out. For dense layers it is the Gram itself.

    Raises:
        InputError: for weights that are not finite or a zero atom.
    """
    tiles: dict[tuple[int, int], Tensor] = {}
    for i, j, portion in Gram(global_blocks(frame)).tiles():
        largest = portion.others.abs().amax(0)
        tiles[i, j] = torch.maximum(tiles[i, j], largest) if (i, j) in tiles else largest
    return _by_layer(frame, tiles) if isinstance(frame, BranchedFrame) else tiles


def _by_layer(frame: BranchedFrame, tiles: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """Put the columns that a layer's channels are together."""
    found: dict[tuple[int, int], Tensor] = {}
    places, sizes = columns(frame), [shape[0] for shape in frame.code_shapes]
    for (a, b), tile in tiles.items():
        (i, i_first, i_end), (j, j_first, j_end) = places[a], places[b]
        if (i, j) not in found:
            found[i, j] = tile.new_zeros(sizes[i - 1], sizes[j - 1])
        found[i, j][i_first:i_end, j_first:j_end] = tile
        if i == j and a != b:
            found[i, j][j_first:j_end, i_first:i_end] = tile.T
    return found


@torch.no_grad()
def own_coherence(frame: Frame, j: int) -> float:
    """Return the largest inner product of two different unit atoms of layer j (from 1) alone, away from borders.

    Copies of a filter at different places are different atoms. Branches that are added to one another are taken apart;
    an identity beside a convolution is none of its atoms.
    """
    layer = frame.blocks[j - 1]
    if not isinstance(frame, BranchedFrame):
        found = layer.operator.correlations().double()
        weight = layer.operator.filters if isinstance(layer.operator, Conv) else layer.operator.weight
        norms = torch.linalg.vector_norm(weight.double().flatten(1), dim=1)
        scaled = found.view(len(norms), len(norms), -1) / norms.view(-1, 1, 1) / norms.view(1, -1, 1)
        return min(1.0, float(scaled.abs().max()))
    unit = unit_atoms(frame, branch_weights(frame, j))
    return min(1.0, max(_own(part, unit[j, b]) for b, part in enumerate(frame.branches(j))))


def _own(part: Branch, weight: Tensor) -> float:
    """The largest inner product of two atoms of one branch."""
    spec = part.spec
    if spec.is_factor:
        return 0.0
    filters = spec.map(weight).full().float()
    taps = filters.shape[2:]
    # Shifts by whole strides, as far as there are positions.
    reach = [min((taps[at] - 1) // spec.stride[at], part.out[at] - 1) for at in (0, 1)]
    largest = 0.0
    for y in range(reach[0] + 1):
        for x in range(-reach[1], reach[1] + 1):
            dy, dx = y * spec.stride[0], x * spec.stride[1]
            a = filters[:, :, dy:, max(dx, 0) : taps[1] + min(dx, 0)].flatten(1)
            b = filters[:, :, : taps[0] - dy, max(-dx, 0) : taps[1] - max(dx, 0)].flatten(1)
            found = (a @ b.T).abs()
            if (y, x) == (0, 0):
                found.fill_diagonal_(0)
            largest = max(largest, float(found.max()))
    return largest


@torch.no_grad()
def babel(frame: Frame, size: int, *, borders: Borders = "exact") -> Tensor:
    """Return the Babel function: how much the s atoms nearest to an atom overlap with it together, at worst.

    ``mu_1(s) = max_j max_{|S| = s, j not in S} sum_{i in S} |G_ij|``; mu_1(1) is the mutual coherence and
    mu_1(s) <= s mu_1(1).

    Args:
        frame: the frame.
        size: largest s, from 1 to the number of atoms - 1.
        borders: ``"exact"`` or ``"periodic"``.

    Returns:
        mu_1(1..size), float64, shape (size,).

    Raises:
        InputError: when there are not that many atoms.

    Source: Tropp, 2004.
    """
    gram = Gram(global_blocks(frame, borders=borders))
    if not 1 <= size < gram.atoms:
        raise InputError(
            f"a frame of {gram.atoms} atoms has a Babel function from 1 to {gram.atoms - 1}, not at {size}"
        )
    largest = torch.zeros(size, dtype=torch.float64)
    for i in gram.columns:
        for entries in _entries_of_atoms(gram, i):
            top = entries.topk(min(size, entries.shape[1]), dim=1).values.cumsum(1).amax(0)
            top = torch.cat([top, top[-1:].expand(size - len(top))])
            largest = torch.maximum(largest, top)
    return largest


def _entries_of_atoms(gram: Gram, i: int) -> Iterator[Tensor]:
    """Yield |G| of each kind of atom of column i with all others, shape (filters, atoms that it meets)."""
    others = gram.neighbours(i)
    pairs = [gram.shares(i, j) for j in others]
    products = [Product(each).all_rows() for each in pairs]
    along = [tuple((axes(each)[axis], gram.own_axes(j)[axis]) for each, j in zip(pairs, others)) for axis in (0, 1)]
    kinds = [neighbourhoods(columns, others.index(i)) for columns in along]
    for ((class_y, met_y), _), ((class_x, met_x), _) in itertools.product(*kinds):
        yield torch.cat(
            [
                _entries(gram, (i, class_y, class_x), j, product, y, x)
                for j, product, y, x in zip(others, products, met_y, met_x)
                if y and x
            ],
            dim=1,
        )


def _entries(
    gram: Gram, atom: tuple[int, int, int], j: int, product: Tensor, y: tuple[Meeting, ...], x: tuple[Meeting, ...]
) -> Tensor:
    """|G| between the filters of column i at one kind of position and all that they meet in column j."""
    i, class_y, class_x = atom
    ways_y, ways_x = (torch.tensor([case.way for case in met]) for met in (y, x))
    rights_y, rights_x = (torch.tensor([case.right for case in met]) for met in (y, x))
    values = product[ways_y][:, ways_x] * gram.inverse_norms(j)[rights_y][:, rights_x].unsqueeze(2)
    values = (values * gram.inverse_norms(i)[class_y, class_x].unsqueeze(1)).abs()
    if i == j:
        same = torch.tensor([[a.same and b.same for b in x] for a in y])
        values = without_own(values.flatten(0, 1), same.flatten()).view_as(values)
    return values.permute(2, 0, 1, 3).flatten(1)


def coherence_loss(frame: Frame) -> Tensor:
    """Return the sum over layers of the mean squared inner products an atom has with all others, differentiable.

    It is the layers' own share of the frame potential, per atom; a penalty on it keeps the frame well conditioned
    (Murdock and Lucey, 2020, arXiv:2003.13866, regularise with the whole deep frame potential).
    """
    return torch.stack([layer.operator.correlations().square().sum(1).mean() for layer in frame.blocks]).sum()


@torch.no_grad()
def column_norms(frame: Frame) -> list[Tensor]:
    """Return the l2 norm of every column of the whole frame, one float64 tensor of code shape a layer."""
    gram = Gram(global_blocks(frame))
    return [gram.norms(j).view(shape) for j, shape in zip(gram.columns, frame.code_shapes)]


def welch_bound(atoms: int, numbers: int) -> float:
    """Return the Welch bound: no frame of that size has a smaller mutual coherence.

    Args:
        atoms: number of unit vectors, at least 1.
        numbers: dimension of their space, at least 1.

    Returns:
        ``sqrt((atoms / numbers - 1) / (atoms - 1))``, 0 where there is room for orthogonal atoms.

    Raises:
        InputError: for fewer than one of either.

    Source: Welch, 1974; eq. (18) of Murdock et al., 2021, arXiv:2103.05804, as second-hand notes give it.
    """
    if atoms < 1 or numbers < 1:
        raise InputError(f"a frame has at least 1 atom in 1 dimension, not {atoms} in {numbers}")
    return math.sqrt((atoms / numbers - 1) / (atoms - 1)) if atoms > numbers else 0.0


def convolutional_bound(filters: int, channels: int, kernel: int, stride: int) -> float:
    """Return a lower bound on the mutual coherence of a convolutional frame with a periodic border.

    It is the root mean square of the inner products that can differ from zero, and so bounds the deep frame potential
    F of one layer too. Sharing parameters makes it larger than `welch_bound` of a dense frame of the same size. Valid
    while atoms overlap each neighbour once: ``2 ceil(kernel / stride) - 1`` positions or more along each side.

    Args:
        filters: number of filters.
        channels: channels of the signal.
        kernel: side of the square filters, in pixels.
        stride: distance of neighbouring atoms, in pixels.

    Returns:
        ``sqrt((filters / (stride^2 channels) - 1) / (filters (2 ceil(kernel / stride) - 1)^2 - 1))`` or 0.

    Raises:
        InputError: for numbers below 1.

    Source: derived, and checked against explicit matrices; the paper's eqs. (20, 21) were not read.
    """
    if min(filters, channels, kernel, stride) < 1:
        raise InputError("filters, channels, kernel and stride must be at least 1")
    redundancy = filters / (stride**2 * channels)
    overlaps = filters * (2 * math.ceil(kernel / stride) - 1) ** 2 - 1
    return math.sqrt((redundancy - 1) / overlaps) if redundancy > 1 and overlaps else 0.0


def _numbers(frame: Frame) -> int:
    """Rows of the global matrix."""
    if isinstance(frame, BranchedFrame):
        return sum(math.prod(part.shape) for j in range(1, len(frame.layers) + 1) for part in frame.branches(j))
    signals = sum(math.prod(layer.operator.in_shape) for layer in frame.blocks)
    return signals + sum(math.prod(layer.operator.code_shape) for layer in frame.blocks if layer.skip is not None)
