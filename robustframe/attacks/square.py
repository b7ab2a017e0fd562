"""The Square Attack: random search with square-shaped changes, without gradients."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustframe.attacks.apgd import inside
from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries (of 10,000) after which the changed share of the image is halved."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search on the margin (Andriushchenko et al., 2020, arXiv:1912.00049, algorithms 1 to 3).

    As in AutoAttack, with these differences: every example has windows of its own, not those of its batch; a
    window may also lie at the lower or right edge, as in the paper's algorithms; l2 takes images of any size.
    Inputs that are not shaped (channels, height, width) are treated as one line of numbers, and windows are
    runs of it.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    queries: int = 5000
    """Proposals of each restart; the start costs one query more."""
    p_init: float = 0.8
    """Share of the image that the first windows cover."""
    restarts: int = 1
    resc_schedule: bool = False
    """Stretch the schedule of window sizes, made for 10,000 queries, over the queries there are."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        best = x
        for restart in range(self.restarts):
            best = self._climb(probe, x, threat, draws.child("restart", restart))
        return best

    def _climb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        lined = x.dim() != 4
        images = x.reshape(len(x), 1, 1, -1) if lined else x
        moves: _LinfMoves | _L2Moves
        moves = _LinfMoves(threat, draws, lined) if threat.norm == "linf" else _L2Moves(threat, draws, lined)
        best = moves.start(images)
        highest = margin(probe.logits(best.reshape(x.shape)), probe.y)
        candidate = best.clone()
        for query in range(self.queries):
            rows = probe.active
            candidate[rows] = moves.propose(rows, images[rows], best[rows], self.share(query))
            height = margin(probe.logits(candidate.reshape(x.shape)), probe.y)
            better = rows[height[rows] > highest[rows]]
            highest[better] = height[better]
            best[better] = candidate[better]
        return candidate.reshape(x.shape)

    def share(self, query: int) -> float:
        """Return the share of the image that a window covers at a query (counted from 0)."""
        if self.resc_schedule:
            query = int(query / self.queries * 10_000)
        return self.p_init / float(2 ** sum(query > turn for turn in _HALVINGS))


class _LinfMoves:
    """Algorithm 2 of the paper: every pixel is at plus or minus eps, and a window gets one sign a channel."""

    def __init__(self, threat: ThreatModel, draws: Draws, lined: bool) -> None:
        self.threat, self.draws, self.lined = threat, draws, lined

    def start(self, x: Tensor) -> Tensor:
        """Vertical stripes."""
        stripes = self.draws.sign(x.shape[1], 1, x.shape[3]).to(x.dtype)
        return self.threat.project(x, x + self.threat.eps * stripes)

    def propose(self, rows: Tensor, x: Tensor, best: Tensor, share: float) -> Tensor:
        window = _window(x, share, self.lined)
        places = _places(self.draws, rows, x, window)
        signs = self.draws.sign(x.shape[1], 1, 1)[rows].to(x.dtype)
        proposal = best.clone()
        # A change of two eps, cut back to the ball, takes every pixel to the face of that sign.
        proposal[places] = best[places] + 2 * self.threat.eps * signs
        return self.threat.project(x, proposal)


