"""What float32 may add to logits: a bound on the rounding of a whole forward pass, for every input of a ball."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.certify.norms import absolute_norm_bound, norm_bounds, smallest_eigenvalue
from robustframe.frames import Conv, Frame, Operator, PooledConv
from robustframe.pairs import Pair
from robustframe.solvers import DeepPursuit, iterate
from robustframe.types import Images, Labels

_UNIT = 2.0**-24 + 2.0**-53
"""Unit roundoff of float32, and that of float64, in which the logits are computed that it is set against."""
_EXTRA = 8
"""Roundings of a number beside those of its sum: a scaled weight, the step size, the threshold, the last additions."""
_UNDERFLOW = 1e-30
"""More than products that underflow can add to a code: 2^-126 for each of 10^7 of them."""
_LARGEST = 1e37
"""Above it a number may not fit into float32, whose largest is 3.4e38."""


def gamma(terms: int) -> float:
    """Return how much of the sum of the sizes of its terms a float32 sum of products may be off by, in any order.

    Source: Higham, 2002, *Accuracy and Stability of Numerical Algorithms*, section 3.1: n u / (1 - n u).
    """
    product = terms * _UNIT
    return product / (1 - product) if product < 0.5 else math.inf


@dataclass(frozen=True)
class HeadRounding:
    """By how much the difference of two logits may be off: ``fixed + travelling * ||w - w(x)||``, of shape (b, c)."""

    fixed: Tensor
    travelling: Tensor


def head_rounding(pair: Pair, code: Tensor, y: Labels) -> HeadRounding:
    """Bound the rounding of logit_y - logit_c in float32 for codes around given ones.

    It grows with the sizes of both rows of the head, not of their difference: rows that nearly cancel keep it.

    Args:
        pair: a float64 pair.
        code: codes of the last layer, shape (b, *code_shape), float64.
        y: labels, shape (b,).
    """
    sizes = (pair.gain * pair.head.weight).abs()
    logits = code.flatten(1).abs() @ sizes.T + pair.head.bias.abs()
    share = gamma(sizes.shape[1] + _EXTRA)
    both = torch.stack([torch.linalg.vector_norm(sizes + row, dim=1) for row in sizes])
    fixed = share * (logits + logits.gather(1, y.unsqueeze(1))) + _UNDERFLOW
    return HeadRounding(torch.where(logits < _LARGEST, fixed, math.inf), share * both[y])


class Sweep:
    """How far apart the codes of two solves by deep pursuit can be after each layer's step, in l2.

    With s the step size of layer j, D its diagonal block and H = D^T D + pi the Hessian of the block, a step is the
    prox, which never expands a distance, of (I - s H) w_j + s D^T t_j + s sum v_r, where v_r is what a row r above
    reconstructs of code j. In the eigenvectors of D^T D, with eigenvalues l in [lo, hi], the first two terms share one
    sum of squares: by Cauchy and Schwarz, for any u > 0,

        ||(I - s H) w + s D^T t||^2 <= max over l of ((1 - s (l + pi))^2 / u + s^2 l) (u ||w||^2 + ||t||^2),

    and the maximum, convex in l, is at lo or hi. Where the old code is kept nothing comes from below, and the other
    way round; so this is far less than the sum of both norms. Rows above add s beta_r d_r.

    Args:
        frame: any frame of the zoo's kind.

    Raises:
        InputError: for an operator whose norm has no known bound.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.norms = [math.nan, *norm_bounds(frame)]
        self.sizes = [math.nan, *(float(layer.step_size) for layer in frame.blocks)]
        self._lowest = [math.nan, *(smallest_eigenvalue(layer.operator) for layer in frame.blocks)]

    def step(self, j: int, d: Sequence[Tensor]) -> Tensor:
        """Return the distance at layer j after its step.

        Args:
            j: the layer, from 1.
            d: distances at the input and at every layer, new below j and old from there; of one shape, each entry a
                bound of its own.
        """
        layer, size = self.frame.blocks[j - 1], self.sizes[j]
        below = hypotenuse([d[k] for k in layer.sources])
        if layer.skip is None:
            moved = self._own(j, d[j], below)
        else:
            # [B; I]^T acts on both parts of the target: as one operator, or apart.
            apart = self._own(j, d[j], torch.zeros_like(below)) + size * (self.norms[j] * below + d[layer.skip])
            moved = torch.minimum(self._own(j, d[j], hypotenuse([below, d[layer.skip]])), apart)
        for r, _ in self.frame.signal_readers(j):
            moved = moved + size * self.norms[r] * d[r]
        for r in self.frame.skip_readers(j):
            # Where a subsampled skip does not look the old code stays: as if pulled to itself.
            moved = moved + size * (d[r] if self._is_identity(r) else hypotenuse([d[r], d[j]]))
        return moved

    def _own(self, j: int, code: Tensor, target: Tensor) -> Tensor:
        """Bound ||(I - s H) w + s D^T t|| for ||w|| <= code and ||t|| <= target."""
        size, own = self.sizes[j], self.frame.blocks[j - 1].skip is not None
        pull = self.frame.pull(j) - own
        # A row with a skip has D = [B; I].
        ends = [self._lowest[j] + own, self.norms[j] ** 2 + own]
        kept = [(1 - size * (end + pull)) ** 2 for end in ends]
        taken = [size**2 * end for end in ends]
        # The larger of two convex functions of u is least at the minimum of either, or where they cross.
        weights = [_ratio(keep**0.5 * target, take**0.5 * code) for keep, take in zip(kept, taken)]
        weights.append(_ratio(code.new_tensor(kept[0] - kept[1]), code.new_tensor(taken[1] - taken[0])))
        return (
            torch.stack(
                [
                    torch.maximum(*(keep / u + take for keep, take in zip(kept, taken))) * (u * code**2 + target**2)
                    for u in weights
                ]
            )
            .amin(0)
            .sqrt()
        )

    def _is_identity(self, r: int) -> bool:
        shortcut = self.frame.blocks[r - 1].shortcut
        return shortcut is None or shortcut.is_identity


