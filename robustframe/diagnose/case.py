"""What the checks are given: a classifier, what a battery found about it, and a metered sample of its examples."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from robustframe.attacks import APGDT, FAB, Attack, AttackResult, GradientAttack, Square
from robustframe.attacks.base import verify
from robustframe.calls import borrowed, call_in_batches, predict
from robustframe.draws import Draws
from robustframe.gradients import Gradients, solves
from robustframe.losses import cross_entropy, find_loss, margin
from robustframe.probe import Probe, ProbeLoss, Watch
from robustframe.targets import choose_targets
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Logits, Verdicts

_ASCENTS = 2
"""Ways of taking gradients that are tried, those that broke most first; more would cost more than they tell."""


_ON_THE_WAY = frozenset({"all", "cheap", "estimate", "last", "implicit"})
"""Gradients that need no further pass for the model's own logits."""
SAME = 1e-3
"""Relative difference of logits up to which they are the same: kernels of other batch sizes round by 1e-6 or so."""


@dataclass(frozen=True)
class AttackOutcome:
    """What one attack of the battery did to the survivors of those before it."""

    label: str
    attack: Attack
    entered: int
    broken: int
    unverified: int
    """Successes that the search claimed and the exact model did not confirm."""
    forwards: int
    backwards: int

    @property
    def with_gradients(self) -> bool:
        """Whether it searches along gradients."""
        if isinstance(self.attack, Square):
            # It may look at some, to see whether it is needed.
            return False
        return self.backwards > 0 or isinstance(self.attack, GradientAttack)


@dataclass(frozen=True)
class Replays:
    """Stored adversarial images."""

    images: Images
    clean: Images
    """The image that each was made from, same shape."""
    labels: Labels
    index: Labels
    """Where those stand in the data, repeats allowed."""


@dataclass(frozen=True)
class BatteryFindings:
    """What a battery found about one classifier under one threat."""

    correct: Verdicts
    """Classified correctly without an attack, shape (examples,)."""
    robust: Verdicts
    """Correct, and broken by no attack."""
    attacks: Sequence[AttackOutcome] = ()
    """The attacks that were run, in order."""
    own: Replays | None = None
    """Images that broke this classifier under this threat, of a few examples."""
    others: Replays | None = None
    """Images that broke other classifiers of the run under this threat, of examples that survive here."""
    smaller: Sequence[int] = ()
    """Survivors that this classifier loses to an image stored under another threat, although it lies in this ball."""
    votes: int = 1

    @property
    def passes(self) -> int:
        """Forwards and backwards that the battery cost."""
        return sum(outcome.forwards + outcome.backwards for outcome in self.attacks)

    @property
    def robust_accuracy(self) -> float:
        """Survivors over examples."""
        return int(self.robust.sum()) / max(len(self.robust), 1)


@dataclass(frozen=True)
class Ascent:
    """One way of taking gradients, and the loss whose gradient is taken."""

    gradients: Gradients
    loss: ProbeLoss
    label: str = field(compare=False)
    """The attack of the battery that takes it so."""

    @property
    def passes(self) -> int:
        """Passes that one gradient costs at most."""
        through = self.gradients.through
        surrogate = not isinstance(through, str) or through.split(":")[0] not in _ON_THE_WAY
        return self.gradients.passes + surrogate * self.gradients.eot


@dataclass(eq=False)
class Spent:
    """What the checks of one row have cost and broken so far."""

    forwards: int = 0
    backwards: int = 0
    breaks: set[int] = field(default_factory=set)
    """Survivors that the check at hand broke inside the ball, by their index in the data."""
    fallen: set[int] = field(default_factory=set)
    """The same of all checks so far."""
    random: bool | None = None
    """What `Case.random` found, once someone asked."""


