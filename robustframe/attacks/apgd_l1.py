"""AutoPGD in l1: sparse steps whose width and length follow how sparse the best point is."""

import dataclasses
import math

import torch
from torch import Tensor

from robustframe.attacks.base import Runs
from robustframe.draws import Draws
from robustframe.threat import ThreatModel
from robustframe.types import Images, PerExample

_SHRINK = 1.5
"""The step size is divided by this at a review, and the share of changed pixels before it is the next width."""
_SHORTEST = 0.1
"""Shortest step as a fraction of eps."""
_SPARSER = 0.95
"""A best point with less than this share of the changed pixels it had is worth starting over from."""
_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radii as multiples of eps, and the share of the steps made at each."""


def large_radii(runs: Runs, start: Images, threat: ThreatModel, *, steps: int) -> None:
    """Climb at three times the radius, then at twice, then at eps, each time from the best point so far.

    Source: Croce and Hein, 2021, arXiv:2103.01208, with the 30, 30 and 40 % of the steps of AutoAttack.
    Points of the first stages that happen to lie within eps count like all others.

    Args:
        runs: the examples to climb for, the loss and its targets.
        start: first iterate of each run, shape (m, ...), see `large_start`.
        threat: an l1 ball.
        steps: number of steps in all three stages; each stage that has steps evaluates one point more.
    """
    first = [math.ceil(share * steps) for _, share in _STAGES[:-1]]
    if sum(first) >= steps:
        # So few steps are all needed at eps itself.
        first = [0, 0]
    best = start
    for (factor, _), count in zip(_STAGES, [*first, steps - sum(first)]):
        if count:
            wider = widened(threat, factor)
            best = ascend_l1(runs, wider.project(runs.clean, best), wider, steps=count)


def large_start(x: Images, threat: ThreatModel, draws: Draws) -> Images:
    """Draw normal noise and project it onto the widest ball of `large_radii`, as AutoAttack does."""
    noise = draws.normal(*x.shape[1:]).to(x.dtype)
    return widened(threat, _STAGES[0][0]).project(x, x + noise)


def widened(threat: ThreatModel, factor: float) -> ThreatModel:
    """Return the ball with a radius so many times as large, in the same box."""
    return dataclasses.replace(threat, eps=factor * threat.eps, label="")


def ascend_l1(runs: Runs, start: Images, threat: ThreatModel, *, steps: int) -> Tensor:
    """Climb from a start by steps along the largest entries of the gradient (algorithm 1 of arXiv:2103.01208).

    The symbols are those of `ascend`, with ``width`` for the paper's k, the share of pixels that a step moves. As in
    AutoAttack there is no momentum. A pixel whose change was taken back counts as unchanged here; in AutoAttack
    rounding can leave a trace of it, which counts.

    Args:
        runs: the examples to climb for, the loss and its targets; those whose example broke are dropped on the way.
        start: first iterate of each run, shape (m, ...), inside ball and box.
        threat: an l1 ball.
        steps: number of steps; one more point than that is evaluated.

    Returns:
        The iterate with the highest loss, of each run that is left.
    """
    x, now = runs.clean, runs.gradient(start)
    x_k = x_max = start
    gradient = g_max = now.gradient
    f_max = now.value
    each = (-1, *[1] * (x.dim() - 1))
    changed = _changed(x, start)
    width = changed / x[0].numel() / _SHRINK
    eta = torch.full_like(f_max, threat.eps, dtype=x.dtype)
    between = max(int(0.04 * steps), 1)
    for k in range(1, steps + 1):
        kept = runs.compact()
        if kept is not None:
            x, x_k, x_max, gradient, g_max = (state[kept] for state in (x, x_k, x_max, gradient, g_max))
            f_max, changed, width, eta = (state[kept] for state in (f_max, changed, width, eta))
        x_k = threat.project(x, x_k + eta.view(each) * sparse_step(gradient, width))
        now = runs.gradient(x_k)
        gradient = now.gradient
        higher = now.value > f_max
        f_max = torch.where(higher, now.value, f_max)
        x_max = torch.where(higher.view(each), x_k, x_max)
        g_max = torch.where(higher.view(each), gradient, g_max)
        if k % between == 0 and k < steps:
            before, changed = changed, _changed(x, x_max)
            sparser = changed / before < _SPARSER
            width = changed / x[0].numel() / _SHRINK
            eta = torch.where(sparser, threat.eps, (eta / _SHRINK).clamp_min(_SHORTEST * threat.eps))
            x_k = torch.where(sparser.view(each), x_max, x_k)
            gradient = torch.where(sparser.view(each), g_max, gradient)
    return x_max


def sparse_step(gradient: Images, width: PerExample) -> Images:
    """Return a step of unit l1 norm that moves the given share of the pixels equally, those of the largest slopes."""
    flat = gradient.flatten(1)
    dims = flat.shape[1]
    rank = ((1 - width) * dims).clamp(0, dims - 1).long()
    least = flat.abs().sort(1).values.gather(1, rank.unsqueeze(1))
    signs = torch.where(flat.abs() >= least, flat.sign(), 0.0)
    return (signs / (signs.abs().sum(1, keepdim=True) + 1e-10)).view_as(gradient)


def _changed(x: Images, z: Images) -> Tensor:
    """How many pixels differ, as floating-point numbers of the images' type."""
    return (z != x).flatten(1).sum(1).to(x.dtype)
