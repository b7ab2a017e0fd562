"""The contract of an attack, enforced once: validate, search, project, re-evaluate on the exact model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from robustframe.calls import DEFAULT_BATCH, borrowed, padded
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.gradients import Gradients, Substitute, Surrogate
from robustframe.prepared import Searched
from robustframe.probe import Evaluation, Gallery, Probe, ProbeLoss, SearchOver, Watch
from robustframe.spaces import Motion
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Norm, PerExample, Verdicts

_BATCHES = 12
"""Images that a search may hold for each of a batch, all in all."""
_CHUNKS = 3
"""And for each of the chunk: the outcome, its parts while they are joined, and the images themselves."""
_LITTLE = 64 * 2**20
"""Bytes that any search may hold: for less, nothing is attacked in smaller parts."""
_WORTH_MOVING = 0.9
"""Share of the runs of a search that must be left for its state to stay as it is."""


@dataclass(frozen=True)
class AttackResult:
    """A verified outcome, example by example."""

    adversarial: Images
    """The best allowed point found; the clean image where nothing better was."""
    success: Verdicts
    """The exact model misclassifies the stored point, inside ball and box; with targets, as the target."""
    claimed: Verdicts
    """The search saw a success; ``claimed & ~success`` did not stand up to verification."""
    prediction: Labels
    """The exact model's class of the stored point; -1 for NaN logits or a point never evaluated."""
    distance: PerExample
    """Distance of the stored point in the threat's norm, float64."""
    forwards: Labels
    backwards: Labels
    zero_gradients: Labels
    """How many of its gradients were zero in every pixel."""
    nonfinite_gradients: Labels
    numbers: Tensor | None = None
    """What the point was made by, where images are moved, shape (n, ...); a moved image does not tell."""

    @staticmethod
    def joined(parts: "Sequence[AttackResult]") -> "AttackResult":
        """Join the outcomes of parts of the examples, in order."""
        columns: dict[str, Any] = {
            each.name: [getattr(part, each.name) for part in parts] for each in fields(AttackResult)
        }
        joined: dict[str, Any] = {name: torch.cat(found) for name, found in columns.items() if found[0] is not None}
        return AttackResult(**joined)


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack: frozen hyperparameters and one method that searches.

    Subclasses implement `perturb`; `run` is final, so no attack reports its own success.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    """The norms this attack is defined for."""
    held: ClassVar[Mapping[Norm, int]] = {"l0": 14, "l1": 30, "l2": 36, "linf": 16}
    """See `images_held`."""
    positive: ClassVar[tuple[str, ...]] = ("steps", "step_size", "restarts", "targets", "queries")
    """Settings that must be above zero where the attack has them."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in self.positive and not value > 0:
                raise InputError(f"{type(self).__name__}: {each.name} = {value!r} must be above 0")

    def images_held(self, norm: Norm) -> int:
        """Return how many images the search holds at most for each example, measured by benchmarks/attack_memory.py.

        Where they are many, examples are attacked in parts, so that memory is bounded by the batch; it changes no
        verdict. Most are short-lived: a projection in l2 reckons with six in double precision.
        """
        return self.held[norm]

    @final
    def memory(self, examples: int, image: int, norm: Norm, batch_size: int) -> int:
        """Return how many bytes the attack holds at most, besides what the model does.

        Args:
            examples: that are attacked.
            image: bytes of one.
            norm: of the threat.
            batch_size: rows of one model call at most.
        """
        together = self._together(examples, image, norm, batch_size)
        return image * (self.images_held(norm) * together + _CHUNKS * examples)

    def gradients(self) -> Gradients:
        """Return how this attack takes gradients; as the model gives them, unless a subclass says otherwise."""
        return Gradients()

    def why_not(self, model: nn.Module) -> str | None:
        """Say why this attack would add nothing on a model; ``None`` when it adds something."""
        return self.gradients().why_not(model)

    def why_not_against(self, threat: ThreatModel) -> str | None:
        """Say why this attack is none under a threat, whatever its norm; ``None`` when it is one."""
        return None

    @abstractmethod
    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images | None:
        """Search for adversarial points through the probe.

        Args:
            probe: access to the model; it remembers the best allowed point by itself.
            x: clean images, shape (n, ...).
            threat: the ball and the box.
            draws: random numbers, row by row.

        Returns:
            Points that may not have been evaluated yet, shape (n, ...); they are projected and evaluated. ``None``
            where there are none.
        """

    @final
    def run(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        draws: Draws,
        *,
        batch_size: int = DEFAULT_BATCH,
        budget: int | None = None,
        known_correct: bool = False,
        votes: int = 1,
        closest: bool = False,
        watch: Watch | None = None,
        targets: Labels | None = None,
        gallery: Gallery | None = None,
        search: Searched | None = None,
    ) -> AttackResult:
        """Attack every example and verify the outcome on the exact model.

        Args:
            model: maps images to logits; comes back exactly as it was.
            x: clean images inside the box, shape (n, ...).
            y: labels, shape (n,).
            threat: the ball and the box.
            draws: random numbers for these rows.
            batch_size: rows of one model call at most; it changes no verdict.
            budget: forwards and backwards that one example may cost.
            known_correct: the caller knows that every clean image is classified correctly, which saves a
                forward; otherwise an image that is already wrong is a success at distance 0.
            votes: fresh evaluations of a point whose majority decides, for models that draw random numbers.
            closest: search on after a success, for the one nearest to the clean image.
            watch: is told of every gradient that is taken.
            targets: classes that the examples are to be taken for, shape (n,), in place of the threat's rule.
            gallery: images and labels that a search for a target may start from.
            search: what is searched in place of the model, such as a copy from `robustframe.prepared`; every success
                is one of the model itself, which is searched when ``None``.

        Returns:
            The outcome of each example.

        Raises:
            InputError: for a norm this attack is not defined for, images outside the box or that the threat does not
                fit, targets that it cannot aim at or that are labels.
        """
        if threat.norm not in self.norms:
            raise InputError(
                f"{type(self).__name__} is not defined for {threat.norm}; it takes {', '.join(self.norms)}"
            )
        aimed = threat if targets is None or threat.targets else replace(threat, targets="next")
        reason = self.why_not_against(aimed)
        if reason is not None:
            raise InputError(reason)
        if len(x) and not bool(((x >= threat.low) & (x <= threat.high)).all()):
            raise InputError(f"images must lie in [{threat.low}, {threat.high}]")
        threat.check_part(tuple(x.shape[1:]))
        threat.check_start(x)
        x, results = x.detach(), []
        # Who watches wants every step of all examples.
        size = max(len(x), 1)
        if watch is None:
            size = self._together(len(x), x[:1].numel() * x.element_size(), threat.norm, batch_size)
        with borrowed(model, seed=draws.child("model").seed):
            for start in range(0, max(len(x), 1), size):
                part = slice(start, start + size)
                probe = Probe(
                    model, x[part], y[part], threat.of(part),
                    batch_size=batch_size, budget=budget, gradients=self.gradients(), votes=votes, closest=closest,
                    watch=watch, targets=None if targets is None else targets[part], gallery=gallery, search=search,
                )  # fmt: skip
                if len(x):
                    with probe.looking():
                        own = draws if size >= len(x) else draws.of(part)
                        self._search(probe, own, known_correct)
                results.append(verify(probe))
        return results[0] if len(results) == 1 else AttackResult.joined(results)

    def _together(self, examples: int, image: int, norm: Norm, batch_size: int) -> int:
        """How many examples are attacked at once."""
        held = self.images_held(norm)
        allowed = max(_BATCHES * padded(batch_size) // held, _LITTLE // (held * max(image, 1)), 1)
        return min(allowed, max(examples, 1))

    def _search(self, probe: Probe, draws: Draws, known_correct: bool) -> None:
        x, threat = probe.x, probe.threat
        try:
            if not known_correct:
                probe.logits(x, exact=True)
            # A copy: what an attack makes of its images must not move the ball.
            points = self.perturb(probe, x.clone(), threat, draws)
            if points is not None:
                if points.shape != x.shape:
                    raise InputError(
                        f"{type(self).__name__}.perturb returned points of shape {tuple(points.shape)} for images of "
                        f"shape {tuple(x.shape)}; return one per image, or None"
                    )
                probe.settle(threat.project(x, points.detach().to(x.dtype)))
        except SearchOver:
            pass


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack, ABC):
    """An attack whose gradients can be taken in other ways than as the model gives them."""

    through: str | Surrogate = "all"
    """See `Gradients.through`; in a battery also ``"file:PATH.py:FUNCTION"``."""
    smooth: float = 0.0
    """See `Gradients.smooth`."""
    eot: int = 1
    """See `Gradients.eot`."""
    bpda: Mapping[str, Literal["identity"] | Substitute] = field(default_factory=dict)
    """See `Gradients.bpda`; in a battery the functions are ``"file:PATH.py:FUNCTION"``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """See `Gradients.precision`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gradients()

    def gradients(self) -> Gradients:
        return Gradients(
            through=self.through, smooth=self.smooth, eot=self.eot, bpda=self.bpda, precision=self.precision
        )


class Runs:
    """Runs of a search that go on side by side, each for one example: one an example, or one a target of it.

    Args:
        probe: access to the model.
        rows: the example of each run, shape (m,), repeats allowed.
        loss: what the runs climb.
        targets: the target class of each run, for a loss that takes one, shape (m,).
    """

    def __init__(self, probe: Probe, rows: Labels, loss: ProbeLoss, targets: Labels | None = None) -> None:
        self.probe, self.rows, self.loss, self.targets = probe, rows, loss, targets
        self._passes = probe.gradients.passes

    @property
    def clean(self) -> Images:
        """The clean image of each run, shape (m, ...)."""
        return self.probe.x[self.rows]

    def gradient(self, points: Images) -> Evaluation:
        """Evaluate loss and gradient of one point a run, shape (m, ...)."""
        return self.probe.gradient(points, self.loss, self.targets, self.rows)

    def compact(self, finished: Verdicts | None = None) -> Tensor | None:
        """Drop runs whose examples are no longer searched, once they are many enough to be worth it.

        Args:
            finished: runs that have come to their own end and are dropped too, shape (m,).

        Returns:
            The places of the runs that go on, for the caller's own state; ``None`` when all stay.

        Raises:
            SearchOver: when no example is left, whatever its runs.
        """
        going = self.probe.searched(self._passes)[self.rows]
        if finished is not None:
            going &= ~finished
        left = int(going.sum())
        # Each dropped run saves a pass of the tensor work outside the model; moving the state costs about one.
        if left > _WORTH_MOVING * len(going):
            return None
        kept = going.nonzero().squeeze(1)
        self.rows = self.rows[kept]
        self.targets = None if self.targets is None else self.targets[kept]
        return kept


def verify(probe: Probe) -> AttackResult:
    """Re-evaluate every success that a probe saw on the exact model, as the stored point, and measure it again.

    Nothing else grants a success, whoever searched.
    """
    claimed = probe.succeeded.clone()
    images = probe.images(probe.best, torch.arange(len(claimed), device=claimed.device))
    prediction = torch.where(claimed, -1, probe.y)
    success = torch.zeros_like(claimed)
    # What misses its target may still be misclassified.
    rows = (claimed if probe.targets is None else torch.ones_like(claimed)).nonzero().squeeze(1)
    if len(rows):
        points = probe.best[rows]
        prediction[rows] = probe.majority(points, rows)
        reached = claimed[rows] & probe.reached(prediction[rows], rows)
        asked = probe.asked.of(rows)
        success[rows] = reached & asked.contains(probe.clean[rows], images[rows], points)
    return AttackResult(
        adversarial=images,
        numbers=probe.best if isinstance(probe.space, Motion) else None,
        success=success,
        claimed=claimed,
        prediction=prediction,
        distance=probe.asked.distance(probe.clean, images, probe.best),
        forwards=probe.forwards,
        backwards=probe.backwards,
        zero_gradients=probe.zero_gradients,
        nonfinite_gradients=probe.nonfinite_gradients,
    )
