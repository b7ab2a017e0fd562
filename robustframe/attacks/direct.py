"""Attacks on a batch, without a run on disk."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from robustframe.attacks.parts import divide
from robustframe.attacks.registry import AnyAttack, as_attack
from robustframe.calls import (
    DEFAULT_BATCH,
    borrowed,
    call_in_batches,
    device_of,
    grey_hint,
    out_of_memory,
    predict,
    require_differentiable,
)
from robustframe.data import as_dataset
from robustframe.draws import Draws
from robustframe.errors import InputError, Misbehaved, first_line, whole_number
from robustframe.lending import kept
from robustframe.targets import check_targets
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Logits, PerExample, Verdicts

log = logging.getLogger("robustframe")


@dataclass(frozen=True)
class Attacked:
    """What attacks made of a batch; every success was confirmed by the model as it is, inside ball and box."""

    images: Images
    """For each example the image that the model misclassifies, or the most promising one found; shape (n, ...)."""
    success: Verdicts
    """Examples that the model gets wrong there, with targets: takes for their target, shape (n,); those that it gets
    wrong on the clean image are among them, at distance 0."""
    distance: PerExample
    """From the clean image, in the norm of the threat; float64, shape (n,)."""
    prediction: Labels
    """The class of each of these images, shape (n,)."""
    clean_correct: Verdicts
    """Examples that are right without an attack, shape (n,)."""
    passes: Labels
    """Forwards and backwards that each example cost, shape (n,)."""

    @property
    def robust_accuracy(self) -> float:
        """Share of the examples that are right and withstood every attack, in [0, 1]."""
        return int((~self.success).sum()) / len(self.success)


@kept()
def attack(
    model: nn.Module,
    x: Any,
    y: Any = None,
    attack: AnyAttack | Sequence[AnyAttack] = "apgd-ce",
    threat: str | ThreatModel = "linf:8/255",
    *,
    targets: Any = None,
    mask: Any = None,
    eps: Any = None,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
) -> Attacked:
    """Attack a batch: one attack, or several of which each meets what those before it left.

    Args:
        model: maps images in [0, 1] to logits; attacked on the device it is on, and given back as it was.
        x: images in [0, 1], or bytes, shape (n, ...): a tensor or an array; or a dataset, a loader or a batch such as
            ``{"pixel_values": ..., "labels": ...}``, as `robustframe.evaluate` takes them.
        y: class numbers, shape (n,) or (n, 1); left out where ``x`` has them.
        attack: a name such as ``"pgd"``, ``"apgd-ce"``, ``"square"`` or ``"torchattacks:PGD"``; one with settings as in
            a battery, ``{"use": "pgd", "steps": 40}``; an `Attack`; or several.
        threat: such as ``"linf:8/255"``, ``"l2:0.5"``, or a `ThreatModel`; with a rule for targets, ``"linf:8/255 to
            least-likely"``, an attack succeeds where the model takes an image for its target (see
            `robustframe.targets.parse_targets`).
        targets: these targets themselves in place of a rule: class numbers, shape (n,).
        mask: true where a value may change: of the shape of one image, or of all, (n, ...); its last axes will do.
        eps: radii in place of the threat's: one for each example, shape (n,); in linf also one for each value, of the
            shape of one image or of all, where axes of length 1 stand for any, such as (3, 1, 1) for channels.
        seed: of all random numbers.
        batch_size: rows of one model call at most; it changes no outcome.

    Returns:
        Adversarial images, which succeeded, and how far they are.

    Raises:
        InputError: for an attack, setting or threat that is unknown or does not fit, images outside [0, 1] (or the box
            of a `ThreatModel` that has another), labels or targets out of range, a mask or eps of another shape, or a
            ball that holds every image.
    """
    require_differentiable(model)
    if not isinstance(threat, str | ThreatModel):
        raise InputError(f"the threat is {type(threat).__name__}; give one, such as 'linf:8/255'")
    ball = threat if isinstance(threat, ThreatModel) else ThreatModel.parse(threat)
    data = as_dataset(x, y, box=(float(ball.low), float(ball.high)))
    whole_number(seed, "seed", least=0)
    whole_number(batch_size, "batch size", least=1)
    several: list[Any] = list(attack) if isinstance(attack, list | tuple) else [attack]
    attacks = [as_attack(each) for each in several]
    if not attacks:
        raise InputError("no attack is given; say which, such as 'apgd-ce'")
    for each in attacks:
        reason = each.why_not(model)
        if reason is not None:
            raise InputError(reason)
    device = device_of(model)
    images, labels = data.images.to(device), data.labels.to(device)
    aims = None if targets is None else _as_targets(targets, labels)
    parts = divide(ball, images, mask, eps)
    for part in parts:
        part.threat.check_shape(tuple(images.shape[1:]))
    logits = _answers(model, images, batch_size)
    for what, given in (("labels", labels), ("targets", labels if aims is None else aims)):
        if (highest := int(given.max())) >= logits.shape[1]:
            raise InputError(f"the model has {logits.shape[1]} classes, but the {what} go up to {highest}")
    prediction = predict(logits)
    correct = prediction == labels
    found, success = images.clone(), ~correct
    distance = torch.zeros(len(images), dtype=torch.float64, device=device)
    passes = torch.ones_like(labels)
    for place, each, part in ((place, each, part) for place, each in enumerate(attacks) for part in parts):
        standing = (~success[part.rows]).nonzero().squeeze(1)
        rows = part.rows[standing]
        if not len(rows):
            continue
        draws = Draws((seed, ball.label, place, type(each).__name__), len(images), rows=rows, device=device)
        result = each.run(
            model, images[rows], labels[rows], part.threat.of(standing), draws,
            batch_size=batch_size, known_correct=True, targets=None if aims is None else aims[rows],
            gallery=(images, labels),
        )  # fmt: skip
        found[rows], success[rows], prediction[rows] = result.adversarial, result.success, result.prediction
        distance[rows] = result.distance
        passes[rows] += result.forwards + result.backwards
        if bool(result.backwards.any()) and torch.equal(result.zero_gradients, result.backwards):
            log.warning(
                "the model gave %s zeros for all gradients, so what withstood it says little; 'square' needs none",
                type(each).__name__,
            )
    return Attacked(found, success, distance, prediction, correct, passes)


def _as_targets(given: Any, labels: Labels) -> Labels:
    try:
        return check_targets(torch.as_tensor(given), labels)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"targets is {type(given).__name__}; give a class number for each example") from error


def _answers(model: nn.Module, images: Images, batch_size: int) -> Logits:
    with borrowed(model) as lent, torch.no_grad():
        try:
            return call_in_batches(lent, images, batch_size)
        except InputError as error:
            raise InputError(f"{error}{grey_hint(lent, images)}") from error
        except Misbehaved:
            raise
        except Exception as error:
            # The model raises what it likes.
            if out_of_memory(error):
                raise
            hint = grey_hint(lent, images) or "; robustframe.adapt makes it take others"
            raise InputError(
                f"the model fails on images of shape {tuple(images.shape[1:])}: {first_line(error)}{hint}"
            ) from error
