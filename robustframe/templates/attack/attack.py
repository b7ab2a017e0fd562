"""The attack: frozen settings and one method that searches. `Attack.run` projects, verifies and counts."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from robustframe.attacks import Attack
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class MyAttack(Attack):
    """Gradient ascent with momentum (Dong et al., 2018, arXiv:1710.06081), on the margin."""

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    steps: int = 20
    step_size: float = 0.2
    """Length of a step as a fraction of eps."""
    decay: float = 0.75
    """Share of the momentum that is kept."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        points = threat.random_start(x, draws)
        momentum = torch.zeros_like(x)
        for _ in range(self.steps):
            gradient = probe.gradient(points, margin).gradient
            size = gradient.abs().flatten(1).sum(1).clamp_min(1e-30)
            momentum = self.decay * momentum + gradient / size.view(-1, *[1] * (x.dim() - 1))
            step = threat.steepest_ascent(momentum)
            points = threat.project(x, points + self.step_size * threat.eps * step)
        return points
