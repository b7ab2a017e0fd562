"""A pair: one frame and one head read as two classifiers that share every parameter."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustframe.errors import InputError, unknown, whole_number
from robustframe.frames import Frame
from robustframe.solvers import Adjoint, DeepPursuit, LayeredPursuit, Solver, Unrolled, iterate, solve
from robustframe.types import Images, Logits

Pursuit = Literal["deep", "layered"]
_PURSUITS: dict[str, type[Solver[Any]]] = {"deep": DeepPursuit, "layered": LayeredPursuit}


class Pair(nn.Module):
    """A frame and a linear head on its last code; `feedforward` and `recurrent` are its two classifiers.

    Args:
        frame: the shared frame.
        classes: number of classes.
        sweeps: sweeps of the recurrent twin, at least 2.
        pursuit: how the recurrent twin solves: ``"deep"`` (`DeepPursuit`) or ``"layered"`` (`LayeredPursuit`, chains
            only).

    Raises:
        InputError: for fewer than 2 sweeps, or a pursuit that does not know the frame's structure.
    """

    gain: Tensor

    def __init__(self, frame: Frame, *, classes: int, sweeps: int, pursuit: Pursuit = "deep") -> None:
        super().__init__()
        if not isinstance(frame, Frame):
            raise InputError(f"the frame is {type(frame).__name__}; build one with robustframe.frames")
        whole_number(classes, "classes", least=1)
        if whole_number(sweeps, "sweeps", least=0) < 2:
            raise InputError(f"the recurrent twin needs at least 2 sweeps, not {sweeps}; 1 is the feed-forward twin")
        if not isinstance(pursuit, str) or pursuit not in _PURSUITS:
            raise unknown("pursuit", pursuit, _PURSUITS)
        if pursuit == "layered" and frame.structure != "chain":
            raise InputError(f"layered pursuit is for chains, not for a {frame.structure} frame; use pursuit 'deep'")
        self.frame = frame
        self.pursuit = pursuit
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

    @property
    def frames(self) -> list[Frame]:
        """The one frame, as a list: what training looks after."""
        return [self.frame]

    def solver(self, sweeps: int) -> Solver[Any]:
        """Return the pair's algorithm for a number of sweeps; every first sweep is that of deep pursuit."""
        return (DeepPursuit if sweeps == 1 else _PURSUITS[self.pursuit])(sweeps=sweeps)

    def first_and_last(self, images: Images) -> tuple[Logits, Logits]:
        """Return the logits after the first and after the last sweep, shape (b, classes) each."""
        codes = list(iterate(self.solver(self.sweeps), self.frame, images))
        # Layered pursuit ends its first layer before it begins the next, so its first sweep does not lie on the way.
        first = codes[0] if self.pursuit == "deep" else solve(self.solver(1), self.frame, images).codes
        return self.classify(first[-1]), self.classify(codes[-1][-1])

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
        solver: the algorithm; the pair's own when left out.
        adjoint: how gradients are taken; it changes no logit.
    """

    def __init__(
        self, pair: Pair, sweeps: int, *, solver: Solver[Any] | None = None, adjoint: Adjoint | None = None
    ) -> None:
        super().__init__()
        self.pair = pair
        self.solver: Solver[Any] = pair.solver(sweeps) if solver is None else solver
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
