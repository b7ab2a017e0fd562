"""Checks on the attacks: does more effort, or another way, still break what the battery left."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustframe.attacks import APGD, APGDT, FGSM, PGD, Attack, Square
from robustframe.calls import borrowed
from robustframe.diagnose.case import Ascent, AttackOutcome, Case
from robustframe.diagnose.question import Measurement, lost, points
from robustframe.probe import Evaluation
from robustframe.targets import height, reached
from robustframe.threat import ThreatModel
from robustframe.types import Labels, PerExample

WIDE_STEPS = 10
"""Steps in a ball that holds every image, or the grey one: an attack that works needs one or two."""
FEW = 20
"""Examples below which the interval of a robust accuracy holds almost everything."""
SAMPLES = 20
"""Random points an example."""
QUERIES = 100
"""Of the Square attack on the survivors nearest to the boundary: in trials on masked gradients it broke most of these,
and next to none of as many drawn at random."""
NEAREST = 8
"""Survivors that it is run on, or half of those in the sample."""
NEAR_SHARE = 0.2
"""Of these it may break: gradients that work have been there first."""
MORE_STEPS = 40
"""On the margin, from a fresh start, for the same survivors."""
MORE_SHARE = 0.4
"""Of these it may break: the nearest of all are a matter of a point or two."""
LAST = 10
"""Steps at the end of a run in which its loss may not rise any more, as in the reference."""
RISE = 0.05
"""Share of a run's whole rise that its last steps may add, as in the reference."""
STEPS = 20
"""Steps of the longer run's half where the battery has no attack with steps."""


def single_step(case: Case) -> Measurement:
    """Take one step of length eps from the clean image."""
    ascent = case.ascents[0]
    result = case.attack("single step", _fgsm(ascent))
    return lost(case, int(result.success.sum()), case.survivors, "fall to a single step", strict=not case.random)


def random_search(case: Case) -> Measurement:
    """Draw points at random: in turn corners, or points of the surface, and points from all over the ball."""
    draws = case.draws("random search")
    with case.probing("random search", rows=case.survivors) as probe:
        for turn in range(SAMPLES):
            points = case.threat.random_start(case.x, draws.child(turn))
            if turn % 2 and case.threat.norm == "linf":
                points = case.x + case.threat.eps * draws.child(turn, "corner").sign(*case.x.shape[1:]).to(case.x)
                points = case.threat.project(case.x, points)
            probe.logits(points[: case.survivors])
    seen = f"fall to one of {SAMPLES} random points"
    return lost(case, len(case.spent.breaks), case.survivors, seen, strict=not case.random)


def black_box(case: Case) -> Measurement:
    """See whether an attack without gradients breaks what those with gradients left."""
    after = blind_attacks(case)
    if not after:
        return Measurement(None, 0, "The battery has no attack without gradients after those with")
    entered = after[0].entered
    broken = sum(each.broken for each in after)
    names = ", ".join(each.label for each in after)
    total = len(case.found.robust)
    seen = f"{broken} of {entered} examples that gradients left fell to {names}"
    return Measurement(broken / total, entered, seen, points(total))


def queries(case: Case) -> Measurement:
    """Attack the survivors nearest to the boundary without gradients."""
    near = nearest_survivors(case)
    broken = int(near.attack("queries", Square(queries=QUERIES)).success.sum())
    seen = (
        f"{broken} of the {near.survivors} survivors nearest to the boundary fall to Square with {QUERIES} queries, "
        "which use no gradient"
    )
    return Measurement(broken / near.survivors, near.survivors, seen, max(NEAR_SHARE, 1 / near.survivors))


def nearest_survivors(case: Case) -> Case:
    """The survivors that the model is least sure of, or nearest to their targets: where it can be broken at all, it is
    most easily there."""
    with borrowed(case.model, seed=case.draws("nearest").seed) as model:
        x, y = case.x[: case.survivors], case.y[: case.survivors]
        logits, targets = case.evaluate(model, x), case.targets(model, x, y)
        sure = -height(logits, y, targets)
    return case.chosen(sure.argsort(stable=True)[: near_count(case)])


def enough(case: Case) -> Measurement:
    """See whether there are examples enough to say anything."""
    count = len(case.found.robust)
    seen = f"{count} example{'s say' if count > 1 else ' says'} too little: evaluate at least {FEW}"
    return Measurement(None, count, f"There are {count} examples" if count >= FEW else seen, undecided=count < FEW)


