"""DeepFool: to the nearest linearised boundary, again and again."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.base import GradientAttack
from robustframe.attacks.hyperplane import step_to_hyperplane
from robustframe.calls import predict
from robustframe.draws import Draws
from robustframe.losses import targeted_margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Norm


@dataclass(frozen=True, kw_only=True)
class DeepFool(GradientAttack):
    """Steps to the nearest boundary of the linearised model (Moosavi-Dezfooli et al., 2016, arXiv:1511.04599).

    As in the authors' code the model is evaluated at the points that already overshoot, and the classes with the
    largest clean logits are looked at. Unlike in the paper a step is the shortest inside the box of images. An example
    ends with its first misclassification, or where no gradient leads on.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")

    steps: int = 50
    targets: int = 9
    """Wrong classes whose boundary is looked at in every step."""
    overshoot: float = 0.02
    """By what part of its length the perturbation is made longer, to come to the other side."""

    def images_held(self, norm: Norm) -> int:
        return 16 + 9 * self.targets

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        del draws
        rivals = probe.rivals(probe.logits(x), self.targets)
        passes = 2 * self.eot * rivals.shape[1]
        points, moved = x.clone(), torch.zeros_like(x)
        rows = probe.searched(passes).nonzero().squeeze(1)
        for _ in range(self.steps if passes else 0):
            if not len(rows):
                break
            step, prediction = _shortest(probe, points[rows], rows, rivals, threat)
            going = ~probe.reached(prediction, rows) & (step != 0).flatten(1).any(1) & probe.searched()[rows]
            rows = rows[going]
            moved[rows] += step[going]
            points[rows] = (x[rows] + (1 + self.overshoot) * moved[rows]).clamp(threat.low, threat.high)
            rows = rows[probe.searched(passes)[rows]]
        return points


def _shortest(probe: Probe, points: Images, rows: Labels, rivals: Tensor, threat: ThreatModel) -> tuple[Images, Labels]:
    """Return the shortest step to a linearised boundary, with the class of the point it starts from."""
    count = rivals.shape[1]
    copies = points.repeat_interleave(count, 0)
    seen = probe.gradient(copies, targeted_margin, rivals[rows].flatten(), rows.repeat_interleave(count))
    slopes = seen.gradient.flatten(1)
    steps = step_to_hyperplane(copies.flatten(1), slopes, seen.value, threat.norm, threat.low, threat.high)
    length = threat.distance(copies, copies + steps.view_as(copies))
    # Of boundaries beyond the box only the way to its corner is known, and without a slope there is no way.
    reached = (seen.value + (slopes * steps).sum(1)).abs() <= 1e-3 * seen.value.abs()
    nearest = torch.where(reached, length, torch.inf).view(-1, count).argmin(1)
    first = count * torch.arange(len(rows), device=rows.device)
    return steps[first + nearest].view_as(points), predict(seen.logits[::count])
