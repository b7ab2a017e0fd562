"""What is known of a model besides its numbers: from its card and weights, when they are those that were evaluated."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from robustframe.errors import InputError, IntegrityError
from robustframe.frames import Frame
from robustframe.report.frame import FrameReport, find_frame, measure_frame
from robustframe.report.frame_text import block_picture
from robustframe.report.pixels import coloured, eight_bit, gram_matrix
from robustframe.report.site.board import BoardEntry, Model
from robustframe.zoo import ZOO, Card, names, read_card

UNKNOWN = "unknown"
NORMS = ("linf", "l2", "l1", "l0")
_CARDED = ("zoo", "card")
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
        return UNKNOWN if self.card is None else self.card.training

    @property
    def trained(self) -> str:
        """``"normal"``, the norm that the model was trained against, ``"adversarial"`` or ``"unknown"``."""
        kind, _, threat = self.training.partition(" ")
        norm = threat.partition(":")[0]
        return norm if norm in NORMS else kind


def facts(model: Model) -> Facts:
    """Describe a model.

    No code of the user's is run: a model from a file of theirs has no card. Weights are read only when their hash is
    the one that the record states.
    """
    entry = model.first
    use, kind = _use(entry), entry.classifier.use.partition(":")[0]
    if kind not in _CARDED:
        none = entry.classifier.no_frame
        why = f" It has {none}." if none and none.startswith("no frame") else ""
        return _unknown(f"It comes without a card, so nothing is known of its structure and training.{why}")
    card = card_of(entry)
    if card is None:
        return _unknown("Its card was not available where this page was made.")
    if card.sha256 != model.sha256:
        return _unknown("The weights of this name are others now than those that were evaluated.")
    try:
        found = find_frame(use)
        frame = found.frame
        picture, layers = _gram(frame)
        report = measure_frame(found, images=0, overlaps=False)
    except IntegrityError:
        return Facts(card, None, "", None, (), "Its weights were not available where this page was made.")
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


def card_of(entry: BoardEntry) -> Card | None:
    """Read the card of a model from the zoo or from a file; `None` where there is none."""
    kind, _, place = _use(entry).partition(":")
    try:
        if kind == "card":
            return read_card(Path(place))
        # A zoo name is a file name and nothing else.
        return read_card(ZOO / f"{place}.json") if kind == "zoo" and place in names() else None
    except InputError:
        return None


def _use(entry: BoardEntry) -> str:
    """How the model of an entry is named from where this is made."""
    kind, _, place = entry.classifier.use.partition(":")
    return f"card:{entry.run.recipe_folder / place}" if kind == "card" else entry.classifier.use


def _unknown(missing: str) -> Facts:
    return Facts(None, None, "", None, (), missing)
