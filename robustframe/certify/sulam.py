"""The certificate of Sulam, Muthukumar and Arora for supervised sparse coding."""

import torch

from robustframe.certify.certificate import (
    Certificate,
    check_inputs,
    converged_codes,
    differences,
    double_copy,
    margins,
    plain_margin,
    survived,
)
from robustframe.certify.rounding import head_rounding
from robustframe.errors import InputError
from robustframe.frames.coherence import babel
from robustframe.pairs import Pair
from robustframe.types import Images, Labels


@torch.no_grad()
def sulam_radius(pair: Pair, x: Images, y: Labels, *, sweeps: int = 20_000, tolerance: float = 1e-8) -> Certificate:
    """Certify a single-layer pair whose pursuit is run to convergence, by its encoder gap and Babel function.

    With tau_s the (s+1)-th smallest of b_i - <d_i, x - D w>, the radius is

        max over s of min( tau_s / 2, min over c of margin_c sqrt(1 - mu_1(s - 1)) / ||gain (W_y - W_c)|| ).

    Departs from the published code, whose traps it avoids: every example has its own gap, both terms use the same s,
    the Babel function is taken at s - 1 as the proof asks, thresholds are those of each atom, codes are nonnegative (so
    only <d_i, r> near b_i from below matters), and the norm of each pair of classes replaces the largest one. In input
    units: no image is centred or normalised here. `pursuit_radius` is never smaller.

    Args:
        pair: a pair with one layer of unit-norm atoms; what is certified is the exact solution, classified by the
            head in float32; margins are shortened by what that may round. The recurrent twin comes near it with
            enough sweeps, and how near is not in the bound.
        x: images, shape (b, *in_shape).
        y: labels, shape (b,).
        sweeps: sweeps to solve in float64 with, at most.
        tolerance: largest violation of the optimality conditions; above it nothing is certified.

    Returns:
        The certificates; ``proved`` is false, and the radius 0, where the solver did not reach the tolerance.

    Raises:
        InputError: for a frame of several layers, atoms that are not of unit norm, or wrong labels.

    Source: Sulam, Muthukumar and Arora, 2020, arXiv:2010.12088, theorem 4.2 as implemented in their code.
    """
    check_inputs(pair, x, y)
    pair = double_copy(pair)
    frame, x, y = pair.frame, x.cpu().double(), y.cpu()
    if len(frame.blocks) != 1:
        raise InputError(f"this certificate is for one layer, not {len(frame.blocks)}; use pursuit_radius")
    layer = frame.blocks[0]
    norms = layer.operator.atom_norms()
    if bool(((norms - 1).abs() > 1e-5).any()):
        raise InputError(
            "this certificate needs atoms of unit norm, also at the borders of the image; use pursuit_radius"
        )
    codes, violation = converged_codes(pair, x, sweeps=sweeps, tolerance=tolerance)
    logits = pair.classify(codes[-1])
    gaps = (layer.threshold - frame.correlate(1, frame.residual(1, [x, *codes]))).flatten(1)
    gaps = (gaps - tolerance).clamp_min(0).sort(dim=1).values
    coherence = torch.zeros(1, dtype=torch.float64)
    if gaps.shape[1] > 1:
        coherence = torch.cat([coherence, babel(frame, gaps.shape[1] - 1)])
    allowed = int((coherence < 1).sum())
    # No example has more than all atoms in its support: then no other can enter.
    entry = torch.cat([gaps, torch.full_like(gaps[:, :1], torch.inf)], 1)[:, 1 : allowed + 1] / 2
    slopes = torch.linalg.vector_norm(differences(pair, y), dim=2)
    head = head_rounding(pair, codes[-1], y)
    reach = survived(margins(logits, y) - head.fixed, slopes + head.travelling)
    held = reach.unsqueeze(1) * (1 - coherence[:allowed]).sqrt()
    proved = violation <= tolerance
    radius = torch.where(proved, torch.minimum(entry, held).amax(1), 0.0)
    return Certificate(radius, plain_margin(logits, y), proved, x[0].numel())
