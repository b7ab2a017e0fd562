"""The deep frame potential of weights, and the smallest that an architecture can have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames.blocks import Borders, global_blocks
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import taps
from robustframe.frames.frame import Frame
from robustframe.frames.gram import Gram
from robustframe.frames.operators import Dense

_PORTION = 10
_NEGLIGIBLE = 1e-12


def deep_frame_potential(frame: Frame, *, borders: Borders = "exact", nonzeros: int | None = None) -> Tensor:
    """Return the deep frame potential F^2 of a frame's weights, differentiable.

    ``F^2 = (||G||_F^2 - tr G) / N(G)``: the mean square of the inner products between different normalised columns of
    the global frame, over those that the structure does not make zero. F is at most the mutual coherence.

    Args:
        frame: the frame.
        borders: ``"exact"``, or ``"periodic"`` for an image that wraps around.
        nonzeros: N(G) when it is known already; it depends on the architecture only.

    Returns:
        A float64 scalar in [0, 1].

    Raises:
        InputError: for weights that are not finite, a zero atom, or periodic borders that do not close.

    Source: Murdock and Lucey, 2020, arXiv:2003.13866.
    """
    return _potential(
        frame, None, borders, structural_nonzeros(frame, borders=borders) if nonzeros is None else nonzeros
    )


@torch.no_grad()
def structural_nonzeros(frame: Frame, *, borders: Borders = "exact") -> int:
    """Return N(G): entries off the diagonal of the Gram that are not zero whatever the weights are."""
    return Gram(global_blocks(frame, borders=borders)).nonzeros()


@dataclass(frozen=True)
class MinimumPotential:
    """The smallest deep frame potential over the parameters of an architecture, all atoms kept at unit norm."""

    value: float
    """F^2, exact or the best found."""
    method: Literal["closed form", "lower bound", "optimised"]
    borders: Borders
    values: tuple[float, ...]
    """F^2 at the end of each restart; of a closed form the one value."""
    converged: bool
    """Whether the best restart ended with a relative gradient within the tolerance; always true of a closed form."""
    gradient: float
    """Norm of the gradient of F^2 along the unit atoms at the best restart's end, divided by F^2."""
    steps: int
    """L-BFGS iterations of the best restart."""
    nonzeros: int
    """N(G)."""


def closed_form_minimum(frame: Frame, *, borders: Borders = "exact") -> float | None:
    """Return the smallest F^2 of a chain with unit atoms where a formula gives it, else None.

    Every layer can be a unit-norm tight frame on its own: always for matrices, and for kernels at least as large as
    their stride when the image wraps around (a tight frame on stride x stride patches is one for the whole image).
    With K_j atoms and D_j numbers in the signal of layer j the off-diagonal squares then sum to
    ``sum_{j<l} (K_j^2 / D_j - K_j)_+ / 4 + (K_l^2 / D_l - K_l)_+ + sum_{1<j<l} K_j / 2 + K_l``, the last for l > 1.

    Args:
        frame: any frame; its weights do not matter.
        borders: with ``"exact"`` borders a formula exists for matrices only.

    Returns:
        F^2, or None for residual and densely connected frames and for zero-padded convolutions.

    Raises:
        InputError: for periodic borders that do not close.

    Source: derived for unit atoms inside every B_j, and checked against built tight frames; the scale that Murdock and
    Lucey, 2020, arXiv:2003.13866, use was not read.
    """
    if isinstance(frame, BranchedFrame):
        raise InputError("the least potential of a network's structure is that of robustframe.frames.least")
    dense = all(isinstance(layer.operator, Dense) for layer in frame.blocks)
    if frame.structure != "chain" or not (dense or borders == "periodic"):
        return None
    nonzeros = structural_nonzeros(frame, borders=borders)
    total, last = 0.0, len(frame.blocks)
    for j, layer in enumerate(frame.blocks, start=1):
        atoms, numbers = math.prod(layer.operator.code_shape), math.prod(layer.operator.in_shape)
        excess = max(0.0, atoms**2 / numbers - atoms)
        # Inner columns carry a -1 beside the unit atom, so their squared norm is 2.
        total += excess / 4 if j < last else excess
        total += 0 if j == 1 else atoms / 2 if j < last else atoms
    return total / nonzeros if nonzeros else 0.0


