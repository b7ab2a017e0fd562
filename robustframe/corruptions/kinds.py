"""The fifteen corruptions at five severities (Hendrycks and Dietterich, 2019, arXiv:1903.12261).

The parameters are those of CIFAR-10-C, for images of 32 x 32 pixels, and are taken for grey images of 28 x 28 as they
stand: lengths in pixels stay, those of the elastic deformation scale with the image. Where this departs from the
published code: NumPy, SciPy and Pillow round otherwise than OpenCV, scikit-image and ImageMagick; each image has random
numbers of its own; and ice is drawn, not photographed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import MT19937, RandomState, SeedSequence

from robustframe.corruptions import blur, digital, noise, weather
from robustframe.corruptions.noise import Batch
from robustframe.draws import derive_seed
from robustframe.errors import InputError, unknown
from robustframe.types import Images

CITED = "corruptions@1"
SEVERITIES = (1, 2, 3, 4, 5)
_SIDES = (8, 64)
"""Pixels of the sides of an image, at least and at most."""


class Kind(NamedTuple):
    """One corruption."""

    group: str
    """``noise``, ``blur``, ``weather`` or ``digital``."""
    change: Callable[[Batch, Any, Sequence[RandomState]], Batch]
    given: tuple[Any, ...]
    """Its parameters at severities 1 to 5."""


KINDS: Mapping[str, Kind] = {
    "gaussian_noise": Kind("noise", noise.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Kind("noise", noise.shot_noise, (500.0, 250.0, 100.0, 75.0, 50.0)),
    "impulse_noise": Kind("noise", noise.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Kind("blur", blur.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "glass_blur": Kind("blur", blur.glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": Kind("blur", blur.motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "zoom_blur": Kind("blur", blur.zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": Kind(
        "weather",
        weather.snow,
        (
            (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
        ),
    ),
    "frost": Kind("weather", weather.frost, ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Kind("weather", weather.fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": Kind("weather", weather.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Kind("digital", digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Kind(
        "digital",
        digital.elastic_transform,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": Kind("digital", digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Kind("digital", digital.jpeg_compression, (80, 65, 58, 50, 40)),
}
"""By the name of their file in CIFAR-10-C, in the order of the paper."""


def corrupt(images: Images, kind: str, severity: int, *, seed: int = 0, index: Sequence[int] | None = None) -> Images:
    """Corrupt images in one way.

    Args:
        images: in [0, 1], shape (n, 1, h, w) or (n, 3, h, w), sides of 8 to 64 pixels.
        kind: one of `KINDS`.
        severity: 1 to 5.
        seed: at least 0; an image's random numbers follow from seed, kind, severity and its index.
        index: of each image in its data set; 0, 1, ... when ``None``.

    Returns:
        Multiples of 1/255 as float32 on the CPU, of the same shape: 8-bit images, as CIFAR-10-C stores them.

    Raises:
        InputError: for an unknown kind or severity, and images of another shape.
    """
    check_kinds([kind], [severity])
    check_images(tuple(images.shape[1:]))
    own, level = KINDS[kind], SEVERITIES.index(severity)
    places = range(len(images)) if index is None else index
    draws = [RandomState(MT19937(SeedSequence(derive_seed(CITED, seed, kind, severity, int(at))))) for at in places]
    if len(draws) != len(images):
        raise InputError(f"there are {len(images)} images and {len(draws)} indices; give one each")
    if not draws:
        return images.detach().cpu().clone()
    # What is drawn from is what an 8-bit file would hold.
    batch = np.rint(images.detach().cpu().double().numpy().transpose(0, 2, 3, 1) * 255) / 255
    found = own.change(batch, own.given[level], draws)
    # Cut off, as published; a hair more, so that a whole number that rounding left below itself stays one.
    stored = np.floor(np.clip(found, 0, 1) * 255 + 1e-6).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(stored.transpose(0, 3, 1, 2))).float() / 255


def check_kinds(kinds: Sequence[str], severities: Sequence[int], known: Sequence[str] = tuple(KINDS)) -> None:
    """Refuse kinds and severities that do not exist, and those that are given twice.

    Raises:
        InputError: with those that exist.
    """
    for kind in kinds:
        if kind not in known:
            raise unknown("corruption", str(kind), known)
    for severity in severities:
        if isinstance(severity, bool) or severity not in SEVERITIES:
            raise InputError(f"there is no severity {severity!r}; severities are 1, 2, 3, 4 and 5")
    for what, given in (("kinds", kinds), ("severities", severities)):
        if not given or len(set(given)) < len(given):
            raise InputError(f"the {what} of corruptions must be some, each of them once, not {list(given)}")


def check_images(shape: tuple[int, ...]) -> None:
    """Refuse images that the parameters were not made for.

    Raises:
        InputError: for another shape than (1, h, w) or (3, h, w) with sides of 8 to 64 pixels.
    """
    least, most = _SIDES
    if len(shape) != 3 or shape[0] not in (1, 3) or not all(least <= side <= most for side in shape[1:]):
        raise InputError(
            f"{CITED} is made for grey or colour images of about 32 x 32 pixels ({least} to {most}), not of shape "
            f"{shape}; give others as a folder of .npy files, corruptions.use = 'folder:PATH'"
        )
