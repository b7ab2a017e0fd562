"""The checks of one row of a run that is under way: what they are given comes from the run's files."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustframe.data import Dataset
from robustframe.diagnose import Diagnosis
from robustframe.diagnose.case import AttackOutcome, BatteryFindings, Replays
from robustframe.diagnose.run import diagnose, rank
from robustframe.evaluation.task import Task
from robustframe.recipe.stages import Stage
from robustframe.runs.record import Result
from robustframe.runs.units import RunFiles
from robustframe.threat import ThreatModel
from robustframe.types import Verdicts


@dataclass(frozen=True)
class BreakingImages:
    """The images that broke the classifiers of a run that is under way."""

    task: Task
    files: RunFiles
    rows: Collection[tuple[int, int]]
    """The rows, by classifier and threat, that every attack has gone through; the files of others are not looked at."""

    def of(self, classifier: int, threat: int, wanted: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield one image of each wanted example that broke a classifier under a threat, with its index."""
        left = set(wanted) if (classifier, threat) in self.rows else set()
        label = self.task.threats[threat].label
        for stage in self.task.stages:
            for chunk in range(len(self.task.chunks)):
                unit = self.files.attack(classifier, label, stage.label, chunk)
                if not left or not unit.images.is_file():
                    continue
                stored = unit.read_images()
                for index, image in zip(stored.index.tolist(), stored.adversarial):
                    if index in left:
                        left.remove(index)
                        yield index, image.clone()


def diagnose_row(
    breaking: BreakingImages,
    classifier: int,
    threat: int,
    result: Result,
    correct: Verdicts,
    robust: Verdicts,
    *,
    batch_size: int,
    device: torch.device,
) -> Diagnosis:
    """Check the number of one classifier under one threat.

    Args:
        breaking: the images that broke this classifier and others; the attacks of all rows have been run.
        classifier: its place in the task.
        threat: its place in the task.
        result: the row's counts.
        correct: which examples are classified correctly without an attack, shape (n,).
        robust: which of them no attack has broken, shape (n,).
        batch_size: rows of one model call at most.
        device: where the classifier is.
    """
    task = breaking.task
    ball, key = task.threats[threat], (task.seed, task.threats[threat].label, "diagnose")
    order = {int(index): at for at, index in enumerate(rank(BatteryFindings(correct=correct, robust=robust), key))}
    alive, fallen = _indices(robust), _indices(correct & ~robust)
    others = [
        item
        for other in range(len(task.classifiers))
        if other != classifier
        for item in breaking.of(other, threat, alive)
    ]
    wider = [
        item
        for other, theirs in enumerate(task.threats)
        # A wrong class is not the target, and the target is a wrong class.
        if other != threat and ball.targets in ("", theirs.targets)
        for item in breaking.of(classifier, other, alive)
    ]
    found = BatteryFindings(
        correct=correct,
        robust=robust,
        attacks=_outcomes([stage for stage in task.stages if stage.runs_for(ball)], result),
        own=_replays(breaking.of(classifier, threat, fallen), order, task.data, device),
        others=_replays(others, order, task.data, device),
        smaller=_inside(_replays(wider, order, task.data, device), ball),
        votes=task.votes,
    )
    return diagnose(
        task.classifiers[classifier].module, task.data.images, task.data.labels, ball, found,
        key=key, batch_size=batch_size, device=device,
    )  # fmt: skip


def _indices(chosen: Verdicts) -> list[int]:
    return [int(index) for index in chosen.nonzero().flatten()]


def _outcomes(stages: Sequence[Stage], result: Result) -> list[AttackOutcome]:
    """Pair the attacks with what the record says about them."""
    return [
        AttackOutcome(
            stage.label, stage.attack, entry.entered, entry.broken, entry.unverified, entry.forwards, entry.backwards
        )
        for stage, entry in zip(stages, result.attacks, strict=True)
        if entry.skipped is None
    ]


def _replays(
    items: Iterable[tuple[int, Tensor]], order: dict[int, int], data: Dataset, device: torch.device
) -> Replays | None:
    """Bring stored images into the order of the sample, with their clean images."""
    sorted_items = sorted(items, key=lambda item: order[item[0]])
    if not sorted_items:
        return None
    index = torch.tensor([item[0] for item in sorted_items])
    images = torch.stack([item[1] for item in sorted_items]).to(device)
    return Replays(images, data.images[index].to(device), data.labels[index].to(device), index.to(device))


def _inside(replays: Replays | None, threat: ThreatModel) -> list[int]:
    """Return the examples whose image, found under another threat, lies in this ball."""
    if replays is None:
        return []
    return sorted(set(replays.index[threat.contains(replays.clean, replays.images)].tolist()))
