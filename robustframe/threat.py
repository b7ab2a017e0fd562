"""What an attacker may change, by how much, and to what end: a ball of one norm in the box of valid images."""

import math
import numbers
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from robustframe.draws import Draws
from robustframe.errors import InputError, shown, unknown
from robustframe.spaces import Intervals, Mask, Motion, Numbers, Space, Window, parse_space
from robustframe.targets import parse_targets
from robustframe.types import NORMS, Images, Norm, PerExample, Verdicts

_RESAMPLED = 1e-6
"""Difference of two pixels up to which they were sampled alike, on other machines too."""
_NEWTON_STEPS, _HALVINGS = 30, 70
"""About six are made; should Newton's method go in circles, halving the bracket ends it at the last bit."""


def parse_eps(text: str | float) -> float:
    """Read a radius such as ``"8/255"`` or ``0.1``.

    Args:
        text: a number, or a decimal or a fraction as text; input units on [0, 1].

    Returns:
        The nearest float to the exact value.

    Raises:
        InputError: when it is not a number, not finite, or not above zero.

    >>> parse_eps("8/255") == 8 / 255
    True
    """
    # An exponent such as 1e999999999 would be written out before it is rounded.
    if isinstance(text, str) and re.fullmatch(r"[^eE]{1,30}([eE][+-]?[0-9]{1,3})?", text) is None:
        raise InputError(f"eps {text[:40]!r} is not a number; write 0.1 or '8/255'")
    try:
        value = float(Fraction(text)) if isinstance(text, str) else float(text)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, RuntimeError) as error:
        raise InputError(f"eps {shown(text)} is not a number; write 0.1 or '8/255'") from error
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"eps {text!r} must be finite and above 0, in input units on [0, 1]")
    return value


def written_eps(eps: float) -> str:
    """Write a radius so that it reads back as the same float, in steps of a byte where it is a number of them.

    >>> written_eps(8 / 255), written_eps(0.5)
    ('8/255', '0.5')
    """
    eps = float(eps)
    steps = round(eps * 255) if abs(eps) < 1 else 0
    return f"{steps}/255" if steps / 255 == eps and len(repr(eps)) > len("255/255") else repr(eps)