def near_count(case: Case) -> int:
    """How many of the survivors are tried without gradients."""
    return max(1, min(NEAREST, -(-case.survivors // 2)))


def blind_attacks(case: Case) -> list[AttackOutcome]:
    """Return the battery's attacks without gradients that came after all those with some."""
    ran = [each for each in case.found.attacks if each.entered or each.forwards]
    last = max((at for at, each in enumerate(ran) if each.with_gradients), default=-1)
    return [each for at, each in enumerate(ran) if at > last >= 0 and not each.with_gradients]


def optimised(case: Case) -> Measurement:
    """Look at the end of the loss of the battery's strongest climb (indicator 4 of Pintor et al.)."""
    trace = _Trace()
    result = case.attack("optimised", climbing(case), watch=trace)
    rising = reaching = 0
    paths = trace.paths((~result.claimed).nonzero().squeeze(1).tolist())
    for losses, gaps in paths:
        best = losses.cummax(0).values
        scaled = (best - losses.min()) / (best[-1] - losses.min()).clamp_min(1e-12)
        end = min(LAST, len(best))
        still = float(scaled[-1] - scaled[-end]) > RISE
        top = gaps.cummax(0).values
        pace = float(top[-1] - top[-end]) / max(end - 1, 1)
        rising += still
        # A rise that would take the loss nowhere near success in as many steps again changes no verdict.
        reaching += still and float(top[-1]) + pace * len(top) > 0
    if not paths:
        return Measurement(0.0, case.survivors, "No run was left that had not succeeded")
    seen = (
        f"{rising} of {len(paths)} runs on survivors rose by more than {100 * RISE:.0f} % in their last {LAST} steps, "
        f"and {reaching} of them would succeed at that pace in twice the steps"
    )
    return Measurement(reaching / len(paths), len(paths), seen)


class _Trace:
    """Losses and margins of each example, step by step."""

    def __init__(self) -> None:
        self.steps: dict[int, list[tuple[float, float]]] = {}

    def __call__(self, rows: Labels, seen: Evaluation, gaps: PerExample) -> None:
        for row, value, gap in zip(rows.tolist(), seen.value.tolist(), gaps.tolist()):
            self.steps.setdefault(row, []).append((value, gap))

    def paths(self, rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Losses and margins of those of some examples at which gradients were taken."""
        tables = [torch.tensor(self.steps[row]) for row in rows if row in self.steps]
        return [(table[:, 0], table[:, 1]) for table in tables]


def climbing(case: Case) -> Attack:
    """Return one run of the battery's climbing attack that broke most."""
    for outcome in sorted(case.found.attacks, key=lambda each: -each.broken):
        if isinstance(outcome.attack, APGDT):
            return replace(outcome.attack, targets=1, restarts=1, together=1)
        if isinstance(outcome.attack, APGD | PGD):
            return replace(outcome.attack, restarts=1)
    return _apgd(case.ascents[0], STEPS)


def more_steps(case: Case) -> Measurement:
    """Climb from a fresh start on the margin, for the survivors nearest to the boundary."""
    near = nearest_survivors(case)
    broken = int(near.attack("more steps", _apgd(case.ascents[0], MORE_STEPS)).success.sum())
    seen = f"{broken} of the {near.survivors} survivors nearest to the boundary fall to {MORE_STEPS} fresh steps"
    return Measurement(broken / near.survivors, near.survivors, seen, max(MORE_SHARE, 1 / near.survivors))


def wide(case: Case) -> Measurement:
    """Attack in a ball that holds the grey image, in which nothing can be told from anything."""
    ball = _ball(case, 0.5)
    result = case.attack("wide", _apgd(case.ascents[0], WIDE_STEPS), threat=ball)
    left = case.survivors - int(result.success.sum())
    share = left / case.survivors * case.found.robust_accuracy if case.survivors else 0.0
    seen = f"{left} of {case.survivors} survivors withstand {ball.label}, in which all images can be made grey"
    return Measurement(share, case.survivors, seen, threshold=1 / case.classes)


def unbounded(case: Case) -> Measurement:
    """Attack without a bound but the box (indicator 6 of Pintor et al.)."""
    result = case.attack("unbounded", _apgd(case.ascents[0], WIDE_STEPS), threat=_ball(case, 1.0))
    left = case.survivors - int(result.success.sum())
    seen = f"{left} of {case.survivors} survivors withstand an attack that may change every pixel at will"
    return Measurement(left / case.survivors if case.survivors else None, case.survivors, seen)


def transfer(case: Case) -> Measurement:
    """Replay images that broke other classifiers of the run."""
    others = case.found.others
    if others is None or not len(others.images):
        return Measurement(None, 0, "No other classifier of the run has stored images of survivors")
    tested = set(others.index.tolist())
    with borrowed(case.model, seed=case.draws("transfer").seed) as model:
        prediction, targets = case.decide(model, others.images), case.targets(model, others.clean, others.labels)
        wrong = reached(prediction, others.labels, targets)
    wrong &= case.threat.contains(others.clean, others.images)
    fallen = set(others.index[wrong].tolist())
    case.spent.breaks.update(fallen)
    seen = f"{len(fallen)} of {len(tested)} survivors fall to images that broke another classifier of the run"
    # Not for the others: who has no such image was not tried.
    total = len(case.found.robust)
    return Measurement(len(fallen) / total, len(tested), seen, points(total))


def monotone(case: Case) -> Measurement:
    """Look for survivors that a smaller ball of the run already lost."""
    count, total = len(case.found.smaller), int(case.found.robust.sum())
    case.spent.breaks.update(case.found.smaller)
    return lost(case, count, total, "lie in this ball with an image that broke them under another threat", strict=True)


def fallen(case: Case) -> Measurement:
    """Count the survivors that the checks before this one broke."""
    case.spent.breaks = set(case.spent.fallen)
    count, left = len(case.spent.fallen), int(case.found.robust.sum())
    return Measurement(count / len(case.found.robust), left, f"The checks broke {count} of {left} survivors")


def _ball(case: Case, share: float) -> ThreatModel:
    """The ball around any image that holds its box's opposite corner (share 1) or middle (share 0.5)."""
    threat, dims = case.threat, math.prod(case.x.shape[1:])
    size = {"linf": 1.0, "l2": math.sqrt(dims), "l1": float(dims)}[threat.norm] * (threat.high - threat.low)
    return ThreatModel(norm=threat.norm, eps=share * size, low=threat.low, high=threat.high)


def _fgsm(ascent: Ascent) -> FGSM:
    how = ascent.gradients
    return FGSM(loss=ascent.loss, through=how.through, smooth=how.smooth, eot=how.eot, bpda=how.bpda)


def _apgd(ascent: Ascent, steps: int) -> APGD:
    how = ascent.gradients
    return APGD(steps=steps, loss="margin", through=how.through, smooth=how.smooth, eot=how.eot, bpda=how.bpda)
