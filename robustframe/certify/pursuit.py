"""The local stability of a converged pursuit, with the region where it is proved; for frames of any structure."""

from dataclasses import dataclass

import torch
from torch import Tensor

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
from robustframe.frames import Blocks, Frame
from robustframe.pairs import Pair
from robustframe.solvers import smooth_gradient
from robustframe.types import Images, Labels

_LIMIT = 30_000_000
"""Numbers of the explicit matrix of a frame."""


@dataclass(frozen=True)
class _Matrix:
    """A frame written out: misfit 1/2 ||E x - B w||^2."""

    whole: Tensor
    """B, shape (rows, atoms of all layers)."""
    gram: Tensor
    norms: Tensor
    facing: Tensor
    """E^T B, shape (numbers of the input, atoms): what of an atom the input sees."""
    copies: int
    """||E||^2 at most: how often a row reads the input."""


@dataclass(frozen=True)
class _Stake:
    """What an example has to lose, class by class."""

    over: Tensor
    """Margins less the rounding at the solution, shape (classes,)."""
    pulls: Tensor
    """gain (W_y - W_c), shape (classes, features)."""
    rounding: Tensor
    """Rounding for each unit that the code travels, shape (classes,)."""


@torch.no_grad()
def pursuit_radius(pair: Pair, x: Images, y: Labels, *, sweeps: int = 20_000, tolerance: float = 1e-8) -> Certificate:
    """Certify a pair of any structure and depth whose pursuit is run to convergence.

    The problem is ``min 1/2 ||E x - B w||^2 + b . w`` over w >= 0 with the global frame B. Three facts, each global:

    1. The residual r = E x - B w is the projection of E x on the polyhedron B^T r <= b, so it moves by at most
       ||E v|| when x moves by v. An atom of norm n with gap g = b - <B_i, r> stays inactive while n ||E v|| < g.
    2. Adding both variational inequalities, the change D of the codes satisfies ||B D||^2 <= <B D, E v>: B D lies in
       the ball around E v / 2 with radius ||E v|| / 2.
    3. As long as only a set S of atoms can be active at either end, D lives on S, and a . D = <q, B D> with
       q = B_S (B_S^T B_S)^-1 a_S. So a . D <= ||v|| (||E^T q|| + ||E|| ||q||) / 2.

    So with S(e) the atoms that may be active within distance e, the label holds up to the largest e with
    margin_c >= e (||E^T q_c|| + ||E|| ||q_c||) / 2 for every class c, a_c = gain (W_y - W_c). This is the Jacobian
    of a converged pursuit made sound: as e goes to 0 it bounds the local one. Where B_S loses rank nothing is
    certified beyond.

    Args:
        pair: a pair of moderate size (the frame is written out as a matrix); what is certified is the exact
            solution, classified by the head in float32. The recurrent twin comes near it with enough sweeps, and how
            near is not in the bound.
        x: images, shape (b, *in_shape).
        y: labels, shape (b,).
        sweeps: sweeps to solve in float64 with, at most.
        tolerance: largest violation of the optimality conditions; above it nothing is certified. Gaps are shortened
            by it, and margins by what float32 may round in the head, wherever in the ball; beyond these the bound
            holds in exact arithmetic.

    Returns:
        The certificates; ``proved`` is false, and the radius 0, where the solver did not reach the tolerance.

    Raises:
        InputError: for a frame too large to write out, or wrong labels.

    Source: ours; fact 1 sharpens the gap tau / 2 of Sulam, Muthukumar and Arora, 2020, arXiv:2010.12088, to tau.
    """
    check_inputs(pair, x, y)
    pair = double_copy(pair)
    frame, x, y = pair.frame, x.cpu().double(), y.cpu()
    matrix = _write_out(frame)
    codes, violation = converged_codes(pair, x, sweeps=sweeps, tolerance=tolerance)
    slopes = smooth_gradient(frame, x, codes)
    gaps = torch.cat([(layer.threshold + slope).flatten(1) for layer, slope in zip(frame.blocks, slopes)], 1)
    entry = (gaps - tolerance).clamp_min(0) / (matrix.norms.clamp_min(1e-30) * matrix.copies**0.5)
    logits = pair.classify(codes[-1])
    head = head_rounding(pair, codes[-1], y)
    over, pulls = margins(logits, y) - head.fixed, differences(pair, y)
    proved = violation <= tolerance
    radius = torch.zeros(len(x), dtype=torch.float64)
    for row in proved.nonzero().squeeze(1).tolist():
        if bool((over[row] > 0).all()):
            radius[row] = _radius(matrix, entry[row], _Stake(over[row], pulls[row], head.travelling[row]))
    return Certificate(radius, plain_margin(logits, y), proved, x[0].numel())


