"""Where corrupted images come from: drawn from the clean ones, or read from a folder as CIFAR-10-C is one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustframe.corruptions.kinds import CITED, KINDS, SEVERITIES, check_images, check_kinds, corrupt
from robustframe.data import Dataset
from robustframe.errors import InputError, unknown
from robustframe.files import npy_rows
from robustframe.types import Images

LABELS = "labels"
FOLDER = "folder:"


@dataclass(frozen=True)
class Corruptions:
    """The corrupted images of some examples, by kind and severity; made by `load_corruptions`."""

    use: str
    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    data: Dataset
    seed: int
    folder: Path | None = None
    """Where the images lie; they are drawn when ``None``."""
    stride: int = 0
    """Images of one severity in a file."""

    def images(self, kind: str, severity: int, index: Tensor) -> Images:
        """Return the corrupted images of some examples.

        Args:
            kind: one of its kinds.
            severity: one of its severities.
            index: the examples, int64, shape (n,), rising.

        Returns:
            Multiples of 1/255, float32, shape (n, c, h, w).
        """
        if self.folder is None:
            return corrupt(self.data.images[index], kind, severity, seed=self.seed, index=index.tolist())
        if not len(index):
            return self.data.images[:0]
        start, stop = int(index[0]), int(index[-1]) + 1
        return self._read(kind, severity, start, stop)[index - start]

    @cached_property
    def sha256(self) -> str | None:
        """Of all images, where they are read from files; drawn ones follow from the clean ones and the seed."""
        if self.folder is None:
            return None
        digest = hashlib.sha256()
        for kind in self.kinds:
            for severity in self.severities:
                digest.update(f"{kind} {severity}\n".encode())
                digest.update((self._read(kind, severity, 0, len(self.data)) * 255).round().byte().numpy().tobytes())
        return digest.hexdigest()

    def _read(self, kind: str, severity: int, start: int, stop: int) -> Images:
        path = self._path(kind)
        first = SEVERITIES.index(severity) * self.stride
        rows, _ = npy_rows(path, slice(first + start, first + stop))
        grey = rows.ndim == 3
        images = torch.from_numpy(rows.copy()).float() / 255
        return images[:, None] if grey else images.permute(0, 3, 1, 2).contiguous()

    def _path(self, kind: str) -> Path:
        return (self.folder or Path()) / f"{kind}.npy"


def load_corruptions(
    use: str,
    data: Dataset,
    *,
    seed: int,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    folder: Path | None = None,
) -> Corruptions:
    """Find corrupted images of some examples.

    Args:
        use: ``corruptions@1``, which draws them, or ``folder:PATH``: a file ``KIND.npy`` a kind, uint8 of shape
            (5 n, h, w, c) or (5 n, h, w), severities one after the other, and ``labels.npy``, as CIFAR-10-C.
        data: the clean examples; those of a folder are the first of its n.
        seed: of what is drawn.
        kinds: all that there are when ``None``.
        severities: all five when ``None``.
        folder: what a relative path is relative to.

    Raises:
        InputError: for an unknown kind or severity, images that the parameters were not made for, and a folder that
            lacks a file, has files of another shape or labels of other examples.
    """
    levels = tuple(SEVERITIES if severities is None else severities)
    if use == CITED:
        chosen = tuple(KINDS if kinds is None else kinds)
        check_kinds(chosen, levels)
        check_images(tuple(data.images.shape[1:]))
        return Corruptions(use, chosen, levels, data, seed)
    if not use.startswith(FOLDER):
        raise unknown("corruptions", use, [CITED, f"{FOLDER}PATH"])
    place = (folder or Path()) / use.removeprefix(FOLDER)
    there = sorted(path.stem for path in place.glob("*.npy") if path.stem != LABELS)
    if not there:
        raise InputError(f"{place} holds no KIND.npy, such as fog.npy; CIFAR-10-C is a folder of them")
    # Those of the paper first, in its order; a folder may hold others, which are asked for by name.
    chosen = tuple([kind for kind in KINDS if kind in there] or there) if kinds is None else tuple(kinds)
    check_kinds(chosen, levels, there)
    stride = _checked_labels(place, data)
    found = Corruptions(use, chosen, levels, data, seed, place, stride)
    for kind in chosen:
        _check_file(place / f"{kind}.npy", stride, tuple(data.images.shape[1:]))
    return found


def _checked_labels(place: Path, data: Dataset) -> int:
    """Return how many images of one severity there are, once their labels are those of the data."""
    path = place / f"{LABELS}.npy"
    labels, count = npy_rows(path, slice(0, len(data)))
    if labels.ndim != 1 or count % len(SEVERITIES) or count // len(SEVERITIES) < len(data):
        raise InputError(
            f"{path} has {count:,} labels; it needs one for each of {len(SEVERITIES)} severities of at least "
            f"{len(data):,} images"
        )
    for first in range(0, count, count // len(SEVERITIES)):
        labels, _ = npy_rows(path, slice(first, first + len(data)))
        if not np.array_equal(labels, data.labels.numpy()):
            other = int(np.flatnonzero(labels != data.labels.numpy())[0])
            raise InputError(
                f"{path} says {int(labels[other])} for image {first + other}, {data.name} {data.split} "
                f"{int(data.labels[other])} for image {other}: they are not the same images in the same order, one "
                "severity after the other"
            )
    return count // len(SEVERITIES)


def _check_file(path: Path, stride: int, shape: tuple[int, ...]) -> None:
    one, count = npy_rows(path, slice(0, 1))
    found = (1, *one.shape[1:]) if one.ndim == 3 else (one.shape[-1], *one.shape[1:-1])
    if count != stride * len(SEVERITIES) or found != shape:
        raise InputError(
            f"{path} holds {count:,} images of shape {one.shape[1:]}; it must hold {stride * len(SEVERITIES):,}, "
            f"{len(SEVERITIES)} severities of {stride:,}, of shape (h, w, c) where the data has {shape}"
        )
