"""What is known of a model besides its numbers: from its card and weights, when they are those that were evaluated."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from robustframe.errors import InputError
from robustframe.recipe import recipes
from robustframe.report.frame import FrameReport, find_frame, measure_frame
from robustframe.report.frame_text import block_picture
from robustframe.report.gram_plot import gram_pixels
from robustframe.report.site.board import Model
from robustframe.zoo import Card

UNKNOWN = "unknown"
_GRAM_SIDE = 112
_GRAM_COLOURS = 48


@dataclass(frozen=True)
class Facts:
    """A model as its card and its frame describe it."""

    card: Card | None
    """`None` when there is none, or it is of other weights than were evaluated."""
    frame: FrameReport | None
    blocks: str
    """The structure of the frame drawn with letters."""
    gram: Image.Image | None
    layers: tuple[float, ...]
    """Where layers begin and end in the picture of the Gram, as shares of its side."""
    missing: str
    """Why there is no card."""

    @property
    def structure(self) -> str:
        """Chain, residual or dense; no frame, no structure."""
        return self.card.structure if self.card is not None else UNKNOWN

    @property
    def training(self) -> str:
        """``"normal"``, or the threat that the model was trained against."""
        if self.card is None:
            return UNKNOWN
        adversary = self.card.recipe.get("adversary")
        threat = adversary.get("threat") if isinstance(adversary, dict) else None
        return f"adversarial {threat}" if threat else "adversarial" if adversary else "normal"

    @property
    def trained(self) -> str:
        """``"normal"``, ``"adversarial"`` or ``"unknown"``."""
        return self.training.split(" ")[0]


def facts(model: Model) -> Facts:
    """Describe a model.

    No code of the user's is run: a model from a file of theirs has no card. Weights are read only when their hash is
    the one that the record states.
    """
    entry = model.first
    use = entry.classifier.use
    kind, colon, place = use.partition(":")
    if not colon or kind not in ("zoo", "card"):
        return _unknown("It comes without a card, so nothing is known of its structure and training.")
    if kind == "card":
        shipped = recipes().get(entry.run.record.name)
        use = f"card:{(Path() if shipped is None else shipped.parent) / place}"
    try:
        frame, pair, card = find_frame(use)
    except InputError:
        return _unknown("Its card or weights are not to be had where this page was made.")
    if card is None or card.sha256 != model.sha256:
        return _unknown("The weights of this name are others now than those that were evaluated.")
    picture, layers = gram_pixels(frame, _GRAM_SIDE)
    picture = picture.quantize(_GRAM_COLOURS, dither=Image.Dither.NONE)
    report = measure_frame(card.name, frame, pair, card, images=0)
    return Facts(card, report, block_picture(frame), picture, tuple(layers), "")


def _unknown(missing: str) -> Facts:
    return Facts(None, None, "", None, (), missing)
