"""Noise: Gaussian, shot and impulse noise.

Everything here takes a batch of images in [0, 1], float64 of shape (n, h, w, c), the parameter of a severity, and one
generator an image; it returns images that are clipped later.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Batch = NDArray[np.float64]


def each(draws: Sequence[RandomState], draw: Callable[[RandomState], Any]) -> Batch:
    """Draw for every image from its own generator, as float64."""
    return np.stack([np.asarray(draw(own), dtype=np.float64) for own in draws])


def gaussian_noise(x: Batch, scale: float, draws: Sequence[RandomState]) -> Batch:
    """Add normal noise of one standard deviation to every number."""
    return x + each(draws, lambda own: own.normal(scale=scale, size=x.shape[1:]))


def shot_noise(x: Batch, photons: float, draws: Sequence[RandomState]) -> Batch:
    """Count photons, of which white has so many on average."""
    return np.stack([own.poisson(image * photons) for image, own in zip(x, draws)]) / photons


def impulse_noise(x: Batch, share: float, draws: Sequence[RandomState]) -> Batch:
    """Set a share of all numbers to 0 or 1, as often the one as the other."""
    flipped = each(draws, lambda own: own.uniform(size=x.shape[1:])) < share
    salt = each(draws, lambda own: own.uniform(size=x.shape[1:])) < 0.5
    return np.where(flipped, salt.astype(float), x)
