"""FAB, untargeted and targeted: steps to the linearised decision boundary, pulled towards the clean image."""

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
from robustframe.threat import DUAL, ThreatModel, vector_norm
from robustframe.types import Images, Labels, Norm, PerExample, Verdicts


@dataclass(frozen=True, kw_only=True)
class FAB(GradientAttack):
    """Fast Adaptive Boundary attack (Croce and Hein, 2020, arXiv:1907.02044, algorithm 1), as in AutoAttack.

    It looks for the nearest misclassified point, so a point outside the ball is a way station: from there it goes a
    part of the way back, and on. The final search along a line of the paper is left out, as in AutoAttack. A model with
    more than ``targets`` + 1 classes is linearised at those with the largest clean logits only.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    positive: ClassVar[tuple[str, ...]] = (*GradientAttack.positive, "alpha_max", "eta", "beta")

    steps: int = 100
    restarts: int = 1
    targets: int = 9
    """Wrong classes whose boundary is looked at in every step, the nearest of which is taken."""
    alpha_max: float = 0.1
    """Largest weight of the step from the clean image against that from the current point."""
    eta: float = 1.05
    """How far beyond the boundary a step goes, as a multiple of its length."""
    beta: float = 0.9
    """What part of the way from the clean image is kept after a misclassification."""

    def images_held(self, norm: Norm) -> int:
        return super().images_held(norm) + 8 + 4 * self.targets

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        rivals = probe.rivals(probe.logits(x), self.targets)
        points = x
        for restart in range(self.restarts):
            points = self._walk(probe, x, threat, _start(probe, restart, draws), rivals)
        return points

    def _walk(self, probe: Probe, x: Images, threat: ThreatModel, start: Images, rivals: Tensor) -> Images:
        """Make all steps from a start; only rows that are still searched have a state.

        Args:
            probe: access to the model.
            x: clean images, shape (n, ...).
            threat: the norm and the box.
            start: first point of each example, shape (n, ...).
            rivals: classes whose boundary is looked at, shape (n, r).

        Returns:
            The last point of each example, shape (n, ...), before any way back.
        """
        last = start.clone()
        passes = 2 * self.eot * rivals.shape[1]
        rows = probe.searched(passes).nonzero().squeeze(1)
        if not len(rows) or not passes:
            return last
        clean, points = x[rows], start[rows]
        crossed = torch.zeros_like(rows, dtype=torch.bool)
        view = linearise(probe, points, rows, rivals, threat.norm)
        for step in range(1, self.steps + 1):
            kept = probe.searched(passes)[rows]
            if not kept.all():
                rows, clean, points, crossed = rows[kept], clean[kept], points[kept], crossed[kept]
                view = view.of(kept)
                if not len(rows):
                    break
            points = step_between(clean, points, view.slope, view.gap, threat, self.alpha_max, self.eta)
            last[rows] = points
            if step == self.steps:
                probe.logits(points, rows)
            else:
                view, points, crossed = self._judge(probe, clean, points, rows, crossed, rivals, threat.norm)
        return last

    def _judge(
        self, probe: Probe, clean: Images, points: Images, rows: Labels, crossed: Verdicts, rivals: Tensor, norm: Norm
    ) -> tuple["Boundary", Images, Verdicts]:
        """Evaluate new points, take the misclassified ones back, and linearise where each example is then.

        An example that has not crossed the boundary yet is judged by the forward of its gradient: one forward and one
        backward a step. One that has, probably crosses it again, for it stays near: it is judged first, so that no
        gradient is spent on a point that it leaves.
        """
        expected = (crossed & probe.searched()[rows]).nonzero().squeeze(1)
        if len(expected):
            logits = probe.logits(points.index_select(0, expected), rows[expected])
            wrong = torch.zeros_like(crossed)
            wrong[expected] = probe.reached(predict(logits), rows[expected])
            points = _back(clean, points, wrong, self.beta)
        passes = 2 * self.eot * rivals.shape[1]
        able = probe.searched(passes)[rows]
        if not able.any():
            return Boundary.empty(points), points, crossed
        view = linearise(probe, points, rows, rivals, norm)
        surprise = able & ~crossed & probe.reached(view.prediction, rows)
        points = _back(clean, points, surprise, self.beta)
        places = (surprise & probe.searched(passes)[rows]).nonzero().squeeze(1)
        if len(places):
            again = linearise(probe, points[places], rows[places], rivals, norm)
            view.slope[places], view.gap[places] = again.slope, again.gap
        return view, points, crossed | surprise


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """Targeted FAB (Croce and Hein, 2020, arXiv:2003.01690), as in AutoAttack's standard version.

    The wrong classes are taken in the order of their logits on the clean image, one run per class and restart, and only
    the boundary to that class is linearised. Any misclassification is a success, whichever class was aimed at.
    """

    targets: int = 9
    """Wrong classes that are aimed at, one after the other."""

    def images_held(self, norm: Norm) -> int:
        return max(super(FAB, self).images_held(norm), 28)

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        ranked = probe.rivals(probe.logits(x), self.targets)
        points = x
        for rank in range(ranked.shape[1]):
            for restart in range(self.restarts):
                start = _start(probe, restart, draws.child("target", rank))
                points = self._walk(probe, x, threat, start, ranked[:, rank : rank + 1])
        return points


@dataclass(frozen=True)
class Boundary:
    """The boundary that is nearest to each of some points, were the model linear there."""

    slope: Images
    """Gradient of the rival's logit less the true one."""
    gap: PerExample
    """That difference itself; below zero on the side of the true class."""
    prediction: Labels

    @staticmethod
    def empty(points: Images) -> "Boundary":
        """Stand in where no point could be evaluated."""
        return Boundary(torch.zeros_like(points), points.new_zeros(len(points)), points.new_zeros(len(points)).long())

    def of(self, rows: Verdicts) -> "Boundary":
        """Keep some of the points."""
        return Boundary(self.slope[rows], self.gap[rows], self.prediction[rows])


