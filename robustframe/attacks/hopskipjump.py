"""HopSkipJump: walks along the boundary towards the clean image, from decisions alone."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.base import Attack
from robustframe.calls import predict
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Norm, Verdicts

_TOGETHER = 16
"""Directions of an example that are drawn and evaluated at once; part of which random numbers are drawn."""
_STARTS = 100
"""Random images, or images of the target, that are tried for a first misclassified one."""
_LEAPS = 30
"""How often a step is tried, each time half as long, before the point stays where it is."""
_LEAST_HALVINGS = 10
"""Of the bracket in the search for the boundary; more with many pixels."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """HopSkipJumpAttack (Chen et al., 2019, arXiv:1904.02144, algorithms 1 and 2).

    It sees the predicted class and nothing else of the logits. All examples walk side by side, each with a start,
    directions and step size of its own; one whose hundred random images are all classified correctly is left alone.
    With targets it starts from the nearest image of the target's class that the model takes for it, of the first
    hundred that the data has.
    The radius does not steer the search; it ends an example as soon as a misclassified point lies within.
    As in the authors' implementation directions have unit l2 norm (in linf they come from a cube) and are measured
    after clipping, and the first ones reach a tenth of the box. The tolerance of the boundary search is relative to
    the distance in both norms, and at most 1/1000.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    positive: ClassVar[tuple[str, ...]] = (*Attack.positive, "samples")

    steps: int = 32
    samples: int = 100
    """Directions of the first step; the t-th has sqrt(t) times as many."""

    def images_held(self, norm: Norm) -> int:
        return super().images_held(norm) + 8 * _TOGETHER

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        walk = _Walk(probe, x, threat)
        walk.start(draws.child("start"))
        walk.to_boundary()
        reach = torch.full((len(x),), 0.1 * (threat.high - threat.low), dtype=x.dtype, device=x.device)
        for step in range(1, self.steps + 1):
            rows = walk.rows()
            if not len(rows):
                break
            count = int(self.samples * math.sqrt(step))
            direction = walk.direction(rows, reach, count, draws.child("step", step))
            walk.leap(rows, direction, walk.gap() / math.sqrt(step))
            reach = walk.gap() / x[0].numel()
            walk.to_boundary()
        return walk.at


