"""All checks on one classifier under one threat, within a tenth of what the battery cost."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustframe.calls import out_of_memory
from robustframe.diagnose.case import BatteryFindings, Case, first_of
from robustframe.diagnose.check import Check, Diagnosis
from robustframe.diagnose.question import Measurement, Question
from robustframe.diagnose.table import QUESTIONS
from robustframe.draws import Draws
from robustframe.errors import first_line
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels

log = logging.getLogger("robustframe")

SHARE = 0.1
"""Passes that all checks together may cost, over those of the battery."""
MOST = 64
"""Examples in the sample: more tell little more."""
AT_STAKE = 0.05
"""Robust accuracy below which none can be much too high."""
REPLAYED = 0.15
"""Share of the budget for stored images of other classifiers."""


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
    found = replace(found, others=first_of(found.others, replayed))
    budget -= 0 if found.others is None else len(found.others.images) * found.votes
    order, anyone = rank(found, key), rank(replace(found, robust=found.correct), key)

    if not len(order):
        return Diagnosis.of([], examples=0, forwards=0, backwards=0)
    chosen, others = order[:MOST], anyone[:MOST]
    case = Case(
        model, threat, replace(found, own=first_of(found.own, MOST)),
        images[chosen].to(device), labels[chosen].to(device), chosen,
        int(found.robust[chosen].sum()), images[others].to(device), labels[others].to(device), key, batch_size,
    )  # fmt: skip
    counts = plan(case, budget)
    checks = [_ask(question, case, counts, budget) for question in QUESTIONS if _concerns(question, case)]
    return Diagnosis.of(
        checks, examples=max(counts.values(), default=0) or len(chosen),
        forwards=case.spent.forwards, backwards=case.spent.backwards,
    )  # fmt: skip


def rank(found: BatteryFindings, key: tuple[object, ...]) -> Tensor:
    """Return the examples in the order in which they enter the sample: survivors first, at random among themselves."""
    numbers = Draws((*key, "sample"), len(found.correct)).uniform()
    numbers = numbers + (~found.robust).float() + 2 * (~found.correct).float()
    return numbers.argsort(stable=True)[: int(found.correct.sum())]


def plan(case: Case, budget: int) -> dict[str, int]:
    """Choose how many examples each question is asked about.

    First all that decide get the least that says something, in the order of the table, then the others; what is left
    makes all samples larger.

    Args:
        case: the row, with as many examples as there may be.
        budget: passes.

    Returns:
        Examples by the name of the question; those that are not paid for are missing.
    """
    asked = [question for question in QUESTIONS if _concerns(question, case) and _open(question, case)]
    chosen: dict[str, int] = {}
    spent = 0
    for question in sorted(asked, key=lambda question: not question.decides):
        count = _at_most(question, case, question.least)
        cost = question.cost(case, count)
        if spent + cost <= budget:
            chosen[question.name] = count
            spent += cost
    paid = [question for question in asked if question.name in chosen]

    def larger(count: int) -> dict[str, int]:
        return {
            question.name: max(chosen[question.name], _share(question, case, _at_most(question, case, count), budget))
            for question in paid
        }

    for count in (MOST, *range(48, 16, -16), *range(16, 0, -1)):
        counts = larger(count)
        if sum(question.cost(case, counts[question.name]) for question in paid) <= budget:
            return counts
    return chosen


def _at_most(question: Question, case: Case, count: int) -> int:
    there = case.survivors if question.looks_at == "survivors" else len(case.x)
    return min(count, question.most, there)


def _share(question: Question, case: Case, count: int, budget: int) -> int:
    """Return so many examples, or fewer where these would take more than the question's share of the budget."""
    while count > 0 and question.cost(case, count) > question.share * budget:
        count -= 1
    return count


def _concerns(question: Question, case: Case) -> bool:
    return case.threat.norm in question.norms and (question.looks_at != "solver" or case.solves)


def _open(question: Question, case: Case) -> bool:
    """Say whether a question can come out badly at all: what is next to nothing cannot be much too high."""
    accuracy = case.found.robust_accuracy
    if question.looks_at in ("survivors", "gradients") and accuracy <= AT_STAKE:
        return False
    return not question.in_points or accuracy > question.threshold


def _ask(question: Question, case: Case, counts: Mapping[str, int], budget: int) -> Check:
    case.spent.breaks = set()
    if not _open(question, case):
        accuracy = f"robust accuracy is {100 * case.found.robust_accuracy:.1f} %"
        return _answer(question, Measurement(None, 0, f"{accuracy}, so there is nothing at stake"), case)
    if question.name not in counts:
        return _unknown(question, _unpaid(question, case, budget), decides=question.decides)
    part = case.first(counts[question.name])
    try:
        finding = question.measure(part)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if out_of_memory(error):
            # Says nothing about the model: it is asked again with smaller batches.
            raise
        reason = first_line(error)
        log.warning("the check %s failed: %s", question.name, reason)
        return _unknown(question, f"not run, as the model failed it: {reason}", decides=True)
    if finding.undecided:
        return _unknown(question, f"not run, as {finding.seen}", decides=True)
    case.spent.fallen |= case.spent.breaks
    return _answer(question, finding, case)


def _unpaid(question: Question, case: Case, budget: int) -> str:
    """Say what a check would take that the budget does not pay for."""
    if not question.decides:
        return "not run, as the passes went to the checks that decide"
    needed = sum(
        each.cost(case, _at_most(each, case, each.least))
        for each in QUESTIONS
        if each.decides and _concerns(each, case) and _open(each, case)
    )
    examples = len(case.found.robust)
    enough = -(-examples * needed // max(budget, 1)) if budget else 0
    more = f"evaluate about {enough:,} examples" if examples < enough <= 100 * examples else "evaluate more examples"
    return f"not run, as a tenth of the battery's passes ({budget:,}) is too few: {more}, or with standard@1"


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
        broken=sorted(case.spent.breaks),
        decides=question.decides,
    )


def _unknown(question: Question, sentence: str, *, decides: bool) -> Check:
    return Check(
        name=question.name, figure=None, threshold=question.threshold, passed=None, examples=0,
        sentence=f"{sentence}.", decides=decides,
    )  # fmt: skip
