"""A classifier tried on a few examples before anything is evaluated."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from robustframe.calls import (
    answer,
    borrowed,
    call,
    call_in_batches,
    grey_hint,
    out_of_memory,
    pad,
    type_of,
)
from robustframe.data import Dataset
from robustframe.errors import InputError, Misbehaved, first_line
from robustframe.lending import noting
from robustframe.models.adapters import adapt
from robustframe.models.classifiers import Classifier
from robustframe.types import Images

_OTHER_ROWS = (24, 16)
"""Rows of a call of another size than the first: for few examples and for many."""
_MOST_ROWS = 512
"""Largest number in a model's error that may be the size of a batch."""
_SIZES = (28, 32, 64, 224)
"""Sides of images that are tried where a model does not take those it is given, and the least one."""
_ROUNDING = 1e-5
"""Of the largest pixel: what two roundings in float32 and a fit through them differ by at most."""


def check_model(classifier: Classifier, data: Dataset, device: torch.device) -> list[str]:
    """Try a classifier on a few examples before anything is evaluated.

    Args:
        classifier: what to try.
        data: the examples it is going to see.
        device: where it lives.

    Returns:
        Flags for the record.

    Raises:
        InputError: when it does not take the images, returns no logits, NaN or probabilities, has too few classes for
            the labels, or prepares its images in place where gradients do not follow.
    """
    with noting() as changes:
        flags = _tried(classifier, data, device)
    return [*flags, *(f"{classifier.entry.name} {change}" for change in changes)]


def _tried(classifier: Classifier, data: Dataset, device: torch.device) -> list[str]:
    name = classifier.entry.name
    few = data.images[:32].to(device)
    with borrowed(classifier.module) as module, torch.no_grad():
        try:
            logits = call_in_batches(module, few, len(few))
            again = call_in_batches(module, few, len(few))
            # Another number of rows than before, as the last batch of a run is.
            call(module, _rows(few, _OTHER_ROWS[len(few) > _OTHER_ROWS[0]]))
        except InputError as error:
            raise InputError(f"{name}: {error}{grey_hint(module, few)}") from error
        except Misbehaved:
            raise
        except Exception as error:
            # The model raises what it likes.
            if out_of_memory(error):
                raise
            reason = first_line(error)
            hint = _batch_hint(module, few, reason) or grey_hint(module, few) or _image_hint(module, few, reason)
            raise InputError(f"{name} fails on images of shape {tuple(few.shape[1:])}: {reason}{hint}") from error
    if not logits.isfinite().all():
        raise InputError(f"{name} returns NaN or infinity on clean images; fix the model first")
    rows = logits.sum(1)
    if bool((logits >= 0).all()) and bool(((rows - 1).abs() < 1e-3).all()):
        raise InputError(f"{name} returns probabilities; return logits, without the final softmax")
    highest = int(data.labels.max())
    if highest >= logits.shape[1]:
        raise InputError(f"{name} has {logits.shape[1]} classes, but the labels go up to {highest}")
    flags = [] if slope_of(classifier.module, few) else [
        f"{name} gives no gradient: its output does not depend on its input differentiably, so that attacks with "
        "gradients search blindly; name what stands in the way in a battery's bpda, and trust attacks without gradients"
    ]  # fmt: skip
    flags += _sigmoid_twice(name, logits)
    if _prepares_unseen(classifier, few):
        flags.append(
            f"{name} prepares its images in place where gradients do not follow; they are right but for a factor that "
            "is the same everywhere; write x = (x - mean) / std or the like"
        )
    if not torch.equal(logits, again):
        flags.append(
            f"{name} answers the same images differently each time; its accuracies are single draws unless a battery "
            "has votes, such as rand"
        )
    if (kind := type_of(classifier.module)) not in (None, few.dtype):
        flags.append(
            f"{name} has weights of {str(kind).removeprefix('torch.')}: images that it does not take in float32 are "
            "cast to that, and its logits back"
        )
    if classifier.entry.use.startswith(("torchvision:", "timm:")) and classifier.entry.weights_sha256 is None:
        flags.append(f"{name} has random weights; name a file of weights in the recipe")
    return flags


