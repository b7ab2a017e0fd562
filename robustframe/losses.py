"""Per-example losses of an attack: higher means nearer to misclassification."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from robustframe.types import Labels, Logits, PerExample

Loss = Callable[[Logits, Labels], PerExample]

_TINY = 1e-12
"""AutoAttack's guard in the denominator of both DLR losses."""
_TOP = 8.0
"""Largest scaled logit above their mean; of 3 to 15 it left the fewest standing on robust pairs of the zoo."""


def cross_entropy(logits: Logits, labels: Labels) -> PerExample:
    """Return the cross-entropy of each example, at least 0."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerExample:
    """Return the best wrong logit minus the true one: above 0 exactly when misclassified (ties aside).

    Source: Carlini and Wagner, 2017, arXiv:1608.04644, loss f6 without its confidence.
    """
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return best_wrong(logits, labels) - true


def probability_margin(logits: Logits, labels: Labels) -> PerExample:
    """Return the `margin` of probabilities: the largest of a wrong class minus that of the label, in [-1, 1].

    It is steep near the boundary and flat where the model is sure, so that an attack that follows it comes to other
    points than one that follows logits. Unlike in the paper it does not change with the scale of logits: they are
    multiplied until the largest lies 8 above their mean, as by a constant. With two classes it falls back to `margin`.

    Source: the probability margin attack, 2024, arXiv:2411.15210.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.amax(1, keepdim=True) - logits.mean(1, keepdim=True)
    return margin((logits * (_TOP / top.detach().clamp_min(_TINY))).softmax(1), labels)


def best_wrong(logits: Logits, labels: Labels) -> PerExample:
    """Return the largest logit among the classes other than the label."""
    return logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)


def dlr(logits: Logits, labels: Labels) -> PerExample:
    """Return the difference-of-logits ratio (Croce and Hein, 2020, arXiv:2003.01690, eq. 6).

    It needs the third largest logit; with two classes it falls back to `margin`.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    ordered = logits.sort(dim=1, descending=True).values
    return margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + _TINY)


def targeted_margin(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Return the logit of a target minus the true one: zero on the boundary between the two classes."""
    chosen = logits.gather(1, torch.stack([targets, labels], 1))
    return chosen[:, 0] - chosen[:, 1]


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerExample:
    """Return the targeted difference-of-logits ratio (Croce and Hein, 2020, arXiv:2003.01690, eq. 7).

    It needs the fourth largest logit; with fewer classes it falls back to the plain difference target - true.
    """
    true = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    gain = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - true
    if logits.shape[1] < 4:
        return gain
    ordered = logits.sort(dim=1, descending=True).values
    return gain / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + _TINY)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "probability_margin": probability_margin,
    "dlr": dlr,
}
"""The untargeted losses, by the name a battery gives them."""


def find_loss(loss: str | Loss) -> Loss:
    """Return the loss of a name, or the user's function as it is."""
    return LOSSES[loss] if isinstance(loss, str) else loss