class _L2Moves:
    """Algorithm 3 of the paper: mass moves from one window to another, which also gets a new pattern."""

    def __init__(self, threat: ThreatModel, draws: Draws, lined: bool) -> None:
        self.threat, self.draws, self.lined = threat, draws, lined

    def start(self, x: Tensor) -> Tensor:
        """A grid of about five by five patterns."""
        height, width = x.shape[2:]
        side = max((width if self.lined else height) // 5, 1)
        tile = (1, side) if self.lined else (side, side)
        edge = max(((width if self.lined else height) - 5 * side) // 2, 0)
        delta = torch.zeros_like(x)
        for top in range(0 if self.lined else edge, height - tile[0] + 1, tile[0]):
            for left in range(edge, width - side + 1, side):
                delta[:, :, top : top + tile[0], left : left + side] = self._patterns(x, tile)
        return self._onto_sphere(x, delta)

    def propose(self, rows: Tensor, x: Tensor, best: Tensor, share: float) -> Tensor:
        window = _window(x, share, self.lined, least=3, odd=True)
        target, source = (_places(self.draws, rows, x, window) for _ in range(2))
        patterns = self._patterns(x, window, rows)
        delta = best - x
        unused = (self.threat.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
        old = delta[target]
        mass = old.square().sum((2, 3), keepdim=True)
        pattern = patterns + old / (_TINY + mass.sqrt())
        pattern = pattern / (_TINY + pattern.square().sum((2, 3), keepdim=True).sqrt())
        # The target is emptied first, so pixels that lie in both windows are counted once.
        delta[target] = 0
        mass = mass + delta[source].square().sum((2, 3), keepdim=True)
        delta[source] = 0
        delta[target] = pattern * (unused / x.shape[1] + mass).sqrt()
        return self._onto_sphere(x, delta)

    def _patterns(self, x: Tensor, window: tuple[int, int], rows: Tensor | None = None) -> Tensor:
        """A pattern for every row, upright or lying, with a sign for each channel."""
        upright = _pattern(window[1], window[0]).T if self.lined else _pattern(*window)
        lying = self.draws.uniform(1, 1, 1) > 0.5
        signs = self.draws.sign(x.shape[1], 1, 1)
        if rows is not None:
            lying, signs = lying[rows], signs[rows]
        upright = upright.to(signs)
        turned = upright if self.lined else torch.where(lying, upright.T, upright)
        return (turned * signs).to(x.dtype)

    def _onto_sphere(self, x: Tensor, delta: Tensor) -> Tensor:
        size = delta.square().sum((1, 2, 3), keepdim=True).sqrt()
        return inside(x, x + delta / (size + _TINY) * self.threat.eps, self.threat)


def _window(x: Tensor, share: float, lined: bool, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
    """The height and width of windows that cover a share of the image: a square, or a run of a line."""
    height, width = x.shape[2:]
    if lined:
        return 1, min(max(round(share * width), least), width)
    side = max(round(math.sqrt(share * height * width)), least)
    side = min(side + (odd and side % 2 == 0), height, width)
    return side, side


def _places(draws: Draws, rows: Tensor, x: Tensor, window: tuple[int, int]) -> tuple[Tensor, ...]:
    """Draw where the window of each row lies, as an index of its pixels in all channels."""
    height, width = x.shape[2:]
    top = draws.integers(height - window[0] + 1)[rows].view(-1, 1, 1, 1)
    left = draws.integers(width - window[1] + 1)[rows].view(-1, 1, 1, 1)
    down = top + torch.arange(window[0], device=x.device).view(1, 1, -1, 1)
    across = left + torch.arange(window[1], device=x.device).view(1, 1, 1, -1)
    examples = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return examples, channels, down, across


def _pattern(height: int, width: int) -> Tensor:
    """Two opposite bumps, one above the other, of unit l2 norm together (section 3.3 of the paper)."""
    upper, lower = height // 2, height - height // 2
    both = torch.cat([_bump(upper, width), -_bump(lower, width)])
    return both / both.square().sum().sqrt()


def _bump(height: int, width: int) -> Tensor:
    """Nested squares around the middle, the k-th with weight 1 / k**2, of unit l2 norm."""
    down = (torch.arange(height) - height // 2).abs().view(-1, 1)
    across = (torch.arange(width) - width // 2).abs().view(1, -1)
    weights = 1 / torch.arange(1, max(height, width) // 2 + 2) ** 2
    # A pixel at distance k (largest of rows and columns) lies in the squares k, k + 1, ...
    bump = weights.flip(0).cumsum(0).flip(0)[torch.maximum(down, across)]
    return bump / bump.square().sum().sqrt()