@dataclass(frozen=True)
class Travel:
    """Bounds on the last code w of every z with ||z - x|| <= r, in l2."""

    constant: float
    """L: ||w(z) - w(x)|| <= L r in exact arithmetic."""
    fixed: Tensor
    """float32 moves w(z) by at most ``fixed + growing * r``; shape (b,)."""
    growing: float
    code: Tensor
    """w(x) in float64, shape (b, *code_shape)."""


def travel(frame: Frame, x: Images, sweeps: int) -> Travel:
    """Bound how far deep pursuit's last code can travel from that of x: in exact arithmetic, and by rounding.

    Each step of a layer is the exact step from codes that are off, which `Sweep` bounds, and a rounding of its own: a
    sum of n products is off by gamma(n) times the sum of their sizes, and || |B|^T |u| || <= || |B| || ||u||. All is
    linear in the sizes of the codes, which are at most ||w(x)|| + L r; so two bounds travel through the sweeps, one for
    the sizes at x, an entry an example, and one for each unit of r, the last entry.

    Holds where convolutions and products of matrices are sums of products in float32, in any order, fused or not: not
    for TF32, and not for convolutions by Fourier or Winograd transforms.

    Args:
        frame: a float64 frame.
        x: images, shape (b, *in_shape), float64.
        sweeps: sweeps of `DeepPursuit`, at least 1.
    """
    rounded = _Rounded(frame)
    sweep, depth = rounded.sweep, len(frame.blocks)
    constants, off = _begin(depth, 1), _begin(depth, len(x) + 1)
    constants[0] = torch.ones(1, dtype=torch.float64)
    sizes = _begin(depth, len(x) + 1)
    sizes[0] = torch.cat([_size(x), constants[0]])
    code = x
    for codes in iterate(DeepPursuit(sweeps=sweeps), frame, x):
        for j, code in enumerate(codes, start=1):
            local = rounded.step(j, [size + error for size, error in zip(sizes, off)])
            off[j] = sweep.step(j, off) + local
            constants[j] = sweep.step(j, constants)
            sizes[j] = torch.cat([_size(code), constants[j]])
    return Travel(float(constants[-1]), off[-1][:-1], float(off[-1][-1]), code)


class _Rounded:
    """The rounding of one step of one layer in float32."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.sweep = frame, Sweep(frame)
        operators = [layer.operator for layer in frame.blocks]
        self._absolute = [math.nan, *(absolute_norm_bound(operator) for operator in operators)]
        self._terms = [(0, 0), *(_terms(operator) for operator in operators)]
        thresholds = [layer.threshold.expand(layer.operator.code_shape) for layer in frame.blocks]
        self._thresholds = [math.nan, *(float(torch.linalg.vector_norm(each)) for each in thresholds)]

    def step(self, j: int, sizes: Sequence[Tensor]) -> Tensor:
        """Bound the rounding of layer j's step, given sizes of the codes as computed: new below j, old from there."""
        layer, size = self.frame.blocks[j - 1], self.sweep.sizes[j]
        read = hypotenuse([sizes[k] for k in layer.sources])
        made, loss = self._made(j, sizes[j])
        residual, loss = made + read, loss + _UNIT * (made + read)
        lost = size * self.sweep.norms[j] * loss
        total = size * (self._absolute[j] * (residual + loss) + self._thresholds[j])
        total = total + (1 + size * self.frame.pull(j)) * sizes[j]
        if layer.skip is not None:
            total = total + size * sizes[layer.skip]
        for r, _ in self.frame.signal_readers(j):
            made, loss = self._made(r, sizes[r])
            total, lost = total + size * made, lost + size * loss
        for r in self.frame.skip_readers(j):
            total = total + size * (sizes[r] + sizes[j])
        readers = len(self.frame.signal_readers(j)) + len(self.frame.skip_readers(j))
        rounding = lost + gamma(self._terms[j][0] + readers + _EXTRA) * total + _UNDERFLOW
        largest = torch.maximum(total, self._absolute[j] * sizes[j])
        return torch.where(largest < _LARGEST, rounding, math.inf)

    def _made(self, j: int, size: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds on the size of B_j w_j as computed, and on what rounding did to it."""
        loss = gamma(self._terms[j][1] + _EXTRA) * self._absolute[j] * size
        return self.sweep.norms[j] * size + loss, loss


def _terms(operator: Operator) -> tuple[int, int]:
    """Return how many products are added up for a number of a code, and for one of a signal."""
    weight = operator.weight
    if isinstance(operator, PooledConv):
        return weight.shape[1] * operator.pool**2, weight.shape[0]
    if isinstance(operator, Conv):
        return weight[0].numel(), weight.shape[0] * (-(-operator.kernel // operator.stride)) ** 2
    return weight.shape[1], weight.shape[0]


def _begin(depth: int, entries: int) -> list[Tensor]:
    return [torch.zeros(entries, dtype=torch.float64) for _ in range(depth + 1)]


def _size(vectors: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    return size


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """Return first / second, brought into a range in which nothing overflows; any u > 0 gives a bound."""
    ratio: Tensor = first / second.clamp_min(1e-150)
    return ratio.nan_to_num(1.0).clamp(1e-12, 1e12)


def hypotenuse(parts: Sequence[Tensor]) -> Tensor:
    """Return the l2 norm of vectors joined together, given that of each."""
    joined: Tensor = torch.linalg.vector_norm(torch.stack(list(parts)), dim=0)
    return joined