_WORDED = re.compile(r"(.*?)(?: on (.+?))?(?: to (.+?))?(?: in (.+))?", re.DOTALL)
"""A ball, what may change, targets, and which images are valid."""


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """A ball of radius ``eps`` in one norm, intersected with the box of valid images, and what is sought there."""

    norm: Norm
    eps: float
    """Radius in input units; in l0 the number of components (pixel values, channels apart) that may change."""
    low: float = 0.0
    high: float = 1.0
    targets: str = ""
    """The rule by which each example gets the class it is to be taken for (see `robustframe.targets.parse_targets`),
    such as ``"next"``; any wrong class when empty."""
    on: str | Space = ""
    """What may change (see `robustframe.spaces.parse_space`), such as ``"4:24,4:24"``, a rectangle, or
    ``"rotation:30,shift:3"``, of which ``eps`` is the share in use; the whole image when empty."""
    valid: str = ""
    """``"uint8"``: only images that can be saved count, whose values are whole steps of 1/255; any when empty."""
    label: str = ""
    """How the user wrote it, such as ``linf:8/255``; made from norm and eps when left out."""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown("norm", str(self.norm), NORMS)
        if isinstance(self.eps, bool | str):
            raise InputError(f"eps {self.eps!r} is not a number; ThreatModel.parse reads text such as 'linf:8/255'")
        parse_eps(self.eps)
        bounds: tuple[Any, Any] = (self.low, self.high)
        odd = [each for each in bounds if not isinstance(each, numbers.Real) or not math.isfinite(each)]
        if odd:
            raise InputError(f"a bound of the box is {shown(odd[0])}; it must be a finite number, such as 0.0")
        if not isinstance(self.label, str):
            raise InputError(f"the label {shown(self.label)} of a threat must be text")
        if not self.low < self.high:
            raise InputError(f"the box [{self.low}, {self.high}] is empty")
        if self.norm == "linf" and self.eps > self.high - self.low:
            raise InputError(f"linf eps {self.eps} is wider than the whole box [{self.low}, {self.high}]")
        if self.norm == "l0" and (self.eps != int(self.eps) or self.eps < 1):
            raise InputError(f"l0 eps {self.eps:g} counts changed components; it must be a whole number of at least 1")
        if not isinstance(self.targets, str):
            raise InputError(f"the targets {shown(self.targets)} of a threat must be a rule, such as 'next'")
        if self.targets:
            object.__setattr__(self, "targets", parse_targets(self.targets))
        self._check_space()
        self._check_valid()
        if not self.label:
            object.__setattr__(self, "label", self._words(f"{self.eps:g}"))

    def _check_space(self) -> None:
        if not isinstance(self.on, str | Space):
            raise InputError(f"what may change is {shown(self.on)}; write it as text, such as '4:24,4:24'")
        if isinstance(self.on, str) and self.on:
            object.__setattr__(self, "on", parse_space(self.on).words)
        if not isinstance(self.space, Motion):
            return
        if self.norm != "linf" or self.eps > 1:
            raise InputError(
                f"'on {self.space.words}' is for linf with an eps of at most 1, the share of the largest motion, such "
                f"as 'linf:1 on {self.space.words}'"
            )
        if self.valid or (self.low, self.high) != (0, 1):
            raise InputError(f"images that are moved ('on {self.space.words}') lie in [0, 1], between steps of 1/255")

    @property
    def space(self) -> Space | None:
        """What may change; ``None`` where it is the whole image."""
        if isinstance(self.on, Space):
            return self.on
        return parse_space(self.on) if self.on else None

    @property
    def inner(self) -> "ThreatModel":
        """The ball among the numbers that an attacker chooses; this one where they are the pixels of the image."""
        space = self.space
        if space is None:
            return self
        low, high = space.box or (self.low, self.high)
        eps = 1.0 if isinstance(space, Intervals) else self.eps
        return replace(self, on="", eps=eps, low=low, high=high)

    @property
    def whole(self) -> bool:
        """Whether the whole image may change; checks of `robustframe.diagnose` are made for such threats alone."""
        return not self.on

    def of(self, rows: slice | Tensor) -> "ThreatModel":
        """Return the threat for some of the examples."""
        return replace(self, on=self.on.of(rows)) if isinstance(self.on, Space) else self

    def _check_valid(self) -> None:
        if self.valid not in ("", "uint8"):
            raise unknown("kind of valid images", str(self.valid), ["uint8"])
        if self.valid and (self.low, self.high) != (0, 1):
            raise InputError(f"images in uint8 lie in [0, 1], not in [{self.low:g}, {self.high:g}]")
        if self.valid and round(self.eps * 255, 9) < 1:
            raise InputError(
                f"eps {self.eps:g} in uint8 holds the clean image alone; its values are steps of 1/255 = 0.0039 apart"
            )

    @classmethod
    def parse(cls, text: str) -> "ThreatModel":
        """Read ``"linf:8/255"``, ``"l2:0.5"``, ``"l1:12"`` or ``"l0:24"``; of a part of the image ``"l2:1 on
        4:24,4:24"``; with targets ``"linf:8/255 to next"``; of images that can be saved ``"linf:8/255 in uint8"``.

        Raises:
            InputError: for an unknown norm, a radius that is none, or an unknown rule for targets.

        >>> ThreatModel.parse("linf:8/255").label
        'linf:8/255'
        >>> ThreatModel.parse("linf:8/255 to least-likely").targets
        'least-likely'
        """
        if not isinstance(text, str):
            raise InputError(f"a threat is text such as 'linf:8/255', not {type(text).__name__}")
        ball, place, aim, grid = _WORDED.fullmatch(text).groups()  # type: ignore[union-attr]
        if " on " in f"{aim or ''} {grid or ''}":
            raise InputError(f"threat {text!r}: 'on ...' stands before 'to ...' and 'in ...'")
        norm, colon, eps = ball.partition(":")
        if not colon:
            raise InputError(f"threat {text!r} must read NORM:EPS, such as 'linf:8/255' or 'linf:8/255 to next'")
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS, where=f"threat {text!r}")
        return cls(norm=norm, eps=parse_eps(eps), on=place or "", targets=aim or "", valid=grid or "", label=text)

    def to(self, rule: str) -> "ThreatModel":
        """Return the same ball with a rule for targets, and a label that says so."""
        ball = self.label.partition(" ")[0]
        return replace(self, targets=rule, label=f"{ball}{replace(self, targets=rule).kind.removeprefix(self.norm)}")

    @property
    def kind(self) -> str:
        """The norm and what is sought in its balls, such as ``linf to next in uint8``: radii of one kind are nested."""
        place = self.on if isinstance(self.on, str) else self.on.words
        said = (("on", place), ("to", self.targets), ("in", self.valid))
        return self.norm + "".join(f" {word} {what}" for word, what in said if what)

    def _words(self, eps: str) -> str:
        return f"{self.norm}:{eps}{self.kind.removeprefix(self.norm)}"

    @property
    def words(self) -> str:
        """The text that `parse` reads this ball from; its label where that says it.

        Raises:
            InputError: for a box other than [0, 1], which no text states.
        """
        if isinstance(self.on, Space):
            raise InputError(f"no text states the {self.on.words} of this threat; robustframe.attack takes it")
        if (self.low, self.high) != (0, 1):
            raise InputError(
                f"the box is [{self.low:g}, {self.high:g}]; evaluations take images in [0, 1]: scale "
                "them, and back inside the model, with robustframe.adapt(model, normalise=...)"
            )
        try:
            parsed = ThreatModel.parse(self.label)
        except InputError:
            parsed = None
        same = parsed is not None and parsed.same_as(self)
        return self.label if same else self._words(written_eps(self.eps))

    def same_as(self, other: "ThreatModel") -> bool:
        """Say whether another threat is this one, however it is written."""
        return replace(self, label="-") == replace(other, label="-")

    def distance(self, x: Images, z: Images, numbers: Numbers | None = None) -> PerExample:
        """Measure how far each ``z`` is from its ``x`` in this norm, in float64.

        Args:
            x: clean images, shape (b, ...).
            z: images that were made of them, of the same shape.
            numbers: that ``z`` was made by, where images are moved; shape (b, ...).
        """
        if isinstance(self.space, Motion):
            x, z = self.space.enter(x), _known(numbers, self.label)
        return vector_norm((z.double() - x.double()).flatten(1), self.norm)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a radius that is larger than the box of images of a shape.

        Raises:
            InputError: when every image would be allowed.
        """
        space = self.space
        self.check_part(shape)
        if isinstance(space, Window | Motion):
            shape = tuple(space.enter(torch.zeros(1, *shape)).shape[1:])
        elif isinstance(space, Mask):
            shape = (int(space.mask[0].expand(shape).sum()),)
        numbers = math.prod(shape)
        side = self.high - self.low
        widest = {"l0": numbers, "l1": numbers * side, "l2": math.sqrt(numbers) * side, "linf": side}[self.norm]
        if self.eps > widest:
            raise InputError(
                f"{self.label}: eps is above {widest:g}, the size of the whole box for "
                f"{'images of' if space is None else 'a part of'} {' x '.join(map(str, shape))}; every image would be "
                "allowed"
            )

    def check_part(self, shape: tuple[int, ...]) -> None:
        """Refuse a part or a motion that images of a shape do not have.

        Raises:
            InputError: with what they have.
        """
        if isinstance(self.space, Window | Motion):
            self.space.check_shape(shape)

    def check_start(self, x: Images) -> None:
        """Refuse clean images that are not valid themselves.

        Raises:
            InputError: where images are to be saved, for values between the steps of 1/255.
        """
        if self.valid and not torch.equal(torch.round(x * 255) / 255, x):
            raise InputError(
                f"{self.label} starts from images that can be saved, in steps of 1/255, and these have other values; "
                "leave out 'in uint8', or give bytes"
            )

    def rounded(self, x: Images, z: Images) -> Images:
        """Move points inside the ball to images that can be saved, inside it too; where any are valid, as they are.

        Each value goes to the nearest step of 1/255; where that leads out of the ball, to the step before it on the way
        to ``x``, whose values are steps.
        """
        if not self.valid:
            return z
        centre = torch.round(x * 255)
        moved = z * 255 - centre
        nearest = ((centre + torch.round(moved)) / 255).to(z.dtype)
        back = ((centre + torch.trunc(moved)) / 255).to(z.dtype)
        return torch.where(_per_row(self.contains(x, nearest), z), nearest, back)

    def contains(self, x: Images, z: Images, numbers: Numbers | None = None) -> Verdicts:
        """Say which ``z`` are finite, inside the box and inside the ball around their ``x``, valid, and changed only
        where they may be. Arguments as for `distance`.

        An l0 ball is exact. Another is widened only by what storing the pixels in their floating-point type can add:
        half a unit in the last place of 1.0, or of the image's largest value, for each pixel, taken in this norm; and
        by one part in 10**12, for the rounding of the distance itself in float64.
        """
        space = self.space
        if isinstance(space, Motion):
            numbers = _known(numbers, self.label)
            made = (space.image(x, numbers) - z).abs().flatten(1).amax(1) <= _RESAMPLED
            return made & self.inner.contains(space.enter(x), numbers)
        if space is not None:
            untouched = ~space.touched(x, z)
            if isinstance(space, Intervals):
                return untouched
            return untouched & self.inner.contains(space.enter(x), space.enter(z))
        flat = z.flatten(1)
        in_box = ((flat >= self.low) & (flat <= self.high)).all(1)
        # In l0 this is far below the one that a count goes by.
        slack = self._stored(flat.abs().amax(1), flat.shape[1]) + self.eps * 1e-12
        inside = in_box & (self.distance(x, z) <= self.eps + slack)
        return inside & (torch.round(flat * 255) / 255 == flat).all(1) if self.valid else inside

    def _stored(self, size: PerExample, dims: int) -> PerExample:
        """What storing pixels in their floating-point type can add to a distance, given the largest of each image."""
        growth = {"linf": 1.0, "l2": math.sqrt(dims), "l1": float(dims), "l0": 0.0}[self.norm]
        # Not of the box: one so wide that it bounds nothing would widen the ball without end.
        return torch.finfo(size.dtype).eps / 2 * growth * size.double().clamp_min(1.0)

    def roughly_contains(self, x: Images, z: Images) -> Verdicts:
        """Say nearly the same as `contains`, never less, from a distance in the pixels' own precision: cheaper."""
        flat = z.flatten(1)
        least, most = flat.amin(1), flat.amax(1)
        slack = self._stored(torch.maximum(most, -least), flat.shape[1])
        in_box = (least >= self.low) & (most <= self.high)
        return in_box & (vector_norm(flat - x.flatten(1), self.norm) <= self.eps * (1 + 1e-5) + 2 * slack)

    def project(self, x: Images, z: Images) -> Images:
        """Move each ``z`` to the nearest point (Euclidean) of the ball around its ``x`` cut by the box.

        Exact for every norm: the l1 and l2 cases solve the piecewise-linear or -quadratic equation of the
        multiplier, so the cut by the box is part of the projection; in l0 those changes stay that, after the cut,
        save most of the distance.

        Args:
            x: centres inside the box, shape (b, ...).
            z: points of the same shape.

        Returns:
            Points that satisfy `contains`, same shape and type as ``z``.
        """
        if self.norm == "linf":
            return torch.clamp(z, x - self.eps, x + self.eps).clamp_(self.low, self.high)
        inside = z.clamp(self.low, self.high)
        outside = self.distance(x, inside) > self.eps
        if not outside.any():
            return inside
        if self.norm == "l0":
            return torch.where(_per_row(outside, z), self._sparsest(x, z, inside), inside)
        centre = x[outside].flatten(1).double()
        step = z[outside].flatten(1).double() - centre
        room = torch.where(step > 0, self.high - centre, centre - self.low).clamp_min(0)
        solve = _l2_size if self.norm == "l2" else _l1_size
        moved = solve(step.abs(), room, self.eps).mul_(step.sign()).add_(centre)
        inside[outside] = moved.clamp_(self.low, self.high).to(z.dtype).view(-1, *inside.shape[1:])
        return inside

    def random_start(self, x: Images, draws: Draws) -> Images:
        """Draw a point uniformly from the ball around each ``x``, then project it into the box.

        In l0 that is a uniform choice of ``eps`` components with values uniform in the box.
        """
        shape = tuple(x.shape[1:])
        if self.norm == "l0":
            self.check_shape(shape)
        dims = math.prod(shape)
        if self.norm == "l0":
            values = self.low + (self.high - self.low) * draws.uniform(*shape).to(x.dtype)
            chosen = _largest(draws.uniform(dims), int(self.eps)).view_as(x)
            return torch.where(chosen, values.clamp(self.low, self.high), x)
        if self.norm == "linf":
            offset = (2 * draws.uniform(*shape) - 1) * self.eps
        elif self.norm == "l2":
            direction = draws.normal(*shape)
            radius = self.eps * draws.uniform() ** (1 / dims)
            offset = _per_row(radius, x) * direction / _per_row(vector_norm(direction.flatten(1), "l2"), x)
        else:
            # d exponentials over the sum of d + 1 are uniform on the simplex with its inside.
            sizes = -torch.log1p(-draws.uniform(dims + 1))
            signs = draws.sign(*shape)
            offset = self.eps * signs * (sizes[:, :-1] / sizes.sum(1, keepdim=True)).view(-1, *shape)
        return self.project(x, x + offset.to(x.dtype))

    def steepest_ascent(self, gradient: Images) -> Images:
        """Return the step of unit norm that climbs fastest along a gradient; zero where the gradient is zero.

        In l0, where a step may be of any length, it is that of l1: one component, by 1.
        """
        if self.norm == "linf":
            return gradient.sign()
        flat = gradient.flatten(1)
        if self.norm == "l2":
            size = vector_norm(flat, "l2").clamp_min(torch.finfo(flat.dtype).tiny)
            return gradient / _per_row(size, gradient)
        best = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, best, flat.gather(1, best).sign())
        return step.view_as(gradient)

    def _sparsest(self, x: Images, z: Images, inside: Images) -> Images:
        """Keep those ``eps`` changes, cut by the box, without which the distance to ``z`` would be largest."""
        wanted, cut = (z.double() - x.double()).square(), (z.double() - inside.double()).square()
        # A change that the box takes back altogether saves nothing, so it never displaces another.
        kept = _largest((wanted - cut).flatten(1), int(self.eps))
        return torch.where(kept.view_as(x), inside, x)


