"""Which positions of two columns of a frame meet along one axis of the image, and through which taps.

Every block of a frame (a convolution, its adjoint, an identity, a selection of channels, a dense matrix) is a sum over
taps of a map from positions to pixels times a small matrix over channels, and the maps of the two image axes are
independent of each other. So all there is to know about borders and strides is known one axis at a time, exactly:
few different cases and how often each occurs.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from robustframe.errors import InputError


@dataclass(frozen=True, eq=False)
class Axis:
    """Where each tap of each position lands along one axis; equal ones are the same object, see `spread`."""

    pixels: tuple[tuple[int, ...], ...]
    """``pixels[tap][position]``, -1 where the tap lands outside the image or between pixels."""

    @property
    def positions(self) -> int:
        """Positions along this axis."""
        return len(self.pixels[0])


Shares = tuple[tuple[Axis, Axis], ...]
"""Every pair of blocks through which two columns meet: in the same row, with channels in common."""

Taps = tuple[tuple[tuple[int, int], ...], ...]
"""How two positions meet: for each pair of blocks the pairs of taps that land on the same pixel."""


@lru_cache(maxsize=4096)
def spread(pixels: int, positions: int, taps: int, stride: int, padding: int, *, periodic: bool = False) -> Axis:
    """Return the axis of a synthesis: position p reaches pixel ``stride p + tap - padding``.

    Args:
        pixels: pixels of the row.
        positions: positions of the column.
        taps: side of the kernel.
        stride: pixels between neighbouring positions.
        padding: pixels by which the first position reaches over the border.
        periodic: wrap around the border instead of cutting off.

    Returns:
        The axis; the same object for the same arguments.

    Raises:
        InputError: when the image does not close, because positions times stride are not its pixels.
    """
    if periodic and positions * stride != pixels:
        raise InputError(
            f"periodic borders need as many pixels as positions times stride: {pixels} is not {positions} x {stride}; "
            "pad so that they agree, or use exact borders"
        )
    reached = [[stride * at + tap - padding for at in range(positions)] for tap in range(taps)]
    if periodic:
        return Axis(tuple(tuple(pixel % pixels for pixel in row) for row in reached))
    return Axis(tuple(tuple(pixel if 0 <= pixel < pixels else -1 for pixel in row) for row in reached))


@lru_cache(maxsize=4096)
def gather(pixels: int, positions: int, taps: int, stride: int, padding: int, *, periodic: bool = False) -> Axis:
    """Return the axis of an analysis: position p reaches pixel y where ``p = stride y + tap - padding``.

    Args:
        pixels: pixels of the row, the coarser side.
        positions: positions of the column, the finer side.
        taps: side of the kernel.
        stride: positions between neighbouring pixels.
        padding: positions by which the first pixel's kernel reaches over the border.
        periodic: wrap around the border instead of cutting off.

    Returns:
        The axis; the same object for the same arguments.
    """
    turned = spread(positions, pixels, taps, stride, padding, periodic=periodic)
    reached = [[-1] * positions for _ in range(taps)]
    for tap, row in enumerate(turned.pixels):
        for pixel, at in enumerate(row):
            if at >= 0:
                reached[tap][at] = pixel
    return Axis(tuple(tuple(row) for row in reached))


@dataclass(frozen=True)
class Links:
    """All pairs of positions of two columns that meet along one axis."""

    taps: tuple[Taps, ...]
    """The different ways in which they meet."""
    pairs: dict[tuple[int, int], int]
    """For each pair of positions that meets: which way."""


@lru_cache(maxsize=4096)
def links(shares: Shares) -> Links:
    """Find all pairs of positions of two columns that meet along one axis.

    Args:
        shares: the blocks through which they meet.

    Returns:
        The pairs, and the ways in which they meet.
    """
    met: dict[tuple[int, int], list[list[tuple[int, int]]]] = {}
    for number, (left, right) in enumerate(shares):
        there: dict[int, list[tuple[int, int]]] = {}
        for tap, row in enumerate(right.pixels):
            for position, pixel in enumerate(row):
                if pixel >= 0:
                    there.setdefault(pixel, []).append((tap, position))
        for tap, row in enumerate(left.pixels):
            for position, pixel in enumerate(row):
                for other, target in there.get(pixel, ()):
                    ways = met.setdefault((position, target), [[] for _ in shares])
                    ways[number].append((tap, other))
    ids: dict[Taps, int] = {}
    pairs = {pair: ids.setdefault(tuple(tuple(sorted(way)) for way in ways), len(ids)) for pair, ways in met.items()}
    return Links(tuple(ids), pairs)


@lru_cache(maxsize=4096)
def classes(own: Shares) -> tuple[tuple[Taps, ...], tuple[int, ...]]:
    """Sort the positions of one column by how the border cuts them.

    Args:
        own: the blocks through which the column meets itself.

    Returns:
        For each class the taps that remain, and the class of each position.
    """
    meetings = links(own)
    ids: dict[int, int] = {}
    member = tuple(
        ids.setdefault(meetings.pairs[position, position], len(ids)) if (position, position) in meetings.pairs else -1
        for position in range(own[0][0].positions)
    )
    return tuple(meetings.taps[way] for way in ids), member


@dataclass(frozen=True)
class Meeting:
    """One kind of meeting of two positions along an axis."""

    way: int
    """Which of `Links.taps`."""
    left: int
    """Class of the first position."""
    right: int
    """Class of the second position."""
    same: bool
    """Whether both are one position of one column."""


@lru_cache(maxsize=4096)
def cases(shares: Shares, left: Shares, right: Shares, *, same: bool) -> tuple[tuple[Meeting, int], ...]:
    """Count the kinds of meetings of two columns along one axis.

    Args:
        shares: the blocks through which they meet.
        left: the blocks through which the first meets itself.
        right: the blocks through which the second meets itself.
        same: whether both are the same column.

    Returns:
        Every kind with the number of pairs of positions of that kind.
    """
    lefts, rights = classes(left)[1], classes(right)[1]
    count = Counter(Meeting(way, lefts[p], rights[q], same and p == q) for (p, q), way in links(shares).pairs.items())
    return tuple(count.items())


@lru_cache(maxsize=4096)
def neighbourhoods(
    columns: tuple[tuple[Shares, Shares], ...], own: int
) -> tuple[tuple[tuple[int, tuple[tuple[Meeting, ...], ...]], int], ...]:
    """Sort the positions of one column by all that they meet along one axis.

    Args:
        columns: for each column that it meets (itself among them) the blocks in common and that column's own.
        own: which of them it is itself.

    Returns:
        For every kind of position its class and the cases that it meets in each column, and how many there are.
    """
    mine = columns[own][1]
    lefts = classes(mine)[1]
    meetings: list[list[list[Meeting]]] = [[[] for _ in columns] for _ in lefts]
    for number, (shares, other) in enumerate(columns):
        rights = classes(other)[1]
        for (p, q), way in links(shares).pairs.items():
            meetings[p][number].append(Meeting(way, lefts[p], rights[q], number == own and p == q))
    kinds = Counter(
        (lefts[p], tuple(tuple(sorted(met, key=_order)) for met in columns_met))
        for p, columns_met in enumerate(meetings)
    )
    return tuple(kinds.items())


def _order(case: Meeting) -> tuple[int, int, int, bool]:
    return case.way, case.left, case.right, case.same
