"""DDN: the direction of the perturbation is searched by gradients, its length by a rule of its own."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from robustframe.attacks.base import GradientAttack
from robustframe.calls import predict
from robustframe.draws import Draws
from robustframe.losses import cross_entropy
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class DDN(GradientAttack):
    """Decoupled direction and norm (Rony et al., 2019, arXiv:1811.09600, algorithm 1), untargeted.

    The radius shrinks after a misclassification and grows otherwise, but not beyond the ball of the threat, where no
    success counts. The last point is evaluated too, and pixels are not rounded to 256 levels.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    positive: ClassVar[tuple[str, ...]] = (*GradientAttack.positive, "initial_radius", "gamma")

    steps: int = 100
    initial_radius: float = 1.0
    """In input units."""
    gamma: float = 0.05
    """By what part the radius grows or shrinks in a step."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        each = (-1, *[1] * (x.dim() - 1))
        radius = x.new_full((len(x),), min(self.initial_radius, threat.eps))
        points = x
        for step in range(self.steps):
            now = probe.gradient(points, cross_entropy)
            wrong = probe.reached(predict(now.logits))
            direction = _unit(_never_zero(now.gradient, draws.child("step", step)))
            delta = points - x + anneal(1.0, 0.01, step, self.steps) * direction
            radius = (radius * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)).clamp_max(threat.eps)
            points = (x + radius.view(each) * _unit(delta)).clamp(threat.low, threat.high)
        probe.logits(points)
        return points


def anneal(first: float, last: float, step: int, steps: int) -> float:
    """Go from one value to another along half a cosine; ``step`` counts from 0."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def _unit(vectors: Images) -> Images:
    return ThreatModel(norm="l2", eps=1.0).steepest_ascent(vectors)


def _never_zero(gradient: Images, draws: Draws) -> Images:
    """Put a random direction in the place of a zero gradient, as the authors do."""
    zero = (gradient == 0).flatten(1).all(1)
    if not zero.any():
        return gradient
    noise = draws.normal(*gradient.shape[1:]).to(gradient.dtype)
    return torch.where(zero.view(-1, *[1] * (gradient.dim() - 1)), noise, gradient)
