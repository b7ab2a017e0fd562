"""Adversarial examples as a grid: the clean image, the adversarial one, and what lies between them, magnified."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from torch import Tensor

from robustframe.errors import InputError
from robustframe.report.figures.outcomes import attack_name
from robustframe.report.figures.style import ROOM, Figure, headed, titled, values
from robustframe.report.layout import one_line
from robustframe.report.pixels import embedded

_SIDE, _GAP, _LINE, _LEFT = 84, 12, 13, 78
_STEP = _SIDE + _LINE + 8
_NOTE = "Clean, adversarial, and their difference around grey, magnified by the factor below it; labels as classified."


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
    classifier: str
    distance: float | None = None
    """In the norm of the threat, in input units."""


def example_figure(examples: Sequence[Example], *, title: str = "Adversarial examples", room: float = ROOM) -> Figure:
    """Draw broken examples, a column an example: clean, adversarial, difference; a block a classifier and threat.

    Args:
        examples: at least one.
        title: what stands above.
        room: width to lay it out in, in pixels; a block has as many examples as find place in it.

    Returns:
        The chart; a difference is magnified until its largest pixel is full, around grey, by the factor below it.

    Raises:
        InputError: without examples, or for images that do not match.
    """
    if not examples:
        raise InputError("there are no adversarial examples to draw")
    blocks: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        blocks.setdefault((example.classifier, example.threat), []).append(example)
    most = max(1, int((room - _LEFT) // (_SIDE + _GAP)))
    parts = [_block(found[:most], f"{classifier}, {threat}") for (classifier, threat), found in blocks.items()]
    return alt.vconcat(*parts, spacing=20).properties(
        title=titled(title, _NOTE), description=f"{title}, {len(examples)} images"
    )


def _block(examples: list[Example], head: str) -> Figure:
    images: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for column, example in enumerate(examples):
        x = _LEFT + column * (_SIDE + _GAP)
        gain, difference = magnified(example.clean, example.adversarial)
        stacked = (
            (example.clean, example.label),
            (example.adversarial, f"→ {example.predicted}"),
            (difference, f"× {gain:.3g}"),
        )
        for row, (image, text) in enumerate(stacked):
            images.append({"x": x, "y": row * _STEP, "url": embedded(image, 2 * _SIDE)})
            texts.append({"x": x, "y": row * _STEP + _SIDE + 3, "text": one_line(text)})
        battery, _, attack = one_line(example.attack).rpartition("/")
        distance = "" if example.distance is None else f"distance {example.distance:.3g}"
        below = [attack_name(attack), battery, distance]
        texts += [{"x": x, "y": 3 * _STEP + at * _LINE, "text": text} for at, text in enumerate(below)]
    names = ("clean", "adversarial", "difference", "attack")
    heads = [
        {"x": 0, "y": at * _STEP + (0 if name == "attack" else _SIDE / 2 - 5), "text": name}
        for at, name in enumerate(names)
    ]
    width, height = _LEFT + len(examples) * (_SIDE + _GAP), 3 * _STEP + 3 * _LINE
    place = {
        "x": alt.X("x:Q", axis=None).scale(domain=[0, width], nice=False),
        "y": alt.Y("y:Q", axis=None).scale(domain=[0, height], reverse=True, nice=False),
    }
    pictures = alt.Chart(values(images)).mark_image(width=_SIDE, height=_SIDE, align="left", baseline="top")
    words = alt.Chart(values(texts)).mark_text(align="left", baseline="top", fontSize=10, limit=_SIDE + 6)
    left = alt.Chart(values(heads)).mark_text(align="left", baseline="top", fontSize=11, opacity=0.75)
    return alt.layer(
        pictures.encode(url="url:N", **place),
        words.encode(text="text:N", **place),
        left.encode(text="text:N", **place),
    ).properties(width=width, height=height, title=headed(head))


def magnified(clean: Tensor, adversarial: Tensor) -> tuple[float, Tensor]:
    """Return the factor that makes the largest change of a pixel full, and the change so magnified around 1/2."""
    if clean.shape != adversarial.shape or clean.ndim != 3 or clean.shape[0] not in (1, 3):
        both = f"{tuple(clean.shape)} and {tuple(adversarial.shape)}"
        raise InputError(f"a picture needs two images of one shape (1 or 3, height, width), not {both}")
    change = adversarial.detach().cpu().float() - clean.detach().cpu().float()
    largest = float(change.abs().max())
    gain = 1.0 if largest == 0 else 1 / largest
    return gain, 0.5 + 0.5 * gain * change
