"""What a training looks at: logits after the first and after a later sweep, and how far the codes have settled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.pairs.pair import Pair
from robustframe.pairs.untied import Untied
from robustframe.solvers import AcceleratedPursuit, DeepPursuit, solve
from robustframe.types import Images, Logits


@dataclass(frozen=True)
class ReadOuts:
    """A pair run on a batch."""

    logits: tuple[Logits, ...]
    """After the first and after the last sweep, of which only those that were asked for; shape (b, classes) each."""
    codes: tuple[Tensor, ...] = ()
    """Of every layer after the last sweep; empty where the solver does not tell."""
    change: Tensor | None = None
    """Mean over layers of the squared relative change of the codes in the last sweep; ``None`` after one sweep."""


def read_out(
    pair: Pair | Untied,
    images: Images,
    *,
    first: bool = True,
    later: bool = True,
    sweeps: int = 0,
    last: int = 0,
    hurry: bool = False,
) -> ReadOuts:
    """Run a pair once for all read-outs that are trained.

    Args:
        pair: the pair, or its untied control.
        images: shape (b, *in_shape).
        first: whether the logits after the first sweep are wanted.
        later: whether those after the last are.
        sweeps: how many there are; the pair's own when 0. An untied net has one number of them.
        last: sweeps at the end that gradients go through; 0 for all.
        hurry: make the sweeps before these with accelerated pursuit.
    """
    if isinstance(pair, Untied) or (later and pair.pursuit != "deep"):
        both = pair.first_and_last(images)
        return ReadOuts(tuple(logits for logits, wanted in zip(both, (first, later)) if wanted))
    sweeps = (sweeps or pair.sweeps) if later else 1
    solver, frame = DeepPursuit(sweeps=sweeps), pair.frame.select(images) if later else pair.frame
    # Sweeps, from the beginning, that the later read-out's gradient does not go through.
    free = max(0, sweeps - last) if last else 0
    with torch.set_grad_enabled(torch.is_grad_enabled() and (first or not free)):
        codes = solver.codes(solver.step(frame, images, solver.init(frame, images)))
    logits = [pair.classify(codes[-1])] if first else []
    if not later:
        return ReadOuts(tuple(logits), codes)
    before = codes
    if free:
        codes = tuple(code.detach() for code in codes)
    if hurry and free > 1:
        with torch.no_grad():
            codes = solve(AcceleratedPursuit(sweeps=free), frame, images).codes
    for done in range(free if hurry and free > 1 else 1, sweeps):
        before = codes
        with torch.set_grad_enabled(torch.is_grad_enabled() and done >= free):
            codes = solver.refine(frame, images, codes)
    return ReadOuts((*logits, pair.classify(codes[-1])), codes, _change(before, codes) if sweeps > 1 else None)


def _change(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> Tensor:
    shares = []
    for old, new in zip(before, after):
        size = new.detach().float().square().flatten(1).sum(1)
        shares.append(((new - old).float().square().flatten(1).sum(1) / size.clamp_min(1e-12)).mean())
    return torch.stack(shares).mean()
