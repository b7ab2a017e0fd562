"""The only door from an attack to a model: counts every pass, keeps the best point, drops broken examples."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.losses import margin
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Logits, PerExample, Verdicts

DEFAULT_BATCH = 256
_PAD_TO = 16
"""Model calls are padded to a multiple of this many rows: CPU kernels for a handful of rows round
differently, and an example's verdict must not depend on how many others are still in its batch."""

ProbeLoss = Callable[..., PerExample]
"""Called as ``loss(logits, labels)``, or ``loss(logits, labels, targets)`` where targets were given."""


class SearchOver(Exception):
    """Nothing is left to search: every example is broken or out of budget. `Attack.run` catches it."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of every row; rows that are no longer searched hold zeros."""

    value: PerExample
    gradient: Images
    logits: Logits


def predict(logits: Logits) -> Labels:
    """Return the class of the largest logit, and -1 (never right) where a logit is NaN."""
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


@contextmanager
def forked_random(seed: int) -> Iterator[None]:
    """Start the global random states of torch, NumPy and Python from a seed, and restore them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextmanager
def borrowed(model: nn.Module, *, seed: int = 0) -> Iterator[nn.Module]:
    """Use a model in evaluation mode with frozen parameters, and give it back exactly as it was.

    Mode per module, ``requires_grad``, ``.grad`` and the random states of torch, NumPy and Python are
    restored, also after an exception. Inside, those random states start from ``seed``, so a model that draws
    random numbers repeats itself.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with forked_random(seed):
        try:
            model.eval()
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
                # Whatever a module accumulates meanwhile does not land in the user's tensor.
                parameter.grad = None
            yield model
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient


def call_in_batches(model: Callable[[Tensor], Tensor], points: Images, batch_size: int) -> Logits:
    """Evaluate a model batch by batch, each padded to a multiple of 16 rows.

    Args:
        model: maps images to logits.
        points: images, shape (b, ...), at least one.
        batch_size: rows of one call at most; rounded up to a multiple of 16.

    Returns:
        Logits of shape (b, classes), differentiable where the model and the points are.

    Raises:
        InputError: when the model does not return one row of logits an image.
    """
    parts = []
    for part in torch.split(points, padded(batch_size)):
        rows = len(part)
        missing = padded(rows) - rows
        full = torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
        logits = model(full)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(full):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"the model returned {shape} for {len(full)} images; it must return logits of shape "
                f"({len(full)}, classes)"
            )
        parts.append(logits[:rows])
    return torch.cat(parts)


