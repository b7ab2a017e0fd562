"""All checks on one classifier under one threat, within a tenth of what the battery cost."""

import logging
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustframe.calls import out_of_memory
from robustframe.diagnose.case import BatteryFindings, Case, Replays
from robustframe.diagnose.check import Check, Diagnosis
from robustframe.diagnose.question import POINTS, Measurement, Question
from robustframe.diagnose.table import QUESTIONS
from robustframe.draws import Draws
from robustframe.errors import first_line
from robustframe.pairs import Twin
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels

log = logging.getLogger("robustframe")

SHARE = 0.1
"""Passes that all checks together may cost, over those of the battery."""
LEAST, MOST = 12, 64
"""Examples in the sample: with fewer, one more or less would be a verdict; more tell little more."""
REPLAYED = 0.15
"""Share of that budget for stored images of other classifiers."""


def diagnose(
    model: nn.Module,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    found: BatteryFindings,
    *,
    key: tuple[object, ...],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Diagnosis:
    """Ask every question about one classifier under one threat; no verdict is changed by the answers.

    Args:
        model: maps images to logits; comes back exactly as it was.
        images: all clean images of the evaluation, shape (n, ...).
        labels: shape (n,).
        threat: the ball and the box.
        found: what the battery found.
        key: what the random numbers are derived from, such as the seed and the threat.
        batch_size: rows of one model call at most; changes no answer.
        device: where the model is.

    Returns:
        The checks, the verdict that follows, and what they cost: at most a tenth of the battery's passes.
    """
    budget = int(SHARE * found.passes)
    replayed = int(REPLAYED * budget) // found.votes
    found = replace(found, others=_first(found.others, replayed))
    budget -= 0 if found.others is None else len(found.others.images) * found.votes
    order, anyone = rank(found, key), rank(replace(found, robust=found.correct), key)

    def case(count: int) -> Case:
        chosen, others = order[:count], anyone[:count]
        return Case(
            model, threat, replace(found, own=_first(found.own, count)),
            images[chosen].to(device), labels[chosen].to(device), chosen,
            int(found.robust[chosen].sum()), images[others].to(device), labels[others].to(device), key, batch_size,
        )  # fmt: skip

    if not len(order):
        return Diagnosis.of([], examples=0, forwards=0, backwards=0)
    count, asked = plan(case(min(MOST, len(order))), budget)
    row = case(count)
    checks = [_ask(question, row, asked) for question in QUESTIONS if _concerns(question, row)]
    return Diagnosis.of(checks, examples=count, forwards=row.forwards, backwards=row.backwards)


def rank(found: BatteryFindings, key: tuple[object, ...]) -> Tensor:
    """Return the examples in the order in which they enter the sample: survivors first, at random among themselves."""
    numbers = Draws((*key, "sample"), len(found.correct)).uniform()
    numbers = numbers + (~found.robust).float() + 2 * (~found.correct).float()
    return numbers.argsort(stable=True)[: int(found.correct.sum())]


def plan(case: Case, budget: int) -> tuple[int, set[str]]:
    """Choose the size of the sample, and the questions that a budget pays for.

    Args:
        case: the row, with as many examples as there may be.
        budget: passes.

    Returns:
        How many examples, and the names of the questions: all that matter where possible, else without the dearest.
    """
    costs = {
        question: question.cost(case) for question in QUESTIONS if _concerns(question, case) and _open(question, case)
    }
    most = len(case.x)
    while True:
        whole = sum(cost for question, cost in costs.items() if question.looks_at != "survivors")
        partial = sum(cost for question, cost in costs.items() if question.looks_at == "survivors")
        count = most
        while count > 1 and count * whole + min(count, case.survivors) * partial > budget:
            count -= 1
        # Whole sixteens, so that no row of a padded model call is paid for that is no example.
        count -= count % 16 if count > 16 and count < most else 0
        if count >= min(LEAST, most) or not any(costs.values()):
            return count, {question.name for question in costs}
        del costs[max(costs, key=costs.__getitem__)]


def _concerns(question: Question, case: Case) -> bool:
    solves = isinstance(case.model, Twin) and case.model.solver.sweeps > 1
    return case.threat.norm in question.norms and (question.looks_at != "solver" or solves)


def _open(question: Question, case: Case) -> bool:
    """Say whether a question can come out badly at all: what is next to nothing cannot be much too high."""
    accuracy = case.found.robust_accuracy
    if question.looks_at in ("survivors", "gradients") and accuracy <= POINTS:
        return False
    return not question.in_points or accuracy > question.threshold


def _ask(question: Question, case: Case, asked: set[str]) -> Check:
    case.breaks = set()
    if not _open(question, case):
        accuracy = f"robust accuracy is {100 * case.found.robust_accuracy:.1f} %"
        return _answer(question, Measurement(None, 0, f"{accuracy}, so there is nothing at stake"), case)
    if question.name not in asked:
        return _unknown(question, "not run, as a tenth of the battery does not pay for it: evaluate more examples")
    try:
        finding = question.measure(case)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if out_of_memory(error):
            # Says nothing about the model: it is asked again with smaller batches.
            raise
        reason = first_line(error)
        log.warning("the check %s failed: %s", question.name, reason)
        return _unknown(question, f"not run, as the model failed it: {reason}")
    case.fallen |= case.breaks
    return _answer(question, finding, case)


def _answer(question: Question, finding: Measurement, case: Case) -> Check:
    figure = None if finding.figure is None else float(f"{finding.figure:.4g}")
    threshold = float(f"{question.threshold if finding.threshold is None else finding.threshold:.4g}")
    above = figure is not None and figure > threshold
    sentence = finding.seen
    if above:
        sentence += f"; {'no doubt, as ' + finding.excused if finding.excused else question.remedy}"
    return Check(
        name=question.name,
        figure=figure,
        threshold=threshold,
        passed=not above or bool(finding.excused),
        examples=finding.examples,
        sentence=f"{sentence}.",
        broken=sorted(case.breaks),
    )


def _unknown(question: Question, sentence: str) -> Check:
    return Check(
        name=question.name, figure=None, threshold=question.threshold, passed=None, examples=0, sentence=f"{sentence}."
    )  # fmt: skip


def _first(replays: Replays | None, count: int) -> Replays | None:
    """Return the first so many images, or ``None`` where that is none."""
    if replays is None or not min(count, len(replays.images)):
        return None
    return Replays(*(part[:count] for part in (replays.images, replays.clean, replays.labels, replays.index)))
