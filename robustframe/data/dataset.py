"""What a dataset is: images in [0, 1], labels, and a hash that says which examples they are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustframe.errors import InputError
from robustframe.types import Images, Labels

UNIT = (0.0, 1.0)
"""Where the values of images lie."""
_ROUNDED = 1e-6
"""How far outside [0, 1] rounding leaves a pixel: some steps of float32."""


@dataclass(frozen=True)
class Dataset:
    """The examples of one split; equal to another when names, classes and `sha256` are."""

    name: str
    split: str
    images: Images = field(repr=False, compare=False)
    """float32 in [0, 1], on the CPU, shape (n, c, h, w); a user's own may have any shape (n, ...)."""
    labels: Labels = field(repr=False, compare=False)
    """int64, shape (n,)."""
    classes: tuple[str, ...]
    """What each label means; empty when nobody said."""
    sha256: str
    """The identity of the examples: see `identity`."""

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def first(self, count: int) -> "Dataset":
        """Keep the first examples, in the order of the file.

        Args:
            count: how many, from 1 to all of them.

        Returns:
            A dataset with its own `sha256`.

        Raises:
            InputError: when there are not that many.
        """
        if not 1 <= count <= len(self):
            raise InputError(f"{self.name} {self.split} has {len(self)} examples; {count} cannot be taken from it")
        images, labels = self.images[:count], self.labels[:count]
        return replace(self, images=images, labels=labels, sha256=identity(images, labels))


def identity(images: Images, labels: Labels) -> str:
    """Hash the examples themselves, wherever they came from.

    Images that are exact multiples of 1/255 are hashed as the bytes they were stored as, others as float32.
    So a dataset has one identity, whether it was loaded by name or its arrays were handed over by the user.

    Args:
        images: in [0, 1], shape (n, ...).
        labels: class numbers, shape (n,).

    Returns:
        64 hexadecimal digits, the same on every machine.
    """
    stored = stored_bytes(images)
    values = images.detach().cpu().numpy().astype("<f4", copy=False) if stored is None else stored
    digest = hashlib.sha256(f"{values.dtype.name} {tuple(values.shape)}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    digest.update(np.ascontiguousarray(labels.cpu().numpy().astype("<i8")).data)
    return digest.hexdigest()


def stored_bytes(images: Images) -> NDArray[np.uint8] | None:
    """Return images that are exact multiples of 1/255 as the bytes they were stored as; ``None`` for others."""
    values = images.detach().cpu().numpy().astype("<f4", copy=False)
    stored = np.rint(values * 255).astype(np.uint8)
    return stored if np.array_equal(stored.astype(np.float32) / np.float32(255), values) else None


def from_pixels(
    name: str,
    split: str,
    pixels: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
) -> Dataset:
    """Make a dataset of pixels that are right.

    Args:
        name: of the dataset.
        split: of the dataset.
        pixels: uint8 values from 0 to 255, or floats in [0, 1], shape (n, c, h, w).
        labels: class numbers, shape (n,).
        classes: what each label means.

    Returns:
        The dataset, with bytes divided by 255.
    """
    images = as_images(pixels)
    targets = torch.from_numpy(labels.astype(np.int64))
    return Dataset(name, split, images, targets, tuple(classes), identity(images, targets))


def as_images(pixels: NDArray[Any]) -> Images:
    """Return pixels as `from_pixels` takes them as float32 in [0, 1], bytes divided by 255."""
    values = pixels.astype(np.float32)
    return torch.from_numpy(values / np.float32(255) if pixels.dtype == np.uint8 else np.ascontiguousarray(values))


def from_arrays(
    images: Tensor | NDArray[Any] | Sequence[Any],
    labels: Tensor | NDArray[Any] | Sequence[Any],
    *,
    name: str = "custom",
    box: tuple[float, float] = UNIT,
) -> Dataset:
    """Make a dataset of the user's own arrays, refusing what would make its numbers meaningless.

    Args:
        images: floating point in [0, 1], or bytes, which are divided by 255, shape (n, ...); copied. What rounding
            leaves outside, 1e-6 at most, is set to 0 or 1.
        labels: whole class numbers from 0, shape (n,) or (n, 1); copied.
        name: how records call it.
        box: smallest and largest value that is allowed, where it is not [0, 1].

    Returns:
        A dataset with split ``"given"`` on the CPU.

    Raises:
        InputError: for another range or type, NaN or infinity, lengths that differ, or no examples.

    >>> len(from_arrays([[0.0, 1.0], [0.5, 0.5]], [0, 1]))
    2
    """
    pixels, targets = _tensor(images, "images"), _tensor(labels, "labels")
    if pixels.dim() < 2:
        raise InputError(
            f"images have shape {tuple(pixels.shape)}; they need one row per example, such as (n, c, h, w)"
        )
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.dim() != 1:
        raise InputError(f"labels have shape {tuple(targets.shape)}, they need shape (n,){_advice(targets)}")
    if len(pixels) != len(targets):
        raise InputError(f"there are {len(pixels)} images but {len(targets)} labels; give one label per image")
    if pixels.numel() == 0:
        raise InputError(f"images have shape {tuple(pixels.shape)}: there is nothing to evaluate")
    pixels, targets = _checked_pixels(pixels, box), _checked_labels(targets)
    return Dataset(name, "given", pixels, targets, (), identity(pixels, targets))


def _tensor(values: Any, what: str) -> Tensor:
    try:
        if isinstance(values, list | tuple) and values and all(isinstance(each, Tensor) for each in values):
            return torch.stack(list(values)).detach().cpu()
        if isinstance(values, Tensor):
            return values.detach().cpu()
        array = np.asarray(values)
        # torch takes neither the other order of bytes nor strides that go backwards.
        return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape))
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise InputError(
            f"{what} of type {kind} are not an array ({error}); give a tensor or a NumPy array of numbers"
        ) from error


