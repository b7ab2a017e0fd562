"""The exact model, shown every clean and every stored adversarial image again."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl
import torch
from torch import Tensor

from robustframe.calls import borrowed, call_in_batches, predict
from robustframe.errors import InputError
from robustframe.files import WEIGHTS_BYTES, read_plain
from robustframe.models.classifiers import Classifier
from robustframe.models.identity import ALIKE, ELSEWHERE
from robustframe.runs.record import Environment
from robustframe.runs.run import Run
from robustframe.runs.units import StoredImages, Unit, parse_images
from robustframe.spaces import Motion
from robustframe.targets import choose_targets
from robustframe.threat import ThreatModel
from robustframe.verification.findings import Finding
from robustframe.verification.sources import Sources
from robustframe.verification.stored import AttackUnits

_DISTANCE = 1e-9
"""Relative; both are summed in float64."""


@dataclass
class Tally:
    """How much was replayed."""

    images: int = 0
    ties: int = 0
    """Predictions that differ by no more than rounding explains."""


class Replayer:
    """Replays on the exact models, which come back as they were.

    Args:
        run: the run.
        sources: its examples and models.
        batch_size: rows of one model call at most.
    """

    def __init__(self, run: Run, sources: Sources, batch_size: int) -> None:
        self.run, self.sources, self.batch_size = run, sources, batch_size
        here, then = Environment.here(sources.device), run.record.environment
        self.rounding = ALIKE if here.kernels == then.kernels else ELSEWHERE
        self.tally = Tally()

    def repeats_itself(self, classifier: Classifier) -> bool:
        """Whether a classifier answers the same images the same way twice."""
        few = self.sources.data.images[:32].to(self.sources.device)
        with borrowed(classifier.module) as model, torch.no_grad():
            one, two = (call_in_batches(model, few, self.batch_size) for _ in range(2))
        return torch.equal(one, two)

    def clean(self, classifier: Classifier, rows: pl.DataFrame, where: str, column: str) -> Iterator[Finding]:
        """Replay clean images: their labels, and the predictions in a column of a table with ``index``."""
        data = self.sources.data
        rows = rows.filter(pl.col("index").is_between(0, len(data) - 1))
        index = _column(rows, "index")
        for at in (_column(rows, "label") != data.labels[index]).nonzero().flatten().tolist():
            stated = int(rows["label"][at])
            yield Finding(where, int(index[at]), f"its label is {int(data.labels[index[at]])}, the table says {stated}")
        if len(index):
            logits = self._logits(classifier, data.images[index])
            yield from self._predictions(where, index, _column(rows, column), logits, "the clean image")

    def shown(
        self, classifier: Classifier, rows: pl.DataFrame, where: str, images: Tensor, what: str
    ) -> Iterator[Finding]:
        """Replay images made of clean ones: their labels, and the predictions in a table with ``index``."""
        index = _column(rows, "index")
        for at in (_column(rows, "label") != self.sources.data.labels[index]).nonzero().flatten().tolist():
            stated, label = int(rows["label"][at]), int(self.sources.data.labels[int(index[at])])
            yield Finding(where, int(index[at]), f"its label is {label}, the table says {stated}")
        yield from self._predictions(where, index, _column(rows, "prediction"), self._logits(classifier, images), what)

    def stored(
        self, classifier: Classifier, attacked: AttackUnits, unit: Unit, rows: pl.DataFrame
    ) -> Iterator[Finding]:
        """Replay the stored images of one unit: finite, box, ball, distance, and the prediction of the exact model."""
        where = self.run.files.name(unit.images)
        successes = rows.filter("success")
        if not len(successes) or not unit.images.is_file():
            return
        images = _read_images(unit, tuple(self.sources.data.images.shape[1:]))
        if isinstance(images, str):
            yield Finding(where, None, images)
            return
        found, expected = images.index, _column(successes, "index")
        if not torch.equal(found, expected):
            yield from _misplaced(where, found, expected)
            return
        if bool((expected < 0).any()) or int(expected.max()) >= len(self.sources.data):
            # The table's own check has named them.
            return
        adversarial, numbers = images.adversarial, images.numbers
        clean = self.sources.data.images[expected]
        self.tally.images += len(expected)
        space = attacked.threat.space
        if isinstance(space, Motion) and (numbers is None or numbers.shape[1] != len(space.largest)):
            found_numbers = "no" if numbers is None else str(numbers.shape[1])
            text = f"it holds {found_numbers} numbers of each image, {len(space.largest)} say how it was moved"
            yield Finding(where, None, text)
            return
        allowed = attacked.threat.contains(clean, adversarial, numbers)
        yield from _not_allowed(where, attacked.threat, expected, clean, adversarial, allowed)
        measured = attacked.threat.distance(clean, adversarial, numbers)
        yield from _distances(self.run.files.name(unit.table), successes, measured)
        finite = adversarial.flatten(1).isfinite().all(1)
        if finite.any():
            logits = self._logits(classifier, adversarial[finite])
            labels, stated = self.sources.data.labels[expected][finite], _column(successes, "prediction")[finite]
            yield from self._breaks(where, expected[finite], labels, logits)
            table = self.run.files.name(unit.table)
            yield from self._predictions(table, expected[finite], stated, logits, "the stored image")
        yield from self.aimed(classifier, attacked.threat, successes, self.run.files.name(unit.table), "prediction")

    def aimed(
        self, classifier: Classifier, threat: ThreatModel, rows: pl.DataFrame, where: str, column: str
    ) -> Iterator[Finding]:
        """Choose the targets of broken examples anew, each of which a column says it was taken for."""
        index, stated = _column(rows, "index"), _column(rows, column)
        known = (index >= 0) & (index < len(self.sources.data))
        if not threat.targets or not known.any():
            return
        index, stated = index[known], stated[known]
        images, labels = self.sources.data.images[index], self.sources.data.labels[index]
        logits = self._logits(classifier, images)
        targets = choose_targets(threat.targets, images, labels, logits)
        possible = stated.clamp(0, logits.shape[1] - 1)
        above = (logits.gather(1, possible[:, None]) - logits.gather(1, targets[:, None])).squeeze(1)
        # Which class is least likely may be a matter of rounding.
        tie = (threat.targets == "least-likely") & (possible != labels) & (above <= self._rounding_of(logits))
        for at in ((stated != targets) & ~tie).nonzero().flatten().tolist():
            text = (
                f"{threat.label}: its target is {int(targets[at])}, the table says it was taken for {int(stated[at])}"
            )
            yield Finding(where, int(index[at]), text)

    def _logits(self, classifier: Classifier, images: Tensor) -> Tensor:
        with borrowed(classifier.module) as model, torch.no_grad():
            return call_in_batches(model, images.to(self.sources.device), self.batch_size).cpu()

    def _breaks(self, where: str, index: Tensor, labels: Tensor, logits: Tensor) -> Iterator[Finding]:
        """Stored images that the exact model classifies right, by more than rounding."""
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        lead = logits.gather(1, labels[:, None]).squeeze(1) - others
        right = (predict(logits) == labels) & (lead > self._rounding_of(logits))
        for at in right.nonzero().flatten().tolist():
            yield Finding(where, int(index[at]), f"no break: the exact model classifies it right, as {int(labels[at])}")

    def _predictions(self, where: str, index: Tensor, stated: Tensor, logits: Tensor, what: str) -> Iterator[Finding]:
        now = predict(logits)
        possible = stated.clamp(0, logits.shape[1] - 1)
        lag = logits.amax(1) - logits.gather(1, possible[:, None]).squeeze(1)
        differs = now != stated
        tie = differs & (stated == possible) & (lag <= self._rounding_of(logits))
        self.tally.ties += int(tie.sum())
        for at in (differs & ~tie).nonzero().flatten().tolist():
            text = f"the exact model says {int(now[at])} for {what}, the table {int(stated[at])}"
            yield Finding(where, int(index[at]), text)

    def _rounding_of(self, logits: Tensor) -> Tensor:
        return self.rounding * logits.abs().amax(1).clamp_min(1)


def _read_images(unit: Unit, shape: tuple[int, ...]) -> StoredImages | str:
    try:
        return parse_images(read_plain(unit.images, limit=WEIGHTS_BYTES), shape)
    except InputError as error:
        return str(error)


def _misplaced(where: str, found: Tensor, expected: Tensor) -> Iterator[Finding]:
    stored, wanted = found.tolist(), expected.tolist()
    twice = sorted(index for index, times in Counter(stored).items() if times > 1)
    yield from (Finding(where, index, "its image is stored more than once") for index in twice)
    yield from (Finding(where, i, "an image of no claimed success") for i in sorted(set(stored) - set(wanted)))
    yield from (
        Finding(where, i, "a claimed success without a stored image") for i in sorted(set(wanted) - set(stored))
    )
    if not twice and set(stored) == set(wanted):
        yield Finding(where, None, "its images are in another order than the table's successes")


def _not_allowed(
    where: str, threat: ThreatModel, index: Tensor, clean: Tensor, images: Tensor, allowed: Tensor
) -> Iterator[Finding]:
    for at in (~allowed).nonzero().flatten().tolist():
        image = images[at]
        if not image.isfinite().all():
            text = "the stored image holds NaN or infinity"
        elif image.min() < threat.low or image.max() > threat.high:
            found = f"[{float(image.min()):.6g}, {float(image.max()):.6g}]"
            text = f"the stored image leaves the box [{threat.low:g}, {threat.high:g}]: it lies in {found}"
        elif threat.valid and bool(replace(threat, valid="").contains(clean[at : at + 1], images[at : at + 1])):
            text = f"the stored image has values between the steps of 1/255, {threat.label} allowed"
        elif isinstance(threat.space, Motion):
            text = f"the stored image is not the clean one moved by its numbers, or further than {threat.label} allows"
        elif threat.space is not None and bool(threat.space.touched(clean[at : at + 1], images[at : at + 1])):
            text = f"the stored image differs from the clean one where {threat.label} allows no change"
        else:
            distance = float(threat.distance(clean[at : at + 1], images[at : at + 1]))
            text = f"the stored image lies outside the ball: {distance:.6g} from the clean one, {threat.label} allowed"
        yield Finding(where, int(index[at]), text)


def _distances(where: str, rows: pl.DataFrame, measured: Tensor) -> Iterator[Finding]:
    stated = torch.from_numpy(rows["distance"].to_numpy().copy())
    same = (measured - stated).abs() <= _DISTANCE * measured.abs().clamp_min(1e-3)
    for at in (~same & measured.isfinite()).nonzero().flatten().tolist():
        text = f"the stored image is at distance {float(measured[at]):.6g}, the table says {float(stated[at]):.6g}"
        yield Finding(where, int(rows["index"][at]), text)


def _column(rows: pl.DataFrame, name: str) -> Tensor:
    return torch.from_numpy(rows[name].to_numpy().copy())
