"""Gradient ascent whose images carry over to other models: momentum, diverse inputs, smoothed and tuned gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.attacks.base import GradientAttack
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.losses import Loss, find_loss
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm

_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Gradient ascent with momentum (Dong et al., 2018, arXiv:1710.06081, algorithm 1), from the clean image.

    Its settings add what makes its images carry over to other models, alone or together: `diversity` (DI, Xie et al.,
    2019, arXiv:1803.06978), `kernel` (TI, Dong et al., 2019, arXiv:1904.02884) and `neighbours` (VMI, Wang and He,
    2021, arXiv:2103.15571, algorithm 1). Departs from them in that every image is resized by itself, by bilinear
    sampling, where DI draws one size for the batch.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    held: ClassVar[Mapping[Norm, int]] = {"linf": 14, "l2": 36}

    steps: int = 10
    step_size: float = 0.1
    """Length of a step as a fraction of eps; the paper's is 1 / steps."""
    decay: float = 1.0
    """Share of the momentum that is kept, at least 0."""
    diversity: float = 0.0
    """Probability, in [0, 1], that a gradient is taken of a smaller copy at a random place; 0.5 in the paper on DI."""
    shrink: float = 0.9
    """Smallest side of such a copy, as a fraction of the image's, in (0, 1]."""
    kernel: int = 0
    """Side in pixels, odd, of a Gaussian of three standard deviations that smooths gradients; 15 in the paper on TI,
    for images of 299 pixels; none when 0."""
    neighbours: int = 0
    """Images around the iterate whose gradients tune the next step; 20 in the paper on VMI; none when 0."""
    reach: float = 1.5
    """How far these lie at most, as a multiple of eps, in each pixel."""
    loss: Literal["cross_entropy", "margin", "probability_margin", "dlr"] | Loss = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed, right in (
            ("decay", "0 or more", self.decay >= 0),
            ("diversity", "in [0, 1]", 0 <= self.diversity <= 1),
            ("shrink", "in (0, 1]", 0 < self.shrink <= 1),
            ("kernel", "0 or an odd number", self.kernel == 0 or (self.kernel > 0 and self.kernel % 2 == 1)),
            ("neighbours", "0 or more", self.neighbours >= 0),
            ("reach", "above 0", self.reach > 0),
        ):
            if not right:
                raise InputError(f"{type(self).__name__}: {name} = {getattr(self, name)!r} must be {allowed}")

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        if x.dim() != 4 and (self.diversity or self.kernel):
            raise InputError(
                f"{type(self).__name__}: diversity and kernel are for images of shape (c, h, w), not "
                f"{tuple(x.shape[1:])}"
            )
        points, momentum, variance = x, torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            own = draws.child("step", step)
            gradient = self._gradient(probe, points, own)
            direction = _smoothed(gradient + variance, self.kernel)
            if self.neighbours and step + 1 < self.steps:
                variance = self._around(probe, points, threat, own) - gradient
            size = direction.abs().flatten(1).mean(1).clamp_min(_TINY)
            momentum = self.decay * momentum + direction / size.view(-1, *[1] * (x.dim() - 1))
            points = threat.project(x, points + self.step_size * threat.eps * threat.steepest_ascent(momentum))
        return points

    def _gradient(self, probe: Probe, points: Images, draws: Draws) -> Images:
        loss = find_loss(self.loss)
        if not self.diversity:
            return probe.gradient(points, loss).gradient
        leaf = points.detach().clone().requires_grad_()
        with torch.enable_grad():
            seen = _shrunk(leaf, draws.child("diversity"), self.diversity, self.shrink)
        # The copies are linear in the pixels, so that their gradient is handed back exactly.
        slope = probe.gradient(seen.detach(), loss).gradient
        return torch.autograd.grad(seen, leaf, slope)[0]

    def _around(self, probe: Probe, points: Images, threat: ThreatModel, draws: Draws) -> Images:
        """Average the gradients of neighbours."""
        total = torch.zeros_like(points)
        for number in range(self.neighbours):
            own = draws.child("neighbour", number)
            offset = (2 * own.uniform(*points.shape[1:]) - 1) * self.reach * threat.eps
            total += self._gradient(probe, points + offset.to(points.dtype), own)
        return total / self.neighbours


def _shrunk(x: Images, draws: Draws, share: float, least: float) -> Images:
    """Make some images smaller, each at a place of its own on a black ground; the others stay."""
    chosen, size, across, down = (draws.uniform().to(x) for _ in range(4))
    side = torch.where(chosen < share, least + (1 - least) * size, torch.ones_like(size))
    room = 1 / side - 1
    matrix = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / side
    matrix[:, 0, 2], matrix[:, 1, 2] = (2 * across - 1) * room, (2 * down - 1) * room
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _smoothed(gradient: Images, side: int) -> Images:
    """Smooth over height and width by a Gaussian that ends at three standard deviations."""
    if not side:
        return gradient
    at = torch.linspace(-3, 3, side, dtype=gradient.dtype, device=gradient.device)
    line: Tensor = torch.exp(-at.square() / 2) if side > 1 else torch.ones_like(at)
    line = line / line.sum()
    channels = gradient.shape[1]
    kernel = (line[:, None] * line).expand(channels, 1, side, side)
    return F.conv2d(gradient, kernel, padding=side // 2, groups=channels)
