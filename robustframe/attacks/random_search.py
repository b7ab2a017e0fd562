"""Points drawn at random: what any search has to beat."""

from dataclasses import dataclass
from typing import ClassVar

from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import NORMS, Images, Norm


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    """Independent points, uniform in the ball (see `ThreatModel.random_start`), each for one forward.

    A check more than an attack: a defence that a gradient attack fails to break and this one breaks hides its gradients
    (Carlini et al., 2019, arXiv:1902.06705).
    """

    norms: ClassVar[tuple[Norm, ...]] = NORMS

    queries: int = 1000

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        points = x
        for _ in range(self.queries):
            points = threat.random_start(x, draws)
            probe.logits(points)
        return points
