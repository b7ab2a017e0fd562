"""One perturbation for all examples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustframe.attacks.base import GradientAttack
from robustframe.calls import DEFAULT_BATCH, borrowed
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe, SearchOver
from robustframe.spaces import Intervals, Mask
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Norm

_TOGETHER = 250
"""Examples whose directions are added up at once: never more are held, and sums do not depend on the batch size."""


@dataclass(frozen=True, kw_only=True)
class Universal(GradientAttack):
    """One perturbation that is added to every example (Moosavi-Dezfooli et al., 2017, arXiv:1610.08401), found by
    gradient ascent with momentum on all of them (Shafahi et al., 2020, arXiv:1811.11304).

    The margins of those that it does not break yet are climbed. The perturbation that breaks most examples is shown to
    each of them, and nothing else counts. It is one for the examples that meet the attack together: what the attacks
    before it left of a chunk.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    held: ClassVar[Mapping[Norm, int]] = {"l2": 12, "linf": 12}

    steps: int = 100
    step_size: float = 0.05
    """Length of a step as a fraction of eps."""
    decay: float = 0.9
    """Share of the momentum that is kept."""

    def why_not_against(self, threat: ThreatModel) -> str | None:
        space = threat.space
        if isinstance(space, Intervals) or (isinstance(space, Mask) and len(space.mask) > 1):
            return (
                "universal adds the same to the same values of all examples, which do not have the same mask or radius "
                "here; give one mask for all, or leave eps to the threat"
            )
        return None

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        rows = probe.active
        spent = int((probe.forwards + probe.backwards)[rows].max()) if len(rows) else 0
        # One that ends no search: what the perturbation breaks on the way is still one of all.
        every = Probe(
            probe.model, probe.clean[rows], probe.y[rows], probe.asked.of(rows),
            batch_size=probe.batch_size, gradients=self.gradients(), closest=True,
            budget=None if probe.budget is None else probe.budget - spent - 1,
            targets=None if probe.targets is None else probe.targets[rows], search=probe.search,
        )  # fmt: skip
        with every.looking():
            delta = self._climb(every, threat)
        probe.forwards[rows] += every.forwards
        probe.backwards[rows] += every.backwards
        return (x + delta).clamp(threat.low, threat.high)

    def perturbation(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        batch_size: int = DEFAULT_BATCH,
    ) -> Tensor:
        """Find the perturbation itself, to be added to other images.

        Args:
            model: maps images to logits; comes back as it was.
            x: clean images, shape (n, ...).
            y: labels, shape (n,).
            threat: the ball and the box.
            batch_size: rows of one model call at most.

        Returns:
            What to add, before the cut by the box; of the shape of one image (or of the part that may change), inside
            the ball.
        """
        with borrowed(model):
            every = Probe(model, x, y, threat, batch_size=batch_size, gradients=self.gradients(), closest=True)
            with every.looking():
                return self._climb(every, every.threat)

    def _climb(self, probe: Probe, threat: ThreatModel) -> Tensor:
        x, side = probe.x, threat.high - threat.low
        ball = replace(threat, low=-side, high=side, valid="", targets="")
        origin = torch.zeros_like(x[:1])
        delta, momentum, best = origin, origin, origin
        most = -1
        for step in range(self.steps + 1):
            try:
                standing, slope = self._ahead(probe, delta)
            except SearchOver:
                break
            if len(x) - standing > most:
                most, best = len(x) - standing, delta
            if not standing or step == self.steps:
                break
            momentum = self.decay * momentum + slope / standing
            delta = ball.project(origin, delta + self.step_size * threat.eps * ball.steepest_ascent(momentum))
        return best[0]

    def _ahead(self, probe: Probe, delta: Images) -> tuple[int, Images]:
        """Return how many examples stand, and the sum of the directions in which their margins rise."""
        standing, slope, threat = 0, torch.zeros_like(delta), probe.threat
        for rows in torch.split(torch.arange(len(probe.x), device=delta.device), _TOGETHER):
            seen = probe.gradient((probe.x[rows] + delta).clamp(threat.low, threat.high), margin, rows=rows)
            stands = probe.height(seen.logits, rows) <= 0
            size = seen.gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
            weights = (stands / size).view(-1, *[1] * (delta.dim() - 1))
            slope += (weights * seen.gradient).sum(0, keepdim=True)
            standing += int(stands.sum())
        return standing, slope

    def _together(self, examples: int, image: int, norm: Norm, batch_size: int) -> int:
        return max(examples, 1)
