"""The control without sharing: a pair's computation with parameters of its own in every sweep."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers import DeepPursuit
from robustframe.types import Images, Logits


class Untied(nn.Module):
    """Sweeps of deep pursuit, each through a frame of its own: the cost of a recurrent twin without its tying.

    No single frame is solved in, so it is no pair and has no twins: it says what the computation is worth by itself.

    Args:
        frames: one frame a sweep, at least 2, all of the same shapes.
        classes: number of classes.

    Raises:
        InputError: for fewer than 2 frames, or frames of different shapes.

    Source: the "all free" control of Sulam et al., 2019, arXiv:1806.00701.
    """

    gain: Tensor

    def __init__(self, frames: Sequence[Frame], *, classes: int) -> None:
        super().__init__()
        if len(frames) < 2:
            raise InputError(f"an untied net needs at least 2 frames, one per sweep, not {len(frames)}")
        if any((f.in_shape, f.code_shapes, f.rows) != (frames[0].in_shape, frames[0].code_shapes, frames[0].rows)
               for f in frames):  # fmt: skip
            raise InputError("the frames of an untied net must have the same shapes and rows")
        self.copies = nn.ModuleList(frames)
        features = torch.Size(frames[0].code_shapes[-1]).numel()
        self.head = nn.Linear(features, classes)
        self.register_buffer("gain", torch.ones(()))

    @property
    def frames(self) -> list[Frame]:
        """The frame of each sweep."""
        return [cast(Frame, frame) for frame in self.copies]

    @property
    def sweeps(self) -> int:
        """How many sweeps, and frames, there are."""
        return len(self.copies)

    def classify(self, code: Tensor) -> Logits:
        """Return the logits of codes of the last layer, shape (b, *code_shape)."""
        return self.head(self.gain * code.flatten(1))  # type: ignore[no-any-return]

    def first_and_last(self, images: Images) -> tuple[Logits, Logits]:
        """Return the logits after the first and after the last sweep, shape (b, classes) each."""
        solver = DeepPursuit(sweeps=1)
        first, *others = self.frames
        codes = solver.codes(solver.step(first, images, solver.init(first, images)))
        start = codes
        for frame in others:
            codes = solver.refine(frame, images, codes)
        return self.classify(start[-1]), self.classify(codes[-1])

    def forward(self, images: Images) -> Logits:
        """Classify images, shape (b, *in_shape), in [0, 1]."""
        return self.first_and_last(images)[1]
