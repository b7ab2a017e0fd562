"""AutoPGD, untargeted and targeted, with the step-size control of the reference implementation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from robustframe.attacks.apgd_l1 import large_radii, large_start
from robustframe.attacks.base import GradientAttack, Runs
from robustframe.draws import Draws
from robustframe.losses import Loss, find_loss, targeted_dlr
from robustframe.probe import Probe
from robustframe.threat import ThreatModel, vector_norm
from robustframe.types import Images, Norm

_ALPHA = 0.75
"""Weight of the gradient step against the momentum."""


@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD (Croce and Hein, 2020, arXiv:2003.01690, algorithm 1), as in AutoAttack.

    With the cross-entropy, 100 steps and one restart (five in l1) it is the APGD-CE of AutoAttack's standard version.
    In l1 it is the variant of Croce and Hein, 2021, arXiv:2103.01208, from large radii down to eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    restarts: int = 1
    loss: Literal["cross_entropy", "margin", "probability_margin", "dlr"] | Loss = "cross_entropy"
    rho: float = 0.75
    """Share of the steps since the last checkpoint that must raise the loss; else the step size halves."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        for restart in range(self.restarts):
            start = first_points(x, threat, draws.child("restart", restart))
            runs = Runs(probe, torch.arange(len(x), device=x.device), find_loss(self.loss))
            climb(runs, start, threat, steps=self.steps, rho=self.rho)


@dataclass(frozen=True, kw_only=True)
class APGDT(GradientAttack):
    """Auto-PGD on the targeted DLR loss (Croce and Hein, 2020, arXiv:2003.01690, eq. 7), as in AutoAttack.

    The wrong classes are taken in the order of their logits on the clean image, one run per class and restart.
    Any misclassification is a success, whichever class was aimed at. A model with fewer classes has fewer
    targets.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    targets: int = 9
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    """As in `APGD`."""
    together: int = 1
    """Targets whose runs go on side by side in one batch: it changes no verdict, saves time where most examples
    survive, and costs the runs that a break under an earlier target would have spared."""

    def images_held(self, norm: Norm) -> int:
        return super().images_held(norm) * min(self.together, self.targets)

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        targets = probe.rivals(probe.logits(x), self.targets)
        everyone = torch.arange(len(x), device=x.device)
        for first in range(0, targets.shape[1], self.together):
            ranks = range(first, min(first + self.together, targets.shape[1]))
            for restart in range(self.restarts):
                starts = [first_points(x, threat, draws.child("target", rank, "restart", restart)) for rank in ranks]
                aims = torch.cat([targets[:, rank] for rank in ranks])
                runs = Runs(probe, everyone.repeat(len(ranks)), targeted_dlr, aims)
                climb(runs, torch.cat(starts), threat, steps=self.steps, rho=self.rho)


def first_points(x: Images, threat: ThreatModel, draws: Draws) -> Images:
    """Draw the first iterate around each image, shape (n, ...)."""
    return large_start(x, threat, draws) if threat.norm == "l1" else surface_start(x, threat, draws)


def climb(runs: Runs, start: Images, threat: ThreatModel, *, steps: int, rho: float) -> None:
    """Climb from first points in the way of the norm: `ascend`, or in l1 `large_radii`, which has no use for rho."""
    if threat.norm == "l1":
        large_radii(runs, start, threat, steps=steps)
    else:
        ascend(runs, start, threat, steps=steps, rho=rho)


def surface_start(x: Images, threat: ThreatModel, draws: Draws) -> Images:
    """Draw a point on the surface of the ball around each ``x`` and clip it into the box, as AutoAttack does.

    In linf the noise is scaled until its largest entry is eps; in l2 the direction is uniform.
    """
    shape = tuple(x.shape[1:])
    noise = (2 * draws.uniform(*shape) - 1 if threat.norm == "linf" else draws.normal(*shape)).to(x.dtype)
    size = vector_norm(noise.flatten(1), threat.norm)
    return inside(x, x + threat.eps * noise / size.view(-1, *[1] * (x.dim() - 1)), threat)


def inside(x: Images, z: Images, threat: ThreatModel) -> Images:
    """Bring points back as AutoAttack does: scale into the ball, then clip into the box.

    In l2 this is not the nearest point where the box cuts the ball, but published numbers are made with it.
    """
    if threat.norm == "l2":
        offset = z - x
        size = torch.linalg.vector_norm(offset.flatten(1), dim=1).view(-1, *[1] * (x.dim() - 1))
        z = (x + offset * (threat.eps / size.clamp_min(threat.eps))).clamp(threat.low, threat.high)
    # In l2 this moves rounding errors only.
    return threat.project(x, z)


def checkpoints(steps: int) -> dict[int, int]:
    """Return after which steps the step size is reviewed, and how many steps lie before each review.

    Source: Croce and Hein, 2020, arXiv:2003.01690, section 3.3, rounded as in AutoAttack.

    >>> checkpoints(100)
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    window, shortest = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    reviews: dict[int, int] = {}
    step = window
    while step <= steps:
        reviews[step] = window
        window = max(window - shrink, shortest)
        step += window
    return reviews


