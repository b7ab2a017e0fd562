"""FMN: projected gradient steps in a ball whose radius follows the decision boundary."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.base import GradientAttack
from robustframe.attacks.ddn import anneal
from robustframe.calls import predict
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import DUAL, ThreatModel, vector_norm
from robustframe.types import NORMS, Images, Norm, PerExample, Verdicts


@dataclass(frozen=True, kw_only=True)
class FMN(GradientAttack):
    """Fast minimum-norm attack (Pintor et al., 2021, arXiv:2102.12827, algorithm 1), untargeted, from the clean image.

    The radius never grows beyond the ball of the threat, where no success counts. Before the first misclassification it
    also grows by ``gamma`` at least: the distance to the linearised boundary alone comes to it from within, and never
    across. The last point is evaluated too.
    """

    # Also l0 where a threat can have it.
    norms: ClassVar[tuple[Norm, ...]] = NORMS

    steps: int = 100
    alpha: float = 1.0
    """Length of the first step in l2; the last has a hundredth of it."""
    gamma: float = 0.05
    """By what part the radius grows or shrinks in the first step; 0.001 in the last."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        del draws
        each, norm = (-1, *[1] * (x.dim() - 1)), threat.norm
        delta = torch.zeros_like(x)
        # In l0 the first step changes one number or two; elsewhere the distance to the boundary says how far.
        radius = x.new_full((len(x),), float(norm == "l0"))
        closest = x.new_full((len(x),), torch.inf)
        for step in range(self.steps):
            now = probe.gradient(x + delta, margin)
            wrong = probe.reached(predict(now.logits))
            size = vector_norm(delta.flatten(1), norm)
            closest = torch.where(wrong, torch.minimum(size, closest), closest)
            gamma = anneal(self.gamma, 0.001, step, self.steps)
            if norm == "l0":
                radius = _next_count(radius, gamma, wrong, closest)
            else:
                ahead = size + _to_boundary(now.value, now.gradient, norm)
                grown = radius * (1 + gamma)
                grown = torch.where(closest.isfinite(), grown, torch.maximum(grown, ahead))
                radius = torch.where(wrong, torch.minimum(radius * (1 - gamma), closest), grown)
            radius = radius.clamp_max(threat.eps)
            length = torch.linalg.vector_norm(now.gradient.flatten(1), dim=1).clamp_min(torch.finfo(x.dtype).tiny)
            move = anneal(self.alpha, self.alpha / 100, step, self.steps) * now.gradient / length.view(each)
            delta = into_ball((delta + move).flatten(1), radius, norm).view_as(x)
            delta = (x + delta).clamp(threat.low, threat.high) - x
        points = (x + delta).clamp(threat.low, threat.high)
        probe.logits(points)
        return points


def _to_boundary(height: PerExample, slope: Images, norm: Norm) -> PerExample:
    """The distance to the zero of the loss, were it linear; nothing where the slope is zero."""
    rate = vector_norm(slope.flatten(1), DUAL[norm])
    return torch.where(rate > 0, height.abs() / rate.clamp_min(1e-12), 0.0)


def _next_count(count: PerExample, gamma: float, wrong: Verdicts, closest: PerExample) -> PerExample:
    """The radius in l0: at least one number more or less in every step, and always a whole number."""
    fewer = torch.minimum(torch.minimum(count - 1, (count * (1 - gamma)).floor()), closest)
    more = torch.maximum(count + 1, (count * (1 + gamma)).floor())
    return torch.where(wrong, fewer, more).clamp_min(0)


def into_ball(delta: Tensor, radius: PerExample, norm: str) -> Tensor:
    """Move each perturbation to the nearest point (Euclidean) of a ball with a radius of its own around zero.

    Args:
        delta: shape (n, d).
        radius: not below 0, shape (n,); in l0 the count of entries that may differ from zero.
        norm: any norm.
    """
    limit = radius.unsqueeze(1)
    if norm == "linf":
        return torch.sign(delta) * torch.minimum(delta.abs(), limit)
    if norm == "l2":
        size = torch.linalg.vector_norm(delta, dim=1, keepdim=True)
        shrink: Tensor = (limit / size.clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)
        return delta * shrink
    ordered, order = delta.abs().sort(dim=1, descending=True)
    place = torch.arange(1, delta.shape[1] + 1, device=delta.device)
    if norm == "l1":
        # The entries that stay are those above the shift that their own sum asks for (Duchi et al., 2008).
        shift = (ordered.cumsum(1) - limit) / place
        stay = (ordered > shift).sum(1, keepdim=True).clamp_min(1)
        return delta.sign() * (delta.abs() - shift.gather(1, stay - 1).clamp_min(0)).clamp_min(0)
    kept = torch.zeros_like(delta).scatter_(1, order, (place <= limit).to(delta.dtype))
    return delta * kept
