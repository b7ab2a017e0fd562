"""Radii from Lipschitz constants of the two twins: sound for every input, whether or not the solver has converged."""

import math

import torch

from robustframe.certify.certificate import (
    Certificate,
    check_inputs,
    differences,
    double_copy,
    margins,
    plain_margin,
)
from robustframe.certify.norms import norm_bounds, smallest_eigenvalue
from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.pairs import Twin
from robustframe.solvers import DeepPursuit
from robustframe.types import Images, Labels


def lipschitz_constants(frame: Frame, sweeps: int) -> list[float]:
    """Bound how much each layer's code moves in l2 when the input moves by 1, after some sweeps of deep pursuit.

    With s_j the step sizes, beta_j >= ||B_j|| and d_j the bound for layer j (d_0 = 1), a sweep gives

        d_j <- |I - s_j H_j| d_j + s_j (beta_j |d_sources| + d_skip + sum beta_r d_r + sum d_r)

    where |d_sources| is the l2 norm over the concatenated codes (new values), the sums go over the rows r that read
    code j as a signal and as a skip (old values), and |I - s_j H_j| is the larger of |1 - s lo| and |1 - s hi| with
    lo, hi around the eigenvalues of the block's Hessian. The nonlinearity is a prox, which never expands a distance.
    The first sweep starts from codes that do not move, so with one sweep of a chain it is the product of s_j beta_j.

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
    layers = frame.blocks
    norms = [math.nan, *norm_bounds(frame)]
    sizes = [math.nan, *(float(layer.step_size) for layer in layers)]
    stay = [math.nan, *(_stay(frame, j, norms[j], sizes[j]) for j in range(1, len(norms)))]
    d = [1.0] + [0.0] * len(layers)
    for _ in range(sweeps):
        old = list(d)
        for j, layer in enumerate(layers, start=1):
            below = math.hypot(*(d[k] for k in layer.sources))
            skip = 0.0 if layer.skip is None else d[layer.skip]
            # [B; I]^T acts on both parts of the target: apart, or as one operator of norm sqrt(beta^2 + 1).
            own = norms[j] * below + skip
            if layer.skip is not None:
                own = min(own, math.hypot(norms[j], 1) * math.hypot(below, skip))
            above = sum(norms[r] * old[r] for r, _ in frame.signal_readers(j))
            above += sum(old[r] for r in frame.skip_readers(j))
            d[j] = stay[j] * old[j] + sizes[j] * (own + above)
    return d[1:]


def _stay(frame: Frame, j: int, norm: float, size: float) -> float:
    """Bound ||I - s H_j||, H_j = B_j^T B_j + one identity or subsampling for each row that pulls at code j."""
    layer = frame.blocks[j - 1]
    subsampled = sum(not _is_identity(frame, r) for r in frame.skip_readers(j))
    low = smallest_eigenvalue(layer.operator) + frame.pull(j) - subsampled
    high = norm**2 + frame.pull(j)
    return max(abs(1 - size * low), abs(1 - size * high))


def _is_identity(frame: Frame, r: int) -> bool:
    shortcut = frame.blocks[r - 1].shortcut
    return shortcut is None or shortcut.is_identity


@torch.no_grad()
def lipschitz_radius(twin: Twin, x: Images, y: Labels) -> Certificate:
    """Certify min over c of margin_c / (L ||gain (W_y - W_c)||), L the bound on the last code's movement.

    Needs no convergence and holds for exactly this twin with its number of sweeps; the norm of each difference of
    two rows of the head is exact, where sqrt(2) ||W|| would be larger.

    Args:
        twin: the feed-forward or the recurrent twin of a pair, solved by deep pursuit.
        x: images, shape (b, *in_shape).
        y: labels, shape (b,).

    Returns:
        The certificates.

    Raises:
        InputError: for another number of labels than images, another solver, or an operator without a bound.

    Source: Szegedy et al., 2014, arXiv:1312.6199, section 4.3 (products of norms); the sweeps are ours.
    """
    pair = double_copy(twin.pair)
    check_inputs(pair, x, y)
    if not isinstance(twin.solver, DeepPursuit):
        raise InputError(f"this bound is for DeepPursuit, not {type(twin.solver).__name__}")
    constant = lipschitz_constants(pair.frame, twin.solver.sweeps)[-1]
    # The logits of the twin that is attacked, in its own precision: the margin allows for rounding.
    logits = twin(x).cpu().double()
    y = y.cpu()
    slopes = torch.linalg.vector_norm(differences(pair, y), dim=2) * constant
    over = margins(logits, y)
    radius = torch.where(slopes > 0, over / slopes, torch.where(over > 0, torch.inf, 0.0)).amin(1)
    return Certificate(radius, plain_margin(logits, y), torch.ones(len(y), dtype=torch.bool), x[0].numel())
