"""The normalised Gram matrix of a whole frame, block by block from correlations of filters, never as one matrix.

For columns i and j of the global frame, ``G_ij = sum_rows D_ri^T D_rj``. Every block D is a sum over taps of a map from
positions to pixels times a matrix over channels, so an entry of G_ij depends on the positions only through the taps
that meet there (`robustframe.frames.incidence`). Few different matrices over filters are therefore the whole Gram,
zero-padded borders included; each is computed once and counted as often as it occurs.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames.block import Block
from robustframe.frames.incidence import Meeting, Shares, cases, classes, links
from robustframe.frames.products import Pairs, Product, axes, fills, incidence, meet, overlap, pattern


@dataclass(frozen=True)
class Portion:
    """Entries of the Gram between two columns that occur together."""

    values: Tensor
    """Normalised inner products, shape (kinds, filters of the first column, filters of the second)."""
    counts: Tensor
    """How many pairs of positions each kind stands for, shape (kinds,)."""
    same: Tensor
    """Kinds whose diagonal holds the products of atoms with themselves, shape (kinds,)."""

    @property
    def others(self) -> Tensor:
        """The values, with zeros where an atom meets itself."""
        return without_own(self.values, self.same)


class Gram:
    """The normalised Gram matrix of a frame given by its blocks.

    Args:
        blocks: as `global_blocks` returns them.

    Raises:
        InputError: when a weight is not finite or an atom is zero.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.columns = sorted({block.column for block in blocks})
        self._blocks = {j: [block for block in blocks if block.column == j] for j in self.columns}
        for block in blocks:
            if not block.weight.isfinite().all():
                raise InputError(f"layer {block.column} holds weights that are not finite; its Gram means nothing")
        self._rows: dict[Hashable, list[Block]] = {}
        for block in blocks:
            self._rows.setdefault(block.row, []).append(block)
        self._own = {j: self.shares(j, j) for j in self.columns}
        self._inverse = {j: self._inverse_norms(j) for j in self.columns}

    def shape(self, j: int) -> tuple[int, int, int]:
        """Return filters, rows and columns of positions of column j."""
        block = self._blocks[j][0]
        return len(block.weight), block.y.positions, block.x.positions

    @property
    def atoms(self) -> int:
        """Number of atoms of the whole frame."""
        return sum(math.prod(self.shape(j)) for j in self.columns)

    def neighbours(self, i: int) -> list[int]:
        """Return the columns, itself among them, whose inner products with column i are not all zero by structure."""
        return sorted(
            {other.column for block in self._blocks[i] for other in self._rows[block.row] if meet(block, other)}
        )

    def shares(self, i: int, j: int) -> Pairs:
        """Return the pairs of blocks through which columns i and j meet."""
        return [
            (left, right)
            for left in self._blocks[i]
            for right in self._rows[left.row]
            if right.column == j and meet(left, right)
        ]

    def own_axes(self, j: int) -> tuple[Shares, Shares]:
        """Return the blocks of column j with themselves, as axes y and x."""
        return axes(self._own[j])

    def inverse_norms(self, j: int) -> Tensor:
        """Return 1 / norm of column j's atoms by class of position, shape (classes y, classes x, filters)."""
        return self._inverse[j]

    def norms(self, j: int) -> Tensor:
        """Return the l2 norm of every atom of column j, shape (filters, rows, columns)."""
        y, x = (torch.tensor(classes(axis)[1]) for axis in self.own_axes(j))
        return (1 / self._inverse[j])[y][:, x].permute(2, 0, 1)

    def portions(self, i: int, j: int) -> Iterator[Portion]:
        """Yield all entries between columns i and j."""
        pairs = self.shares(i, j)
        by_way: dict[int, list[tuple[Meeting, int]]] = {}
        y_axes, x_axes = axes(pairs)
        for case, count in cases(y_axes, self.own_axes(i)[0], self.own_axes(j)[0], same=i == j):
            by_way.setdefault(case.way, []).append((case, count))
        along = cases(x_axes, self.own_axes(i)[1], self.own_axes(j)[1], same=i == j)
        ways, lefts, rights = (
            torch.tensor([getattr(case, name) for case, _ in along]) for name in ("way", "left", "right")
        )
        x_counts = torch.tensor([count for _, count in along])
        x_same = torch.tensor([case.same for case, _ in along])
        product = Product(pairs)
        for way, met in by_way.items():
            values = product.row(way)[ways]
            for case, count in met:
                scaled = values * self._inverse[i][case.left, lefts].unsqueeze(2)
                scaled = scaled * self._inverse[j][case.right, rights].unsqueeze(1)
                yield Portion(scaled, x_counts * count, x_same & case.same)

    def tiles(self) -> Iterator[tuple[int, int, Portion]]:
        """Yield all entries between columns i <= j with i and j; between different columns G holds them twice."""
        for i in self.columns:
            for j in (j for j in self.neighbours(i) if j >= i):
                for portion in self.portions(i, j):
                    yield i, j, portion

    def nonzeros(self) -> int:
        """Count the entries off the diagonal that the structure alone does not make zero."""
        total = 0
        for i in self.columns:
            for j in (j for j in self.neighbours(i) if j >= i):
                found = self._nonzeros(i, j)
                total += found if i == j else 2 * found
        return total - self.atoms

    def _nonzeros(self, i: int, j: int) -> int:
        pairs = self.shares(i, j)
        y_links, x_links = (links(axis) for axis in axes(pairs))
        y_counts, x_counts = (
            torch.bincount(torch.tensor(list(each.pairs.values()), dtype=torch.long)) for each in (y_links, x_links)
        )
        filled = torch.zeros(len(y_counts), len(x_counts), dtype=torch.long)
        for number, pair in enumerate(pairs):
            if fills(*pair):
                reach = [torch.tensor([bool(way[number]) for way in each.taps]) for each in (y_links, x_links)]
                filled[torch.outer(*reach)] = self.shape(i)[0] * self.shape(j)[0]
        if not filled.all():
            product = Product([(pattern(left), pattern(right)) for left, right in pairs])
            filled = torch.stack([(product.row(way) > 0).sum((1, 2)) for way in range(len(y_counts))])
        return int(y_counts @ filled @ x_counts)

    def _inverse_norms(self, j: int) -> Tensor:
        (y_taps, _), (x_taps, _) = (classes(axis) for axis in self.own_axes(j))
        parts: list[Tensor] = []
        for number, (left, right) in enumerate(self._own[j]):
            low, high = overlap(left, right)
            a, b = (block.weight[:, low - block.first : high - block.first] for block in (left, right))
            y_pairs, y_sum = incidence(y_taps, number)
            x_pairs, x_sum = incidence(x_taps, number)
            energy = (a[:, :, y_pairs[:, 0]][..., x_pairs[:, 0]] * b[:, :, y_pairs[:, 1]][..., x_pairs[:, 1]]).sum(1)
            parts.append(torch.einsum("yp,apq,xq->yxa", y_sum, energy, x_sum))
        squares = torch.stack(parts).sum(0)
        zero = (squares <= 0).any(0).any(0).nonzero().flatten().tolist()
        if zero:
            raise InputError(
                f"layer {j}: atom or filter {zero[0]} is zero, at least where the border cuts it off, and so has no "
                "direction; initialise it anew or pad less"
            )
        return squares.rsqrt()


def without_own(values: Tensor, same: Tensor) -> Tensor:
    """Put zeros on the diagonal of the kinds in which an atom meets itself.

    Args:
        values: shape (kinds, filters, filters of the other column).
        same: booleans, shape (kinds,).

    Returns:
        Shape of ``values``.
    """
    if not same.any():
        return values
    own = torch.eye(values.shape[-1], dtype=torch.bool) & same.view(-1, 1, 1)
    return values.masked_fill(own, 0)
