"""Carlini and Wagner's l2 attack: distance and margin weighed against each other, the weight found by bisection."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from robustframe.attacks.base import GradientAttack
from robustframe.calls import predict
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm, PerExample, Verdicts

_INSIDE = 1 - 1e-3
"""How far out pixels at the faces of the box start: atanh(1) is infinite, and from 1 - 1e-6, as elsewhere, they take
hundreds of steps to move at all."""
_REVIEWS = 10


@dataclass(frozen=True, kw_only=True)
class CW(GradientAttack):
    """Minimise ||z - x||^2 + c max(-margin, -confidence) by Adam in tanh space (arXiv:1608.04644, section VI, l2).

    The weight c, the stall that ends a descent and the best point are each example's own. Sources: Carlini and Wagner,
    2017; the authors' code for starting values and the rule of the stall. By default the steps are fewer and longer
    than theirs, and the last descent does not repeat the largest weight.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    positive: ClassVar[tuple[str, ...]] = (*GradientAttack.positive, "searches", "learning_rate", "initial_weight")

    steps: int = 200
    """Steps of each descent."""
    searches: int = 9
    """Descents, each with a weight that the outcome of the one before decides."""
    learning_rate: float = 0.03
    """Of Adam, in tanh space."""
    initial_weight: float = 1e-3
    confidence: float = 0.0
    """Margin above which the loss no longer pushes."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        del draws
        weight = x.new_full((len(x),), self.initial_weight)
        below, above = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
        points = x
        for _ in range(self.searches):
            points, reached = self._descend(probe, x, threat, weight)
            above, below = torch.where(reached, weight, above), torch.where(reached, below, weight)
            weight = torch.where(above.isfinite(), (below + above) / 2, 10 * weight)
        return points

    def _descend(self, probe: Probe, x: Images, threat: ThreatModel, weight: PerExample) -> tuple[Images, Verdicts]:
        """Descend from the clean image with a weight for each example; say which reached the other side."""
        half, middle = (threat.high - threat.low) / 2, (threat.high + threat.low) / 2
        passes = 2 * self.eot
        last, reached = x.clone(), torch.zeros_like(probe.broken)
        rows = probe.searched(passes).nonzero().squeeze(1)
        adam = _Adam(torch.atanh((x[rows] - middle) / half * _INSIDE), self.learning_rate)
        before = x.new_full((len(rows),), torch.inf)
        for step in range(self.steps):
            if not len(rows):
                break
            squashed = adam.at.tanh()
            points = middle + half * squashed
            now = probe.gradient(points, margin, rows=rows)
            last[rows] = points
            reached[rows] |= probe.reached(predict(now.logits), rows) & (now.value >= self.confidence)
            each = (-1, *[1] * (x.dim() - 1))
            push = torch.where(now.value < self.confidence, weight[rows], 0.0).view(each) * now.gradient
            adam.step((2 * (points - x[rows]) - push) * half * (1 - squashed.square()))
            going = probe.searched(passes)[rows]
            if step and step % max(self.steps // _REVIEWS, 1) == 0:
                loss = (points - x[rows]).square().flatten(1).sum(1) - weight[rows] * now.value.clamp_max(
                    self.confidence
                )
                going &= loss <= 0.9999 * before
                before = loss
            if not going.all():
                rows, before = rows[going], before[going]
                adam.keep(going)
        if not len(rows):
            # The next descent goes on; to evaluate nothing would end the search.
            return last, reached
        points = middle + half * adam.at.tanh()
        logits = probe.logits(points, rows)
        last[rows] = points
        reached[rows] |= probe.reached(predict(logits), rows) & (probe.height(logits, rows) >= self.confidence)
        return last, reached


class _Adam:
    """Adam (Kingma and Ba, 2015, arXiv:1412.6980) whose rows can leave."""

    def __init__(self, start: Images, rate: float) -> None:
        self.at, self.rate, self.count = start, rate, 0
        self.first, self.second = torch.zeros_like(start), torch.zeros_like(start)

    def step(self, gradient: Images) -> None:
        """Move against a gradient."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        mean, scale = self.first / (1 - 0.9**self.count), (self.second / (1 - 0.999**self.count)).sqrt()
        self.at = self.at - self.rate * mean / (scale + 1e-8)

    def keep(self, rows: Verdicts) -> None:
        """Drop all other rows."""
        self.at, self.first, self.second = self.at[rows], self.first[rows], self.second[rows]
