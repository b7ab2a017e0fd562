"""What a training is: its plan, its adversary, and what it tells on the way."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustframe.errors import InputError
from robustframe.threat import ThreatModel

Arm = Literal["joint", "feedforward", "recurrent"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The attack of adversarial training (Madry et al., 2018, arXiv:1706.06083): PGD on the loss that is trained."""

    threat: ThreatModel
    steps: int = 3
    step_size: float = 0.5
    """Fraction of eps."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise InputError(f"an adversary needs steps >= 1 and step_size > 0, not {self.steps}, {self.step_size}")
        if self.threat.kind != self.threat.norm:
            raise InputError(f"an adversary of training takes any wrong class and any image, not {self.threat.label}")
        if self.threat.norm == "l0":
            raise InputError(f"an adversary climbs along gradients, which {self.threat.label} does not allow")


class TrainingPlan(BaseModel):
    """What to train for, how long and how fast; the `[schedule]` of a training recipe."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epochs: int
    batch: int = 256
    learning_rate: float = 2e-3
    """Peak rate of Adam: one warm-up epoch up to it, then a cosine down to zero."""
    arm: Arm = "joint"
    """Whose loss: of the first sweep (the feed-forward twin alone), of a later one (the recurrent twin alone), or the
    mean of both."""
    alone: int = 0
    """Epochs at the beginning in which the first sweep is trained alone, whatever the arm: cheap, and a good start."""
    sweeps: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """Numbers of sweeps of which one is drawn for each batch; the pair's own when empty. A net that always sees the
    same number learns to be right at that one, which need not be anywhere near the solution."""
    last: int = 0
    """Sweeps at the end that the gradient of the later read-out goes through; 0 for all. What came before is taken as a
    constant (Shaban et al., 2019, arXiv:1810.10667): near a solution little is lost, and most of the cost saved."""
    hurry: bool = False
    """Go through the sweeps that no gradient goes through by accelerated pursuit, which is near the solution in a
    fraction of as many plain ones; with ``last`` only."""
    settle: float = 0.0
    """Weight of the relative change of the codes in the last sweep, squared: a penalty on not having arrived."""
    coherence: float = 0.0
    """Weight of the penalty on each layer's own coherence (`robustframe.frames.coherence_loss`)."""
    potential: float = 0.0
    """Weight of the deep frame potential F^2 of the whole frame (Murdock and Lucey, 2020, arXiv:2003.13866)."""
    overlap: float = 1.0
    """Largest inner product of two atoms of a layer that costs nothing; below 1, atoms that come nearer are pushed
    apart, and while the rate is high one of two that do not part, and any that is never active, begins anew."""
    active: Annotated[tuple[float, float] | None, Field(strict=False)] = None
    """Share of codes, lowest and highest, to be active after the last sweep; a floor under the thresholds of each layer
    rises and falls to keep it there. Free thresholds when ``None``."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    shift: int = 0
    """Move each image by up to so many pixels both ways, at random."""
    average: float = 0.0
    """Decay of an average of the parameters over steps, which is what is kept; 0 for the last parameters."""
    validation: int = 0
    """Training images, from the end, that are held out; the epoch that is best on them is kept. 0 keeps the last."""
    rescale: bool = False
    """Let thresholds and gain follow the step sizes, so that growing atoms do not shrink the codes under them. Without
    it deep frames hardly learn; it is off where a shipped pair was trained before it existed."""
    precision: Precision = "float32"
    """``"bfloat16"`` computes both passes in it where that is safe; parameters and updates stay in float32."""

    @model_validator(mode="after")
    def _possible(self) -> "TrainingPlan":
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("a schedule needs epochs >= 1, batch >= 1 and learning_rate > 0")
        if min(self.coherence, self.potential, self.settle) < 0 or min(self.shift, self.last, self.validation) < 0:
            raise ValueError("weights of penalties, shift, last and validation must be at least 0")
        if self.hurry and not self.last:
            raise ValueError("hurry is for sweeps that no gradient goes through; say how many it does go through: last")
        if any(sweeps < 2 for sweeps in self.sweeps):
            raise ValueError(f"sweeps {list(self.sweeps)} must each be at least 2; arm 'feedforward' trains the first")
        if not 0 <= self.alone <= self.epochs:
            raise ValueError(f"alone = {self.alone} epochs must be from 0 to all {self.epochs}")
        if not 0 <= self.average < 1 or not 0 < self.overlap <= 1:
            raise ValueError("average must be from 0 to below 1, overlap above 0 and at most 1")
        if self.active is not None and not 0 < self.active[0] < self.active[1] < 1:
            raise ValueError(f"active = {list(self.active)} must be two shares such as [0.05, 0.2]")
        return self


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve."""

    loss: float
    """Mean training loss."""
    accuracy: float
    """Training accuracy, in [0, 1], on adversarial examples where trained so."""
    seconds: float
    """Wall-clock time."""
    validation: float | None = None
    """Accuracy on the images held out, in [0, 1]: the least of the read-outs that are trained, on adversarial examples
    where trained so. ``None`` where none are held out."""
    device: str = ""
    """What it ran on, by its maker's name."""


@dataclass(frozen=True)
class TrainingProgress:
    """What a training says after each batch."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    """Mean loss of the epoch so far."""
    accuracy: float
    """Accuracy on the training batches of the epoch so far (adversarial where trained so), after the last sweep that is
    trained for."""

    @property
    def shown(self) -> tuple[int, int, str, tuple[str, ...]]:
        """What a bar shows; see `robustframe.bar.Progress`."""
        done, whole = (self.epoch - 1) * self.batches + self.batch, self.epochs * self.batches
        said = (f"accuracy {100 * self.accuracy:.1f} %", f"loss {self.loss:.3f}")
        return done, whole, f"epoch {self.epoch} of {self.epochs}", said