def padded(rows: int) -> int:
    """Round a number of rows up to the size a model call is padded to."""
    return -(-rows // _PAD_TO) * _PAD_TO


class Probe:
    """One attack's metered access to one model, for n examples.

    An attack writes its loop for all n rows; rows that are broken or out of budget cost nothing, come back as
    zeros, and once no row is left the probe ends the attack by raising `SearchOver`.

    Args:
        model: maps images to logits; borrowed (frozen, evaluation mode) for as long as the probe lives.
        x: clean images, shape (n, ...).
        y: labels, shape (n,).
        threat: what counts as allowed; a point outside it is never a success.
        batch_size: rows of one model call at most.
        budget: forwards and backwards together that one example may cost; no limit when ``None``.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        batch_size: int = DEFAULT_BATCH,
        budget: int | None = None,
    ) -> None:
        self.x, self.y, self.threat = x, y, threat
        self.model = model
        self.batch_size, self.budget = batch_size, budget
        rows = len(x)
        self.forwards = torch.zeros(rows, dtype=torch.long, device=x.device)
        self.backwards = torch.zeros(rows, dtype=torch.long, device=x.device)
        self.broken = torch.zeros(rows, dtype=torch.bool, device=x.device)
        self.best = x.clone()
        """The allowed point with the largest margin seen so far, for each example."""
        self.best_margin = torch.full((rows,), -torch.inf, dtype=x.dtype, device=x.device)
        self._last = torch.full_like(x, torch.nan)

    @property
    def active(self) -> Labels:
        """Rows that are still searched: not broken and within the budget."""
        return self._searched(1).nonzero().squeeze(1)

    def logits(self, points: Images) -> Logits:
        """Evaluate all rows without gradients.

        Args:
            points: images, shape (n, ...).

        Returns:
            Logits, shape (n, classes); zeros in rows that are no longer searched.
        """
        rows = self._live_rows()
        with torch.no_grad():
            logits = call_in_batches(self.model, points[rows], self.batch_size)
        self.forwards[rows] += 1
        self.observe(rows, points[rows], logits)
        return _scatter(logits, rows, len(points))

    def gradient(self, points: Images, loss: ProbeLoss, targets: Labels | None = None) -> Evaluation:
        """Evaluate a loss and its gradient with respect to the images, for all rows.

        Args:
            points: images, shape (n, ...).
            loss: per-example loss; see `ProbeLoss`.
            targets: a target class for each row, handed to the loss.

        Returns:
            Loss, gradient and logits; zeros in rows that are no longer searched.
        """
        rows = self._live_rows(passes=2)
        values, gradients, outputs = [], [], []
        for part in torch.split(rows, padded(self.batch_size)):
            leaf = points[part].detach().requires_grad_()
            with torch.enable_grad():
                logits = call_in_batches(self.model, leaf, len(part))
                extra = () if targets is None else (targets[part],)
                value = loss(logits, self.y[part], *extra)
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            else:
                slope = None
            values.append(value.detach())
            outputs.append(logits.detach())
            gradients.append(torch.zeros_like(leaf) if slope is None else slope)
        self.forwards[rows] += 1
        self.backwards[rows] += 1
        logits = torch.cat(outputs)
        full = len(points)
        result = Evaluation(
            _scatter(torch.cat(values), rows, full),
            _scatter(torch.cat(gradients), rows, full),
            _scatter(logits, rows, full),
        )
        self.observe(rows, points[rows].detach(), logits)
        return result

    def differentiable(self, points: Images, rows: Labels | None = None) -> Logits:
        """Evaluate points for an outsider's algorithm, which may differentiate the logits by itself.

        Backward passes are counted by a hook, as often as the outsider makes them; so one that makes several
        for a single evaluation can overrun the budget by these.

        Args:
            points: images, shape (m, ...).
            rows: the example each point belongs to, shape (m,), repeats allowed; all n in order when
                ``None``.

        Returns:
            Logits, shape (m, classes), with a gradient (zero where the model has none) if the points take
            part in one; constant zeros for examples that are no longer searched.

        Raises:
            SearchOver: when none of these examples is still searched.
        """
        if rows is None:
            rows = torch.arange(len(self.x), device=self.x.device)
        tracked = torch.is_grad_enabled() and points.requires_grad
        share = torch.bincount(rows, minlength=len(self.x))
        live = self._searched(share * (2 if tracked else 1))[rows].nonzero().squeeze(1)
        if not len(live):
            raise SearchOver
        owners = rows[live]
        logits = call_in_batches(self.model, points[live], self.batch_size)
        ones = torch.ones_like(owners)

        def count_backward(_: Tensor) -> None:
            self.backwards.index_add_(0, owners, ones)

        if logits.requires_grad:
            logits.register_hook(count_backward)  # type: ignore[no-untyped-call]
        self.forwards.index_add_(0, owners, ones)
        self.observe(*self._best_of_each(owners, points[live].detach(), logits.detach()))
        if not self._searched(1)[rows].any():
            raise SearchOver
        result = _scatter(logits, live, len(points))
        # The empty sum ties every row to its point, so that asking for a gradient never fails.
        return result + points.flatten(1)[:, :0].sum(1, keepdim=True).to(result.dtype) if tracked else result

    def observe(self, rows: Labels, points: Images, logits: Logits) -> None:
        """Take note of evaluated points: which are allowed, which succeed, which are the best so far.

        Args:
            rows: the example each point belongs to, shape (m,), no example twice.
            points: images, shape (m, ...).
            logits: the model's answer to them, shape (m, classes).

        Raises:
            SearchOver: when no row is left to search.
        """
        height = self._heights(rows, points, logits)
        better = height > self.best_margin[rows]
        improved = rows[better]
        self.best[improved] = points[better]
        self.best_margin[improved] = height[better].to(self.best_margin.dtype)
        self.broken[improved] |= height[better].isposinf()
        self._last[rows] = points
        if not len(self.active):
            raise SearchOver

    def settle(self, points: Images) -> None:
        """Evaluate the final points of an attack, except those that were its last evaluation anyway."""
        rows = self._live_rows()
        rows = rows[(points[rows] != self._last[rows]).flatten(1).any(1)]
        if len(rows):
            with torch.no_grad():
                logits = call_in_batches(self.model, points[rows], self.batch_size)
            self.forwards[rows] += 1
            self.observe(rows, points[rows], logits)

    def _heights(self, rows: Labels, points: Images, logits: Logits) -> PerExample:
        """The margin of allowed points, infinite where misclassified; minus infinity where not allowed."""
        labels = self.y[rows]
        # A broken example needs no better point, and a NaN logit has no margin.
        height = torch.where(predict(logits) != labels, torch.inf, margin(logits, labels).nan_to_num(-torch.inf))
        return torch.where(self.threat.contains(self.x[rows], points), height, -torch.inf)

    def _best_of_each(self, rows: Labels, points: Images, logits: Logits) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the highest of the points of each example."""
        if int(torch.bincount(rows).max()) == 1:
            return rows, points, logits
        falling = self._heights(rows, points, logits).argsort(descending=True, stable=True)
        owners, order = rows[falling].sort(stable=True)
        first = torch.ones_like(owners, dtype=torch.bool)
        first[1:] = owners[1:] != owners[:-1]
        keep = falling[order[first]]
        return rows[keep], points[keep], logits[keep]

    def _searched(self, passes: int | Tensor) -> Verdicts:
        """Say which examples are not broken and have so many passes left in their budget."""
        if self.budget is None:
            return ~self.broken
        return ~self.broken & (self.forwards + self.backwards + passes <= self.budget)

    def _live_rows(self, passes: int = 1) -> Labels:
        rows = self._searched(passes).nonzero().squeeze(1)
        if not len(rows):
            raise SearchOver
        return rows


def _scatter(values: Tensor, rows: Tensor, full: int) -> Tensor:
    if len(rows) == full:
        return values
    return values.new_zeros((full, *values.shape[1:])).index_copy_(0, rows, values)
