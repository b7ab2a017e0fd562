"""Data of the user's own: arrays in a file, or a folder of images with one sub-folder a class."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustframe.data.dataset import Dataset, from_arrays, from_bytes
from robustframe.draws import derive_seed
from robustframe.errors import InputError
from robustframe.files import (
    DATA_BYTES,
    IMAGE_BYTES,
    check_held,
    decoding,
    opened,
    parse_safetensors,
    read_npz,
    read_plain,
)

if TYPE_CHECKING:
    from PIL import Image

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of those endings: what else the library knows, it would know by content, and hand to other programs."""
CLASSES = 2**16
"""Most classes of data, and of a model by name."""
PIXELS = 2**26
"""Most pixels of an image."""
EXAMPLES = 10**7
"""Most images of a folder."""
_OTHERS = 100_000
"""Files beside as many images that a folder of images may hold."""
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
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
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
    path: Path, *, name: str, count: int | None = None, resize: int | None = None, crop: int | None = None
) -> Dataset:
    """Read a folder of images as torchvision's ImageFolder lays it out, ``CLASS/IMAGE``.

    Classes are numbered in the order of their names. Images come in the order of a hash of their path, so that the
    first hundred are of all classes. They are grey where all of them are, else RGB.

    Args:
        path: the folder.
        name: how records call it.
        count: how many to read; all when ``None``.
        resize: length to which the shorter side is scaled first (bilinear, antialiased).
        crop: side of the square that is then cut from the middle.

    Returns:
        A dataset with split ``"given"``, images of shape (n, c, h, w).

    Raises:
        InputError: for no such folder, no images, an image that cannot be read, or images of several sizes.
    """
    files, classes = _listed(path)
    if count is not None and count > len(files):
        raise InputError(f"{path} has {len(files)} images; {count} cannot be taken from it")
    files = files[:count]
    images = [_read(path / folder / file, resize, crop) for folder, file in files]
    sizes = {image.size: path / folder / file for image, (folder, file) in zip(images, files)}
    if len(sizes) > 1:
        (one, first), (two, second) = list(sizes.items())[:2]
        raise InputError(
            f"images of {path} differ in size ({first} {one[0]} x {one[1]}, {second} {two[0]} x {two[1]}); "
            "say resize = 256 and crop = 224, or the like, in [data] of a recipe"
        )
    grey = all(image.mode in ("1", "L") for image in images)
    pixels = np.stack([np.asarray(image.convert("L" if grey else "RGB")) for image in images])
    pixels = pixels[:, None] if grey else pixels.transpose(0, 3, 1, 2)
    labels = np.array([classes.index(folder) for folder, _ in files])
    return from_bytes(name, _SPLIT, pixels, labels, classes)


def _listed(path: Path) -> tuple[list[tuple[str, str]], Sequence[str]]:
    if not os.path.isdir(path):
        raise InputError(f"the data folder {path} does not exist")
    try:
        classes = sorted(each.name for each in path.iterdir() if each.is_dir())
    except OSError as error:
        raise InputError(f"the data folder {path} cannot be read: {error.strerror or error}") from error
    if len(classes) > CLASSES:
        raise InputError(
            f"{path} has {len(classes):,} folders; a folder of images has at most {CLASSES:,}, one a class"
        )
    files, others = [], 0
    for folder in classes:
        for place, _, names in os.walk(path / folder):
            found = [name for name in names if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS]
            files += [(folder, (Path(place) / name).relative_to(path / folder).as_posix()) for name in found]
            others += len(names) - len(found)
            # A whole disk would be searched for hours.
            if others > _OTHERS + len(files) or len(files) > EXAMPLES:
                raise InputError(
                    f"{path} is no folder of images: it holds at least {len(files):,} of them and {others:,} other "
                    f"files; name a folder that holds a folder of images for each class"
                )
    if not files:
        raise InputError(f"{path} has no images; it needs a folder for each class with images ({IMAGE_ENDINGS[3]} ...)")
    return sorted(files, key=lambda each: derive_seed("folder", *each)), classes


def _read(path: Path, resize: int | None, crop: int | None) -> "Image.Image":
    # Here and not above: shipped data needs neither.
    from PIL import Image
    from torchvision.transforms import functional

    with opened(path, limit=IMAGE_BYTES, what="the image") as content, decoding(path, "an image"):
        with warnings.catch_warnings():
            # The limit below is the stricter one.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(content, formats=_FORMATS)
        if math.prod(file.size) > PIXELS:
            size = f"{file.size[0]:,} x {file.size[1]:,}"
            raise InputError(f"{path} is {size}; an image of at most {PIXELS:,} pixels is taken")
        image = file.convert("L" if file.mode in ("1", "L") else "RGB")
    if resize is not None:
        image = functional.resize(image, [resize])
    if crop is not None:
        if crop > min(image.size):
            size = f"{image.size[0]} x {image.size[1]}"
            raise InputError(f"{path} is {size} where crop = {crop} is cut from it; resize it to at least {crop}")
        image = functional.center_crop(image, [crop, crop])
    return image
