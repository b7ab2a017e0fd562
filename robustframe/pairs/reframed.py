"""An ordinary network as a pair: its frame, its head, and the recurrent twin that the frame gives it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustframe.errors import InputError, whole_number
from robustframe.frames.affine import Unread
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.reframe import Head, frame_of, head_of
from robustframe.frames.trace import copied, trace
from robustframe.lending import contained, lent
from robustframe.pairs.pair import Pair
from robustframe.types import Images, Logits

SWEEPS = 16
"""Sweeps of a recurrent twin where nobody says how many."""


class ReframedPair(Pair):
    """A pair whose feed-forward twin is a given network.

    Args:
        frame: the network's frame.
        head: the affine map from its last code to logits.
        sweeps: sweeps of the recurrent twin, at least 2.
    """

    def __init__(self, frame: BranchedFrame, head: Head, *, sweeps: int = SWEEPS) -> None:
        # Not that of `Pair`, whose head is one matrix.
        nn.Module.__init__(self)
        if whole_number(sweeps, "sweeps", least=0) < 2:
            raise InputError(f"the recurrent twin needs at least 2 sweeps, not {sweeps}; 1 is the feed-forward twin")
        self.frame: BranchedFrame = frame
        self.pursuit = "deep"
        self.head: Any = head
        self.register_buffer("gain", torch.ones(()))
        self.sweeps = sweeps

    def classify(self, code: Tensor) -> Logits:
        """Return the logits of codes of the last layer, shape (b, *code_shape)."""
        logits: Tensor = self.head(self.gain * code)
        return logits


@dataclass(frozen=True, eq=False)
class Reframed:
    """What `reframe` finds in a network."""

    frame: BranchedFrame
    """The frame: one row a ReLU, atoms of unit norm. Where there is a pair, its first sweep is the network."""
    layers: dict[str, int]
    """The row, from 1, that each layer with weights belongs to; those of the head have the number after the last."""
    names: tuple[str, ...]
    """The layers of the network that make each row."""
    unread: tuple[Unread, ...]
    """Layers that are part of no frame, and why."""
    why_no_pair: str | None
    """Why there is no recurrent twin; ``None`` where there is one."""
    _pair: ReframedPair | None

    @property
    def pair(self) -> ReframedPair:
        """The network and its recurrent twin, sharing every parameter; float32, in evaluation mode.

        Raises:
            InputError: where the network is no sweep of a frame.
        """
        if self._pair is None:
            raise InputError(self.why_no_pair or "the model has no recurrent twin")
        return self._pair


@torch.no_grad()
def reframe(model: Any, in_shape: Any, *, sweeps: Any = SWEEPS) -> Reframed:
    """Read an ordinary network as a frame, and give it a recurrent twin.

    Every ReLU is a row of the frame. What lies between ReLUs is linear and becomes the row's branches: linear and
    convolutional layers, batch norm, average pooling, flattening, residual additions, concatenations, and dropout and
    identity, which do nothing. Max pooling of codes is a choice of pixels that the first sweep makes and the others
    keep. The first sweep is the network, exactly; biases are thresholds of either sign.

    Args:
        model: an ``nn.Module`` in evaluation mode that maps images to logits; it is left as it is.
        in_shape: shape of one image, such as (3, 32, 32).
        sweeps: sweeps of the recurrent twin, at least 2.

    Returns:
        The frame, the pair where the whole network is one, and which layer is where.

    Raises:
        InputError: for a model in training mode, one that torch.fx cannot trace, layers with weights that are called
            twice, shapes that do not fit, or a network without ReLUs.

    Source: the reading of networks as frames is that of Murdock, Cazenavette and Lucey, 2021, arXiv:2103.05804; the
    layout of branches and the scales, chosen so that the sweep is exact, are ours (`docs/reframe.md`).
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {type(model).__name__}; reframe reads a torch.nn.Module")
    shape = _shape(in_shape)
    whole_number(sweeps, "sweeps", least=2)
    with lent(), contained():
        traced = trace(model, shape)
    frame, factors = frame_of(traced)
    pair, why = None, None
    try:
        head = head_of(traced, factors)
        pair = ReframedPair(frame, head, sweeps=sweeps).float().eval()
        pair.frame.check()
        _check_equal(pair, model, shape)
    except InputError as error:
        pair, why = None, str(error)
    return Reframed(
        frame=pair.frame if pair is not None else frame.float().eval(),
        layers=traced.layers,
        names=tuple(code.name for code in traced.codes),
        unread=tuple(traced.unread),
        why_no_pair=why,
        _pair=pair,
    )


_CLOSE = 1e-3
"""Largest difference of logits, relative to the largest logit, between a network and its first sweep in float32."""


def _check_equal(pair: ReframedPair, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Check the claim on the network itself: two random images, in float32.

    Raises:
        InputError: where the logits differ.
    """
    images: Images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    wanted = copied(model, torch.float32)(images)
    found = pair.feedforward(images)
    apart = float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-6))
    if wanted.shape != found.shape or not apart <= _CLOSE:
        raise InputError(
            f"the first sweep of the frame is not the model: logits differ by {apart:.1e} of the largest; the model "
            "does something that its layers do not show"
        )


def _shape(given: Any) -> tuple[int, ...]:
    if not isinstance(given, (tuple, list, torch.Size)) or not given:
        raise InputError(f"in_shape is {given!r}; it must be the shape of one image, such as (3, 32, 32)")
    shape = tuple(whole_number(side, "in_shape", least=1) for side in given)
    if len(shape) not in (1, 3):
        raise InputError(f"in_shape {shape} must be (channels, height, width) or (numbers,)")
    return shape
