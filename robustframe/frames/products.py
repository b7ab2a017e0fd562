"""The different matrices over filters that the Gram between two columns consists of."""

from collections.abc import Sequence

import torch
from torch import Tensor

from robustframe.frames.block import Block
from robustframe.frames.incidence import Axis, Shares, Taps, links

Pairs = list[tuple[Block, Block]]
"""Blocks of one row, of a first and of a second column."""


class Product:
    """The different matrices over filters of D_i^T D_j, not normalised, along the ways in which positions meet.

    Args:
        pairs: the pairs of blocks through which the columns meet.
    """

    def __init__(self, pairs: Pairs) -> None:
        y_taps, x_taps = (links(axis).taps for axis in axes(pairs))
        self.y_ways = len(y_taps)
        self._terms = []
        for number, (left, right) in enumerate(pairs):
            y_pairs, y_sum = incidence(y_taps, number)
            x_pairs, x_sum = incidence(x_taps, number)
            if _whole(left) and _whole(right) and (left.y, left.x) == (right.y, right.x):
                self._terms.append((_full_product(left, right), y_sum[:, :1], x_sum[:, :1]))
            else:
                self._terms.append((_tap_products(left, right, y_pairs, x_pairs), y_sum, x_sum))

    def row(self, way: int) -> Tensor:
        """Return the matrices of one way along y and every way along x, shape (ways, filters, filters)."""
        parts = []
        for products, y_sum, x_sum in self._terms:
            along = products[y_sum[way] > 0].sum(0)
            parts.append(torch.tensordot(x_sum, along, dims=1))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def all_rows(self) -> Tensor:
        """Return the matrices of every way along y and x, shape (ways y, ways x, filters, filters)."""
        return torch.stack([self.row(way) for way in range(self.y_ways)])


def _full_product(left: Block, right: Block) -> Tensor:
    low, high = overlap(left, right)
    y, x = _landing(left.y), _landing(left.x)
    a, b = (
        block.weight[:, low - block.first : high - block.first][:, :, y][..., x].flatten(1) for block in (left, right)
    )
    return (a @ b.T).view(1, 1, len(a), len(b))


def _tap_products(left: Block, right: Block, y_pairs: Tensor, x_pairs: Tensor) -> Tensor:
    """Inner products over channels of taps of two blocks, shape (pairs y, pairs x, filters, filters)."""
    low, high = overlap(left, right)
    a, b = (block.weight[:, low - block.first : high - block.first] for block in (left, right))
    every = torch.tensordot(a.permute(2, 3, 0, 1), b.permute(1, 2, 3, 0), dims=1)
    every = every.permute(0, 3, 1, 4, 2, 5)
    along_y = every[y_pairs[:, 0], y_pairs[:, 1]]
    products: Tensor = along_y[:, x_pairs[:, 0], x_pairs[:, 1]]
    return products


def incidence(taps: Sequence[Taps], number: int) -> tuple[Tensor, Tensor]:
    """The pairs of taps of one pair of blocks, and which of them each way sums up, shape (ways, pairs)."""
    pairs = sorted({pair for way in taps for pair in way[number]})
    at = {pair: index for index, pair in enumerate(pairs)}
    sums = torch.zeros(len(taps), len(pairs), dtype=torch.float64)
    for row, way in enumerate(taps):
        for pair in way[number]:
            sums[row, at[pair]] = 1
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2), sums


def axes(pairs: Pairs) -> tuple[Shares, Shares]:
    return tuple((left.y, right.y) for left, right in pairs), tuple((left.x, right.x) for left, right in pairs)


def overlap(left: Block, right: Block) -> tuple[int, int]:
    ends = [block.first + block.weight.shape[1] for block in (left, right)]
    return max(left.first, right.first), min(ends)


def meet(left: Block, right: Block) -> bool:
    low, high = overlap(left, right)
    return low < high


def _whole(block: Block) -> bool:
    """Whether the block is a matrix at a single position, of which each entry has a pixel of its own or none."""
    apart = (len({axis.pixels[tap] for tap in _landing(axis)}) == len(_landing(axis)) for axis in (block.y, block.x))
    return block.y.positions == 1 and block.x.positions == 1 and block.learned and all(apart)


def _landing(axis: Axis) -> list[int]:
    """Return the taps of an axis of one position that the border does not cut off."""
    return [tap for tap, row in enumerate(axis.pixels) if row[0] >= 0]


def pattern(block: Block) -> Block:
    weight = torch.ones_like(block.weight) if block.learned else block.weight.abs()
    return Block(block.row, block.column, weight.detach(), block.y, block.x, block.first, block.learned)


def fills(left: Block, right: Block) -> bool:
    """Whether the product of two blocks has no entry that is zero by structure.

    So it is for two learned blocks, and for a learned one with all channels of an identity.
    """
    span = overlap(left, right)
    whole = [block.learned or span == (block.first, block.first + block.weight.shape[1]) for block in (left, right)]
    return all(whole) and (left.learned or right.learned)
