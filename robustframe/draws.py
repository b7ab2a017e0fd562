"""Random numbers that belong to an example, whatever else is in its batch."""

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BLOCK = 2**20
"""Numbers that are drawn at once, so that what is drawn for others of the chunk takes little memory."""
_VECTOR = 16
"""Normal numbers come in vectors of so many: parts of whole vectors are, one after the other, the whole."""


def derive_seed(*key: object) -> int:
    """Derive a 63-bit seed from a key, the same on every machine.

    Args:
        key: strings and integers, such as ``(seed, "apgd-ce", restart, chunk)``.

    Returns:
        An integer in [0, 2**63).

    >>> derive_seed(0, "pgd") == derive_seed(0, "pgd") != derive_seed(1, "pgd")
    True
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Draws:
    """A stream of random numbers for some rows of a chunk of examples.

    Every draw is made for the whole chunk on the CPU and then indexed, so a row gets the same numbers
    whichever other rows are still in the attack, on whichever device. The global random state is never
    touched.

    Args:
        key: what the stream is derived from, such as ``(seed, attack, chunk)``.
        chunk_size: number of rows in the whole chunk.
        rows: the rows this stream serves, in order; all of them when ``None``.
        device: where the numbers are wanted.
    """

    def __init__(
        self,
        key: Sequence[object],
        chunk_size: int,
        rows: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.key = tuple(key)
        self.seed = derive_seed(*key)
        self.chunk_size = chunk_size
        self._rows = None if rows is None else rows.cpu()
        self._device = torch.device(device)
        self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def rows(self) -> Tensor:
        """The rows of the chunk that this stream serves, int64 on the CPU."""
        return torch.arange(self.chunk_size) if self._rows is None else self._rows

    def child(self, *key: object) -> "Draws":
        """Return an independent stream for the same rows, such as one for a restart."""
        return Draws((*self.key, *key), self.chunk_size, self._rows, self._device)

    def of(self, places: slice | Tensor) -> "Draws":
        """Return the same stream, from its beginning, for some of these rows."""
        return Draws(self.key, self.chunk_size, self.rows[places], self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Draw float32 numbers from [0, 1), shaped (rows, *shape)."""
        return self._draw(shape, lambda size: torch.rand(size, generator=self._generator))

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 numbers from the standard normal distribution, shaped (rows, *shape)."""
        return self._draw(shape, lambda size: torch.randn(size, generator=self._generator))

    def sign(self, *shape: int) -> Tensor:
        """Draw -1.0 or +1.0 with equal probability, shaped (rows, *shape)."""
        return self._draw(shape, lambda size: torch.randint(0, 2, size, generator=self._generator).float()) * 2 - 1

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw int64 numbers from 0 to ``high`` - 1, shaped (rows, *shape)."""
        return self._draw(shape, lambda size: torch.randint(0, high, size, generator=self._generator))

    def _draw(self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Draw for the whole chunk, some rows after the others, and keep those that are served."""
        each = max(math.prod(shape), 1)
        least = _VECTOR // math.gcd(each, _VECTOR)
        step = max(_BLOCK // each // least, 1) * least
        if self.chunk_size <= step:
            numbers = draw((self.chunk_size, *shape))
            return (numbers if self._rows is None else numbers[self._rows]).to(self._device)
        edges = [*range(0, self.chunk_size, step), self.chunk_size]
        if (edges[-1] - edges[-2]) * each < _VECTOR:
            # Too little for a vector of its own.
            del edges[-2]
        parts, places = [], []
        for start, stop in itertools.pairwise(edges):
            numbers = draw((stop - start, *shape))
            here = ((self.rows >= start) & (self.rows < stop)).nonzero().squeeze(1)
            parts.append(numbers[self.rows[here] - start])
            places.append(here)
        kept = torch.cat(parts)
        # As they were asked for, which is nearly always in order.
        order = torch.cat(places)
        return (kept if bool((order.diff() > 0).all()) else kept[order.argsort()]).to(self._device)
