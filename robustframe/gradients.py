"""How an attack takes gradients of a model: it steers the search and never decides a verdict."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustframe.calls import DEFAULT_BATCH, call
from robustframe.differences import Estimate
from robustframe.errors import InputError, unknown
from robustframe.pairs import Twin
from robustframe.solvers import Implicit, Truncated, iterate
from robustframe.types import Images, Logits

Substitute = Callable[[Tensor], Tensor]
"""What the gradient of a submodule is taken of instead; same input, same shape of output."""
Surrogate = Callable[[nn.Module], Callable[[Tensor], Tensor]]
"""Makes of a model the classifier whose gradient is taken in its place."""

THROUGH = ("all", "cheap", "estimate:K", "last:K", "implicit", "iterates", "times:K", "feedforward", "transfer")
"""What `Gradients.through` can name."""
_OF_SOLVERS = frozenset({"last", "implicit", "iterates", "times", "feedforward", "transfer"})

_SHORT_SERIES = Implicit(method="neumann", tolerance=1e-2, steps=8)


@dataclass(frozen=True)
class View:
    """One differentiable look at a model, for m images."""

    terms: Sequence[Logits]
    """Logits of shape (m, classes); the loss is averaged over them."""
    logits: Logits | None
    """The model's own logits, where this look has them; else the model is evaluated for itself."""
    passes: int = 1
    """Forwards that it took."""
    backwards: int = 1
    """Backwards of the model that its gradient takes."""


