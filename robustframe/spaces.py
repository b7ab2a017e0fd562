"""What the numbers that an attacker chooses are: the pixels of a part of the image, or how it is turned and moved."""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

from robustframe.errors import InputError
from robustframe.types import Images

Numbers = Tensor
"""What an attacker chooses for each image, shape (b, ...)."""

_RANGE = re.compile(r"([0-9]{1,6})?(:)?([0-9]{1,6})?")
_MOTION = re.compile(r"(rotation|shift):([0-9.]{1,8})")
_EXAMPLES = "'on 4:24,4:24' (rows and columns), 'on 0,:,:' (a channel) or 'on rotation:30,shift:3'"


class Space(ABC):
    """A change of variables: attacks search among these numbers as they do among pixels."""

    words: str
    """How a threat calls it."""
    box: tuple[float, float] | None = None
    """Where the numbers lie; ``None`` where they are pixels."""

    @abstractmethod
    def enter(self, x: Images) -> Numbers:
        """Return the numbers of clean images, shape (b, ...)."""

    @abstractmethod
    def image(self, x: Images, numbers: Numbers) -> Images:
        """Return the images that come of numbers, given the clean ones of the same examples; differentiable."""

    def of(self, rows: slice | Tensor) -> "Space":
        """Return the space of some of the examples, where each has its own."""
        del rows
        return self

    def touched(self, x: Images, z: Images) -> Tensor:
        """Say in which ``z`` something differs from ``x`` that no number can change, shape (b,)."""
        return (self.image(x, self.enter(z)) != z).flatten(1).any(1)


