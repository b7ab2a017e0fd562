"""SPSA: gradient ascent on slopes that are estimated from pairs of evaluations."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Norm

_MOMENTA = (0.9, 0.999)
"""Adam's."""
_TOGETHER = 16
"""Pairs of an example that are drawn and evaluated at once; part of which random numbers are drawn."""


@dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Simultaneous perturbation stochastic approximation (Uesato et al., 2018, arXiv:1802.05666, algorithm 1).

    Every example has random directions of its own, taken forth and back; its margin is the loss. In linf the steps are
    Adam's, as in the paper; in l2 they go along the running mean of the estimates. Evaluated points are clipped into
    the box, and the iterate itself is evaluated after each step. A step costs ``2 * samples + 1`` forwards.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    positive: ClassVar[tuple[str, ...]] = (*Attack.positive, "samples", "distance")

    steps: int = 100
    step_size: float = 0.25
    """Length of a step as a fraction of eps."""
    samples: int = 128
    """Pairs of evaluations for each estimate."""
    distance: float = 0.01
    """How far from the iterate they lie in every pixel, in input units."""

    def images_held(self, norm: Norm) -> int:
        return super().images_held(norm) + 13 * min(self.samples, _TOGETHER)

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        rows, last = torch.arange(len(x), device=x.device), x.clone()
        images = points = x
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(1, self.steps + 1):
            slope = self._estimate(probe, points, rows, threat, draws)
            if len(probe.active) < len(rows):
                kept = torch.isin(rows, probe.active)
                rows, images, points, slope = rows[kept], images[kept], points[kept], slope[kept]
                mean, square = mean[kept], square[kept]
            mean, square = mean.lerp(slope, 1 - _MOMENTA[0]), square.lerp(slope.square(), 1 - _MOMENTA[1])
            fresh = [1 - momentum**step for momentum in _MOMENTA]
            adam = (mean / fresh[0]) / ((square / fresh[1]).sqrt() + torch.finfo(x.dtype).tiny)
            move = adam if threat.norm == "linf" else threat.steepest_ascent(mean)
            points = threat.project(images, points + self.step_size * threat.eps * move)
            last[rows] = points
            probe.logits(points, rows)
        return last

    def _estimate(self, probe: Probe, points: Images, rows: Labels, threat: ThreatModel, draws: Draws) -> Images:
        """Return the mean slope of the margin over random directions, times the direction."""
        slope = torch.zeros_like(points)
        for group in range(math.ceil(self.samples / _TOGETHER)):
            count = min(_TOGETHER, self.samples - group * _TOGETHER)
            directions = draws.sign(count, *points.shape[1:])[rows].to(points.dtype)
            centres = points.unsqueeze(1)
            both = torch.stack([centres + sign * self.distance * directions for sign in (1, -1)], 1)
            flat = both.clamp(threat.low, threat.high).flatten(0, 2)
            owners = rows.repeat_interleave(2 * count)
            heights = probe.height(probe.logits(flat, owners), owners).view(-1, 2, count)
            rises = (heights[:, 0] - heights[:, 1]) / (2 * self.distance)
            slope += torch.einsum("ms,ms...->m...", rises, directions)
        return _finite(slope / self.samples)


def _finite(slope: Tensor) -> Tensor:
    """Logits that are not finite give no direction."""
    return slope.nan_to_num(0.0, 0.0, 0.0)
