"""sigma-zero: the fewest changed components, by descent on a smooth count of them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.base import Attack, GradientAttack
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm

_MOMENTA = (0.9, 0.999)
"""Adam's."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class SigmaZero(GradientAttack):
    """sigma-zero (Cinà et al., 2024, arXiv:2402.01879, algorithm 1), from the clean image on.

    Descends on the negative margin, until it is adversarial, plus the mean over components of
    ``delta**2 / (delta**2 + sigma)``; after each step changes below a threshold are taken back, and the threshold rises
    while the point is adversarial and falls while it is not. As in the authors' implementation the steps are Adam's,
    which the paper's algorithm leaves out. The search does not know the radius: it looks for the fewest changes there
    are, and every point on the way that changes few enough counts.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l0",)
    positive: ClassVar[tuple[str, ...]] = (*Attack.positive, "sigma", "learning_rate")

    steps: int = 1000
    learning_rate: float = 1.0
    """Adam's, in input units; falls along half a cosine to a tenth."""
    sigma: float = 1e-3
    """Square of the size from which on a change counts as one, about."""
    threshold: float = 0.3
    """Changes smaller than this are taken back at first."""
    threshold_step: float = 0.01
    """By how much the threshold moves after each step, as a fraction of the learning rate."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        del draws
        rows, last = torch.arange(len(x), device=x.device), x.clone()
        each = (-1, *[1] * (x.dim() - 1))
        images, delta = x, torch.zeros_like(x)
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        threshold = x.new_full((len(x),), self.threshold).view(each)
        for step in range(self.steps):
            if len(probe.active) < len(rows):
                kept = torch.isin(rows, probe.active)
                rows, images, delta = rows[kept], images[kept], delta[kept]
                mean, square, threshold = mean[kept], square[kept], threshold[kept]
            points = (images + delta).clamp(threat.low, threat.high)
            last[rows] = points
            now = probe.gradient(points, margin, rows=rows)
            adversarial = (now.value > 0).view(each)
            slope = torch.where(adversarial, 0.0, -now.gradient) + self._count_slope(delta)
            slope = slope / slope.flatten(1).abs().amax(1).clamp_min(_TINY).view(each)
            mean, square = mean.lerp(slope, 1 - _MOMENTA[0]), square.lerp(slope.square(), 1 - _MOMENTA[1])
            fresh = [1 - momentum ** (step + 1) for momentum in _MOMENTA]
            delta = delta - self._rate(step) * (mean / fresh[0]) / ((square / fresh[1]).sqrt() + 1e-8)
            delta = (images + delta).clamp(threat.low, threat.high) - images
            move = self.threshold_step * self._rate(step + 1)
            threshold = (threshold + torch.where(adversarial, move, -move)).clamp(0, 1)
            delta = torch.where(delta.abs() < threshold, 0.0, delta)
        last[rows] = (images + delta).clamp(threat.low, threat.high)
        return last

    def _rate(self, step: int) -> float:
        least = self.learning_rate / 10
        return least + (self.learning_rate - least) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def _count_slope(self, delta: Tensor) -> Tensor:
        """The gradient of the smooth count of changes, as a share of all components."""
        return 2 * self.sigma * delta / (delta.square() + self.sigma).square() / delta[0].numel()