def _radius(matrix: _Matrix, entry: Tensor, stake: _Stake) -> float:
    """The largest distance that the margins survive; entry distances rise and what is survived falls with each atom."""
    distances, order = torch.cat([entry, entry.new_full((1,), torch.inf)]).sort()
    first, last = int((entry <= 0).sum()), len(entry)
    best = 0.0
    while first <= last:
        active = (first + last) // 2
        held = _held(matrix, order[:active], stake)
        reach = float(distances[active])
        best = max(best, min(held, reach))
        if held >= reach:
            first = active + 1
        else:
            last = active - 1
    return best


def _held(matrix: _Matrix, active: Tensor, stake: _Stake) -> float:
    """The distance that the margins survive while no atom but these is active."""
    if not len(active):
        return torch.inf
    atoms = matrix.gram.shape[0]
    start = atoms - stake.pulls.shape[1]
    wanted = torch.zeros(len(stake.pulls), atoms, dtype=torch.float64)
    wanted[:, start:] = stake.pulls
    factor, failed = torch.linalg.cholesky_ex(matrix.gram[active][:, active])
    # A pivot near rounding means that the atoms hardly determine their codes: nothing to rely on.
    if bool(failed) or float(factor.diagonal().min()) < 1e-6:
        return 0.0
    weights = torch.cholesky_solve(wanted[:, active].T, factor)
    whole = torch.linalg.vector_norm(matrix.whole[:, active] @ weights, dim=0)
    facing = torch.linalg.vector_norm(matrix.facing[:, active] @ weights, dim=0)
    slope = (facing + matrix.copies**0.5 * whole) / 2
    # ||D|| <= ||B D|| / sigma_min, and the trace of the inverse is at least 1 / sigma_min^2.
    travelled = (matrix.copies * torch.cholesky_inverse(factor).diagonal().sum()).sqrt()
    return float(survived(stake.over.unsqueeze(0), (slope + travelled * stake.rounding).unsqueeze(0)))


def _write_out(frame: Frame) -> _Matrix:
    sizes = [int(torch.Size(shape).numel()) for shape in frame.code_shapes]
    atoms = sum(sizes)
    unit = torch.eye(atoms, dtype=torch.float64)
    rows = sum(int(torch.Size(layer.operator.in_shape).numel()) for layer in frame.blocks)
    if atoms * max(atoms, rows) > _LIMIT:
        raise InputError(
            f"a frame of {atoms} atoms is too large to write out ({_LIMIT} numbers at most); use lipschitz_radius"
        )
    codes = [part.view(-1, *shape) for part, shape in zip(torch.split(unit, sizes, 1), frame.code_shapes)]
    vectors: list[Blocks] = frame.synthesis(codes)
    whole = torch.cat([part.flatten(1) for blocks in vectors for part in blocks], 1).T
    facing = frame.feedback(0, vectors)
    copies = len(frame.signal_readers(0)) + len(frame.skip_readers(0))
    if facing is None:
        raise InputError("no row of this frame reads the input")
    gram = whole.T @ whole
    return _Matrix(whole, gram, gram.diagonal().sqrt(), facing.flatten(1).T, copies)
