"""The Square Attack: random search with square-shaped changes, without gradients."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from robustframe.attacks.apgd import inside
from robustframe.attacks.apgd_l1 import widened
from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.probe import Probe
from robustframe.slopes import masked
from robustframe.threat import ThreatModel
from robustframe.types import Images

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries (of 10,000) after which the changed share of the image is halved."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search on the margin (Andriushchenko et al., 2020, arXiv:1912.00049, algorithms 1 to 3).

    As in AutoAttack, in l1 too (Croce and Hein, 2021, arXiv:2103.01208), with these differences: every
    example has windows of its own, not those of its batch; a window may also lie at the lower or right edge, as in
    the paper's algorithms; l1 and l2 take images of any size; an linf proposal that is the current point again is
    not evaluated. Inputs that are not shaped (channels, height, width) are treated as one line of numbers, and
    windows are runs of it.
    """

    queries: int = 5000
    """Proposals of each restart; the start costs one query more."""
    p_init: float = 0.8
    """Share of the image that the first windows cover."""
    restarts: int = 1
    resc_schedule: bool = False
    """Stretch the schedule of window sizes, made for 10,000 queries, over the queries there are."""
    where: Literal["all", "masked"] = "all"
    """``masked``: only examples whose gradient is none or another function's, as slopes by evaluations tell; see
    `robustframe.slopes.masked`."""

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        if self.where == "masked":
            probe.spared |= ~masked(probe, draws.child("masked"))
        for restart in range(self.restarts):
            self._climb(probe, x, threat, draws.child("restart", restart))

    def _climb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        lined = x.dim() != 4
        images = (x.reshape(len(x), 1, 1, -1) if lined else x).contiguous()
        moves: _Moves = (_FaceMoves if threat.norm == "linf" else _MassMoves)(threat, draws, lined)
        best = moves.start(images)
        highest = probe.height(probe.logits(best.reshape(x.shape)))
        rows = torch.arange(len(x), device=x.device)
        for query in range(self.queries):
            active = probe.active
            if len(active) < len(rows):
                kept = torch.isin(rows, active)
                rows, images, best, highest = active, images[kept], best[kept], highest[kept]
            places, proposal = moves.propose(rows, images, best, self.share(query))
            if not len(places):
                continue
            owners = rows[places]
            height = probe.height(probe.logits(proposal.reshape(-1, *x.shape[1:]), owners), owners)
            better = (height > highest[places]).nonzero().squeeze(1)
            higher = places[better]
            highest[higher] = height[better]
            best.index_copy_(0, higher, proposal.index_select(0, better))

    def share(self, query: int) -> float:
        """Return the share of the image that a window covers at a query (counted from 0)."""
        if self.resc_schedule:
            query = int(query / self.queries * 10_000)
        return self.p_init / float(2 ** sum(query > turn for turn in _HALVINGS))


