"""Data of the user's own: arrays in a file, or a folder of images with one sub-folder a class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from robustframe.data.dataset import Dataset, from_arrays, from_bytes
from robustframe.draws import derive_seed
from robustframe.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
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
    missing = [key for key in ("images", "labels") if key not in arrays]
    if missing:
        held = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {held}; it needs the arrays images and labels")
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
    if not path.is_file():
        raise InputError(f"the data file {path} does not exist")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return dict(held)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix}: {error}") from error
    raise InputError(f"data file {path} must end in .npz or .safetensors, with the arrays images and labels")


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
    if not path.is_dir():
        raise InputError(f"the data folder {path} does not exist")
    classes = sorted(each.name for each in path.iterdir() if each.is_dir())
    files = [
        (folder, file.relative_to(path / folder).as_posix())
        for folder in classes
        for file in (path / folder).rglob("*")
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise InputError(f"{path} has no images; it needs a folder for each class with images ({IMAGE_ENDINGS[3]} ...)")
    return sorted(files, key=lambda each: derive_seed("folder", *each)), classes


def _read(path: Path, resize: int | None, crop: int | None) -> "Image.Image":
    # Here and not above: shipped data needs neither.
    from PIL import Image
    from torchvision.transforms import functional

    try:
        with Image.open(path) as file:
            image = file.convert("L" if file.mode in ("1", "L") else "RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    if resize is not None:
        image = functional.resize(image, [resize])
    if crop is not None:
        if crop > min(image.size):
            size = f"{image.size[0]} x {image.size[1]}"
            raise InputError(f"{path} is {size} where crop = {crop} is cut from it; resize it to at least {crop}")
        image = functional.center_crop(image, [crop, crop])
    return image