def _rows(images: Tensor, count: int) -> Tensor:
    """Repeat images until there are so many."""
    return images[torch.arange(count, device=images.device) % len(images)]


def _sigmoid_twice(name: str, logits: Tensor) -> list[str]:
    # Only `adapt` gives a column of zeros, beside the number that is said to come before a sigmoid.
    if logits.shape[1] != 2 or logits[:, 0].any() or not bool(((logits >= 0) & (logits <= 1)).all()):
        return []
    return [
        f"{name} returns numbers in [0, 1] alone, as after a sigmoid, and sigmoid asks for what comes before it; leave "
        "the model's own out"
    ]


def _batch_hint(module: nn.Module, few: Images, reason: str) -> str:
    """Say that a model takes one number of images only, where it does: tried are the numbers in its error."""
    for count in sorted({1, *map(int, re.findall(r"\d{1,3}", reason))}):
        if not 1 <= count <= _MOST_ROWS:
            continue
        try:
            call(module, _rows(few, count))
        # The model raises what it likes; what it said first is reported.
        except Exception:  # noqa: BLE001
            continue
        exported = any(isinstance(each, torch.fx.GraphModule) for each in module.modules())
        cure = (
            "export it with dynamic_shapes=({0: torch.export.Dim.AUTO},)"
            if exported
            else "write x.view(len(x), -1) or the like where the size of a batch stands"
        )
        return f"; it takes {count} image{'s' if count > 1 else ''} at a time and no other number, so {cure}"
    return ""


def _image_hint(module: nn.Module, few: Images, reason: str) -> str:
    """Say that a model takes images of another size or order, where it does: tried are the numbers in its error.

    Grey images are tried in three channels as well.
    """
    sizes = [size for size in sorted({*map(int, re.findall(r"\d{1,3}", reason)), *_SIZES}) if size >= _SIZES[0]]
    scaled: list[dict[str, Any]] = [{"resize": (size, size)} for size in sizes]
    grey = few.dim() == 4 and few.shape[1] == 1
    for way in ({"channels_last": True}, *scaled, *({"channels": 3, **each} for each in scaled if grey)):
        try:
            call(adapt(module, **way), few[:2])
        except Exception:  # noqa: BLE001  as above
            continue
        said = ", ".join(f"{key}={value}" for key, value in way.items())
        return f"; it takes them after robustframe.adapt(model, {said})"
    return ""


def slope_of(module: nn.Module, images: Tensor) -> bool:
    """Say whether the logits of some images can be differentiated, whatever the gradient is.

    Raises:
        InputError: when the model's own backward pass fails.
    """
    with borrowed(module) as model, torch.enable_grad():
        leaf = images.clone().requires_grad_()
        total = call_in_batches(model, leaf, len(leaf)).sum()
        if not total.requires_grad:
            return False
        try:
            (slope,) = torch.autograd.grad(total, leaf, allow_unused=True)
        except RuntimeError as error:
            reason = first_line(error)
            raise InputError(f"the model's backward pass fails: {reason}; detach or replace the step") from error
    return slope is not None


def _prepares_unseen(classifier: Classifier, images: Images) -> bool:
    """Say whether a model changes its images in place, unseen by gradients: by a factor and an offset at most.

    Raises:
        InputError: when gradients leave out more than that.
    """
    with borrowed(classifier.module) as model, torch.enable_grad():
        lent_images = pad(images.clone().requires_grad_())
        before, step = lent_images.detach().clone(), lent_images.grad_fn
        answer(model, lent_images)
    after = lent_images.detach()
    if lent_images.grad_fn is not step or torch.equal(before, after):
        return False
    x, prepared = before.double().flatten(), after.double().flatten()
    x, middle = x - x.mean(), prepared - prepared.mean()
    factor = float(x @ middle / (x @ x).clamp_min(1e-12))
    if factor <= 0 or float((middle - factor * x).abs().max()) > _ROUNDING * float(prepared.abs().max()):
        raise InputError(
            f"{classifier.entry.name} prepares its images in place where gradients do not follow (through .data, "
            "detach() or no_grad()), so attacks would search past it; write x = (x - mean) / std or the like"
        )
    return True
