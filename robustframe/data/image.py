"""One image file as a viewer shows it, or a sentence on why it is ambiguous."""

import contextlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustframe.errors import InputError
from robustframe.files import IMAGE_BYTES, decoding, opened

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of the endings that are read: what else the library knows, it would know by content, and hand to other programs."""
PIXELS = 2**26
"""Most pixels of an image."""
_WHITE = 65535
"""Of 16 bits."""
_ORIENTATION = 0x0112


def read_image(path: Path, resize: int | None = None, crop: int | None = None) -> tuple[NDArray[Any], bool]:
    """Read an image, scale it and cut its middle out.

    Args:
        path: the file.
        resize: length to which the shorter side is scaled (bilinear, antialiased).
        crop: side of the square that is then cut from the middle.

    Returns:
        Bytes from 0 to 255, or for more than 8 bits float32 in [0, 1], of shape (h, w) where it is grey, else
        (h, w, 3); and whether it was turned as its EXIF says.

    Raises:
        InputError: for what is no image, or an ambiguous one: with transparent pixels, with
            several pictures, or with numbers of which it is not known which is white.
    """
    # Here and not above: shipped data needs neither.
    from PIL import Image
    from torchvision.transforms import functional

    with opened(path, limit=IMAGE_BYTES, what="the image") as content, decoding(path, "an image"):
        with warnings.catch_warnings():
            # The limit below is the stricter one.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(content, formats=_FORMATS)
        image, turned = as_shown(file, path)
    if resize is not None:
        image = functional.resize(image, [resize])
    if crop is not None:
        if crop > min(image.size):
            size = f"{image.size[0]} x {image.size[1]}"
            raise InputError(f"{path} is {size} where crop = {crop} is cut from it; resize it to at least {crop}")
        image = functional.center_crop(image, [crop, crop])
    return pixels_of(image), turned


def as_shown(file: "Image.Image", path: Path | str) -> "tuple[Image.Image, bool]":
    """Make of an image what a viewer shows.

    Args:
        file: as it is opened.
        path: how a sentence calls it.

    Returns:
        An image of mode L, RGB, or F with numbers in [0, 1]; and whether it was turned as its EXIF says.

    Raises:
        InputError: as `read_image`.
    """
    if math.prod(file.size) > PIXELS:
        size = f"{file.size[0]:,} x {file.size[1]:,}"
        raise InputError(f"{path} is {size}; an image of at most {PIXELS:,} pixels is taken")
    # Photographs of telephones hold small ones beside the one that is shown, as a format of its own.
    if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
        raise InputError(f"{path} holds {getattr(file, 'n_frames', 1)} pictures; store each as a file of its own")
    image, way = _plain(file, path), _way_up(file)
    return (image if way is None else image.transpose(way)), way is not None


def pixels_of(image: "Image.Image") -> NDArray[Any]:
    """Return the pixels of an image that `as_shown` made, of the shape and type that `read_image` states."""
    pixels = np.asarray(image)
    # Scaling rounds.
    return pixels.clip(0, 1) if image.mode == "F" else pixels


def stacked(images: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Put images of one size into an array of shape (n, c, h, w): bytes where all are, else floats in [0, 1]."""
    grey = all(image.ndim == 2 for image in images)
    if any(image.dtype != np.uint8 for image in images):
        images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
    if grey:
        return np.stack(images)[:, None]
    colour = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    return np.stack(colour).transpose(0, 3, 1, 2)


def _plain(file: "Image.Image", path: Path | str) -> "Image.Image":
    """Return an image of mode L, RGB, or F with numbers in [0, 1]."""
    from PIL import Image

    file.load()
    if file.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
        return _opaque(file, path)
    if file.mode.startswith("I") or file.mode == "F":
        return Image.fromarray(_deep(file, path))
    return file.convert("L" if file.mode in ("1", "L") else "RGB")


def _opaque(file: "Image.Image", path: Path | str) -> "Image.Image":
    """Drop an alpha channel that says nothing."""
    grey = file.mode in ("1", "L", "LA", "La")
    if file.mode.startswith("I"):
        raise InputError(f"{path} has a transparent colour among 16-bit ones; store it without")
    whole = file.convert("RGBA")
    low, _ = whole.getchannel("A").getextrema()
    if low != 255:
        raise InputError(
            f"{path} has transparent pixels, and nothing says what is behind them; paste it onto the background that "
            "the model was trained with"
        )
    return whole.getchannel("R") if grey else whole.convert("RGB")


def _deep(file: "Image.Image", path: Path | str) -> NDArray[Any]:
    """Return numbers of more than 8 bits as float32 in [0, 1]."""
    pixels = np.asarray(file).astype(np.float64)
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
        return (pixels / _WHITE).astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if file.mode == "F" and low >= 0 and high <= 1:
        return pixels.astype(np.float32)
    kind = "floats" if file.mode == "F" else "whole numbers of 32 bits"
    raise InputError(
        f"{path} holds {kind} from {low:.6g} to {high:.6g}, and nothing says which value is white; store it with "
        "8 or 16 bits, or as floats in [0, 1]"
    )


def _way_up(file: "Image.Image") -> "Image.Transpose | None":
    """Return how a viewer turns an image that was loaded; ``None`` for not at all, as where its EXIF is damaged."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    with contextlib.suppress(Exception):
        return ways.get(file.getexif().get(_ORIENTATION, 1))
    return None


def save_png(path: Path, image: Tensor) -> Path:
    """Write an image in steps of 1/255 as a PNG file, so that it reads back as it is.

    Args:
        path: the file; its folder is made.
        image: shape (1, h, w), grey, or (3, h, w), colours.

    Raises:
        InputError: for another shape.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"an image of shape {tuple(image.shape)} makes no PNG file; one or three channels do")
    from PIL import Image

    pixels = torch.round(image * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(2) if image.shape[0] == 1 else pixels).save(path)
    return path