Look = Callable[[Images], View]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The way gradients are taken: through what, of which nonlinearity, averaged over how many draws.

    The model itself is always evaluated too, so that every point it misclassifies is seen.
    """

    through: str | Surrogate = "all"
    """``all``: the model as it is. ``cheap``: the last sweep of an iterative solver, all of any other model.
    ``estimate:K``: forwards alone, in K directions and their opposites, for models whose gradient is none or another
    one's; it costs 2 K + 1 forwards.

    Of an iterative solver only: ``last:K`` (its last K sweeps), ``implicit`` (the fixed point, by a short Neumann
    series), ``iterates`` (the mean loss after every sweep), ``times:K`` (the loss after K times its sweeps),
    ``feedforward`` (the loss of the model, the gradient of its first sweep: BPDA) and ``transfer`` (loss and gradient
    of the first sweep).

    Or a function that makes of the model the module whose gradient stands in (BPDA)."""
    smooth: float = 0.0
    """Above 0, every ReLU has on the way back the slope of a softplus of this sharpness, in units of the root mean
    square of its input, so that dead codes carry a gradient; 0 leaves it."""
    eot: int = 1
    """Evaluations whose gradients are averaged, for models that draw random numbers (expectation over transformation,
    Athalye et al., 2018, arXiv:1707.07397)."""
    bpda: Mapping[str, Literal["identity"] | Substitute] = field(default_factory=dict)
    """Submodules by name, and what their gradient is taken of: ``"identity"`` or a function (backward pass
    differentiable approximation, Athalye et al., 2018, arXiv:1802.00420)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What a search computes in, with gradients and without; the model as it is confirms a success."""

    def __post_init__(self) -> None:
        if isinstance(self.through, str):
            _parse(self.through)
        if self.eot < 1 or self.smooth < 0:
            raise InputError(f"eot = {self.eot} must be at least 1 and smooth = {self.smooth} not below 0")

    def why_not(self, model: nn.Module) -> str | None:
        """Say why these gradients are nothing of their own for a model; ``None`` when they are."""
        if not isinstance(self.through, str) or _parse(self.through)[0] not in _OF_SOLVERS:
            return None
        if not isinstance(model, Twin):
            return f"through = {self.through!r} is for iterative solvers, which this model is not"
        if not solves(model):
            return f"through = {self.through!r} is for iterative solvers, and this twin makes one sweep only"
        return None

    def derivative_of(self, model: nn.Module) -> bool:
        """Say whether these gradients are meant to be the derivative of the model itself."""
        if self.smooth or self.bpda or not isinstance(self.through, str):
            return False
        return self.through == "all" or (self.through == "cheap" and not solves(model))

    @property
    def of_parts(self) -> bool:
        """Whether they name parts of the model, or are made of it by a function, so that no copy will do."""
        return bool(self.bpda) or not isinstance(self.through, str)

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """Compute in the precision of the search for as long as the context lasts."""
        return nullcontext() if self.precision == "float32" else torch.autocast(device.type, torch.bfloat16)

    @property
    def passes(self) -> int:
        """Passes of the model that one gradient costs at least, all draws together."""
        kind, number = _parse(self.through) if isinstance(self.through, str) else ("", 0)
        return self.eot * (2 * number + 1 if kind == "estimate" else 2)

    @contextmanager
    def looking(
        self, model: nn.Module, *, low: float = 0.0, high: float = 1.0, batch_size: int = DEFAULT_BATCH
    ) -> Iterator[Look]:
        """Give a look at a model, for as long as the context lasts; afterwards the model has no hooks of ours.

        Args:
            model: maps images to logits.
            low, high: the box, which no point that is evaluated leaves.
            batch_size: rows of one model call at most.

        Raises:
            InputError: for a submodule that the model does not have, or a look that it does not allow.
        """
        reason = self.why_not(model)
        if reason is not None:
            raise InputError(reason)
        look = self._look(model, low, high, batch_size)
        modules = dict(model.named_modules())
        handles = []
        try:
            for name, substitute in self.bpda.items():
                if name not in modules or not name:
                    raise unknown("submodule", name, [known for known in modules if known])
                hook = _stand_in(_identity if isinstance(substitute, str) else substitute)
                handles.append(modules[name].register_forward_hook(hook))
            yield self._modified(look)
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, model: nn.Module, low: float, high: float, batch_size: int) -> Look:
        if not isinstance(self.through, str):
            return _behind(model, self.through(model))
        kind, number = _parse(self.through)
        if kind == "estimate":
            return _estimating(model, number, (low, high), batch_size)
        if kind == "all" or not isinstance(model, Twin):
            return plain(model)
        if kind in ("last", "cheap"):
            number = max(number, 1)
            return plain(Twin(model.pair, 1, solver=model.solver, adjoint=Truncated(last=number)))
        if kind == "implicit":
            return plain(Twin(model.pair, 1, solver=model.solver, adjoint=_SHORT_SERIES))
        if kind == "iterates":
            return _unrolled(model, 1, every=True)
        if kind == "times":
            return _unrolled(model, number, every=False)
        first = Twin(model.pair, 1)
        return _behind(model, first) if kind == "feedforward" else lambda x: View((first(x),), None)

    def _modified(self, look: Look) -> Look:
        def modified(x: Images) -> View:
            with _SmoothReLU(self.smooth), self.computing(x.device):
                view = look(x)
            return replace(view, terms=[term.to(x.dtype) for term in view.terms])

        return modified if self.smooth or self.precision != "float32" else look


def solves(model: nn.Module) -> bool:
    """Say whether a model is an iterative solver, whose gradient can be taken in other ways than through all of it."""
    return isinstance(model, Twin) and model.solver.sweeps > 1


def _estimating(model: nn.Module, number: int, box: tuple[float, float], batch_size: int) -> Look:
    """Values of the model, gradient estimated from its values nearby."""

    def look(x: Images) -> View:
        logits = Estimate.apply(x, model, number, box, batch_size)
        return View((logits,), logits, passes=2 * number + 1, backwards=0)

    return look


def _parse(through: str) -> tuple[str, int]:
    """Split ``"last:2"`` into its kind and number; 0 where there is none."""
    kind, colon, number = through.partition(":")
    counted = kind in ("last", "times", "estimate")
    if kind not in {name.partition(":")[0] for name in THROUGH} or bool(colon) != counted:
        raise unknown("through", through, THROUGH)
    if counted and not (number.isdigit() and int(number) >= 1):
        raise InputError(f"through = {through!r} needs a whole number of at least 1 after the colon")
    return kind, int(number) if counted else 0


def plain(module: Callable[[Tensor], Tensor]) -> Look:
    """Look at a module as it is."""

    def look(x: Images) -> View:
        logits = call(module, x)
        return View((logits,), logits)

    return look


def _behind(model: nn.Module, surrogate: Callable[[Tensor], Tensor]) -> Look:
    """Values of the model, gradient of the surrogate."""

    def look(x: Images) -> View:
        with torch.no_grad():
            # The surrogate looks at the images after it.
            logits = call(model, x.detach().clone())
        return View((_Graft.apply(logits, surrogate(x)),), logits, passes=2)

    return look


def _unrolled(twin: Twin, times: int, *, every: bool) -> Look:
    """The loss after one or every sweep, and on the way the logits that the twin itself would give."""
    own, frame = twin.solver.sweeps, twin.pair.frame
    solver = replace(twin.solver, sweeps=times * own)
    # Its own logits lie on the way unless it stops early or finishes one layer after the other.
    passes_by = solver.tolerance is None and solver.phases(frame) == 1

    def look(x: Images) -> View:
        codes = [codes[-1] for codes in iterate(solver, frame, x) if len(codes) == len(frame.blocks)]
        heads = [twin.pair.classify(code) for code in (codes if every else codes[-1:])]
        return View(heads, twin.pair.classify(codes[own - 1].detach()) if passes_by else None)

    return look


class _Graft(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, graph: Tensor) -> Tensor:
        if value.shape != graph.shape:
            raise InputError(
                f"what stands in for a gradient returned shape {tuple(graph.shape)} in place of {tuple(value.shape)}"
            )
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor]:
        return None, slopes[0]


def _stand_in(substitute: Substitute) -> Callable[..., Tensor | None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        # Evaluations without gradients are those that count: they see the model as it is.
        if not torch.is_grad_enabled():
            return None
        grafted: Tensor = _Graft.apply(output.detach(), substitute(inputs[0]))
        return grafted

    return hook


def _identity(x: Tensor) -> Tensor:
    return x


class _Softened(torch.autograd.Function):
    """The ReLU, with the slope of a softplus whose sharpness is relative to the size of the example's inputs."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.sharpness = sharpness
        return u.relu()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        size = u.flatten(1).square().mean(1).sqrt().clamp_min(torch.finfo(u.dtype).tiny)
        return slopes[0] * torch.sigmoid(u * (ctx.sharpness / size).view(-1, *[1] * (u.dim() - 1))), None


class _SmoothReLU(TorchFunctionMode):
    """While it is entered, every ReLU is a `_Softened` one, wherever in a model it is called."""

    _RELUS = frozenset({torch.relu, torch.relu_, F.relu, F.relu_, Tensor.relu, Tensor.relu_})

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.sharpness and func in self._RELUS:
            return _Softened.apply(args[0] if args else kwargs["input"], self.sharpness)
        return func(*args, **(kwargs or {}))
