"""What the frame of a classifier says, for classifiers that were never built as frames."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from robustframe.errors import InputError, told
from robustframe.frames import mutual_coherence
from robustframe.frames.reframe import frame_of
from robustframe.frames.trace import copied, trace
from robustframe.lending import contained, lent
from robustframe.models.classifiers import Classifier
from robustframe.pairs import Pair, Twin, Untied

_PARAMETERS, _NUMBERS = 30_000_000, 3 * 64 * 64
"""Of larger models and images the coherence takes more than some seconds, and `robustframe frame` measures it."""


def with_frames(classifiers: Sequence[Classifier], shape: tuple[int, ...]) -> list[Classifier]:
    """State the coherence of every classifier that is a sweep of a frame, and of others why they are none.

    Args:
        classifiers: loaded; twins of pairs state theirs already.
        shape: shape of one image.
    """
    return [_with_frame(each, shape) for each in classifiers]


def _with_frame(classifier: Classifier, shape: tuple[int, ...]) -> Classifier:
    entry = classifier.entry
    if entry.twin is not None or entry.mutual_coherence is not None:
        return classifier
    found, why = _measured(classifier.module, shape)
    # Where objects lie in memory differs from run to run, and a record is compared with what is found again.
    return classifier.stating(mutual_coherence=found, no_frame=why and re.sub("0x[0-9a-f]+", "0x...", why))


@torch.no_grad()
def _measured(module: nn.Module, shape: tuple[int, ...]) -> tuple[float | None, str | None]:
    """The coherence of a model's frame, or why there is none."""
    if isinstance(module, Pair | Twin | Untied):
        return None, None
    if sum(each.numel() for each in module.parameters()) > _PARAMETERS or torch.Size(shape).numel() > _NUMBERS:
        return None, "not measured: it is large; `robustframe frame` measures it"
    try:
        with lent(), contained():
            traced = trace(copied(module).eval(), shape)
        if traced.out is None:
            first = traced.unread[0]
            return None, f"no frame, because of {first.name} ({first.why})"
        return round(mutual_coherence(frame_of(traced)[0]), 6), None
    except InputError as error:
        return None, f"no frame: {error}"
    # Whatever its code does to be read is no reason not to attack it.
    except Exception as error:  # noqa: BLE001
        return None, f"no frame: it cannot be read: {told(error)}"
