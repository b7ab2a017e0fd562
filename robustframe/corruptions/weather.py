"""Weather: snow, frost, fog and brightness."""

from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from robustframe.corruptions.blur import along, zoomed
from robustframe.corruptions.noise import Batch, each

_FROST = 1.6
"""How much finer ice is than its coarsest crystals; smaller is rougher."""
_ICE = np.array([0.90, 0.96, 1.0])
"""A light blue, as a factor of red, green and blue."""


def plasma(side: int, decay: float, own: RandomState) -> NDArray[np.float64]:
    """Draw a fractal of clouds by the diamond-square algorithm (Fournier, Fussell and Carpenter, 1982).

    Args:
        side: of the square, a power of two; it repeats itself without a seam.
        decay: by how much the displacements shrink with each halving, above 1.
        own: the generator of the image.

    Returns:
        Heights from 0 to 1, shape (side, side).
    """
    heights = np.zeros((side, side))
    step, size = side, 100.0
    while step >= 2:
        half = step // 2

        def displaced(total: NDArray[np.float64], size: float = size) -> NDArray[np.float64]:
            return total / 4 + size * own.uniform(-size, size, total.shape)

        corners = heights[::step, ::step]
        across = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = displaced(across + np.roll(across, -1, axis=1))
        middles, corners = heights[half::step, half::step], heights[::step, ::step]
        upright = middles + np.roll(middles, 1, axis=0)
        heights[::step, half::step] = displaced(upright + corners + np.roll(corners, -1, axis=1))
        level = middles + np.roll(middles, 1, axis=1)
        heights[half::step, ::step] = displaced(level + corners + np.roll(corners, -1, axis=0))
        step, size = half, size / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _clouds(x: Batch, decay: float, draws: Sequence[RandomState]) -> Batch:
    height, width = x.shape[1:3]
    side = max(32, 1 << (max(height, width) - 1).bit_length())
    return each(draws, lambda own: plasma(side, decay, own)[:height, :width])[..., None]


def fog(x: Batch, given: tuple[float, float], draws: Sequence[RandomState]) -> Batch:
    """Add clouds of a thickness, and scale the brightest pixel back to where it was."""
    thick, decay = given
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((x + thick * _clouds(x, decay, draws)) * brightest / (brightest + thick))


def frost(x: Batch, given: tuple[float, float], draws: Sequence[RandomState]) -> Batch:
    """Lay ice over the image: ridges of a fractal, since the published photographs of ice may not be passed on."""
    kept, ice = given
    ridges = 1 - np.abs(2 * _clouds(x, _FROST, draws) - 1)
    texture = 0.25 + 0.75 * ridges**2
    return np.asarray(kept * x + ice * texture * (_ICE if x.shape[3] == 3 else _ICE.mean()))


def snow(x: Batch, given: tuple[float, float, float, float, int, float, float], draws: Sequence[RandomState]) -> Batch:
    """Whiten the image, and let flakes fall from two sides."""
    mean, scale, zoom, threshold, radius, sigma, kept = given
    flakes = each(draws, lambda own: own.normal(mean, scale, size=x.shape[1:3]))[..., None]
    flakes = zoomed(flakes, zoom)
    flakes[flakes < threshold] = 0
    flakes = np.floor(np.clip(flakes, 0, 1) * 255) / 255
    flakes = along(flakes, radius, sigma, each(draws, lambda own: own.uniform(-135, -45, size=())))
    grey = x @ np.array([0.299, 0.587, 0.114]) if x.shape[3] == 3 else x[..., 0]
    white = np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return np.asarray(kept * x + (1 - kept) * white + flakes + flakes[:, ::-1, ::-1])


def brightness(x: Batch, more: float, draws: Sequence[RandomState]) -> Batch:
    """Raise the value of hue, saturation and value."""
    del draws
    value = x.max(axis=3, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    # Hue and saturation stay, so that all channels grow by one factor; black has neither.
    return np.asarray(np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised))