def ascend(runs: Runs, start: Images, threat: ThreatModel, *, steps: int, rho: float) -> None:
    """Climb from a start with momentum and a step size for each run (algorithm 1 of arXiv:2003.01690).

    The symbols are the paper's: ``eta`` the step size, ``f_max`` the highest loss and ``x_max`` its point.
    Like AutoAttack, and unlike the paper, the first step counts as a rise when its loss is above 0. Runs of examples
    that broke meanwhile are dropped, so that they cost nothing; the others are not affected.

    Args:
        runs: the examples to climb for, the loss and its targets.
        start: first iterate of each run, shape (m, ...), inside ball and box.
        threat: an linf or l2 ball.
        steps: number of steps; one more point than that is evaluated.
        rho: see `APGD`.
    """
    each = (-1, *[1] * (start.dim() - 1))
    now = runs.gradient(start)
    x, x_k, x_before, x_max = runs.clean, start, start, start
    gradient = g_max = now.gradient
    f_max = f_max_reviewed = now.value
    f_before = rises = torch.zeros_like(f_max)
    halved = torch.ones_like(f_max, dtype=torch.bool)
    eta = torch.full_like(f_max, 2 * threat.eps, dtype=x.dtype).view(each)
    reviews = checkpoints(steps)
    for k in range(1, steps + 1):
        kept = runs.compact()
        if kept is not None:
            x, x_k, x_before, x_max, gradient, g_max = (
                state[kept] for state in (x, x_k, x_before, x_max, gradient, g_max)
            )
            f_max, f_max_reviewed, f_before, rises, halved, eta = (
                state[kept] for state in (f_max, f_max_reviewed, f_before, rises, halved, eta)
            )
        alpha = 1.0 if k == 1 else _ALPHA
        z = inside(x, x_k + eta * threat.steepest_ascent(gradient), threat)
        z = inside(x, x_k + alpha * (z - x_k) + (1 - alpha) * (x_k - x_before), threat)
        x_before, x_k = x_k, z
        now = runs.gradient(x_k)
        gradient = now.gradient
        rises = rises + (now.value > f_before)
        f_before = now.value
        higher = now.value > f_max
        f_max = torch.where(higher, now.value, f_max)
        x_max = torch.where(higher.view(each), x_k, x_max)
        g_max = torch.where(higher.view(each), gradient, g_max)
        if k in reviews and k < steps:
            stuck = ~halved & (f_max_reviewed >= f_max)
            halved = (rises <= rho * reviews[k]) | stuck
            f_max_reviewed, rises = f_max, torch.zeros_like(rises)
            eta = torch.where(halved.view(each), eta / 2, eta)
            x_k = torch.where(halved.view(each), x_max, x_k)
            gradient = torch.where(halved.view(each), g_max, gradient)
