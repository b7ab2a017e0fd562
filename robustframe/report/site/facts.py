"""What is known of a model besides its numbers: from its card and weights, when they are those that were evaluated."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from robustframe.errors import InputError, IntegrityError, unknown
from robustframe.frames import Frame
from robustframe.report.frame import FrameReport, find_frame, measure_frame
from robustframe.report.frame_text import block_picture
from robustframe.report.pixels import coloured, eight_bit, gram_matrix
from robustframe.report.site.board import Model
from robustframe.zoo import ZOO, Card, names, read_card

UNKNOWN = "unknown"
_SIDE = 112
_LEVELS = 48


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
    """Why there is no card, or none but a card."""

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
        use = f"card:{entry.run.recipe_folder / place}"
    try:
        card = read_card(_path(use, place))
    except InputError:
        return _unknown("Its card is not to be had where this page was made.")
    if card.sha256 != model.sha256:
        return _unknown("The weights of this name are others now than those that were evaluated.")
    try:
        found = find_frame(use)
        frame = found.frame
        picture, layers = _gram(frame)
        report = measure_frame(found, images=0)
    except IntegrityError:
        return Facts(card, None, "", None, (), "Its weights are not to be had where this page was made.")
    except InputError as error:
        return Facts(card, None, "", None, (), f"{error}.")
    return Facts(card, report, block_picture(frame), picture, layers, "")


def _gram(frame: Frame) -> tuple[Image.Image, tuple[float, ...]]:
    """Draw |G| small, one pixel for each pair of filters; the page draws the lines between layers.

    Returns:
        The picture, of a large frame with the largest entries of what is shrunk; and where the layers begin and end,
        as shares of its side.
    """
    matrix, starts = gram_matrix(frame)
    picture = Image.fromarray(eight_bit(coloured(matrix, _SIDE))).quantize(_LEVELS, dither=Image.Dither.NONE)
    return picture, tuple(start / starts[-1] for start in starts)


def _path(use: str, place: str) -> Path:
    """Return where a card lies; a zoo name is a file name and nothing else."""
    if use.startswith("card:"):
        return Path(use.removeprefix("card:"))
    if place not in names():
        raise unknown("zoo pair", place, names())
    return ZOO / f"{place}.json"


def _unknown(missing: str) -> Facts:
    return Facts(None, None, "", None, (), missing)
