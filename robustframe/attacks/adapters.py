"""Attacks of torchattacks, run behind the probe and around the defects of release 3.5.1."""

import importlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustframe.attacks.base import Attack
from robustframe.calls import forked_random
from robustframe.draws import Draws
from robustframe.errors import InputError, unknown
from robustframe.probe import Probe, SearchOver
from robustframe.spaces import Window
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm

Setting = bool | int | float | str

_NORMS: dict[str, tuple[Norm, ...]] = {
    **dict.fromkeys(["FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD"], ("linf",)),
    **dict.fromkeys(["DIFGSM", "TIFGSM", "Jitter", "NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM"], ("linf",)),
    **dict.fromkeys(["VNIFGSM", "SPSA", "PIFGSM", "PIFGSMPP"], ("linf",)),
    **dict.fromkeys(["PGDL2", "PGDRSL2", "CW", "DeepFool"], ("l2",)),
    **dict.fromkeys(["APGD", "APGDT", "FAB", "Square"], ("linf", "l2")),
    **dict.fromkeys(["VANILA", "GN"], ("l1", "l2", "linf")),
    "EADEN": ("l1", "l2"),
    "EADL1": ("l1",),
}
"""The norms in which each class stays inside a ball, or looks for the nearest point."""

_REFUSED = {
    "AutoAttack": "its members run 10 steps in place of 100; list apgd, apgd-t, torchattacks:FAB and square",
    "MultiAttack": "it wraps other attacks; list them in the battery one by one",
    "LGV": "it trains further models on data of its own; it is no attack on the model alone",
    **dict.fromkeys(
        ["SparseFool", "OnePixel", "Pixle", "JSMA"],
        "it changes few pixels by any amount; for an l0 threat take sigma-zero",
    ),
}
_ROW_BY_ROW = frozenset(
    {"APGD", "APGDT", "FAB", "Square", "CW", "EADL1", "EADEN", "DeepFool", "SPSA", "PGDRS", "PGDRSL2"}
)
"""Classes that call the model with other rows than they were given, or let the examples of a batch share a
noise, a stopping rule or a best result. One example at a time, they do neither."""
_MASKED_BY_ZERO = frozenset({"CW", "UPGD", "EADL1", "EADEN"})
"""Classes that mask a logit by multiplying it with 0, which is wrong unless all logits are above 0."""
_DIVIDES_BY_GRADIENT = frozenset({"MIFGSM", "DIFGSM", "TIFGSM", "UPGD", "NIFGSM", "SINIFGSM", "VMIFGSM", "VNIFGSM"})
"""Classes that turn a zero gradient into a NaN momentum, which stays."""
_IN_FLOAT32 = frozenset({"FAB", "TIFGSM", "PIFGSM", "PIFGSMPP", "EADL1", "EADEN"})
"""Classes with constants in float32, which clash with float64 images."""

_OURS = {
    "model": "the evaluation gives the model",
    "eps": "eps comes from the threat",
    "max_epsilon": "eps comes from the threat",
    "norm": "the norm comes from the threat",
    "seed": "the seed comes from the evaluation",
    "verbose": "torchattacks prints to the standard output, where results go",
}
_COUNTS = frozenset(
    {"steps", "n_restarts", "n_queries", "eot_iter", "nb_iter", "nb_sample", "max_batch_size", "batch_max"}
    | {"noise_batch_size", "m", "N", "num_iter_set", "binary_search_steps", "max_iterations", "len_kernel"}
    | {"n_classes"}
)
_LEAST = {("EADL1", "max_iterations"): 10, ("EADEN", "max_iterations"): 10}
"""Counts below which a class divides by zero."""