class _Moves(Protocol):
    """Where a search starts, and what it proposes next."""

    def start(self, x: Tensor) -> Tensor: ...

    def propose(self, rows: Tensor, x: Tensor, best: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Return the places of the rows whose next point may differ from their best one, and these points."""
        ...


class _FaceMoves:
    """Algorithm 2 of the paper (linf): every pixel is at plus or minus eps, and a window gets one sign per channel."""

    def __init__(self, threat: ThreatModel, draws: Draws, lined: bool) -> None:
        self.threat, self.draws, self.lined = threat, draws, lined

    def start(self, x: Tensor) -> Tensor:
        """Vertical stripes."""
        return self._faces(x, self.draws.sign(x.shape[1], 1, x.shape[3]))

    def propose(self, rows: Tensor, x: Tensor, best: Tensor, share: float) -> tuple[Tensor, Tensor]:
        window = _places(self.draws, rows, x, _window(x, share, self.lined))
        faces = self._faces(_take(x, window), self.draws.sign(x.shape[1], 1, 1)[rows])
        # The largest difference of each row, as comparing whole windows takes a CPU longer.
        moved = (faces - _take(best, window)).abs_().flatten(1).amax(1).nonzero().squeeze(1)
        points = best.index_select(0, moved)
        return moved, _put(points, window.index_select(0, moved), faces.index_select(0, moved))

    def _faces(self, x: Tensor, signs: Tensor) -> Tensor:
        """The pixels at the upper or lower face of the ball, cut by the box."""
        return (x + self.threat.eps * signs.to(x.dtype)).clamp(self.threat.low, self.threat.high)


class _MassMoves:
    """Algorithm 3 of the paper: mass moves from one window to another, which also gets a new pattern.

    Mass is the sum of squares in l2 and of absolute values in l1.
    """

    def __init__(self, threat: ThreatModel, draws: Draws, lined: bool) -> None:
        self.threat, self.draws, self.lined = threat, draws, lined
        self.power = 2 if threat.norm == "l2" else 1
        # As in AutoAttack, so that rounding does not lead out of the ball.
        self.ball = widened(threat, 1 - 1e-6)

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
        return self._spread(x, delta)

    def propose(self, rows: Tensor, x: Tensor, best: Tensor, share: float) -> tuple[Tensor, Tensor]:
        window = _window(x, share, self.lined, least=3, odd=True)
        target, source = (_places(self.draws, rows, x, window) for _ in range(2))
        pattern = self._patterns(x, window, rows)
        delta = best - x
        unused = (self.threat.eps**self.power - _mass(delta, self.power, (1, 2, 3))).clamp_min(0)
        old = _take(delta, target)
        mass = _mass(old, self.power)
        pattern = pattern + old / (_TINY + self._size(mass))
        pattern = pattern / (_TINY + self._size(_mass(pattern, self.power)))
        # The target is emptied first, so pixels that lie in both windows are counted once.
        _put(delta, target, torch.zeros_like(old))
        mass = mass + _mass(_take(delta, source), self.power)
        _put(delta, source, torch.zeros_like(old))
        channels = x.shape[1]
        # In l1 AutoAttack gives each channel the mass of all; what is too much goes in the projection.
        _put(delta, target, pattern * self._size(unused / channels + mass) * (channels if self.power == 1 else 1))
        return torch.arange(len(rows), device=rows.device), self._spread(x, delta)

    def _patterns(self, x: Tensor, window: tuple[int, int], rows: Tensor | None = None) -> Tensor:
        """A pattern for every row, upright or lying, with a sign for each channel."""
        upright = _pattern(*(reversed(window) if self.lined else window), power=self.power)
        upright = upright.T if self.lined else upright
        lying = self.draws.uniform(1, 1, 1) > 0.5
        signs = self.draws.sign(x.shape[1], 1, 1)
        if rows is not None:
            lying, signs = lying[rows], signs[rows]
        upright = upright.to(signs)
        turned = upright if self.lined else torch.where(lying, upright.T, upright)
        return (turned * signs).to(x.dtype)

    def _size(self, mass: Tensor) -> Tensor:
        return mass.sqrt() if self.power == 2 else mass

    def _spread(self, x: Tensor, delta: Tensor) -> Tensor:
        """In l2 scale a change to length eps and clip it; in l1 project it."""
        if self.power == 1:
            return self.ball.project(x, x + delta)
        size = _mass(delta, 2, (1, 2, 3)).sqrt()
        return inside(x, x + delta / (size + _TINY) * self.threat.eps, self.threat)


def _window(x: Tensor, share: float, lined: bool, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
    """The height and width of windows that cover a share of the image: a square, or a run of a line."""
    height, width = x.shape[2:]
    if lined:
        return 1, min(max(round(share * width), least), width)
    side = max(round(math.sqrt(share * height * width)), least)
    side = min(side + (odd and side % 2 == 0), height, width)
    return side, side


def _places(draws: Draws, rows: Tensor, x: Tensor, window: tuple[int, int]) -> Tensor:
    """Draw where the window of each row lies, as places in its flattened image, shape (rows, channels, *window)."""
    channels, height, width = x.shape[1:]
    top = draws.integers(height - window[0] + 1)[rows]
    left = draws.integers(width - window[1] + 1)[rows]
    corner = top * width + left
    down = torch.arange(window[0], device=x.device).view(-1, 1) * width
    inner = down + torch.arange(window[1], device=x.device)
    planes = torch.arange(channels, device=x.device).view(-1, 1, 1) * (height * width)
    return corner.view(-1, 1, 1, 1) + (planes + inner)


def _take(images: Tensor, places: Tensor) -> Tensor:
    return images.flatten(1).gather(1, places.flatten(1)).view_as(places)


def _put(images: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Write into images, which are contiguous."""
    images.flatten(1).scatter_(1, places.flatten(1), values.flatten(1))
    return images


def _mass(delta: Tensor, power: int, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    return (delta.square() if power == 2 else delta.abs()).sum(dims, keepdim=True)


@cache
def _pattern(height: int, width: int, *, power: int = 2) -> Tensor:
    """Two opposite bumps, one above the other, of unit norm together (section 3.3 of the paper)."""
    upper, lower = height // 2, height - height // 2
    both = torch.cat([_bump(upper, width, power), -_bump(lower, width, power)])
    return both / _mass(both, power, (0, 1)) ** (1 / power)


def _bump(height: int, width: int, power: int) -> Tensor:
    """Nested squares around the middle, the k-th with weight 1 / k**2 (in l1 1 / k**4), of unit norm."""
    down = (torch.arange(height) - height // 2).abs().view(-1, 1)
    across = (torch.arange(width) - width // 2).abs().view(1, -1)
    weights = 1 / torch.arange(1, max(height, width) // 2 + 2) ** (2 if power == 2 else 4)
    # A pixel at distance k (largest of rows and columns) lies in the squares k, k + 1, ...
    bump = weights.flip(0).cumsum(0).flip(0)[torch.maximum(down, across)]
    return bump / _mass(bump, power, (0, 1)) ** (1 / power)