def linearise(probe: Probe, points: Images, rows: Labels, rivals: Tensor, norm: Norm) -> Boundary:
    """Find the nearest boundary of each point, one gradient a rival.

    Args:
        probe: access to the model.
        points: images, shape (m, ...).
        rows: the example each point belongs to, shape (m,).
        rivals: classes whose boundary is looked at, of every example, shape (n, r).
        norm: the norm in which the nearest is meant.
    """
    count = rivals.shape[1]
    if count == 1:
        seen = probe.gradient(points, targeted_margin, rivals[rows, 0], rows)
        return Boundary(seen.gradient, seen.value, predict(seen.logits))
    copies = points.repeat_interleave(count, 0)
    seen = probe.gradient(copies, targeted_margin, rivals[rows].flatten(), rows.repeat_interleave(count))
    slopes, gaps = seen.gradient.view(-1, count, *points.shape[1:]), seen.value.view(-1, count)
    distance = gaps.abs() / (vector_norm(slopes.flatten(2), DUAL[norm]) + 1e-12)
    each, nearest = torch.arange(len(rows), device=rows.device), distance.argmin(1)
    return Boundary(slopes[each, nearest], gaps[each, nearest], predict(seen.logits[::count]))


def step_between(
    x: Images, z: Images, slope: Images, gap: PerExample, threat: ThreatModel, alpha_max: float, eta: float
) -> Images:
    """Step from ``z`` beyond the boundary, pulled towards the point of it nearest to ``x``.

    Args:
        x: clean images, shape (m, ...).
        z: current points, shape (m, ...).
        slope: gradient of the rival's lead at ``z``, shape (m, ...).
        gap: the lead at ``z``, shape (m,).
        threat: the norm and the box.
        alpha_max: see `FAB`.
        eta: see `FAB`.

    Returns:
        The next points, inside the box, shape (m, ...).
    """
    norm = threat.norm
    ends, normal = torch.stack([z.flatten(1), x.flatten(1)]), slope.flatten(1)
    heights = torch.stack([gap, gap + (normal * (ends[1] - ends[0])).sum(1)])
    steps = step_to_hyperplane(ends, normal, heights, norm, threat.low, threat.high)
    lengths = vector_norm(steps, norm).clamp_min(1e-8)
    alpha = (lengths[0] / lengths.sum(0)).clamp_max(alpha_max).unsqueeze(1)
    beyond = ends + eta * steps
    moved: Images = torch.lerp(beyond[0], beyond[1], alpha).clamp_(threat.low, threat.high)
    return moved.view_as(z)


def _back(x: Images, z: Images, crossed: Verdicts, beta: float) -> Images:
    return torch.where(crossed.view(-1, *[1] * (x.dim() - 1)), x + beta * (z - x), z)


def _start(probe: Probe, restart: int, draws: Draws) -> Images:
    """The clean image first; then a random point half as far from it as the ball reaches, or the closest success."""
    x, threat = probe.x, probe.threat
    if restart == 0:
        return x
    stream, shape = draws.child("restart", restart), tuple(x.shape[1:])
    noise = (2 * stream.uniform(*shape) - 1 if threat.norm == "linf" else stream.normal(*shape)).to(x.dtype)
    length = vector_norm(noise.flatten(1), threat.norm)
    reached = threat.distance(x, probe.best).clamp_max(threat.eps)
    radius = torch.where(probe.succeeded, reached, threat.eps).to(x.dtype) / 2
    offset = noise * (radius / length).view(-1, *[1] * (x.dim() - 1))
    return torch.clamp(x + offset, threat.low, threat.high)
