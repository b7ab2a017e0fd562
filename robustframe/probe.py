"""The only door from an attack to a model: counts every pass, keeps the best point, drops broken examples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustframe.calls import DEFAULT_BATCH, call_in_batches, checked, pad, padded, predict
from robustframe.gradients import Gradients, plain
from robustframe.prepared import Searched
from robustframe.spaces import Window
from robustframe.targets import best_other, check_targets, choose_targets, height, rank_targets, reached
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Logits, PerExample, Verdicts

ProbeLoss = Callable[..., PerExample]
"""Called as ``loss(logits, labels)``, or ``loss(logits, labels, targets)`` where classes to aim at were given."""
Gallery = tuple[Tensor, Tensor]
"""Images and their labels, as many as there are."""
_BELOW_EVERY_DISTANCE = 1e12


class SearchOver(Exception):
    """Nothing is left to search: every example is broken or out of budget. `Attack.run` catches it."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of every row; rows that are no longer searched hold zeros."""

    value: PerExample
    gradient: Images
    logits: Logits


Watch = Callable[[Labels, Evaluation, PerExample], None]
"""Is told of every gradient that is taken: the example of each point, what was found there, and its height."""


class Probe:
    """One attack's metered access to one model, for n examples.

    An attack evaluates one point for each example, or with ``rows`` any number of points that each belong to an
    example. Examples that are broken or out of budget cost nothing, come back as zeros, and once none is left the
    probe ends the attack by raising `SearchOver`.

    Args:
        model: maps images to logits; borrowed (frozen, evaluation mode) for as long as the probe lives.
        x: clean images, shape (n, ...).
        y: labels, shape (n,).
        threat: what may change, what counts as allowed, and as a success: any wrong class, or the example's target; a
            point outside it is never one.
        batch_size: rows of one model call at most.
        budget: forwards and backwards together that one example may cost; no limit when ``None``.
        gradients: how gradients are taken; enter `looking` before the first one.
        votes: fresh evaluations of a point whose majority decides, for models that draw random numbers.
        closest: look for the success nearest to the clean image: an example with a success is searched further.
        watch: see `Watch`.
        targets: classes that the examples are to be taken for, shape (n,); where the threat has a rule for them, they
            are chosen by it when left out, for one forward each.
        gallery: images and labels that a search may start from, which is to reach a target; of any number.
        search: what is asked in place of the model until something succeeds there, which the model confirms; the model
            itself when ``None``, or where gradients are of parts of the model.
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
        gradients: Gradients | None = None,
        votes: int = 1,
        closest: bool = False,
        watch: Watch | None = None,
        targets: Labels | None = None,
        gallery: Gallery | None = None,
        search: Searched | None = None,
    ) -> None:
        self.asked, self.clean, self.y, self.gallery = threat, x, y, gallery
        self.space = threat.space
        if self.space is not None:
            x = self.space.enter(x)
            self.gallery = self._entered(gallery)
        self.x, self.threat = x, threat.inner
        """Where the attacker starts and may go: the clean images, or the numbers that `space` makes of them."""
        self.model = model
        self.batch_size, self.budget, self.votes, self.closest = batch_size, budget, votes, closest
        self.gradients = Gradients() if gradients is None else gradients
        self.search = None if self.gradients.of_parts else search
        if self.search is not None and self.search.precision != "float32":
            self.gradients = replace(self.gradients, precision=self.search.precision)
        self._asked = model if self.search is None else self.search.model
        self._exact = self._asked is model and self.gradients.precision == "float32"
        self.watch = watch
        self._look = plain(self._asked)
        # Every point may become one that is valid.
        self._ball = replace(self.threat, valid="")
        rows = len(x)
        self._rows = torch.arange(rows, device=x.device)
        self.forwards, self.backwards, self.zero_gradients, self.nonfinite_gradients = (
            torch.zeros(rows, dtype=torch.long, device=x.device) for _ in range(4)
        )
        self.broken = torch.zeros(rows, dtype=torch.bool, device=x.device)
        self.spared = torch.zeros_like(self.broken)
        """Examples that the attack has no use for, which are searched no further."""
        self.succeeded = torch.zeros_like(self.broken)
        """Examples with a success so far; the broken ones, unless the closest success is looked for."""
        self.best = x.clone()
        """The allowed point with the largest margin so far of each example, or its closest success."""
        self._below = _BELOW_EVERY_DISTANCE if closest else 0.0
        self._height = torch.full((rows,), -torch.inf, dtype=torch.float64, device=x.device)
        self._last = (self._rows[:0], x[:0], 0)
        self.targets = self._chosen(targets)
        """The class that each example is to be taken for, shape (n,); ``None`` where any wrong one will do."""

    def _chosen(self, given: Labels | None) -> Labels | None:
        if given is not None:
            return check_targets(given, self.y)
        if not self.threat.targets or not len(self.x):
            return None
        self._count(self.forwards, self._rows)
        return choose_targets(self.threat.targets, self.clean, self.y, self._evaluate(self.x, self._rows))

    def _entered(self, gallery: Gallery | None) -> Gallery | None:
        """The same part of the gallery's images, where all examples have the same."""
        if gallery is None or not isinstance(self.space, Window):
            return None
        return self.space.enter(gallery[0]), gallery[1]

    def images(self, points: Tensor, rows: Labels) -> Images:
        """Return what the model sees at points: themselves, or the images that `space` makes of them.

        Args:
            points: shape (m, ...).
            rows: the example each belongs to, shape (m,).
        """
        if self.space is None:
            return points
        return self.space.of(rows).image(self.clean.index_select(0, rows), points)

    def reached(self, prediction: Labels, rows: Labels | None = None) -> Verdicts:
        """Say which predictions are what is sought: the target of their example, or without targets any wrong class.

        Args:
            prediction: classes, shape (m,).
            rows: the example each belongs to, shape (m,); all n in order when ``None``.
        """
        return reached(prediction, *self._sought(rows))

    def height(self, logits: Logits, rows: Labels | None = None) -> PerExample:
        """Measure how near logits are to what is sought; see `robustframe.targets.height`."""
        return height(logits, *self._sought(rows))

    def _sought(self, rows: Labels | None) -> tuple[Labels, Labels | None]:
        """Labels and targets of some examples, repeats allowed; of all n in order when ``None``."""
        if rows is None:
            return self.y, self.targets
        return self.y[rows], None if self.targets is None else self.targets[rows]

    def rivals(self, logits: Logits, count: int) -> Tensor:
        """Return the classes to aim at: the target of each example, or without targets the wrong classes with the
        largest logits, best first.

        Args:
            logits: of the clean images, shape (n, classes).
            count: how many are wanted at most.

        Returns:
            Class numbers, shape (n, min(count, classes - 1)), or (n, 1).
        """
        if self.targets is not None:
            return self.targets.unsqueeze(1)
        return rank_targets(logits, self.y, count)

    @property
    def active(self) -> Labels:
        """Examples that are still searched: neither broken nor spared, and within the budget."""
        return self.searched().nonzero().squeeze(1)

    def searched(self, passes: int | Tensor = 1) -> Verdicts:
        """Say of each example whether it is neither broken nor spared and has so many passes left in its budget."""
        going = ~(self.broken | self.spared)
        if self.budget is None:
            return going
        return going & (self.forwards + self.backwards + passes <= self.budget)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Prepare the model for gradients taken as `Gradients` says; afterwards it is as it was."""
        box = {"low": self.asked.low, "high": self.asked.high}
        with self.gradients.looking(self._asked, **box, batch_size=self.batch_size) as look:
            self._look = look
            yield

    def logits(self, points: Images, rows: Labels | None = None, *, exact: bool = False) -> Logits:
        """Evaluate points without gradients.

        Args:
            points: images, shape (m, ...).
            rows: the example each point belongs to, shape (m,), repeats allowed; all n in order when ``None``.
            exact: ask the model itself, whatever is searched.

        Returns:
            Logits, shape (m, classes); zeros for examples that are no longer searched.
        """
        live, owners = self._live(rows, 1)
        asked = _pick(points, live)
        logits = self._evaluate(asked, owners) if exact else self._seek(asked, owners)
        self._count(self.forwards, owners)
        self.observe(owners, asked, logits, exact=exact or self._exact)
        return _scatter(logits, live, len(points))

    def gradient(
        self, points: Images, loss: ProbeLoss, targets: Labels | None = None, rows: Labels | None = None
    ) -> Evaluation:
        """Evaluate a loss and its gradient with respect to the images.

        Where the examples have targets, a loss of the label is taken of the target and turned round, so that it rises
        on the way there; one that aims at a class sets the target against the best other class in place of the label.

        Args:
            points: images, shape (m, ...).
            loss: per-example loss; see `ProbeLoss`.
            targets: a class to aim at for each point, handed to the loss, shape (m,).
            rows: the example each point belongs to, shape (m,), repeats allowed; all n in order when ``None``.

        Returns:
            Loss, gradient and logits, averaged over the draws of the gradients; zeros for examples that are no longer
            searched. A gradient that is not finite is counted and given as zero.
        """
        draws = self.gradients.eot
        live, owners = self._live(rows, self.gradients.passes)
        asked, labels = _pick(points, live).detach(), self.y[owners]
        aims = () if targets is None else (_pick(targets, live),)
        found = [self._differentiate(asked, loss, labels, aims, owners) for _ in range(draws)]
        value, slope, logits = (torch.stack(parts).mean(0) if draws > 1 else parts[0] for parts in zip(*found))
        slope = self._tidy(slope, owners)
        self.observe(owners, asked, logits, exact=self._exact and draws == 1)
        full = len(points)
        seen = Evaluation(_scatter(value, live, full), _scatter(slope, live, full), _scatter(logits, live, full))
        if self.watch is not None:
            owners = self._rows if rows is None else rows
            self.watch(owners, seen, self.height(seen.logits, owners))
        return seen

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
        rows = self._rows if rows is None else rows
        tracked = torch.is_grad_enabled() and points.requires_grad
        live, owners = self._live(rows, 2 if tracked else 1)
        with self.gradients.computing(points.device):
            logits = call_in_batches(self._asked, self.images(_pick(points, live), owners), self.batch_size)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count(self.backwards, owners))  # type: ignore[no-untyped-call]
        self._count(self.forwards, owners)
        self.observe(owners, _pick(points, live).detach(), logits.detach(), exact=self._exact)
        if not self.searched()[rows].any():
            raise SearchOver
        result = _scatter(logits, live, len(points))
        # The empty sum ties every row to its point, so that asking for a gradient never fails.
        return result + points.flatten(1)[:, :0].sum(1, keepdim=True).to(result.dtype) if tracked else result

    def observe(self, rows: Labels, points: Images, logits: Logits, *, exact: bool = True) -> None:
        """Take note of evaluated points: which are allowed, which succeed, which are the best so far.

        Args:
            rows: the example each point belongs to, shape (m,), repeats allowed.
            points: images, shape (m, ...).
            logits: the model's answer to them, shape (m, classes).
            exact: these are the exact model's own logits in full precision; otherwise it confirms a success first.

        Raises:
            SearchOver: when no example is left to search.
        """
        # A NaN logit has no margin.
        height = self.height(logits, rows).double().nan_to_num(-torch.inf) - self._below
        wrong = self.reached(predict(logits), rows)
        promising = wrong | (height > self._height[rows])
        if promising.any():
            # Only points that may be better than the best are measured; the others are most of a search.
            owners, found, height, wrong = _chosen(promising, rows, points, height, wrong)
            allowed = self._allowed(self.x.index_select(0, owners), found, wrong)
            owners, found, height, wrong = _chosen(allowed, owners, found, height, wrong)
            self._keep(owners, found, height, wrong, exact and self.votes == 1)
        self._last = (rows, points, points._version)
        if not self.searched().any():
            raise SearchOver

    def settle(self, points: Images) -> None:
        """Evaluate the final points of an attack, except those that were its last evaluation anyway."""
        live = self.searched()
        if not live.any():
            raise SearchOver
        rows, last, version = self._last
        if last._version == version:
            same = (points[rows] == last).flatten(1).all(1)
            live[rows[same]] = False
        rows = live.nonzero().squeeze(1)
        if len(rows):
            self.logits(points.index_select(0, rows), rows)

    def majority(self, points: Images, rows: Labels) -> Labels:
        """Return the class that most of the fresh evaluations give each point, shape (m,)."""
        votes = []
        for _ in range(self.votes):
            votes.append(predict(self._evaluate(points, rows)))
            self._count(self.forwards, rows)
        return torch.stack(votes).mode(0).values

    def _evaluate(self, points: Images, rows: Labels) -> Logits:
        """Ask the exact model."""
        with torch.no_grad():
            return call_in_batches(self.model, self.images(points, rows), self.batch_size)

    def _seek(self, points: Images, rows: Labels) -> Logits:
        """Ask what is searched."""
        with torch.no_grad(), self.gradients.computing(points.device):
            return call_in_batches(self._asked, self.images(points, rows), self.batch_size)

    def _differentiate(
        self, points: Images, loss: ProbeLoss, labels: Labels, aims: tuple[Labels, ...], owners: Labels
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, gradient and logits of one draw."""
        values, slopes, outputs = [], [], []
        for part in torch.split(torch.arange(len(points), device=points.device), padded(self.batch_size)):
            leaf = points[part].requires_grad_() if len(part) < len(points) else points.clone().requires_grad_()
            extra = [aim[part] for aim in aims]
            with torch.enable_grad():
                full = pad(self.images(leaf, owners[part]))
                view = self._look(full)
                terms = [checked(term, full)[: len(leaf)] for term in view.terms]
                losses = [self._climbed(loss, term, labels[part], owners[part], extra) for term in terms]
                value = losses[0] if len(losses) == 1 else torch.stack(losses).mean(0)
            slope = None
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            slopes.append(torch.zeros_like(leaf) if slope is None else slope)
            values.append(value.detach())
            if view.logits is None:
                own = self._seek(leaf.detach(), owners[part])
            else:
                own = view.logits.detach()[: len(leaf)].clone()
            outputs.append(own.to(values[-1].dtype))
            passes = view.passes + (view.logits is None)
            self._count(self.forwards, owners[part], passes)
            self._count(self.backwards, owners[part], view.backwards)
        return torch.cat(values), torch.cat(slopes), torch.cat(outputs)

    def _climbed(
        self, loss: ProbeLoss, logits: Logits, labels: Labels, owners: Labels, aims: list[Labels]
    ) -> PerExample:
        """What is climbed; see `gradient`."""
        if self.targets is None:
            return loss(logits, labels, *aims)
        if aims:
            return loss(logits, best_other(logits, aims[0]), *aims)
        return -loss(logits, self.targets[owners])

    def _tidy(self, slope: Images, owners: Labels) -> Images:
        flat = slope.flatten(1)
        # One number per row tells both: it is not finite, or zero, when some entry or every entry is.
        size = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(flat))
        fine = (size > 0) & size.isfinite()
        if fine.all():
            return slope
        finite = flat.isfinite().all(1)
        self._count(self.zero_gradients, owners[finite & ~fine])
        self._count(self.nonfinite_gradients, owners[~finite])
        return slope.nan_to_num(0.0, 0.0, 0.0)

    def _keep(self, rows: Labels, points: Images, height: PerExample, wrong: Verdicts, exact: bool) -> None:
        """Keep allowed points that are better than the best of their example."""
        if (not exact or self.threat.valid) and wrong.any():
            doubtful = wrong.nonzero().squeeze(1)
            wrong = wrong.clone()
            if self.threat.valid:
                points = points.clone()
                points[doubtful] = self.threat.rounded(self.x[rows[doubtful]], points[doubtful])
            wrong[doubtful] = self.reached(self.majority(points[doubtful], rows[doubtful]), rows[doubtful])
        reached = -self.threat.distance(self.x.index_select(0, rows), points) if self.closest else torch.inf
        height = torch.where(wrong, reached, height)
        if len(rows) and int(torch.bincount(rows).max()) > 1:
            rows, height, points, wrong = _best_of_each(rows, height, points, wrong)
        rows, points, height, improved = _chosen(height > self._height[rows], rows, points, height, wrong)
        self.best.index_copy_(0, rows, points)
        self._height[rows] = height
        self.succeeded[rows] |= improved
        if not self.closest:
            self.broken[rows] |= improved

    def _allowed(self, x: Images, points: Images, wrong: Verdicts) -> Verdicts:
        """Measure points: exactly where they are misclassified, else in their own precision."""
        allowed = self._ball.roughly_contains(x, points)
        decisive = (allowed & wrong).nonzero().squeeze(1)
        if len(decisive):
            allowed[decisive] = self._ball.contains(x[decisive], points[decisive])
        return allowed

    def _live(self, rows: Tensor | None, passes: int) -> tuple[Tensor | None, Tensor]:
        """The places of points whose example is still searched (``None`` for all of them), and their examples."""
        if rows is None:
            live = self.searched(passes)
            owners = self._rows
        else:
            share = passes if self.budget is None else passes * torch.bincount(rows, minlength=len(self.x))
            live = self.searched(share)[rows]
            owners = rows
        if live.all():
            if not len(owners):
                raise SearchOver
            return None, owners
        places = live.nonzero().squeeze(1)
        if not len(places):
            raise SearchOver
        return places, owners[places]

    def _count(self, counter: Tensor, rows: Labels, passes: int = 1) -> None:
        counter.index_add_(0, rows, torch.full_like(rows, passes))


def _pick(values: Tensor, places: Tensor | None) -> Tensor:
    # On a CPU this is several times as fast as an index in brackets.
    return values if places is None else values.index_select(0, places)


def _chosen(which: Verdicts, *columns: Tensor) -> tuple[Tensor, ...]:
    """Keep some rows of each column."""
    places = None if which.all() else which.nonzero().squeeze(1)
    return tuple(_pick(column, places) for column in columns)


def _best_of_each(rows: Labels, height: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Keep the highest of the points of each example."""
    falling = height.argsort(descending=True, stable=True)
    owners, order = rows[falling].sort(stable=True)
    first = torch.ones_like(owners, dtype=torch.bool)
    first[1:] = owners[1:] != owners[:-1]
    keep = falling[order[first]]
    return tuple(column[keep] for column in (rows, height, *columns))


def _scatter(values: Tensor, places: Tensor | None, full: int) -> Tensor:
    if places is None:
        return values
    return values.new_zeros((full, *values.shape[1:])).index_copy_(0, places, values)
