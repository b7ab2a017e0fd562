"""What a certificate says, and what all of them need from a pair's head and a converged pursuit."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.pairs import Pair, ReframedPair
from robustframe.solvers import AcceleratedPursuit, optimality, solve
from robustframe.types import Images, Labels, PerExample, Verdicts

_SAFE = 1 - 1e-6
"""Factor on radii, for the rounding of bounds in float64."""


@dataclass(frozen=True)
class Certificate:
    """Radii inside which a classifier cannot change its mind, example by example."""

    radius: PerExample
    """l2 radius in input units, float64; 0 where the example is misclassified or nothing could be proved."""
    margin: PerExample
    """Logit of the label minus the largest other one, float64."""
    proved: Verdicts
    """What the proof presupposes of the example was checked; always true for a bound that presupposes nothing."""
    numbers: int
    """Numbers of one input."""

    @property
    def linf(self) -> PerExample:
        """The linf radius that follows from ||v||_2 <= sqrt(d) ||v||_inf: sound but weak, by up to sqrt(d)."""
        return self.radius / math.sqrt(self.numbers)


def double_copy(pair: Pair) -> Pair:
    """Return a float64 copy of a pair on the CPU that asks for no gradients."""
    return copy.deepcopy(pair).cpu().double().requires_grad_(False)


def differences(pair: Pair, y: Labels) -> Tensor:
    """Return gain (W_y - W_c) for every example and class, shape (b, classes, features); zero for c = y."""
    weight = pair.head.weight
    # The difference first: rows that nearly cancel lose nothing in it, but would after a product.
    return pair.gain * (weight[y].unsqueeze(1) - weight)


def margins(logits: Tensor, y: Labels) -> Tensor:
    """Return the margin over every other class, infinite over the label itself.

    Args:
        logits: float64, shape (b, classes).
        y: labels, shape (b,).

    Returns:
        Shape (b, classes).
    """
    return (logits.gather(1, y.unsqueeze(1)) - logits).scatter(1, y.unsqueeze(1), torch.inf)


def survived(over: Tensor, slopes: Tensor) -> PerExample:
    """Return the distance up to which every margin survives a loss of its slope for each unit of distance.

    Args:
        over: margins less what is lost at distance 0, float64, shape (b, classes).
        slopes: at least 0, of the same shape.

    Returns:
        Shape (b,); 0 where a margin is not above 0.
    """
    reach = torch.where(slopes > 0, over.clamp_min(0) / slopes, torch.where(over > 0, torch.inf, 0.0))
    # Rounding that has no bound certifies nothing, and float64 is not exact either.
    return (reach.nan_to_num(0, posinf=torch.inf).amin(1) * _SAFE).clamp_min(0)


def plain_margin(logits: Tensor, y: Labels) -> PerExample:
    """Return the logit of the label minus the largest other one, shape (b,)."""
    own = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    return own - logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1)


def check_inputs(pair: Pair, x: Images, y: Labels) -> None:
    """Check that there is one label per image.

    Raises:
        InputError: for another number of labels, or a label that is no class.
    """
    if isinstance(pair, ReframedPair):
        raise InputError(
            "certificates are for pairs of the zoo's kind: the thresholds of a network that was read as a frame may be "
            "negative, and bounds on its branches are not known"
        )
    classes = pair.head.out_features
    if len(x) != len(y) or bool(((y < 0) | (y >= classes)).any()):
        raise InputError(f"give one label from 0 to {classes - 1} for each of the {len(x)} images")


@torch.no_grad()
def converged_codes(pair: Pair, x: Images, *, sweeps: int, tolerance: float) -> tuple[tuple[Tensor, ...], PerExample]:
    """Solve a float64 pair's frame as far as it goes.

    Returns:
        The codes, and the largest violation of the optimality conditions of each example.
    """
    # The change of a sweep must fall far below the violation that is wanted: convergence can be slow.
    solver = AcceleratedPursuit(sweeps=sweeps, tolerance=tolerance * 1e-3)
    codes = solve(solver, pair.frame, x).codes
    return codes, optimality(pair.frame, x, codes)
