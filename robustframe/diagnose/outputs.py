"""Checks on the classifier's answers: do they depend on the image alone, and are they logits."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from robustframe.calls import answer, borrowed, predict
from robustframe.diagnose.case import Case, differ
from robustframe.diagnose.question import Measurement
from robustframe.losses import cross_entropy, margin

SINGLES = 4
"""Images, and as many noisy ones, whose operations are counted one by one."""
NOISES = 10
"""Draws of noise an example. The reference takes 100; a mean over a sample of examples needs fewer of each."""
NOISE = 8 / 255
"""Width of the uniform noise in input units, as in the reference, whatever the threat."""
DECIMALS = 3
"""Logits that are whole multiples of 10**-3 are rounded: float32 keeps seven digits."""


def randomised(case: Case) -> Measurement:
    """Evaluate the same images twice."""
    with borrowed(case.model, seed=case.draws("randomised").seed) as model:
        first, second = (case.evaluate(model, case.anyone) for _ in range(2))
    other = differ(first, second)
    flips = int((predict(first) != predict(second)).sum())
    seen = (
        f"{int(other.sum())} of {len(case.anyone)} images got other logits when they came again, {flips} another class"
    )
    averaged = any(ascent.gradients.eot > 1 for ascent in case.ascents)
    excused = "the battery averages gradients and votes" if averaged and case.found.votes > 1 else ""
    return Measurement(float(other.float().mean()), len(case.anyone), seen, excused=excused)


def batch_dependent(case: Case) -> Measurement:
    """Evaluate images among other batch mates than before."""
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so nothing can be said about batch mates")
    half = (len(case.anyone) + 1) // 2
    noise = case.draws("batch").uniform(*case.anyone.shape[1:])[: len(case.anyone) - half].to(case.anyone)
    with borrowed(case.model) as model:
        first = case.evaluate(model, case.anyone)
        second = case.evaluate(model, torch.cat([case.anyone[:half], noise]))
    other = differ(first[:half], second[:half])
    seen = f"{int(other.sum())} of {half} images got other logits among other batch mates"
    return Measurement(float(other.float().mean()), half, seen)


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that torch executes."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


class _Graded(TorchFunctionMode):
    """Notices that gradients are recorded where nobody asked for them."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


def input_dependent(case: Case) -> Measurement:
    """Count the operations for single images, clean and noisy."""
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so its operations may be other ones by chance")
    few = min(SINGLES, len(case.anyone))
    noise = case.draws("operations").uniform(*case.anyone.shape[1:])[:few].to(case.anyone)
    images = torch.cat([case.anyone[:few], noise])
    counts, optimises = [], False
    with borrowed(case.model) as model, torch.no_grad():
        for image in images:
            with _Graded() as graded, _Counted() as counted:  # type: ignore[no-untyped-call]
                answer(model, image.unsqueeze(0))
            counts.append(counted.operations)
            optimises |= graded.seen
    case.spent.forwards += len(images)
    seen = f"Between {min(counts)} and {max(counts)} operations were executed for {len(images)} single images"
    if optimises:
        seen += ", and gradients were taken inside"
    excused = "the battery also attacks a fixed number of sweeps, or a surrogate" if case.goes_past else ""
    return Measurement(1 - min(counts) / max(counts) if not optimises else 1.0, len(images), seen, excused=excused)


def not_logits(case: Case) -> Measurement:
    """Look for logits so far apart that the cross-entropy has no gradient, or that lie on a grid."""
    with borrowed(case.model, seed=case.draws("logits").seed) as model:
        logits = case.evaluate(model, case.x).double()
    gap = -margin(logits, case.y)
    # The largest probability of a wrong class underflows in float32, and with it the gradient of the cross-entropy.
    saturated = gap > -torch.log(torch.tensor(torch.finfo(torch.float32).tiny, dtype=torch.float64))
    scaled = logits * 10**DECIMALS
    # Of large logits float32 itself leaves no more decimals than that.
    fine = logits.abs().amax(1) < 10 ** (6 - DECIMALS)
    rounded = fine & ((scaled - scaled.round()).abs() < 1e-3 * logits.abs().clamp_min(1)).all(1)
    bad = saturated | rounded
    kind = "probabilities in logarithms" if bool((logits.logsumexp(1).abs() < 1e-4).all()) else "logits"
    seen = (
        f"{int(saturated.sum())} of {len(case.x)} outputs are saturated and {int(rounded.sum())} are rounded "
        f"({kind}; median gap to the next class {float(gap.median()):.3g})"
    )
    excused = ""
    if not rounded.any() and any(ascent.loss is not cross_entropy for ascent in case.ascents):
        excused = "the battery also climbs a loss that scale does not touch"
    return Measurement(float(bad.float().mean()), len(case.x), seen, excused=excused)


def unstable(case: Case) -> Measurement:
    """Measure how much small noise changes the margin (indicator 2 of Pintor et al.)."""
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, which are noise already")
    draws = case.draws("unstable")
    changes = []
    with case.probing("unstable") as probe:
        clean = probe.height(probe.logits(case.x))
        for _ in range(NOISES):
            noise = (draws.uniform(*case.x.shape[1:]).to(case.x) - 0.5) * NOISE
            noisy = probe.height(probe.logits((case.x + noise).clamp(case.threat.low, case.threat.high)))
            changes.append(((noisy - clean).abs() / torch.where(clean == 0, 1.0, clean.abs())).clamp_max(1))
    # Not the mean over examples: it is that of the few whose margin is next to nothing.
    figure = float(torch.stack(changes).mean(0).quantile(0.5))
    return Measurement(figure, len(case.x), f"Noise of 4/255 changes the margin by {100 * figure:.1f} % in the median")
