"""What a piece of the museum is, and the lists that they enter as they are defined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from exhibits import nets
from exhibits.nets import Build

MASKED = (
    "black-box-beats-gradients",
    "nearest-survivors-fall",
    "unavailable-gradients",
    "misleading-gradients",
    "random-search-wins",
    "large-eps-above-chance",
    "unbounded-attack-fails",
)
"""Checks that see gradients which lead nowhere."""
WRONG = ("gradient-no-derivative", *MASKED)
"""Checks that see a gradient which is another function's."""
MOVING = ("claimed-unverified", "randomised")
"""Checks that see answers which change."""
BRANCHES = ("input-dependent-computation", *MASKED)
"""Checks that see a model which decides by the image what to compute."""


@dataclass(frozen=True)
class Exhibit:
    """A defence that does not defend, and what must be said about it."""

    name: str
    kind: str
    """Its mechanism: the module of `exhibits.broken` that it stands in."""
    about: str
    """What is broken, in a sentence."""
    build: Build
    """Makes it anew, around nets that are trained once a process: what one evaluation leaves in it, none finds."""
    undefended: Build
    """The net without the defence: what its robust accuracy under a strong exact attack is, the defence pretends to
    raise."""
    source: str
    """Where it is known from."""
    answers: Literal["same", "other", "random"]
    """*same*: on every image its logits are those of the undefended net. *other*: they are other ones. *random*: they
    are other ones each time, be it by chance or because of what was asked before or beside it."""
    gradient: Literal["true", "wrong", "none", "noisy"]
    """*true*: the derivative. *wrong*: something else. *none*: zero, missing or not finite on a quarter of
    images or more. *noisy*: another one each
    time."""
    checks: tuple[str, ...]
    """The right reasons: one of these checks must fail."""
    cure: str = "masked@1"
    """The battery that breaks it: a name, or a file beside the tests; empty where none does."""
    threat: str = "linf:0.1"


@dataclass(frozen=True)
class Honest:
    """A model that hides nothing."""

    name: str
    about: str
    """What it is."""
    build: Build
    data: str = "fashion-mnist"
    threat: str = "linf:0.05"
    step: float = 0.0
    """Length of the step over which its gradient is the slope; 0 for any, as of a derivative."""


BROKEN: list[Exhibit] = []
HONEST: list[Honest] = []


def broken(
    *,
    about: str,
    source: str,
    checks: tuple[str, ...],
    undefended: Build = nets.net,
    answers: Literal["same", "other", "random"] = "same",
    gradient: Literal["true", "wrong", "none", "noisy"] = "wrong",
    cure: str = "masked@1",
    threat: str = "linf:0.1",
) -> Callable[[Build], Build]:
    """Enter what a function builds into the list of broken defences, named after the function."""

    def enter(build: Build) -> Build:
        name, kind = build.__name__.replace("_", "-"), build.__module__.rpartition(".")[2]
        BROKEN.append(Exhibit(name, kind, about, build, undefended, source, answers, gradient, checks, cure, threat))
        return build

    return enter


def honest(
    about: str, *, data: str = "fashion-mnist", threat: str = "linf:0.05", step: float = 0.0
) -> Callable[[Build], Build]:
    """Enter what a function builds into the list of honest models, named after the function."""

    def enter(build: Build) -> Build:
        HONEST.append(Honest(build.__name__.replace("_", "-"), about, build, data, threat, step))
        return build

    return enter
