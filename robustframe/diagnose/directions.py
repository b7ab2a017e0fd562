"""Checks on gradients: are there any, are they those of the classifier that is judged, and do they lead anywhere."""

import torch

from robustframe.calls import borrowed, call_in_batches
from robustframe.diagnose.case import Case, differ
from robustframe.diagnose.question import Measurement
from robustframe.losses import margin
from robustframe.slopes import CURVED, DISAGREEMENT, SCALES, agreement, climbed


def claims(case: Case) -> Measurement:
    """Count successes that searches claimed and the exact model did not confirm."""
    unverified = sum(outcome.unverified for outcome in case.found.attacks)
    claimed = unverified + sum(outcome.broken for outcome in case.found.attacks)
    seen = f"{unverified} of {claimed} claims did not stand up to verification (every evaluated point counts)"
    excused = "votes decide, and near ties come out either way" if case.found.votes > 1 else ""
    return Measurement(unverified / claimed if claimed else 0.0, claimed, seen, excused=excused)


def unavailable(case: Case) -> Measurement:
    """Count examples on which the battery's gradients are zero or not finite (indicator 1 of Pintor et al.)."""
    shares = []
    start = case.threat.random_start(case.x, case.draws("start"))
    for at, ascent in enumerate(case.ascents):
        with case.probing(f"gradients {at}", gradients=ascent.gradients) as probe:
            for points in (case.x, start):
                probe.gradient(points, ascent.loss)
            bad = (probe.zero_gradients + probe.nonfinite_gradients) > 0
            shares.append(float(bad.float().mean()))
    best = min(range(len(shares)), key=shares.__getitem__)
    seen = (
        f"On {round(shares[best] * len(case.x))} of {len(case.x)} examples the gradient is zero, missing or infinite, "
        f"for the best of the battery's ways ({case.ascents[best].label})"
    )
    return Measurement(shares[best], len(case.x), seen)


def misleading(case: Case) -> Measurement:
    """Compare a step along the gradient with one in a random direction of the same length."""
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so two steps cannot be compared")
    if case.threat.targets:
        # In a ball in which targets are reached, a step of eps leads past what is nearest.
        return Measurement(None, 0, "One step to a target says little of the gradient that it took")
    each = (-1, *[1] * (case.x.dim() - 1))
    ball = case.threat
    draws = case.draws("direction")
    aside = draws.sign(*case.x.shape[1:]).to(case.x) if ball.norm == "linf" else draws.normal(*case.x.shape[1:])
    if ball.norm != "linf":
        order = 1.0 if ball.norm == "l1" else 2.0
        aside = aside / torch.linalg.vector_norm(aside.flatten(1), ord=order, dim=1).view(each)
    shares = []
    for at, ascent in enumerate(case.ascents):
        with case.probing(f"direction {at}", gradients=ascent.gradients) as probe:
            ahead = case.threat.steepest_ascent(probe.gradient(case.x, ascent.loss).gradient)
            rises = [
                margin(probe.logits(ball.project(case.x, case.x + ball.eps * way.to(case.x))), case.y)
                for way in (ahead, aside)
            ]
        shares.append(float((rises[0] <= rises[1]).float().mean()))
    best = min(shares)
    few = f"On {round(best * len(case.x))} of {len(case.x)} examples"
    seen = f"{few} a step along the gradient gains no more than a random one"
    return Measurement(best, len(case.x), seen)


def derivative(case: Case) -> Measurement:
    """Compare slopes by the gradient with slopes by evaluations, at images and at points on an attack's way."""
    if not case.climbs_derivative:
        names = ", ".join(sorted({str(ascent.gradients.through) for ascent in case.ascents}))
        return Measurement(None, 0, f"The battery takes only gradients that are meant to be others ({names})")
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so two evaluations make no slope")
    half = (len(case.x) + 1) // 2
    with case.probing("derivative") as probe:
        points = case.x.clone()
        if len(points) > half:
            points[half:] = climbed(probe)[half:]
        for scale in SCALES:
            # In the median over examples, of the worse half of the points.
            agreed, straight = (
                min(float(part.quantile(0.5)) for part in torch.split(each, half))
                for each in agreement(probe, points, case.every_draw, scale)
            )
            limit = min(max(1 - straight, CURVED), DISAGREEMENT)
            if 1 - agreed <= limit or 1 - straight <= CURVED:
                break
    seen = (
        f"On {len(case.x)} examples the slopes by the gradient agree with those of the model to a cosine of "
        f"{agreed:.2f} in the median, where {1 - limit:.2f} is the least that its kinks explain"
    )
    return Measurement(1 - agreed, len(case.x), seen, limit)


def differs_under_gradients(case: Case) -> Measurement:
    """Compare the logits that an attack with gradients sees with those of a plain evaluation."""
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so its two answers cannot be compared")
    with borrowed(case.model) as model:
        plain = case.evaluate(model, case.anyone)
        with torch.enable_grad():
            asked = call_in_batches(model, case.anyone.clone().requires_grad_(), case.batch_size).detach()
        case.spent.forwards += len(case.anyone)
    other = differ(plain, asked)
    seen = f"{int(other.sum())} of {len(case.anyone)} images got other logits while gradients were asked for"
    return Measurement(
        float(other.float().mean()), len(case.anyone), seen,
        excused="the battery takes gradients past the model's own pass" if case.goes_past else "",
    )  # fmt: skip
