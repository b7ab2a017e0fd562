"""Data of the user's own: arrays in a file, or a folder of images with one sub-folder a class."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustframe.data.dataset import Dataset, from_arrays, from_pixels
from robustframe.data.image import read_image, stacked
from robustframe.data.listing import list_images
from robustframe.errors import InputError
from robustframe.files import DATA_BYTES, check_held, parse_safetensors, read_npz, read_plain

log = logging.getLogger("robustframe")

_ARRAYS = ("images", "labels")
_SPLIT = "given"


def from_file(path: Path, *, name: str) -> Dataset:
    """Read images and labels from an ``.npz`` or ``.safetensors`` file.

    Args:
        path: holds ``images``, floating point in [0, 1] or bytes from 0 to 255, shape (n, c, h, w) or (n, ...), and
            ``labels``, whole numbers from 0, shape (n,).
        name: how records call it.

    Returns:
        A dataset with split ``"given"``.

    Raises:
        InputError: when it cannot be read, lacks an array, or its arrays are not what `from_arrays` takes.
    """
    arrays = _arrays(path)
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise InputError(f"{path}: images of shape {images.shape} end in channels; store images.transpose(0, 3, 1, 2)")
    try:
        found = from_arrays(images, labels, name=name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return found


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix == ".npz":
        return read_npz(path, _ARRAYS)
    if path.suffix != ".safetensors":
        raise InputError(f"data file {path} must end in .npz or .safetensors, with the arrays images and labels")
    tensors = parse_safetensors(read_plain(path, limit=DATA_BYTES, what="the data file"), path)
    check_held(path, tensors, _ARRAYS)
    return {name: _array(path, name, tensors[name]) for name in _ARRAYS}


def _array(path: Path, name: str, tensor: Tensor) -> NDArray[Any]:
    # NumPy lacks this type; float32 holds every number of it.
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    try:
        return tensor.numpy()
    except TypeError:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{path}: {name} are {kind}; store images as uint8 or float32 and labels as int64") from None


def from_folder(
    path: Path,
    *,
    name: str,
    count: int | None = None,
    resize: int | None = None,
    crop: int | None = None,
    class_map: Sequence[str] | Path | None = None,
) -> Dataset:
    """Read a folder of images as torchvision's ImageFolder lays it out, ``CLASS/IMAGE``.

    Classes are numbered in the order of their names, or by them where all are numbers from 0. Images come in the order
    of a hash of their path, so that the first hundred are of all classes. They are what a viewer shows: turned as EXIF
    says, with the colours of their palette, with 16 bits where they have them; grey where all of them are, else RGB.
    Whatever is left out, such as hidden files, is said.

    Args:
        path: the folder.
        name: how records call it.
        count: how many to read; all when ``None``.
        resize: length to which the shorter side is scaled first (bilinear, antialiased).
        crop: side of the square that is then cut from the middle.
        class_map: which folder is which class: the names of the folders in the order of the model's logits, or a file
            of them; see `robustframe.data.listing.read_class_map`.

    Returns:
        A dataset with split ``"given"``, images of shape (n, c, h, w).

    Raises:
        InputError: for no such folder, no images, an image that cannot be read or whose meaning is not certain, images
            of several sizes, or folders whose classes are ambiguous.
    """
    found = list_images(path, class_map)
    if count is not None and count > len(found.files):
        raise InputError(f"{path} has {len(found.files)} images; {count} cannot be taken from it")
    files = found.files[:count]
    turned = 0
    images: list[NDArray[Any]] = []
    for file, _ in files:
        pixels, was_turned = read_image(path / file, resize, crop)
        turned += was_turned
        images.append(pixels)
    sizes = {image.shape[1::-1]: path / file for image, (file, _) in zip(images, files)}
    if len(sizes) > 1:
        (one, first), (two, second) = list(sizes.items())[:2]
        raise InputError(
            f"images of {path} differ in size ({first} {one[0]} x {one[1]}, {second} {two[0]} x {two[1]}); "
            "say resize = 256 and crop = 224, or the like, in [data] of a recipe"
        )
    if turned:
        log.warning("%s: %s of %s images are turned as their EXIF says", path, turned, len(images))
    labels = np.array([label for _, label in files])
    return from_pixels(name, _SPLIT, stacked(images), labels, found.classes)