@dataclass(frozen=True, kw_only=True)
class TorchAttack(Attack):
    """Any attack of torchattacks 3.5.1 (Kim, 2020, arXiv:2010.01950), untargeted, under our contract.

    Every point it evaluates may succeed, rows that are broken cost nothing, and random numbers belong to
    examples.
    """

    name: str
    """The class, such as ``"MIFGSM"``."""
    settings: Mapping[str, Setting] | tuple[tuple[str, Setting], ...] = field(default=())
    """Its keyword arguments. ``step_size`` is ours: ``alpha`` as a fraction of eps. When neither is given,
    ``alpha`` has the proportion to eps that it has in the class's defaults."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        known = _signature(self.name)
        object.__setattr__(self, "norms", _NORMS[self.name])
        given = dict(self.settings)
        for key, value in given.items():
            _check_setting(self.name, key, value, known)
        if "alpha" in given and "step_size" in given:
            raise InputError(f"torchattacks:{self.name}: give step_size (a fraction of eps) or alpha, not both")

    def why_not_against(self, threat: ThreatModel) -> str | None:
        if threat.targets:
            return (
                f"torchattacks:{self.name} is not run with targets, which the package would choose by itself; the "
                "attacks of robustframe take them, such as pgd, apgd-t, cw or square"
            )
        if threat.space is not None and not isinstance(threat.space, Window):
            return (
                f"torchattacks:{self.name} takes images, and under {threat.label} there are none to take but other "
                "numbers; the attacks of robustframe take these, such as pgd, apgd or square"
            )
        return None

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        if (threat.low, threat.high) != (0.0, 1.0):
            raise InputError(f"torchattacks works on images in [0, 1], not in [{threat.low}, {threat.high}]")
        proxy = _Proxy(probe, self.name)
        attack = self._build(proxy, threat, probe, x)
        # Classes that take images only see other inputs as one line of pixels.
        images = (x if x.dim() == 4 else x.reshape(len(x), 1, 1, -1)).contiguous()
        if self.name in _IN_FLOAT32:
            images = images.float()
        if self.name == "CW":
            # atanh is infinite on the faces of the box, and such pixels would never move.
            images = images.clamp(1e-6, 1 - 1e-6)
        walk = _one_by_one if self.name in _ROW_BY_ROW else _together
        try:
            found = walk(attack, proxy, images, draws)
        except Exception as error:
            if error is proxy.raised:
                raise
            raise InputError(
                f"torchattacks:{self.name} cannot attack inputs of shape {tuple(x.shape[1:])} and type "
                f"{x.dtype} with these settings: {type(error).__name__}: {error}"
            ) from error
        found = found.reshape(x.shape).to(x.dtype)
        finite = found.isfinite().flatten(1).all(1)
        return torch.where(finite.view(-1, *[1] * (x.dim() - 1)), found, x)

    def _build(self, proxy: "_Proxy", threat: ThreatModel, probe: Probe, x: Images) -> Any:
        """Call the constructor with the user's settings and those that the evaluation decides."""
        known, values = _signature(self.name), dict(self.settings)
        fraction = values.pop("step_size", None)
        if "alpha" in known and "alpha" not in values:
            natural = known["alpha"].default / known["eps"].default
            values["alpha"] = threat.eps * float(natural if fraction is None else fraction)
        values |= {key: threat.eps for key in ("eps", "max_epsilon") if key in known}
        if "norm" in known:
            values["norm"] = {"linf": "Linf", "l2": "L2"}[threat.norm]
        if "n_classes" in known:
            classes = probe.logits(x).shape[1]
            # One target class less than this; AutoAttack stops at nine.
            values["n_classes"] = min(classes, int(values.get("n_classes", 10)))
        return getattr(_library(), self.name)(proxy, **values)


class _Proxy(nn.Module):
    """What torchattacks takes for the model: every call goes to the probe, the real one stays as it is."""

    def __init__(self, probe: Probe, name: str) -> None:
        super().__init__()
        # torchattacks asks the first parameter for its device.
        self.anchor = nn.Parameter(torch.zeros(1, device=probe.x.device), requires_grad=False)
        self.probe, self.attack_name = probe, name
        self.places = torch.arange(len(probe.x), device=probe.x.device)
        """Where the examples lie in the batch that torchattacks was given."""
        self.batch = len(probe.x)
        self.only: int | None = None
        """The one example that is attacked at the moment, when they are attacked one by one."""
        self.raised: Exception | None = None

    def forward(self, points: Tensor) -> Tensor:
        try:
            points = _TidyGradient.apply(points, self.attack_name in _DIVIDES_BY_GRADIENT)
            logits = self._evaluate(points).to(points.dtype)
        except Exception as error:
            # To tell the model's own errors and the end of the search from errors of torchattacks.
            self.raised = error
            raise
        if self.attack_name in _MASKED_BY_ZERO:
            # Margins stay as they are, and zero is below every logit.
            logits = logits - logits.detach().amin(1, keepdim=True) + 1
        return logits

    def _evaluate(self, points: Tensor) -> Tensor:
        if self.only is not None:
            rows = torch.full((len(points),), self.only, device=points.device)
            return self.probe.differentiable(self._shaped(points), rows)
        if len(points) != self.batch:
            raise InputError(
                f"torchattacks:{self.attack_name} called the model with {len(points)} images where "
                f"{self.batch} were given; nothing says which examples they are"
            )
        logits = self.probe.differentiable(self._shaped(points)[self.places])
        return logits.new_zeros((self.batch, logits.shape[1])).index_copy(0, self.places, logits)

    def _shaped(self, points: Tensor) -> Tensor:
        shape = self.probe.x.shape[1:]
        if math.prod(points.shape[1:]) != math.prod(shape) or (len(shape) == 3 and points.shape[1:] != shape):
            raise InputError(
                f"torchattacks:{self.attack_name} turns inputs of shape {tuple(shape)} into "
                f"{tuple(points.shape[1:])}; it is written for square images"
            )
        return points.reshape(len(points), *shape).to(self.probe.x.dtype)