def minimum_potential(
    frame: Frame,
    *,
    borders: Borders = "exact",
    restarts: int = 3,
    steps: int = 500,
    tolerance: float = 1e-4,
    seed: int = 0,
    optimise: bool = False,
) -> MinimumPotential:
    """Minimise the deep frame potential of an architecture over its parameters.

    The scale of atoms is fixed: every atom (filter) of every B_j has unit norm, as `Frame.project_` leaves it; without
    this the minimum is degenerate (inner atoms shrink to nothing and leave orthonormal -I). Weights are divided by
    their atoms' norms inside the objective, which L-BFGS then descends freely.

    Args:
        frame: the architecture; its weights do not matter and are left alone.
        borders: ``"exact"`` or ``"periodic"``.
        restarts: random starts, at least 1.
        steps: L-BFGS iterations of a restart at most, at least 1.
        tolerance: relative norm of the gradient at which a restart has converged.
        seed: of the random starts.
        optimise: minimise numerically also where `closed_form_minimum` knows the answer.

    Returns:
        The best value, and how each restart ended; not converging is reported, not raised.

    Raises:
        InputError: for restarts or steps below 1, or periodic borders that do not close.
    """
    if restarts < 1 or steps < 1 or not tolerance > 0:
        raise InputError(f"give restarts >= 1, steps >= 1 and tolerance > 0, not {restarts}, {steps}, {tolerance}")
    nonzeros = structural_nonzeros(frame, borders=borders)
    exact = None if optimise or isinstance(frame, BranchedFrame) else closed_form_minimum(frame, borders=borders)
    if exact is not None:
        return MinimumPotential(exact, "closed form", borders, (exact,), True, 0.0, 0, nonzeros)
    if nonzeros == 0:
        return MinimumPotential(0.0, "closed form", borders, (0.0,), True, 0.0, 0, 0)
    ends = [
        _descend(frame, borders, nonzeros, steps, tolerance, torch.Generator().manual_seed(seed + restart))
        for restart in range(restarts)
    ]
    best = min(ends, key=lambda end: end.value)
    return MinimumPotential(
        value=best.value,
        method="optimised",
        borders=borders,
        values=tuple(end.value for end in ends),
        converged=best.value <= _NEGLIGIBLE or best.gradient <= tolerance,
        gradient=best.gradient,
        steps=best.steps,
        nonzeros=nonzeros,
    )


@dataclass(frozen=True)
class _End:
    value: float
    gradient: float
    steps: int


def _descend(
    frame: Frame, borders: Borders, nonzeros: int, steps: int, tolerance: float, generator: torch.Generator
) -> _End:
    masks = _learned(frame)
    draws = {key: torch.randn(mask.shape, generator=generator, dtype=torch.float64) for key, mask in masks.items()}
    raw = {key: _unit(weight * masks[key]) for key, weight in draws.items()}
    parameters = [weight.requires_grad_() for weight in raw.values()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_PORTION,
        max_eval=2 * _PORTION,
        tolerance_grad=0.0,
        tolerance_change=1e-15,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def logarithm() -> Tensor:
        # The gradient of the logarithm is the relative gradient, whatever the number of atoms.
        optimizer.zero_grad()
        units = {key: _unit(weight * masks[key]) for key, weight in raw.items()}
        value: Tensor = (_potential(frame, units, borders, nonzeros) + _NEGLIGIBLE).log()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    def gradient() -> float:
        # With respect to unit atoms: those of the raw weights may have grown.
        slopes = [_norms(weight) * weight.grad for weight in parameters if weight.grad is not None]
        return math.sqrt(sum(float(slope.detach().square().sum()) for slope in slopes))

    made = 0
    # L-BFGS keeps its history from one portion to the next; its own stopping rule looks at single entries.
    while made < steps:
        value = float(logarithm().detach().exp())
        if gradient() <= tolerance or value <= 2 * _NEGLIGIBLE:
            break
        optimizer.param_groups[0]["max_iter"] = min(_PORTION, steps - made)
        optimizer.step(logarithm)  # type: ignore[no-untyped-call]
        before, made = made, int(optimizer.state[parameters[0]]["n_iter"])
        if made == before:
            break
    with torch.no_grad():
        for weight in parameters:
            weight.copy_(_unit(weight))
    value = float(logarithm().detach().exp()) - _NEGLIGIBLE
    return _End(max(value, 0.0), gradient(), made)


def _learned(frame: Frame) -> dict[Any, Tensor]:
    """Which weights to optimise: of frames with branches all but holes, and factors, which are fixed as unit atoms."""
    if isinstance(frame, BranchedFrame):
        parts = {(j, b): part for j in range(1, len(frame.layers) + 1) for b, part in enumerate(frame.branches(j))}
        return {
            key: taps(part.weight).cpu().expand(part.weight.shape).double()
            for key, part in parts.items()
            if not part.spec.is_factor
        }
    return {j: torch.ones(layer.operator.weight.shape).double() for j, layer in enumerate(frame.blocks, start=1)}


def _norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms.view(-1, *[1] * (weight.dim() - 1))


def _unit(weight: Tensor) -> Tensor:
    return weight / _norms(weight)


def _potential(frame: Frame, weights: Mapping[Any, Tensor] | None, borders: Borders, nonzeros: int) -> Tensor:
    gram = Gram(global_blocks(frame, borders=borders, weights=weights))
    squares = [
        (1 if i == j else 2) * (portion.others.square().sum((1, 2)) @ portion.counts.double())
        for i, j, portion in gram.tiles()
    ]
    return torch.stack(squares).sum() / max(nonzeros, 1)
