"""What a training looks after beside the loss: step sizes, floors under thresholds, atoms that repeat or never fire."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.frames import Frame, Layer
from robustframe.pairs.capture import Captured

TRACKED = 4
"""Vectors that follow the largest eigenvalue of each layer."""
_FRESH, _ITERATIONS = 0.3, 4
"""Size of the random part put into vectors of unit length, and iterations a step."""
_SQUARINGS = 6
"""Of a matrix of inner products: its eigenvalues to the 64th power."""
_PACE = 0.02
"""Power of the excess of a share by which a floor moves in one step."""


@torch.no_grad()
def follow_step_sizes(frame: Frame, vectors: list[Tensor], captured: Captured, *, seed: int) -> None:
    """Bring step sizes up to date by a few subspace iterations a layer, which start and end in ``vectors``.

    While atoms move, the largest eigenvalue of one moment is not that of the next: a single vector stays with the old
    one for many steps, in which sweeps are too long and diverge. So several are kept, and all but the first have
    something random put in, lest a direction that grows is missing from all of them.

    Args:
        frame: the frame, changed in place.
        vectors: for each layer, shape (`TRACKED`, *code shape), the one of the largest eigenvalue first.
        captured: makes the iterations.
        seed: of the random part; another one each time.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(each[1:].shape, generator=generator).to(each) for each in vectors]
    found = captured(("step sizes", id(frame)), partial(_subspace, frame), *vectors, *noise)
    for at, layer in enumerate(frame.blocks):
        vectors[at] = found[at]
        layer.step_size.copy_(found[len(vectors) + at])


def _subspace(frame: Frame, *given: Tensor) -> tuple[Tensor, ...]:
    """Iterate; from vectors and noise to vectors and step sizes of all layers."""
    layers, vectors, sizes = frame.blocks, [], []
    for at, layer in enumerate(layers):
        old, noise = (given[at + part].flatten(1) for part in (0, len(layers)))
        rows = torch.cat([old[:1], F.normalize(old[1:]) + _FRESH * noise / noise.shape[1] ** 0.5])
        for left in reversed(range(_ITERATIONS)):
            # In between they may lean towards each other; the products of the last tell directions apart.
            unit = _orthonormal(rows) if left in (_ITERATIONS - 1, 0) else F.normalize(rows)
            rows = layer.operator.analysis(layer.operator.synthesis(unit.view_as(given[at]))).flatten(1)
        made = _leading(rows @ rows.T) @ rows
        vectors.append(torch.cat([made, rows[1:]]).view_as(given[at]))
        sizes.append(1 / (made.norm() + frame.pull(at + 1)))
    return *vectors, *sizes


def _orthonormal(rows: Tensor) -> Tensor:
    """Make a few rows orthonormal, by Gram and Schmidt: on a GPU far less than a decomposition."""
    basis = F.normalize(rows[:1])
    for row in torch.split(rows[1:], 1):
        basis = torch.cat([basis, F.normalize(row - row @ basis.T @ basis)])
    return basis


def _leading(products: Tensor) -> Tensor:
    """Return the leading unit eigenvector of a small positive matrix, shape (1, n), by squaring it again and again."""
    for at in range(_SQUARINGS):
        # Now and then, lest the numbers get too small.
        products = products / products.trace() if at % 3 == 0 else products
        products = products @ products
    return F.normalize(products.index_select(0, products.diagonal().argmax(0, keepdim=True)))


def signal_sizes(frame: Frame) -> list[float]:
    """How the size of what each layer's threshold, and at last the head, is applied to depends on the step sizes."""
    steps: list[float] = torch.stack([layer.step_size for layer in frame.blocks]).tolist()
    codes, targets = [1.0], []
    for row, step in zip(frame.rows, steps):
        read = row.sources if row.skip is None else (*row.sources, row.skip)
        targets.append(math.sqrt(sum(codes[k] ** 2 for k in read)))
        codes.append(step * targets[-1])
    return [*targets, codes[-1]]


class Floors:
    """Floors under the thresholds of each layer, which keep the share of active codes within bounds.

    Args:
        frame: the frame.
        active: lowest and highest share.
    """

    def __init__(self, frame: Frame, active: tuple[float, float]) -> None:
        self.frame, (self.low, self.high) = frame, active
        self.values = [0.0] * len(frame.blocks)

    def start(self, sizes: list[float]) -> None:
        """Begin at a small part of the size of each layer's signals."""
        self.values = [0.05 * size for size in sizes]

    @torch.no_grad()
    def follow(self, codes: tuple[Tensor, ...]) -> None:
        """Raise the floors of layers of which too much is active, lower those of which too little is."""
        shares = torch.stack([(code > 0).float().mean() for code in codes]).tolist()
        for j, share in enumerate(shares):
            bound = self.high if share > self.high else self.low if share < self.low else share
            self.values[j] *= (max(share, 1e-3) / max(bound, 1e-3)) ** _PACE

    @torch.no_grad()
    def hold(self) -> None:
        """Bring the thresholds to at least the floors."""
        for layer, floor in zip(self.frame.blocks, self.values):
            layer.threshold.clamp_(min=floor)


def overlap_loss(frame: Frame, limit: float) -> Tensor:
    """Return the mean over atoms of the squared excess of inner products over a limit, differentiable."""
    parts = [(overlaps(layer) - limit).relu().square().sum(1).mean() for layer in frame.blocks]
    return torch.stack(parts).sum()


def overlaps(layer: Layer) -> Tensor:
    """Return the largest inner product of each two different atoms of a layer over all shifts, and of an atom with its
    own shifted copies on the diagonal; shape (atoms, atoms) or (filters, filters)."""
    found = layer.operator.correlations().abs()
    return found.view(len(found), len(found), -1).amax(2)


@torch.no_grad()
def idle_atoms(layer: Layer, used: Tensor, limit: float) -> Tensor:
    """Return the atoms of a layer to begin anew: never active, or the less used one of two that overlap too much.

    Args:
        layer: the layer.
        used: share of codes that were active, shape (filters,).
        limit: largest inner product that two different atoms may have.

    Returns:
        Indices.
    """
    near = overlaps(layer)
    near.fill_diagonal_(0)
    idle = used <= 0
    # The most alike first; an atom that is gone does not count against others.
    for at in near.flatten().argsort(descending=True).tolist():
        one, other = divmod(at, len(near))
        if near[one, other] <= limit:
            break
        if not idle[one] and not idle[other]:
            idle[one if used[one] < used[other] else other] = True
    return idle.nonzero().flatten()