@dataclass(eq=False)
class Case:
    """A sample of the examples, and everything that is needed to look at the classifier through them.

    Every evaluation of a point goes through a `Probe`, so that it is counted, and so that a point that breaks an
    example inside the ball is never overlooked.
    """

    model: nn.Module
    threat: ThreatModel
    found: BatteryFindings
    x: Images
    """Clean images of the sample: survivors first, where the number comes from, then others that are right."""
    y: Labels
    index: Labels
    """Where they stand in the data."""
    survivors: int
    """How many of them survived the battery."""
    anyone: Images
    """As many clean images of examples that are right, survivors or not."""
    anyone_y: Labels
    key: tuple[object, ...]
    """What random numbers are derived from."""
    batch_size: int
    spent: Spent = field(default_factory=Spent)

    def first(self, count: int) -> "Case":
        """The same row with the first examples of the sample only; what is spent and broken counts for both."""
        return replace(
            self, x=self.x[:count], y=self.y[:count], index=self.index[:count], survivors=min(self.survivors, count),
            anyone=self.anyone[:count], anyone_y=self.anyone_y[:count],
            found=replace(self.found, own=first_of(self.found.own, count)),
        )  # fmt: skip

    def chosen(self, rows: Labels) -> "Case":
        """The same row with some of the survivors of the sample only, in the order given."""
        return replace(
            self.first(len(rows)), x=self.x[rows], y=self.y[rows], index=self.index[rows], survivors=len(rows)
        )

    @property
    def ascents(self) -> list[Ascent]:
        """The ways in which the battery took gradients, those that broke most first; the plain one if in none."""
        ascents: list[Ascent] = []
        for outcome in sorted(self.found.attacks, key=lambda each: -each.broken):
            ascent = Ascent(outcome.attack.gradients(), _loss_of(outcome.attack), outcome.label)
            if outcome.with_gradients and ascent not in ascents:
                ascents.append(ascent)
        return ascents[:_ASCENTS] or [Ascent(Gradients(), margin, "the plain gradient")]

    @property
    def climbs_derivative(self) -> bool:
        """Whether the battery took gradients that are meant to be the derivative of the model itself."""
        ways = [outcome.attack.gradients() for outcome in self.found.attacks if outcome.with_gradients]
        return any(way.derivative_of(self.model) for way in ways)

    @property
    def solves(self) -> bool:
        """Whether the model is an iterative solver, which gradients can be taken past."""
        return solves(self.model)

    @property
    def goes_past(self) -> bool:
        """Whether the battery took gradients otherwise than through the model's own pass: of fewer or other sweeps of a
        solver, of a function that stands in for the model, or from forwards alone."""
        ways = [ascent.gradients.through for ascent in self.ascents]
        return any(
            not isinstance(way, str) or way.startswith("estimate") or (self.solves and way != "all") for way in ways
        )

    @cached_property
    def classes(self) -> int:
        """Number of classes."""
        with borrowed(self.model) as model:
            return self.evaluate(model, self.x[:1]).shape[1]

    @property
    def random(self) -> bool:
        """Whether the model answers an image differently when it comes again."""
        if self.spent.random is None:
            self.spent.random = self._draws_numbers()
        return self.spent.random

    def _draws_numbers(self) -> bool:
        with borrowed(self.model, seed=self.draws("random").seed) as model:
            first, second = (self.evaluate(model, self.x[:2]) for _ in range(2))
        return bool(differ(first, second).any())

    @property
    def every_draw(self) -> Draws:
        """Random numbers for the rows of the sample."""
        return Draws(self.key, len(self.x), device=self.x.device)

    def draws(self, name: str) -> Draws:
        """Those under a name of their own."""
        return self.every_draw.child(name)

    @contextmanager
    def probing(self, name: str, *, rows: int | None = None, gradients: Gradients | None = None) -> Iterator[Probe]:
        """Look at the first rows of the sample; nothing that is seen there ends the search.

        Args:
            name: of the check, for the model's own random numbers.
            rows: how many rows; all of them when ``None``.
            gradients: how gradients are taken.
        """
        n = len(self.x) if rows is None else rows
        with borrowed(self.model, seed=self.draws(name).child("model").seed) as model:
            probe = Probe(
                model, self.x[:n], self.y[:n], self.threat,
                batch_size=self.batch_size, gradients=gradients, votes=self.found.votes, closest=True,
            )  # fmt: skip
            with probe.looking():
                yield probe
            self._enter(verify(probe), self.threat)

    def attack(
        self, name: str, attack: Attack, *, threat: ThreatModel | None = None, watch: Watch | None = None
    ) -> AttackResult:
        """Run an attack on the survivors of the sample, in their own ball unless another threat is given."""
        ball, n = threat or self.threat, self.survivors
        draws = Draws((*self.key, name), n, device=self.x.device)
        result = attack.run(
            self.model, self.x[:n], self.y[:n], ball, draws,
            batch_size=self.batch_size, known_correct=True, votes=self.found.votes, watch=watch,
        )  # fmt: skip
        self._enter(result, ball)
        return result

    def _enter(self, result: AttackResult, threat: ThreatModel) -> None:
        """Count what was spent, and which survivors fell; a ball other than the row's own breaks none of its rows."""
        if threat is self.threat:
            broken = result.success[: self.survivors].nonzero().squeeze(1).tolist()
            self.spent.breaks.update(int(self.index[row]) for row in broken)
        self.spent.forwards += int(result.forwards.sum())
        self.spent.backwards += int(result.backwards.sum())

    def decide(self, model: nn.Module, images: Images) -> Labels:
        """Return the class that most of the battery's number of votes give each image."""
        return torch.stack([predict(self.evaluate(model, images)) for _ in range(self.found.votes)]).mode(0).values

    def targets(self, model: nn.Module, x: Images, y: Labels) -> Labels | None:
        """Return the class that each of some clean images is to be taken for; ``None`` where any wrong one will do."""
        rule = self.threat.targets
        return choose_targets(rule, x, y, self.evaluate(model, x)) if rule else None

    def evaluate(self, model: nn.Module, images: Images, *, passes: int = 1) -> Logits:
        """Evaluate images that are no points of an attack, such as clean ones, and count it."""
        with torch.no_grad():
            logits = call_in_batches(model, images, self.batch_size)
        self.spent.forwards += passes * len(images)
        return logits


def first_of(replays: Replays | None, count: int) -> Replays | None:
    """Return the first so many images, or ``None`` where that is none."""
    if replays is None or not min(count, len(replays.images)):
        return None
    return Replays(*(part[:count] for part in (replays.images, replays.clean, replays.labels, replays.index)))


def differ(first: Logits, second: Logits) -> Verdicts:
    """Say of which rows the logits differ by more than rounding."""
    size: Tensor = first.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return ~((first - second).abs() <= SAME * size).all(1)


def _loss_of(attack: Attack) -> ProbeLoss:
    if isinstance(attack, APGDT | FAB):
        return margin
    loss = getattr(attack, "loss", None)
    return cross_entropy if loss is None else find_loss(loss)
