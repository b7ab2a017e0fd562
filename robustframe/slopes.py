"""Are gradients the derivative: slopes by the gradient beside slopes by evaluations alone."""

import torch
from torch import Tensor

from robustframe.differences import random_direction
from robustframe.draws import Draws
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.types import Images, Labels, PerExample, Verdicts

CLIMB = 4
"""Steps of half the radius to the points on an attack's way."""
DIRECTIONS = 4
"""Smooth ones and rough ones, of each as many, at both scales."""
SCALES = (1 / 255, 8 / 255)
"""Mean distance of a point from the image, over the width of the box: so small that a net with kinks is still nearly
straight, and then so large that images or codes that are rounded, with an honest gradient straight through, move."""
CURVED, DISAGREEMENT = 0.12, 0.35
"""One minus the cosine between slopes by the gradient and by evaluations that is allowed: the first where the model is
straight at that scale, up to the second as far as it is not."""
_APART = 0.7
"""The same for a single example: of so few directions single cosines scatter, most where there are many kinks. With the
bound of a median, a fifth of the examples of the zoo's most rugged honest pair would be called masked; with this one
6 %, and of wrong gradients hardly fewer."""
_LONGEST = 2
"""Largest change of a pixel over the mean one."""
GRAINS = (4, 1)
"""Pixels that change alike in a smooth and in a rough direction."""


def climbed(probe: Probe) -> Images:
    """Go as far as an attack gets in a few steps: near the boundary, where gradients may be masked that are not
    elsewhere; nowhere in l0, which has no steepest step."""
    ball, points = probe.threat, probe.x.clone()
    for _ in range(0 if ball.norm == "l0" else CLIMB):
        ahead = ball.steepest_ascent(probe.gradient(points, margin).gradient)
        points = ball.project(probe.x, points + ball.eps / 2 * ahead)
    return points


def agreement(
    probe: Probe, points: Images, draws: Draws, scale: float, rows: Labels | None = None
) -> tuple[PerExample, PerExample]:
    """Compare slopes along smooth and along rough directions.

    Args:
        probe: access to the model, and how its gradients are taken.
        points: where, shape (m, ...).
        draws: random numbers of these points.
        scale: mean length of a direction, over the width of the box; see `SCALES`.
        rows: the example each point belongs to, shape (m,); all n in order when ``None``.

    Returns:
        Two cosines of each point, in the worse kind of direction, shape (m,) each: between slopes by the gradient and
        by evaluations, and between those ahead and those behind, which are equal where the model is straight.
    """
    low, high = probe.threat.low, probe.threat.high
    length = scale * (high - low)
    # Off the faces of the box, so that both ends of every direction lie in it.
    start = points.clamp(low + _LONGEST * length, high - _LONGEST * length)
    seen = probe.gradient(start, margin, rows=rows)
    here = probe.height(seen.logits, rows)
    agreed, straight = [], []
    for grain in GRAINS:
        stream = draws.child(f"slopes {scale:.4f} {grain}")
        told, ahead, behind = [], [], []
        for _ in range(DIRECTIONS):
            way = random_direction(start.shape[1:], stream, grain=grain).clamp(-_LONGEST, _LONGEST).to(start) * length
            told.append(2 * (seen.gradient * way).flatten(1).sum(1))
            ahead.append(probe.height(probe.logits(start + way, rows), rows) - here)
            behind.append(here - probe.height(probe.logits(start - way, rows), rows))
        slopes, first, second = (
            torch.stack(part, 1).double().nan_to_num(0.0, 0.0, 0.0) for part in (told, ahead, behind)
        )
        agreed.append(_cosine(slopes, first + second))
        straight.append(_cosine(first, second))
    return torch.stack(agreed).amin(0), torch.stack(straight).amin(0)


def masked(probe: Probe, draws: Draws) -> Verdicts:
    """Say of each example whether its gradient is none or another function's, at the image or where a short climb ends.

    It costs 44 passes where the gradient is the derivative, and 80 at most.

    Args:
        probe: access to the model, and how its gradients are taken.
        draws: random numbers of all its examples.

    Returns:
        Verdicts of shape (n,).
    """
    before = probe.zero_gradients + probe.nonfinite_gradients
    ends = climbed(probe)
    found = probe.zero_gradients + probe.nonfinite_gradients > before
    for name, points in (("image", probe.x), ("end", ends)):
        rows = torch.arange(len(ends), device=ends.device)
        for scale in SCALES:
            if not len(rows):
                break
            agreed, straight = agreement(probe, points[rows], draws.child(name).of(rows.cpu()), scale, rows)
            rows = rows[1 - agreed > (1 - straight).clamp(CURVED, _APART)]
        found[rows] = True
    return found


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each row; 1 where both are zero, 0 where one is."""
    flat = (first == 0).all(1) & (second == 0).all(1)
    return torch.where(flat, 1.0, torch.cosine_similarity(first, second, dim=1, eps=1e-300))