class _Walk:
    """Where every example is: on the adversarial side of the boundary, once it has started."""

    def __init__(self, probe: Probe, x: Images, threat: ThreatModel) -> None:
        self.probe, self.x, self.threat = probe, x, threat
        self.at = x.clone()
        self.started = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def rows(self) -> Labels:
        """Examples that have started and are still searched."""
        return (self.started & self.probe.searched()).nonzero().squeeze(1)

    def gap(self) -> Tensor:
        """Distance from the clean image, in the images' own type."""
        return self.threat.distance(self.x, self.at).to(self.x.dtype)

    def decide(self, points: Images, rows: Labels) -> Verdicts:
        """Say which points are misclassified, or taken for their target: all that this attack learns from the model."""
        return self.probe.reached(predict(self.probe.logits(points, rows)), rows)

    def start(self, draws: Draws) -> None:
        """Take the first of some images of the target, or else of some random ones, that is misclassified."""
        examples = self._examples()
        for turn in range(_STARTS):
            rows = (~self.started & self.probe.searched()).nonzero().squeeze(1)
            if not len(rows):
                return
            points = draws.uniform(*self.x.shape[1:])[rows].to(self.x.dtype)
            points = self.threat.low + (self.threat.high - self.threat.low) * points
            for place, row in enumerate(rows.tolist()):
                if turn < len(examples[row]):
                    points[place] = examples[row][turn]
            wrong = self.decide(points, rows)
            self.at[rows[wrong]] = points[wrong]
            self.started[rows[wrong]] = True

    def _examples(self) -> list[Images]:
        """Images of each example's target, the nearest first."""
        targets, gallery = self.probe.targets, self.probe.gallery
        if targets is None or gallery is None:
            return [self.x[:0]] * len(self.x)
        of_class = {}
        for target in sorted(set(targets.tolist())):
            known = gallery[0][(gallery[1] == target).nonzero().squeeze(1)[:_STARTS].to(gallery[0].device)]
            of_class[target] = known.to(self.x)
        found = []
        for x, target in zip(self.x, targets.tolist()):
            known = of_class[target]
            found.append(known[self.threat.distance(x.expand_as(known), known).argsort(stable=True)])
        return found

    def to_boundary(self) -> None:
        """Come as near to the clean image as the class allows: along the line in l2, by clipping in linf."""
        far, gap = self.at.clone(), self.gap()
        low, high = torch.zeros_like(gap), torch.ones_like(gap)
        power = 1.5 if self.threat.norm == "l2" else 2.0
        for _ in range(max(math.ceil(power * math.log2(self.x[0].numel())), _LEAST_HALVINGS)):
            rows = self.rows()
            if not len(rows):
                return
            middle = (low + high)[rows] / 2
            points = self._toward(rows, far, gap, middle)
            wrong = self.decide(points, rows)
            self.at[rows[wrong]] = points[wrong]
            high[rows[wrong]], low[rows[~wrong]] = middle[wrong], middle[~wrong]

    def _toward(self, rows: Labels, far: Tensor, gap: Tensor, share: Tensor) -> Images:
        """The points at some share of the way; ``far`` and ``gap`` are those of all examples."""
        x, offset = self.x[rows], far[rows] - self.x[rows]
        share = share.view(-1, *[1] * (x.dim() - 1))
        if self.threat.norm == "l2":
            return (x + share * offset).clamp(self.threat.low, self.threat.high)
        room = share * gap[rows].view_as(share)
        return (x + torch.minimum(torch.maximum(offset, -room), room)).clamp(self.threat.low, self.threat.high)

    def direction(self, rows: Labels, reach: Tensor, count: int, draws: Draws) -> Images:
        """Estimate where the boundary rises most steeply, from the decisions around each point."""
        shape, at = self.x.shape[1:], self.at[rows].unsqueeze(1)
        length = reach[rows].view(-1, *[1] * len(self.x.shape))
        total, signed = torch.zeros_like(self.at[rows]), torch.zeros_like(self.at[rows])
        balance = torch.zeros(len(rows), dtype=at.dtype, device=at.device)
        for group in range(math.ceil(count / _TOGETHER)):
            size = min(_TOGETHER, count - group * _TOGETHER)
            noise = draws.normal(size, *shape) if self.threat.norm == "l2" else 2 * draws.uniform(size, *shape) - 1
            noise = noise[rows].to(at.dtype)
            noise = noise / torch.linalg.vector_norm(noise.flatten(2), dim=2).view(len(rows), size, *[1] * len(shape))
            points = (at + length * noise).clamp(self.threat.low, self.threat.high)
            wrong = self.decide(points.flatten(0, 1), rows.repeat_interleave(size)).view(len(rows), size)
            signs, moved = 2.0 * wrong.to(at.dtype) - 1, (points - at) / length
            signed += torch.einsum("ms,ms...->m...", signs, moved)
            total += moved.sum(1)
            balance += signs.sum(1)
        mean = (balance / count).view(-1, *[1] * len(shape))
        # Where all decisions agree, the directions themselves are all there is to go by.
        return self.threat.steepest_ascent(torch.where(mean.abs() == 1, mean * total, signed - mean * total))

    def leap(self, rows: Labels, direction: Images, length: Tensor) -> None:
        """Step along a direction, half as far and half again until the point is misclassified."""
        length = length[rows]
        for _ in range(_LEAPS):
            alive = self.probe.searched()[rows]
            rows, direction, length = rows[alive], direction[alive], length[alive]
            if not len(rows):
                return
            points = self.at[rows] + length.view(-1, *[1] * (direction.dim() - 1)) * direction
            points = points.clamp(self.threat.low, self.threat.high)
            wrong = self.decide(points, rows)
            self.at[rows[wrong]] = points[wrong]
            rows, direction, length = rows[~wrong], direction[~wrong], length[~wrong] / 2
