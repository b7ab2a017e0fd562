"""Checks on gradients: are there any, are they those of the classifier that is judged, and do they lead anywhere."""

import torch
from torch import Tensor

from robustframe.calls import borrowed, call_in_batches
from robustframe.diagnose.case import Case, differ
from robustframe.diagnose.question import Measurement
from robustframe.differences import random_direction
from robustframe.losses import margin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Images


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


CLIMB = 4
"""Steps of half the radius to the points on an attack's way."""
DIRECTIONS = 4
"""Smooth ones and rough ones, of each as many, at both scales."""
SCALES = (1 / 255, 8 / 255)
"""Mean distance of a point from the image, over the width of the box: so small that a net with kinks is still nearly
straight, and then so large that images or codes that are rounded, with an honest gradient straight through, move."""
CURVED, DISAGREEMENT = 0.12, 0.35
"""One minus the cosine between slopes by the gradient and by evaluations that is allowed: the first where the model is
straight at that scale, up to the second as far as it is not."""
_LONGEST = 2
"""Largest change of a pixel over the mean one."""
GRAINS = (4, 1)
"""Pixels that change alike in a smooth and in a rough direction."""


def derivative(case: Case) -> Measurement:
    """Compare slopes by the gradient with slopes by evaluations, at images and at points on an attack's way."""
    if not case.climbs_derivative:
        names = ", ".join(sorted({str(ascent.gradients.through) for ascent in case.ascents}))
        return Measurement(None, 0, f"The battery takes only gradients that are meant to be others ({names})")
    if case.random:
        return Measurement(None, 0, "The model draws random numbers, so two evaluations make no slope")
    half, ball = (len(case.x) + 1) // 2, case.threat
    with case.probing("derivative") as probe:
        start = case.x.clone()
        if ball.norm != "l0" and len(start) > half:
            start[half:] = _climbed(probe, ball, case.x)[half:]
        for scale in SCALES:
            agreement, straight = _slopes(case, probe, start, scale)
            allowed = min(max(1 - straight, CURVED), DISAGREEMENT)
            if 1 - agreement <= allowed or 1 - straight <= CURVED:
                break
    seen = (
        f"On {len(case.x)} examples the slopes by the gradient agree with those of the model to a cosine of "
        f"{agreement:.2f} in the median, where {1 - allowed:.2f} is the least that its kinks explain"
    )
    return Measurement(1 - agreement, len(case.x), seen, allowed)


def _climbed(probe: Probe, ball: ThreatModel, x: Images) -> Images:
    """Go as far as an attack gets in a few steps: near the boundary, where gradients may be masked that are not
    elsewhere."""
    points = x
    for _ in range(CLIMB):
        points = ball.project(x, points + ball.eps / 2 * ball.steepest_ascent(probe.gradient(points, margin).gradient))
    return points


def _slopes(case: Case, probe: Probe, start: Images, scale: float) -> tuple[float, float]:
    """Return two cosines, the median over examples of each in the worse kind of direction and the worse half of the
    points: between slopes by the gradient and by evaluations, and between those ahead and those behind, which are equal
    where the model is straight.
    """
    low, high = case.threat.low, case.threat.high
    length = scale * (high - low)
    # Off the faces of the box, so that both ends of every direction lie in it.
    start = start.clamp(low + _LONGEST * length, high - _LONGEST * length)
    seen = probe.gradient(start, margin)
    gradient, here = seen.gradient, probe.height(seen.logits)
    agreement, straight = [], []
    for grain in GRAINS:
        draws = case.draws(f"slopes {scale:.4f} {grain}")
        told, ahead, behind = [], [], []
        for _ in range(DIRECTIONS):
            way = random_direction(start.shape[1:], draws, grain=grain).clamp(-_LONGEST, _LONGEST).to(start) * length
            told.append(2 * (gradient * way).flatten(1).sum(1))
            ahead.append(probe.height(probe.logits(start + way)) - here)
            behind.append(here - probe.height(probe.logits(start - way)))
        slopes, first, second = (
            torch.stack(part, 1).double().nan_to_num(0.0, 0.0, 0.0) for part in (told, ahead, behind)
        )
        agreement.append(_cosine(slopes, first + second))
        straight.append(_cosine(first, second))
    half = (len(start) + 1) // 2
    return tuple(  # type: ignore[return-value]
        min(float(part.quantile(0.5)) for part in torch.split(torch.stack(each).amin(0), half))
        for each in (agreement, straight)
    )


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each row; 1 where both are zero, 0 where one is."""
    flat = (first == 0).all(1) & (second == 0).all(1)
    return torch.where(flat, 1.0, torch.cosine_similarity(first, second, dim=1, eps=1e-300))


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
