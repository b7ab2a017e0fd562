"""What a targeted attack is after: for each example one class other than its own, chosen by a rule."""

import hashlib
import re

import torch
from torch import Tensor

from robustframe.errors import InputError, unknown
from robustframe.losses import margin
from robustframe.types import Images, Labels, Logits, PerExample, Verdicts

EVERY = "all"
"""Stands for one threat for each of the other classes."""
_RULES = ("next", "least-likely", "random", EVERY)
_OFFSET = re.compile(r"\+([1-9][0-9]{0,3})")
_SEEDED = re.compile(r"random(?:-([0-9]{1,9}))?")


def parse_targets(text: str) -> str:
    """Read a rule for targets, in the spelling that is kept.

    Args:
        text: ``next``, the class after the label and 0 after the last; ``+3``, the third after it; ``least-likely``,
            the wrong class with the smallest logit on the clean image; ``random``, drawn by the pixels of the image, or
            ``random-7`` with another seed; ``all``, one after the other.

    Returns:
        The rule; ``next`` for ``+1``, ``random`` for ``random-0``.

    Raises:
        InputError: for anything else.
    """
    spelled = {"+1": "next", "random-0": "random"}.get(text, text)
    if spelled not in _RULES and _OFFSET.fullmatch(spelled) is None and _SEEDED.fullmatch(spelled) is None:
        raise unknown("rule for targets", text, (*_RULES, "+2", "random-1"))
    return spelled


def choose_targets(rule: str, x: Images, labels: Labels, logits: Logits) -> Labels:
    """Choose the target of each example.

    Args:
        rule: as `parse_targets` returns it; not ``all``, which is several.
        x: clean images, shape (n, ...); only ``random`` looks at them.
        labels: true classes, shape (n,).
        logits: of the clean images, shape (n, classes); only ``least-likely`` looks at their values.

    Returns:
        Classes other than the labels, shape (n,). They do not depend on which other examples there are, nor, but for
        ``least-likely``, on the model.

    Raises:
        InputError: for an offset that comes back to the label, and for ``all``.
    """
    classes = logits.shape[1]
    if rule == EVERY:
        raise InputError("targets 'all' stand for one threat for each of the other classes; name one, such as 'next'")
    if rule == "least-likely":
        return logits.nan_to_num(torch.inf).scatter(1, labels.unsqueeze(1), torch.inf).argmin(1)
    if rule == "next":
        return (labels + 1) % classes
    if (offset := _OFFSET.fullmatch(rule)) is not None:
        check_offset(rule, classes)
        return (labels + int(offset[1])) % classes
    steps_of = torch.tensor([1 + _number(rule, image) % (classes - 1) for image in x], dtype=labels.dtype)
    return (labels + steps_of.to(labels.device)) % classes


def check_offset(rule: str, classes: int) -> None:
    """Refuse an offset that comes back to the label.

    Raises:
        InputError: with the largest one that there is.
    """
    offset = _OFFSET.fullmatch(rule)
    if offset is not None and int(offset[1]) >= classes:
        raise InputError(f"target '{rule}' is more than a way round {classes} classes; at most '+{classes - 1}'")


def each_target(classes: int) -> list[str]:
    """Return the rules that ``all`` stands for, together every class but the label."""
    return [parse_targets(f"+{steps}") for steps in range(1, classes)]


def rank_targets(logits: Logits, labels: Labels, count: int) -> Tensor:
    """Return the wrong classes with the largest logits, best first.

    Args:
        logits: shape (n, classes).
        labels: true classes, shape (n,).
        count: how many targets are wanted at most.

    Returns:
        Class indices, shape (n, min(count, classes - 1)).
    """
    wrong = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return wrong.argsort(dim=1, descending=True, stable=True)[:, : min(count, logits.shape[1] - 1)]


def best_other(logits: Logits, targets: Labels) -> Labels:
    """Return the class with the largest logit among those that are not the target, shape (n,)."""
    return logits.scatter(1, targets.unsqueeze(1), -torch.inf).argmax(1)


def reached(prediction: Labels, labels: Labels, targets: Labels | None) -> Verdicts:
    """Say which predictions are what is sought: their targets, or any wrong class where there are none, shape (n,)."""
    return prediction != labels if targets is None else prediction == targets


def height(logits: Logits, labels: Labels, targets: Labels | None) -> PerExample:
    """Measure how near logits are to what is sought: above 0 exactly where it is reached (ties aside), shape (n,).

    Without targets this is `robustframe.losses.margin`; with them the target's logit minus the largest other.
    """
    return margin(logits, labels) if targets is None else -margin(logits, targets)


def check_targets(targets: Tensor, labels: Labels) -> Labels:
    """Refuse targets that are given and cannot be any.

    Raises:
        InputError: for another shape, a negative class, or a target that is the example's own label.
    """
    if targets.shape != labels.shape or targets.is_floating_point() or targets.dtype == torch.bool:
        raise InputError(
            f"targets must be {len(labels)} class numbers, one for each example, not {targets.dtype} of shape "
            f"{tuple(targets.shape)}"
        )
    if bool((own := targets.to(labels.device) == labels).any()):
        row = int(own.nonzero()[0])
        raise InputError(f"the target of example {row} is its own label, {int(labels[row])}; choose another class")
    if bool((targets < 0).any()):
        raise InputError(f"the target {int(targets.min())} is no class; classes are numbered from 0")
    return targets.to(labels)


def _number(rule: str, image: Tensor) -> int:
    """A number that belongs to an image, whichever others there are."""
    content = image.detach().cpu().float().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(rule.encode() + b"\n" + content).digest()[:8], "big")
