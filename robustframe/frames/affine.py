"""Affine functions of an image and of codes: what a network is between its ReLUs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, fx

from robustframe.frames.maps import Map, Pick

IMAGE = 0
"""The image among the sources of a term."""


@dataclass(frozen=True, eq=False)
class Term:
    """What a value takes from one source."""

    source: int
    """0 the image, from 1 the codes, below 0 what is no frame."""
    map: Map
    first: int = 0
    """The value's channel at which the outputs of the map begin."""
    pick: Pick | None = None
    """The choice of pixels in front of the map."""
    branch: int = 0
    """Terms that one convolution made together, or that are added to one another at last: one number a branch."""


@dataclass(frozen=True, eq=False)
class Value:
    """An affine function of the image and of codes."""

    shape: tuple[int, int, int]
    terms: tuple[Term, ...]
    constant: Tensor
    """What is added, shape (channels, 1, 1), or (channels, y, x) where the border makes it differ."""
    flat: bool = False
    """Whether the network sees it as a vector."""
    positive: bool = False
    """Whether it is made of codes so that it is at least 0 whatever the weights, and a ReLU does nothing."""


@dataclass(frozen=True, eq=False)
class Code:
    """A ReLU and what goes into it."""

    name: str
    """What the network calls the layers that make it, such as ``"layer1.0.conv1"``."""
    value: Value


@dataclass(frozen=True)
class Unread:
    """A layer that is part of no frame."""

    name: str
    why: str


@dataclass(eq=False)
class Traced:
    """A network in terms of its codes."""

    in_shape: tuple[int, ...]
    codes: list[Code]
    out: Value | None
    """The logits; ``None`` where they come from what is no frame."""
    layers: dict[str, int]
    """The code that each layer with weights belongs to; the head's have the number after the last code."""
    unread: list[Unread]
    opaque: dict[int, tuple[int, int, int]]
    """Shapes of what is no frame, by its number below 0."""


class Unreadable(Exception):
    """A layer cannot be read as part of a frame; the text says why."""


def merged(terms: Sequence[Term]) -> list[Term]:
    """Join terms that take the same from the same source."""
    made: list[Term] = []
    for term in terms:
        for at, other in enumerate(made):
            alike = (other.source, other.pick, other.first, other.branch) == (
                term.source, term.pick, term.first, term.branch
            )  # fmt: skip
            a, b = other.map, term.map
            shaped = (a.stride, a.padding, a.groups, a.box, a.weight.shape)
            if alike and shaped == (b.stride, b.padding, b.groups, b.box, b.weight.shape):
                made[at] = replace(other, map=replace(a, weight=a.weight + b.weight))
                break
        else:
            made.append(term)
    return made


@runtime_checkable
class Reader(Protocol):
    """What the rules of layers (`robustframe.frames.rules`) ask of whoever goes through a network."""

    values: dict[fx.Node, Any]
    """What was found so far: values, and numbers, shapes and constants as they are."""

    def given(self, node: fx.Node, argument: Any) -> Value:
        """Return the value that an argument of a node is; raises `Unreadable` where it is none."""

    def branch(self) -> int:
        """Return a number that no branch has yet."""

    def new_code(self, node: fx.Node, given: Value) -> Value:
        """Put a ReLU on a value: the next code."""

    def through(self, given: Value, then: Map, bias: Tensor | None = None, *, flat: bool | None = None) -> Value:
        """Apply a convolution to a value."""
