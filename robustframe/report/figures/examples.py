"""Adversarial examples as a grid: the clean image, the adversarial one, and what lies between them, magnified."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import torch
from PIL import Image
from torch import Tensor

from robustframe.errors import InputError
from robustframe.report.figures.style import Figure, titled, values
from robustframe.report.layout import one_line

_SIDE = 92
_GAP = 12
_LINE = 13


@dataclass(frozen=True)
class Example:
    """One broken example."""

    clean: Tensor
    """Shape (channels, height, width), in [0, 1]; one channel or three."""
    adversarial: Tensor
    """Of the same shape."""
    label: str
    """Its class."""
    predicted: str
    """What the classifier says of the adversarial image."""
    attack: str
    threat: str
    distance: float | None = None
    """In the norm of the threat, in input units."""


def example_figure(examples: Sequence[Example], *, title: str = "Adversarial examples") -> Figure:
    """Draw broken examples, a column an example: clean, adversarial, difference.

    Args:
        examples: at least one.
        title: what stands above.

    Returns:
        The chart; a difference is magnified until its largest pixel is full, around grey, by the factor below it.

    Raises:
        InputError: without examples, or for images that do not match.
    """
    if not examples:
        raise InputError("there are no adversarial examples to draw")
    images: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for column, example in enumerate(examples):
        x = column * (_SIDE + _GAP)
        gain, difference = magnified(example.clean, example.adversarial)
        stacked = (
            (example.clean, example.label),
            (example.adversarial, example.predicted),
            (difference, f"× {gain:.3g}"),
        )
        for row, (image, text) in enumerate(stacked):
            y = row * (_SIDE + _LINE + _GAP)
            images.append({"x": x, "y": y, "url": _embedded(image)})
            texts.append({"x": x, "y": y + _SIDE + 4, "text": one_line(text)})
        below = 3 * (_SIDE + _LINE + _GAP) - _GAP + 6
        found = f"{example.threat.partition(':')[0]} {example.distance:.3g}" if example.distance is not None else ""
        texts += [{"x": x, "y": below, "text": one_line(example.attack)}, {"x": x, "y": below + _LINE, "text": found}]
    width, height = len(examples) * (_SIDE + _GAP), 3 * (_SIDE + _LINE + _GAP) + 2 * _LINE
    place = {
        "x": alt.X("x:Q", axis=None).scale(domain=[0, width], nice=False),
        "y": alt.Y("y:Q", axis=None).scale(domain=[0, height], reverse=True, nice=False),
    }
    pictures = alt.Chart(values(images)).mark_image(width=_SIDE, height=_SIDE, align="left", baseline="top")
    words = alt.Chart(values(texts)).mark_text(align="left", baseline="top", fontSize=10, limit=_SIDE + 4)
    return alt.layer(pictures.encode(url="url:N", **place), words.encode(text="text:N", **place)).properties(
        width=width, height=height, title=titled(title), description=f"{title}: {len(examples)} images"
    )


def magnified(clean: Tensor, adversarial: Tensor) -> tuple[float, Tensor]:
    """Return the factor that makes the largest change of a pixel full, and the change so magnified around 1/2."""
    if clean.shape != adversarial.shape or clean.ndim != 3 or clean.shape[0] not in (1, 3):
        both = f"{tuple(clean.shape)} and {tuple(adversarial.shape)}"
        raise InputError(f"a picture needs two images of one shape (1 or 3, height, width), not {both}")
    change = adversarial.detach().cpu().float() - clean.detach().cpu().float()
    largest = float(change.abs().max())
    gain = 1.0 if largest == 0 else 1 / largest
    return gain, 0.5 + 0.5 * gain * change


def _embedded(image: Tensor) -> str:
    """Return an image as a PNG inside a URL."""
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    times = max(1, round(2 * _SIDE / max(array.shape[:2])))
    picture = Image.fromarray(array)
    picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