def _known(numbers: Numbers | None, label: str) -> Numbers:
    if numbers is None:
        raise InputError(f"an image does not tell how it was moved; {label} is checked by the numbers stored beside it")
    return numbers


def _largest(flat: Tensor, count: int) -> Tensor:
    """Mark so many of the largest entries of each row."""
    places = flat.topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, places, True)


DUAL: dict[Norm, Norm] = {"l1": "linf", "l2": "l2", "linf": "l1"}
"""The norm of gradients that belongs to one of steps."""


def vector_norm(flat: Tensor, norm: Norm) -> Tensor:
    """Measure vectors along the last axis, shape (..., d), in a norm: shape (...)."""
    if norm == "l0":
        return (flat != 0).sum(-1).to(flat.dtype)
    if norm == "linf" and flat.shape[-1]:
        # The stock norm of this order takes ten times as long on a CPU.
        return flat.abs().amax(-1)
    order = {"l1": 1.0, "l2": 2.0, "linf": math.inf}[norm]
    norms: Tensor = torch.linalg.vector_norm(flat, ord=order, dim=-1)
    return norms


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _l2_size(step: Tensor, room: Tensor, eps: float) -> Tensor:
    """Sizes min(t * step, room) with the t that makes their l2 norm eps (the caller knows it is reached)."""
    tiny = torch.finfo(step.dtype).tiny
    # A coordinate stops at t = room / step; one that never moves counts as stopped at the very end.
    turn, order = torch.where(step > 0, room / step.clamp_min(tiny), torch.inf).sort(dim=1)
    room_sq, step_sq = room.gather(1, order).square_(), step.gather(1, order).square_()
    gone = room_sq.cumsum(1).sub_(room_sq)
    moving = step_sq.flip(1).cumsum(1).flip(1)
    # Each is as large as the images, and in float64.
    del order, room_sq, step_sq
    finite = turn.isfinite()
    reached = torch.where(finite, turn, 0.0).square_().mul_(moving).add_(gone)
    passed = ((reached >= eps**2) | ~finite).int()
    passed[:, -1] = 1
    at = passed.argmax(1, keepdim=True)
    t = ((eps**2 - gone.gather(1, at)).clamp_min(0) / moving.gather(1, at).clamp_min(tiny)).sqrt()
    return torch.minimum(t * step, room)


