"""Digital: contrast, elastic deformation, pixelation and JPEG."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from robustframe.corruptions.blur import smoothed
from robustframe.corruptions.noise import Batch, each


def contrast(x: Batch, kept: float, draws: Sequence[RandomState]) -> Batch:
    """Draw every channel of an image towards its mean."""
    del draws
    mean = x.mean(axis=(1, 2), keepdims=True)
    return np.asarray((x - mean) * kept + mean)


def elastic_transform(x: Batch, given: tuple[float, float, float], draws: Sequence[RandomState]) -> Batch:
    """Shift three corners of a square, and let the image follow; then displace each pixel smoothly.

    Args:
        x: shape (n, h, w, c).
        given: how far pixels go, how smoothly, and how far the corners go, in lengths of the shorter side.
        draws: a generator for each image.
    """
    height, width = x.shape[1:3]
    side = min(height, width)
    far, smooth, corners = (side * part for part in given)
    moved = each(draws, lambda own: own.uniform(-corners, corners, size=(3, 2)))
    offsets = each(draws, lambda own: own.uniform(-1, 1, size=(height, width, 2)))
    offsets = far * smoothed(offsets, smooth, truncate=3.0, mode="reflect")
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(float)
    found = np.empty_like(x)
    for at, image in enumerate(x):
        affine = _sampled(image, _followed(grid, moved[at], (height, width)), "mirror")
        found[at] = _sampled(affine, grid + np.moveaxis(offsets[at], 2, 0), "reflect")
    return found


def _followed(grid: NDArray[np.float64], moved: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Where every pixel comes from when three corners of the middle square, in (x, y), are moved."""
    middle, reach = np.array(shape) // 2, min(shape) // 3
    before = np.array([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach], dtype=float)
    after = np.column_stack([before + moved, np.ones(3)])
    back = np.linalg.solve(after, before)
    x, y = grid[1], grid[0]
    source = [x * back[0, axis] + y * back[1, axis] + back[2, axis] for axis in (1, 0)]
    return np.stack(source)


def _sampled(image: NDArray[np.float64], places: NDArray[np.float64], mode: str) -> NDArray[np.float64]:
    channels = [ndimage.map_coordinates(channel, places, order=1, mode=mode) for channel in np.moveaxis(image, 2, 0)]
    return np.stack(channels, axis=2)


def pixelate(x: Batch, scale: float, draws: Sequence[RandomState]) -> Batch:
    """Shrink and enlarge again, by areas."""
    del draws

    def coarse(image: Image.Image) -> Image.Image:
        width, height = image.size
        small = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
        return small.resize((width, height), Image.Resampling.BOX)

    return _through(x, coarse)


def jpeg_compression(x: Batch, quality: int, draws: Sequence[RandomState]) -> Batch:
    """Compress as JPEG of a quality in percent."""
    del draws

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through(x, compressed)


def _through(x: Batch, change: Callable[[Image.Image], Image.Image]) -> Batch:
    """Pass each image through Pillow, in 8 bits."""
    grey = x.shape[3] == 1
    stored = np.rint(x * 255).astype(np.uint8)
    images = [change(Image.fromarray(each[..., 0] if grey else each)) for each in stored]
    return np.stack([np.asarray(image, dtype=float).reshape(x.shape[1:]) for image in images]) / 255
