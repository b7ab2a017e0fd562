"""Batched, matrix-free solves of (I - A) u = g, each example by itself: a Neumann series and restarted GMRES."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""u -> A u for every row, shapes (b, n)."""


@dataclass(frozen=True)
class LinearSolution:
    """An approximate solution, and how far from one it is."""

    u: Tensor
    """Shape (b, n)."""
    residual: Tensor
    """||g - (I - A) u|| / ||g||, shape (b,); 0 where g is 0."""
    steps: int
    """Products with A that were made."""


def neumann(product: Product, right: Tensor, *, steps: int, tolerance: float) -> LinearSolution:
    """Sum the series g + A g + A^2 g + ..., which converges where the spectral radius of A is below 1.

    Args:
        product: applies A to every row.
        right: g, shape (b, n).
        steps: products at most.
        tolerance: relative residual at which a row stops.
    """
    size = _norm(right)
    term, total = right, right.clone()
    residual = torch.ones_like(size)
    done = size == 0
    made = 0
    for _ in range(steps):
        term = product(term)
        made += 1
        # The residual of a partial sum is exactly the next term.
        residual = torch.where(done, residual, _norm(term) / size)
        done = done | (residual <= tolerance)
        if done.all():
            break
        total = torch.where(done.unsqueeze(1), total, total + term)
    return LinearSolution(total, torch.where(size == 0, 0.0, residual), made)


def gmres(product: Product, right: Tensor, *, steps: int, tolerance: float, restart: int) -> LinearSolution:
    """Minimise the residual over Krylov spaces of `restart` vectors, again and again (Saad and Schultz, 1986).

    Args:
        product: applies A to every row.
        right: g, shape (b, n).
        steps: products at most, but at least one space is built.
        tolerance: relative residual at which a row stops.
        restart: vectors of one space; cut to n.
    """
    restart = min(restart, right.shape[1])
    size = _norm(right)
    u, left = torch.zeros_like(right), right
    residual, done, made = torch.ones_like(size), size == 0, 0
    while made < steps and not done.all():
        change = _krylov(product, left, restart)
        # A stopped row stays as it is: its answer must not depend on when the others stop.
        u = torch.where(done.unsqueeze(1), u, u + change)
        left = right - u + product(u)
        made += restart + 1
        residual = torch.where(done, residual, _norm(left) / size.clamp_min(torch.finfo(size.dtype).tiny))
        done = done | (residual <= tolerance)
    return LinearSolution(u, torch.where(size == 0, 0.0, residual), made)


def _krylov(product: Product, left: Tensor, restart: int) -> Tensor:
    """One cycle: the best change of u within the Krylov space of a residual, by modified Gram-Schmidt."""
    rows = len(left)
    tiny = torch.finfo(left.dtype).tiny
    size = _norm(left)
    basis = [left / size.clamp_min(tiny).unsqueeze(1)]
    hessenberg = left.new_zeros(rows, restart + 1, restart)
    for column in range(restart):
        vector = basis[-1] - product(basis[-1])
        scale = _norm(vector)
        for _ in range(2):
            # Twice is enough: the second pass restores the orthogonality that rounding took.
            for row, other in enumerate(basis):
                share = (vector * other).sum(1)
                hessenberg[:, row, column] += share
                vector = vector - share.unsqueeze(1) * other
        rest = _norm(vector)
        # What is left of an exhausted space is rounding noise, and must not become a direction.
        rest = torch.where(rest <= 10 * torch.finfo(left.dtype).eps * scale, 0.0, rest)
        hessenberg[:, column + 1, column] = rest
        unit = vector / rest.clamp_min(tiny).unsqueeze(1)
        basis.append(torch.where((rest > 0).unsqueeze(1), unit, 0.0))
    target = left.new_zeros(rows, restart + 1, 1)
    target[:, 0, 0] = size
    weights = (torch.linalg.pinv(hessenberg) @ target).squeeze(2)
    return torch.einsum("bk,kbn->bn", weights, torch.stack(basis[:-1]))


def _norm(flat: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms
