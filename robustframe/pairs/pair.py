"""A pair: one frame and one head read as two classifiers that share every parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers import Adjoint, DeepPursuit, Solver, Unrolled, solve
from robustframe.types import Images, Logits


class Pair(nn.Module):
    """A frame and a linear head on its last code; `feedforward` and `recurrent` are its two classifiers.

    Args:
        frame: the shared frame.
        classes: number of classes.
        sweeps: sweeps of the recurrent twin, at least 2.
    """

    gain: Tensor

    def __init__(self, frame: Frame, *, classes: int, sweeps: int) -> None:
        super().__init__()
        if sweeps < 2:
            raise InputError(f"the recurrent twin needs at least 2 sweeps, not {sweeps}; 1 is the feed-forward twin")
        self.frame = frame
        features = 1
        for size in frame.code_shapes[-1]:
            features *= size
        self.head = nn.Linear(features, classes)
        self.register_buffer("gain", torch.ones(()))
        # Codes shrink with every step size; a fixed gain, set before training, gives the head inputs of unit size.
        self.sweeps = sweeps

    @property
    def feedforward(self) -> "Twin":
        """The solver's first sweep: an ordinary feed-forward network."""
        return Twin(self, 1)

    @property
    def recurrent(self) -> "Twin":
        """The solver run for all of the pair's sweeps."""
        return Twin(self, self.sweeps)

    def classify(self, code: Tensor) -> Logits:
        """Return the logits of codes of the last layer, shape (b, *code_shape)."""
        return self.head(self.gain * code.flatten(1))  # type: ignore[no-any-return]

    def forward(self, images: Images) -> Logits:
        """Classify with the recurrent twin."""
        return self.recurrent(images)  # type: ignore[no-any-return]


class Twin(nn.Module):
    """A pair run for a given number of sweeps: maps images in [0, 1] to logits.

    Args:
        pair: where the parameters live.
        sweeps: sweeps of the solver, at least 1; not looked at when a solver is given.
        solver: the algorithm; deep pursuit when left out.
        adjoint: how gradients are taken; it changes no logit.
    """

    def __init__(
        self, pair: Pair, sweeps: int, *, solver: Solver[Any] | None = None, adjoint: Adjoint | None = None
    ) -> None:
        super().__init__()
        self.pair = pair
        self.solver: Solver[Any] = DeepPursuit(sweeps=sweeps) if solver is None else solver
        self.adjoint = Unrolled() if adjoint is None else adjoint

    def forward(self, images: Images) -> Logits:
        """Solve for the codes and classify the last one.

        Args:
            images: shape (b, *in_shape), in [0, 1].

        Returns:
            Logits, shape (b, classes).
        """
        solution = solve(self.solver, self.pair.frame, images, self.adjoint)
        return self.pair.classify(solution.codes[-1])