def _advice(labels: Tensor) -> str:
    """Say what to do about labels with a row each; a wrong hint would give wrong labels."""
    if labels.dim() != 2 or labels.numel() == 0 or labels.is_complex():
        return ""
    rows = labels.double()
    marks = ((rows == 0) | (rows == 1)).all()
    if marks and bool((rows.sum(1) == 1).all()):
        return "; turn one-hot rows into class numbers with argmax(1)"
    if marks:
        return "; rows that mark several classes, or none, are not supported: an image has one class here"
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-3).all()):
        return "; rows of probabilities are not supported: say which class is right, such as with argmax(1)"
    return "; an image has one class here"


def _checked_pixels(images: Tensor, box: tuple[float, float]) -> Tensor:
    if images.dtype == torch.uint8:
        images = _scaled(images)
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        wide = images.dtype == torch.uint16
        way = "divide by what white is (images / 65535)" if wide else "scale them to floats"
        raise InputError(f"images are {kind}, not floating point in [0, 1]; {way}")
    if not images.isfinite().all():
        bad = int((~images.isfinite()).flatten(1).any(1).sum())
        raise InputError(f"{bad} of {len(images)} images hold NaN or infinity; remove or fix them")
    low, high = float(images.min()), float(images.max())
    if low < box[0] - _ROUNDED or high > box[1] + _ROUNDED:
        if box != UNIT:
            guess = "that is the box of the threat"
        elif low < 0:
            guess = "they look normalised; undo it and put the normalisation into the model"
        elif high > 2:
            guess = "they look like values of [0, 255]; divide by 255"
        else:
            guess = "clip them, after finding out why they leave the box"
        raise InputError(f"images lie in [{_bound(low)}, {_bound(high)}], not in [{box[0]:g}, {box[1]:g}]: {guess}")
    pixels = images.to(torch.float32, copy=True).contiguous()
    return pixels.clamp_(*box) if low < box[0] or high > box[1] else pixels


def _scaled(bytes_: Tensor) -> Tensor:
    """Divide bytes by 255, unless they may be meant as they are."""
    if int(bytes_.max()) == 1:
        raise InputError("images are bytes of 0 and 1 alone; say which is meant, images / 255 or images.float()")
    return bytes_.float() / 255


def _bound(value: float) -> str:
    """Write a bound in few digits, but in so many that what is outside [0, 1] looks it."""
    text = f"{value:.4g}"
    return text if (0 <= float(text) <= 1) == (0 <= value <= 1) else f"{value:.8g}"


def _checked_labels(labels: Tensor) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        kind = str(labels.dtype).removeprefix("torch.")
        raise InputError(f"labels are {kind}; give whole class numbers, such as labels.long()")
    # Not every operation knows every unsigned type.
    labels = labels.to(torch.int64, copy=True)
    lowest = int(labels.min())
    if lowest < 0:
        raise InputError(f"the lowest label is {lowest}; class numbers start at 0")
    return labels
