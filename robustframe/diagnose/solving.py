"""Checks on models that solve: would more sweeps give another answer, and is that what attacks live on."""

from dataclasses import replace

import torch

from robustframe.calls import borrowed, predict
from robustframe.diagnose.case import Case
from robustframe.diagnose.question import Measurement
from robustframe.pairs import Twin
from robustframe.solvers import solve
from robustframe.types import Images


def solver_settles(case: Case) -> Measurement:
    """Compare the predictions after all sweeps with those after twice as many."""
    twin = case.model
    if not isinstance(twin, Twin):
        return Measurement(None, 0, "The model makes no sweeps")
    with borrowed(twin) as model:
        own = case.evaluate(model, case.anyone)
        longer = case.evaluate(longer_twin(twin), case.anyone, passes=2)
    flips = predict(own) != predict(longer)
    change = ((longer - own).norm(dim=1) / own.norm(dim=1).clamp_min(1e-12)).median()
    right = float((predict(longer) == case.anyone_y).float().mean())
    seen = (
        f"{int(flips.sum())} of {len(case.anyone)} predictions are other ones after twice the sweeps (accuracy on this "
        f"sample 100 % at T, {100 * right:.0f} % at 2T; logits change by {100 * float(change):.1f} %)"
    )
    return Measurement(float(flips.float().mean()), len(case.anyone), seen)


def breaks_by_stopping(case: Case) -> Measurement:
    """See which stored adversarial images twice the sweeps put right, and what attacks do to convergence."""
    twin, own = case.model, case.found.own
    if not isinstance(twin, Twin) or own is None:
        return Measurement(None, 0, "There are no sweeps, or no stored adversarial images, to look at")
    with borrowed(twin):
        undone = predict(case.evaluate(longer_twin(twin), own.images, passes=2)) == own.labels
        before, after = (_residual(twin, images, case) for images in (own.clean, own.images))
    seen = (
        f"{int(undone.sum())} of {len(own.images)} stored adversarial images are put right by twice the sweeps; the "
        f"median residual is {before:.2g} on their clean images and {after:.2g} on them"
    )
    return Measurement(float(undone.float().mean()), len(own.images), seen)


def longer_twin(twin: Twin) -> Twin:
    """Return the twin with twice the sweeps."""
    return Twin(twin.pair, 1, solver=replace(twin.solver, sweeps=2 * twin.solver.sweeps)).eval()


def _residual(twin: Twin, images: Images, case: Case) -> float:
    parts = []
    with torch.no_grad():
        for part in torch.split(images, case.batch_size):
            parts.append(solve(twin.solver, twin.pair.frame, part).residual)
    case.spent.forwards += len(images)
    return float(torch.cat(parts).nan_to_num(posinf=1e6).median())
