"""Blur: defocus, frosted glass, motion and zoom."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy import ndimage

from robustframe.corruptions.noise import Batch, each


def smoothed(x: Batch, sigma: float, *, truncate: float = 4.0, mode: str = "nearest") -> Batch:
    """Blur over height and width by a Gaussian of a standard deviation in pixels."""
    found: Batch = ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode=mode, truncate=truncate)
    return found


def disk(radius: float, alias_blur: float) -> NDArray[np.float64]:
    """Return the kernel of a lens out of focus: a disk, its edge softened by a Gaussian on 3 x 3 pixels."""
    reach = math.ceil(radius) + 1
    at = np.arange(-reach, reach + 1)
    sharp = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
    soft = np.exp(-(np.arange(-1, 2) ** 2) / (2 * alias_blur**2))
    soft /= soft.sum()
    kernel: NDArray[np.float64] = ndimage.convolve(sharp, np.outer(soft, soft), mode="constant")
    kernel /= kernel.sum()
    return kernel


def defocus_blur(x: Batch, given: tuple[float, float], draws: Sequence[RandomState]) -> Batch:
    """Blur by a disk of a radius in pixels, its edge softened."""
    del draws
    found: Batch = ndimage.correlate(x, disk(*given)[None, :, :, None], mode="mirror")
    return found


def glass_blur(x: Batch, given: tuple[float, int, int], draws: Sequence[RandomState]) -> Batch:
    """Blur, put a neighbour in the place of each pixel some times over, and blur again.

    The published code means to exchange the two, but writes one over the other; CIFAR-10-C was made so, as is this.
    """
    sigma, reach, times = given
    x = np.floor(smoothed(x, sigma) * 255) / 255
    n, height, width, _ = x.shape
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    image = np.arange(n)
    for _ in range(times):
        # An offset is in [-reach, reach), as published.
        offsets = each(draws, lambda own: own.randint(-reach, reach, size=(len(rows), len(columns), 2)))
        places = offsets.astype(np.int64)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                to = image, row + places[:, i, j, 1], column + places[:, i, j, 0]
                x[:, row, column] = x[to]
    return smoothed(x, sigma)


def along(x: Batch, radius: int, sigma: float, degrees: NDArray[np.float64]) -> Batch:
    """Smear every image along its own direction, as ImageMagick does: half a Gaussian over ``2 radius + 1`` pixels.

    Args:
        x: shape (n, h, w, c).
        radius: in pixels.
        sigma: standard deviation in pixels.
        degrees: an angle for each image.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    height, width = x.shape[1:3]
    image = np.arange(len(x))[:, None, None]
    found = np.zeros_like(x)
    angle = np.deg2rad(degrees)
    for step, weight in zip(steps, weights):
        down, right = (np.ceil(step * part - 0.5).astype(np.int64) for part in (np.sin(angle), np.cos(angle)))
        rows = np.clip(np.arange(height) + down[:, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, None], 0, width - 1)
        found += weight * x[image, rows[:, :, None], columns[:, None, :]]
    return found


def motion_blur(x: Batch, given: tuple[int, float], draws: Sequence[RandomState]) -> Batch:
    """Smear along a direction of -45 to 45 degrees."""
    return along(x, *given, each(draws, lambda own: own.uniform(-45, 45, size=())))


def zoomed(x: Batch, factor: float) -> Batch:
    """Magnify the middle of every image, linearly, to the size that it has."""
    sides = x.shape[1:3]
    cut = [math.ceil(side / factor) for side in sides]
    first = [(side - part) // 2 for side, part in zip(sides, cut)]
    middle = x[:, first[0] : first[0] + cut[0], first[1] : first[1] + cut[1]]
    large = ndimage.zoom(middle, (1, factor, factor, 1), order=1)
    over = [(part - side) // 2 for side, part in zip(sides, large.shape[1:3])]
    found: Batch = large[:, over[0] : over[0] + sides[0], over[1] : over[1] + sides[1]]
    return found


def zoom_blur(x: Batch, furthest: float, draws: Sequence[RandomState]) -> Batch:
    """Average the image and its magnifications, in steps of 1 %."""
    del draws
    factors = np.arange(1, furthest, 0.01)
    total = x + sum(zoomed(x, factor) for factor in factors)
    return total / (len(factors) + 1)