def _l1_size(step: Tensor, room: Tensor, eps: float) -> Tensor:
    """Sizes clamp(step - shift, 0, room) with the shift that makes them sum to eps (see `_l2_size`).

    The sum falls in the shift, linear between knots: Newton's method ends at the root as soon as it is on the right
    piece, and halving the bracket keeps it from going in circles. Sorting the knots costs several times as much.
    """
    low, high = step.new_zeros((len(step), 1)), step.amax(1, keepdim=True)
    shift, size = low, torch.minimum(step, room)
    enough = 1e-14 * step.sum(1, keepdim=True) + 1e-13 * eps
    for turn in range(_NEWTON_STEPS + _HALVINGS):
        over = size.sum(1, keepdim=True) - eps
        there = over.abs() <= enough
        if bool(there.all()):
            break
        low, high = torch.where(over > 0, shift, low), torch.where(over > 0, high, shift)
        moving = ((size > 0) & (size < room)).sum(1, keepdim=True)
        newton = shift + over / moving
        # Without a moving coordinate this is infinite; an end of the bracket would lead back to the other end.
        inside = (newton > low) & (newton < high) & (turn < _NEWTON_STEPS)
        shift = torch.where(there, shift, torch.where(inside, newton, (low + high) / 2))
        size = torch.minimum((step - shift).clamp_min(0), room)
    # A long step minus a large shift is rounded at the scale of the step, not of eps.
    return size * (eps / size.sum(1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)).clamp_max(1)