class _TidyGradient(torch.autograd.Function):
    """The identity, with a gradient that is never NaN and, where it is divided by its size, never zero."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, divided: bool) -> Tensor:
        ctx.divided = divided
        return points.view_as(points)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].nan_to_num(0.0, 0.0, 0.0)
        if ctx.divided:
            flat = gradient.flatten(1).clone()
            # One pixel gets a direction; the momentum of all others stays clean.
            flat[:, 0] = torch.where((flat == 0).all(1), 1e-20, flat[:, 0])
            gradient = flat.view_as(gradient)
        return gradient, None


def _together(attack: Any, proxy: _Proxy, images: Tensor, draws: Draws) -> Tensor:
    """Attack all examples at once, each at its place in the whole chunk.

    So an example meets the same random numbers, and a loss averaged over the batch the same divisor,
    whichever other examples of the chunk are still in the attack.
    """
    rows = draws.rows.to(images.device)
    chunk = images.new_full((draws.chunk_size, *images.shape[1:]), 0.5)
    chunk[rows] = images
    labels = torch.zeros(draws.chunk_size, dtype=torch.long, device=images.device)
    labels[rows] = proxy.probe.y
    proxy.places, proxy.batch = rows, draws.chunk_size
    with forked_random(draws.seed):
        found: Tensor = attack(chunk, labels)
    return found.detach()[rows]


def _one_by_one(attack: Any, proxy: _Proxy, images: Tensor, draws: Draws) -> Tensor:
    """Attack the examples one at a time, each with a seed of its own."""
    found = images.clone()
    seeds = draws.child("rows").integers(2**62)
    for row in proxy.probe.active.tolist():
        proxy.only = row
        seed = int(seeds[row])
        if hasattr(attack, "seed"):
            # These classes seed the global generators by themselves.
            attack.seed = seed
        try:
            with forked_random(seed):
                found[row] = attack(images[row : row + 1], proxy.probe.y[row : row + 1]).detach()[0]
        except SearchOver:
            if not len(proxy.probe.active):
                raise
    return found


def _library() -> Any:
    try:
        return importlib.import_module("torchattacks")
    except ImportError as error:
        raise InputError("this attack needs torchattacks: pip install --no-deps torchattacks==3.5.1") from error


def _signature(name: str) -> dict[str, inspect.Parameter]:
    """The settings of a class that can be run, by name."""
    if name in _REFUSED:
        raise InputError(f"torchattacks:{name} is not run: {_REFUSED[name]}")
    if name not in _NORMS:
        raise unknown("class of torchattacks", name, _NORMS)
    parameters = inspect.signature(getattr(_library(), name).__init__).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "model")}


def _check_setting(name: str, key: str, value: Setting, known: Mapping[str, inspect.Parameter]) -> None:
    label = f"torchattacks:{name}"
    if key in _OURS:
        raise InputError(f"{label}: {key} cannot be set; {_OURS[key]}")
    allowed = (set(known) - set(_OURS)) | ({"step_size"} if "alpha" in known else set())
    if key not in allowed:
        raise unknown(f"setting of {label}", key, allowed)
    default = known[key].default if key in known else 0.0
    if isinstance(default, bool | str):
        right, words = type(value) is type(default), "true or false" if isinstance(default, bool) else "text"
    elif key in _COUNTS:
        least = _LEAST.get((name, key), 1)
        right, words = (
            isinstance(value, int) and not isinstance(value, bool) and value >= least,
            f"a whole number of at least {least}",
        )
    elif key in ("step_size", "alpha"):
        right, words = _is_number(value) and float(value) > 0, "a finite number above 0"
    else:
        right, words = _is_number(value), "a finite number"
    if not right:
        raise InputError(f"{label}: {key} = {value!r} must be {words}")


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