@dataclass(frozen=True)
class Window(Space):
    """The pixels of a rectangle, of all channels or some.

    Args:
        words: an index as NumPy takes it, of the last axes, such as ``4:24,4:24`` or ``0,:,:``.
    """

    words: str

    @property
    def index(self) -> tuple[slice, ...]:
        """The ranges of the last axes."""
        ranges = []
        for part in self.words.split(","):
            first, colon, last = _RANGE.fullmatch(part.strip()).groups()  # type: ignore[union-attr]
            start = int(first or 0)
            ranges.append(slice(start, (int(last) if last else None) if colon else start + 1))
        return tuple(ranges)

    @property
    def _place(self) -> "tuple[slice | EllipsisType, ...]":
        return (..., *self.index)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a window that does not lie in images of a shape.

        Raises:
            InputError: for more axes than the image has, and for a range that leaves it or is empty.
        """
        sides = " x ".join(map(str, shape))
        if len(self.index) > len(shape):
            raise InputError(f"'on {self.words}' has {len(self.index)} ranges for images of {sides}")
        for part, side in zip(self.index, shape[-len(self.index) :]):
            stop = side if part.stop is None else part.stop
            if not part.start < stop <= side:
                raise InputError(f"'on {self.words}': {part.start}:{stop} is no range of 0:{side}; images are {sides}")

    def enter(self, x: Images) -> Numbers:
        return x[self._place].contiguous()

    def image(self, x: Images, numbers: Numbers) -> Images:
        made = x.to(numbers.dtype).clone()
        made[self._place] = numbers
        return made


@dataclass(frozen=True, eq=False)
class Mask(Space):
    """The values that a mask allows to change, in one line.

    Args:
        mask: true where a value may change, shape (1, ...) for one that is of all examples, or (n, ...), each with
            equally many.
    """

    mask: Tensor
    words: str = "mask"

    def enter(self, x: Images) -> Numbers:
        return x[self.mask.expand(x.shape)].view(len(x), -1)

    def image(self, x: Images, numbers: Numbers) -> Images:
        return x.to(numbers.dtype).masked_scatter(self.mask.expand(x.shape), numbers)

    def of(self, rows: slice | Tensor) -> "Mask":
        return self if len(self.mask) == 1 else Mask(self.mask[rows])


@dataclass(frozen=True, eq=False)
class Intervals(Space):
    """The pixels, each between limits of its own: numbers from 0 to 1 on the way from the lower to the upper.

    Args:
        lower: smallest values, shape (n, ...).
        upper: largest values, likewise.
    """

    lower: Tensor
    upper: Tensor
    words: str = "limits"
    box = (0.0, 1.0)

    def enter(self, x: Images) -> Numbers:
        width = self.upper - self.lower
        return torch.where(width > 0, (x - self.lower) / width.clamp_min(torch.finfo(x.dtype).tiny), 0.0).clamp(0, 1)

    def image(self, x: Images, numbers: Numbers) -> Images:
        # From the clean value, so that its own numbers give it back to the last bit.
        moved = x + (numbers - self.enter(x)) * (self.upper - self.lower)
        return torch.minimum(torch.maximum(moved, self.lower), self.upper)

    def of(self, rows: slice | Tensor) -> "Intervals":
        return Intervals(self.lower[rows], self.upper[rows])

    def touched(self, x: Images, z: Images) -> Tensor:
        return ((z < self.lower) | (z > self.upper)).flatten(1).any(1)


@dataclass(frozen=True)
class Motion(Space):
    """Rotations and translations (Engstrom et al., 2019, arXiv:1712.02779): each number is a share of the largest.

    The image is turned about its middle, then moved, sampled bilinearly, with black coming in.

    Args:
        rotation: largest angle in degrees, clockwise and the other way, in [0, 180].
        shift: largest way in pixels along either axis, either way.
    """

    rotation: float = 0.0
    shift: float = 0.0
    box = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180 or not 0 <= self.shift < math.inf or not self.rotation + self.shift > 0:
            raise InputError(
                f"rotation {self.rotation:g} must be from 0 to 180 degrees and shift {self.shift:g} a number of "
                "pixels, one of them above 0"
            )

    @property
    def words(self) -> str:  # type: ignore[override]
        parts = [f"{name}:{value:g}" for name, value in (("rotation", self.rotation), ("shift", self.shift)) if value]
        return ",".join(parts)

    @property
    def largest(self) -> tuple[float, ...]:
        """What the numbers are shares of: degrees, pixels down, pixels to the right, as far as they may change."""
        return (self.rotation,) * (self.rotation > 0) + (self.shift, self.shift) * (self.shift > 0)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse images that cannot be turned, and ways that lead out of them.

        Raises:
            InputError: for other shapes than (channels, height, width).
        """
        if len(shape) != 3:
            raise InputError(f"'on {self.words}' is for images of shape (c, h, w), not {shape}")
        if self.shift >= min(shape[1:]):
            raise InputError(f"'on {self.words}' moves images of {shape[1]} x {shape[2]} out of sight")

    def enter(self, x: Images) -> Numbers:
        return x.new_zeros((len(x), len(self.largest)))

    def image(self, x: Images, numbers: Numbers) -> Images:
        if not len(x):
            return x
        height, width = x.shape[-2:]
        # In double precision, whose rounding on another machine leaves the same pixels: verdicts make the image again.
        exact = numbers.double()
        turn = down = right = torch.zeros_like(exact[:, 0])
        if self.rotation:
            turn = exact[:, 0] * math.radians(self.rotation)
        if self.shift:
            down, right = (exact[:, -2:] * self.shift).T
        cos, sin = turn.cos(), turn.sin()
        # Where the pixels of the new image come from, in halves of its sides.
        across, along = -2 * right / width, -2 * down / height
        first = torch.stack([cos, sin * height / width, cos * across + sin * height / width * along], 1)
        second = torch.stack([-sin * width / height, cos, -sin * width / height * across + cos * along], 1)
        grid = F.affine_grid(torch.stack([first, second], 1), list(x.shape), align_corners=False)
        sampled = F.grid_sample(x.double(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        moved = sampled.clamp(0, 1).to(x.dtype)
        still = (numbers == 0).all(1).view(-1, 1, 1, 1)
        # An image that is not moved is the clean one to the last bit, with the slope of one that is.
        return torch.where(still, x + (moved - moved.detach()), moved)


def parse_space(text: str) -> Window | Motion:
    """Read what may change in an image: ``4:24,4:24``, ``0,:,:``, ``rotation:30``, ``rotation:30,shift:3``.

    Raises:
        InputError: for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [_MOTION.fullmatch(part) for part in parts]
    if all(found):
        largest = {each[1]: each[2] for each in found if each is not None}
        try:
            sizes = {name: float(value) for name, value in largest.items()}
        except ValueError:
            sizes = {}
        if len(sizes) == len(parts):
            return Motion(**sizes)
    elif all(part and _RANGE.fullmatch(part) for part in parts):
        return Window(",".join(parts))
    raise InputError(f"what may change, 'on {text}', is not known; write {_EXAMPLES}")
