"""Random numbers that belong to an example, whatever else is in its batch."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


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

    def uniform(self, *shape: int) -> Tensor:
        """Draw float32 numbers from [0, 1), shaped (rows, *shape)."""
        return self._give(torch.rand((self.chunk_size, *shape), generator=self._generator))

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 numbers from the standard normal distribution, shaped (rows, *shape)."""
        return self._give(torch.randn((self.chunk_size, *shape), generator=self._generator))

    def sign(self, *shape: int) -> Tensor:
        """Draw -1.0 or +1.0 with equal probability, shaped (rows, *shape)."""
        bits = torch.randint(0, 2, (self.chunk_size, *shape), generator=self._generator)
        return self._give(bits.float() * 2 - 1)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw int64 numbers from 0 to ``high`` - 1, shaped (rows, *shape)."""
        return self._give(torch.randint(0, high, (self.chunk_size, *shape), generator=self._generator))

    def _give(self, numbers: Tensor) -> Tensor:
        picked = numbers if self._rows is None else numbers[self._rows]
        return picked.to(self._device)
