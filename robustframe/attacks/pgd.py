"""Projected gradient ascent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robustframe.attacks.base import GradientAttack, Runs
from robustframe.draws import Draws
from robustframe.losses import Loss, find_loss
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent from random starts (Madry et al., 2018, arXiv:1706.06083, section 2.1).

    Every iterate is evaluated, the last one too, and any of them may succeed. A run that comes back to an iterate it
    has been at before would only walk the same cycle again, so it ends there; no verdict changes by that
    (arXiv:2503.19347). With draws to average (``eot`` above 1) nothing repeats and every run goes to its end.
    """

    # In l1 the steepest step moves one pixel, and keeps choosing the same one when it has reached a face of
    # the box.
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    held: ClassVar[Mapping[Norm, int]] = {"linf": 10, "l2": 36}

    steps: int = 40
    """Gradient steps of each restart."""
    step_size: float = 0.1
    """Length of a step as a fraction of eps."""
    restarts: int = 1
    loss: Literal["cross_entropy", "margin", "probability_margin", "dlr"] | Loss = "cross_entropy"

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        everyone = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            runs = Runs(probe, everyone, find_loss(self.loss))
            self._climb(runs, threat.random_start(x, draws.child("restart", restart)), threat)

    def _climb(self, runs: Runs, points: Images, threat: ThreatModel) -> None:
        length = self.step_size * threat.eps
        x, seen = runs.clean, _Seen(points)
        for _ in range(self.steps):
            repeated = seen.again(points) if self.eot == 1 else None
            kept = runs.compact(repeated)
            if kept is not None:
                x, points = x[kept], points[kept]
                seen.keep(kept)
            if not len(points):
                return
            gradient = runs.gradient(points).gradient
            points = threat.project(x, points + length * threat.steepest_ascent(gradient))
        runs.probe.logits(points, runs.rows)


class _Seen:
    """The iterates that runs have been at, as 64-bit sums of their bits with random weights."""

    def __init__(self, points: Images) -> None:
        numbers = points[0].numel()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randint(-(2**62), 2**62, (numbers,), generator=generator)
        self._weights = weights.to(points.device)
        self._bits = torch.int32 if points.dtype == torch.float32 else torch.int64
        self._sums = weights.new_zeros((len(points), 0), device=points.device)

    def again(self, points: Images) -> Tensor:
        """Note the iterates and say which of them their run has been at before, shape (m,)."""
        bits = points.contiguous().view(self._bits).flatten(1)
        sums = (bits * self._weights).sum(1, keepdim=True)
        repeated = (self._sums == sums).any(1)
        self._sums = torch.cat([self._sums, sums], 1)
        return repeated

    def keep(self, kept: Tensor) -> None:
        """Forget the runs that were dropped."""
        self._sums = self._sums[kept]
