"""Model cards: what a pair is, what made it, and the hash of its weights."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveInt, Tag, ValidationError

from robustframe.errors import IntegrityError, first_mistake
from robustframe.files import CARD_BYTES, check_finite, read_plain
from robustframe.frames import Structure
from robustframe.pairs import Pursuit

SWEEPS = 10_000
"""Most sweeps of a pair; real ones have a few."""


class CardPart(BaseModel):
    """A frozen part of a card that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, allow_inf_nan=False)


class TrainingData(CardPart):
    """What a pair was trained on."""

    use: str
    split: str
    count: int
    sha256: str


class Accuracy(CardPart):
    """Clean accuracy on a whole test split, in [0, 1], by number of sweeps."""

    use: str
    split: str
    count: int
    by_sweeps: dict[str, float]
    """``"1"`` is the feed-forward twin."""


class LeastPotential(CardPart):
    """The least deep frame potential F of the pair's architecture, over all parameters with unit atoms."""

    value: float
    """A root mean square, in [0, 1]; exact or the best found."""
    method: Literal["closed form", "optimised"]
    gradient: float
    """Relative gradient where the optimisation ended; 0 for a closed form."""


class Settling(CardPart):
    """How near to a solution the codes are: medians over the first test images, by number of sweeps."""

    count: int
    """Test images that were looked at."""
    violation: dict[str, float]
    """Largest violation of the optimality conditions (`robustframe.solvers.optimality`), in the units of thresholds."""
    accuracy: dict[str, float]
    """Clean accuracy on the same images, in [0, 1]."""


class LayerFacts(CardPart):
    """What a trained layer is like."""

    threshold: float
    """Median over its atoms."""
    active: float
    """Share of its codes that are active after all sweeps, in [0, 1]."""
    coherence: float
    """Largest inner product of two of its atoms away from borders, in [0, 1]; of one filter's copies too."""


class RobustAccuracy(CardPart):
    """Robust accuracy under a battery, in [0, 1], by number of sweeps."""

    threat: str
    battery: str
    count: int
    """Test images, from the beginning."""
    by_sweeps: dict[str, float]


class LearningCurve(CardPart):
    """How a training went, epoch by epoch."""

    loss: list[float]
    accuracy: list[float]
    """On the training examples as they were trained on, adversarial where trained so; in [0, 1]."""
    seconds: list[float]
    validation: list[float] | None = None
    """On images held out, the least of the read-outs that are trained; ``None`` where none were held out."""


_Side = Annotated[int, Field(ge=1, le=4096)]
_Margin = Annotated[int, Field(ge=0, le=4096)]
Sides = Annotated[tuple[_Side, _Side], Field(strict=False)]
Margins = Annotated[tuple[_Margin, _Margin], Field(strict=False)]


class PickPart(CardPart):
    """See `robustframe.frames.maps.Pick`."""

    kernel: Sides
    stride: Sides
    padding: Margins
    dilation: Sides = (1, 1)
    ceil: bool = False


class BranchPart(CardPart):
    """See `robustframe.frames.branched.BranchSpec`."""

    reads: int = Field(ge=0)
    weight: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    stride: Sides = (1, 1)
    padding: Margins = (0, 0)
    groups: int = Field(default=1, ge=1)
    box: Sides = (1, 1)
    first: int = Field(default=0, ge=0)
    group: int = 0
    pick: PickPart | None = None


class BranchedPart(CardPart):
    """A layer of a frame with branches."""

    code: list[PositiveInt]
    per_pixel: bool = False
    branches: list[BranchPart] = Field(min_length=1)


def _kind(layers: Any) -> str:
    """Say which layers these are, so that a mistake in one is told of that kind."""
    first = layers[0] if isinstance(layers, list) and layers else None
    return "branched" if isinstance(first, BranchedPart) or (isinstance(first, dict) and "code" in first) else "plain"


class Card(CardPart):
    """Everything needed to rebuild a pair and to know where it comes from; lies beside its weights as JSON."""

    format: Literal[1] = Field(default=1, alias="schema")
    name: str
    about: str
    licence: str
    structure: Structure = "chain"
    in_shape: list[int]
    layers: Annotated[
        Annotated[list[dict[str, int]], Tag("plain")] | Annotated[list[BranchedPart], Tag("branched")],
        Discriminator(_kind),
    ]
    """As `robustframe.frames.build_frame` takes them, or of a network that was read as a frame its branches."""
    head: BranchPart | None = None
    """Of a network that was read as a frame: the linear map from the last code to logits."""
    classes: int
    sweeps: int
    pursuit: Pursuit = "deep"
    """How the recurrent twin solves."""
    untied: bool = False
    """A control with a frame of its own in every sweep, which is no pair and has no twins."""
    parameters: int
    mutual_coherence: float
    """Of an untied net the largest of its frames'; likewise the potential."""
    potential: float | None = None
    """Deep frame potential F of the weights, a root mean square in [0, 1]."""
    least_potential: LeastPotential | None = None
    clean_accuracy: Accuracy
    training_accuracy: Accuracy | None = None
    """The same on the beginning of the training split: the difference is the generalisation gap."""
    learning_curve: LearningCurve | None = None
    settling: Settling | None = None
    measured: list[LayerFacts] | None = None
    """Of each layer of the frame."""
    robust_accuracy: list[RobustAccuracy] | None = None
    trained_on: TrainingData
    recipe: dict[str, Any]
    """The training recipe, whole."""
    seed: int
    made_with: dict[str, str]
    """Versions and device."""
    weights: str
    """File name of the weights, in the card's folder."""
    sha256: str
    """SHA-256 of that file."""

    @property
    def training(self) -> str:
        """``"normal"``, or the threat that the pair was trained against: ``"adversarial linf:0.1"``."""
        adversary = self.recipe.get("adversary")
        threat = adversary.get("threat") if isinstance(adversary, dict) else None
        return f"adversarial {threat}" if threat else "adversarial" if adversary else "normal"

    @property
    def manner(self) -> str:
        """The same as an adverb: ``"normally"``, ``"against linf:0.1"`` or ``"adversarially"``."""
        kind, _, threat = self.training.partition(" ")
        return f"against {threat}" if threat else f"{kind}ly"


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        IntegrityError: when it is missing or is no card.
    """
    content = read_plain(path, limit=CARD_BYTES, what="the card")
    try:
        card = Card.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"{path} is not a card of this version: {first_mistake(error)}") from None
    check_finite(card.recipe, path)
    return card
