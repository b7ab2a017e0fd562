"""The fast gradient sign method and its counterparts in the other norms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from robustframe.attacks.base import GradientAttack
from robustframe.draws import Draws
from robustframe.losses import Loss, find_loss
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length eps along the steepest ascent (Goodfellow et al., 2015, arXiv:1412.6572)."""

    held: ClassVar[Mapping[Norm, int]] = {"l1": 10, "l2": 16, "linf": 8}

    loss: Literal["cross_entropy", "margin", "probability_margin", "dlr"] | Loss = "cross_entropy"

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        del draws
        step = threat.steepest_ascent(probe.gradient(x, find_loss(self.loss)).gradient)
        # In place: the exact projection needs the memory.
        return threat.project(x, step.mul_(threat.eps).add_(x))
