"""The IDX files of MNIST and its siblings, read with every byte accounted for."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import IntegrityError

_UNSIGNED_BYTE = 0x08


def parse_idx(content: bytes, dims: int, *, where: str) -> NDArray[Any]:
    """Read an IDX file of unsigned bytes.

    Args:
        content: the whole unpacked file.
        dims: how many dimensions it must have: 3 for images, 1 for labels.
        where: the file's name for error messages.

    Returns:
        A uint8 array of the shape that the file states.

    Raises:
        IntegrityError: for another kind of file, another number of dimensions, or a length that does not fit.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), 1, where="labels").tolist()
    [7, 9]
    """
    header = 4 + 4 * dims
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise IntegrityError(f"{where} is not an IDX file of unsigned bytes: it starts with {content[:4].hex(' ')!r}")
    if content[3] != dims:
        raise IntegrityError(f"{where} has {content[3]} dimensions where {dims} are expected; is it another file?")
    if len(content) < header:
        raise IntegrityError(f"{where} ends inside its header, after {len(content)} bytes; fetch it again")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    stated, found = math.prod(shape), len(content) - header
    if stated != found:
        raise IntegrityError(f"{where} states shape {shape}, {stated} bytes, but holds {found}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
