"""Projected gradient ascent."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.losses import LOSSES
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent from random starts (Madry et al., 2018, arXiv:1706.06083, section 2.1).

    Every iterate is evaluated, the last one too, and any of them may succeed.
    """

    # In l1 the steepest step moves one pixel, and keeps choosing the same one when it has reached a face of
    # the box.
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    steps: int = 40
    """Gradient steps of each restart."""
    step_size: float = 0.1
    """Length of a step as a fraction of eps."""
    restarts: int = 1
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        length = self.step_size * threat.eps
        points = x
        for restart in range(self.restarts):
            points = threat.random_start(x, draws.child("restart", restart))
            for _ in range(self.steps):
                gradient = probe.gradient(points, LOSSES[self.loss]).gradient
                points = threat.project(x, points + length * threat.steepest_ascent(gradient))
            probe.logits(points)
        return points
