"""Radii from Lipschitz constants of the two twins: sound for every input, whether or not the solver has converged."""

import torch

from robustframe.certify.certificate import (
    Certificate,
    check_inputs,
    double_copy,
    margins,
    plain_margin,
    survived,
)
from robustframe.certify.rounding import Sweep, head_rounding, travel
from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.pairs import Twin
from robustframe.solvers import DeepPursuit
from robustframe.types import Images, Labels


def lipschitz_constants(frame: Frame, sweeps: int) -> list[float]:
    """Bound how much each layer's code moves in l2 when the input moves by 1, after some sweeps of deep pursuit.

    The recursion is that of `Sweep`. The first sweep starts from codes that do not move, so with one sweep of a chain
    it is the product of s_j beta_j.

    Args:
        frame: any frame.
        sweeps: sweeps of `DeepPursuit`, at least 1.

    Returns:
        One constant a layer; for many sweeps it can be very large, and is still a bound.

    Raises:
        InputError: for less than one sweep, or an operator whose norm has no known bound.
    """
    if sweeps < 1:
        raise InputError(f"give at least 1 sweep, not {sweeps}")
    sweep = Sweep(frame)
    d = [torch.ones((), dtype=torch.float64), *[torch.zeros((), dtype=torch.float64)] * len(frame.blocks)]
    for _ in range(sweeps):
        for j in range(1, len(d)):
            d[j] = sweep.step(j, d)
    return [float(each) for each in d[1:]]


@torch.no_grad()
def lipschitz_radius(twin: Twin, x: Images, y: Labels) -> Certificate:
    """Certify the largest r at which every margin exceeds what it can lose in the ball, rounding of float32 included.

    With L the bound on the last code's movement, a_c = gain (W_y - W_c), e(r) the bound on the rounding of the code
    and h(.) that of the head (`travel`, `head_rounding`), all linear in r,

        margin_c(x) >= L r ||a_c|| + e(r) ||a_c|| + h_c(L r + e(r))    for every class c.

    Margins are those of the exact function, in float64; so the label of the model *as it is evaluated in float32*
    holds for every image of the ball. Needs no convergence and holds for exactly this twin with its number of sweeps;
    the norm of each difference of two rows of the head is exact, where sqrt(2) ||W|| would be larger.

    Args:
        twin: the feed-forward or the recurrent twin of a pair, solved by deep pursuit.
        x: images, shape (b, *in_shape).
        y: labels, shape (b,).

    Returns:
        The certificates.

    Raises:
        InputError: for another number of labels than images, another solver, or an operator without a bound.

    Source: Szegedy et al., 2014, arXiv:1312.6199, section 4.3 (products of norms); the sweeps and their rounding are
    ours.
    """
    pair = double_copy(twin.pair)
    check_inputs(pair, x, y)
    if not isinstance(twin.solver, DeepPursuit):
        raise InputError(f"this bound is for DeepPursuit, not {type(twin.solver).__name__}")
    y = y.cpu()
    found = travel(pair.frame, x.cpu().double(), twin.solver.sweeps)
    head = head_rounding(pair, found.code, y)
    rows = pair.head.weight
    slopes = torch.stack([torch.linalg.vector_norm(pair.gain * (row - rows), dim=1) for row in rows])[y]
    logits = pair.classify(found.code)
    lost = (slopes + head.travelling) * found.fixed.unsqueeze(1) + head.fixed
    each = (slopes + head.travelling) * (found.constant + found.growing)
    radius = survived(margins(logits, y) - lost, each)
    return Certificate(radius, plain_margin(logits, y), torch.ones(len(y), dtype=torch.bool), x[0].numel())
