"""The checks of one row of a run: what they are given comes from the run's files."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from robustframe.data import Dataset
from robustframe.diagnose import Diagnosis
from robustframe.diagnose.case import AttackOutcome, BatteryFindings, Replays
from robustframe.diagnose.run import diagnose, rank
from robustframe.models.classifiers import Classifier
from robustframe.recipe.stages import Stage
from robustframe.runs.record import Result
from robustframe.runs.units import RunFiles
from robustframe.threat import ThreatModel


@dataclass(frozen=True)
class Shelf:
    """Where the files of a run lie, and what they are of."""

    data: Dataset
    classifiers: Sequence[Classifier]
    threats: Sequence[ThreatModel]
    stages: Sequence[Stage]
    chunks: int
    votes: int
    seed: int
    files: RunFiles
    device: torch.device
    batch_size: int
    finished: Collection[tuple[str, str]]
    """The rows, by classifier and threat, that every attack has gone through; the files of others are not looked at."""

    def diagnose(self, classifier: Classifier, threat: ThreatModel, result: Result, rows: pl.DataFrame) -> Diagnosis:
        """Check a row.

        Args:
            classifier: whose row it is.
            threat: of the row; the attacks of all rows have been run.
            result: the row's counts.
            rows: the row's verdicts.
        """
        key = (self.seed, threat.label, "diagnose")
        found = self._found(classifier, threat, result, rows, key)
        return diagnose(
            classifier.module, self.data.images, self.data.labels, threat, found,
            key=key, batch_size=self.batch_size, device=self.device,
        )  # fmt: skip

    def _found(
        self, classifier: Classifier, threat: ThreatModel, result: Result, rows: pl.DataFrame, key: tuple[object, ...]
    ) -> BatteryFindings:
        rows = rows.sort("index")
        robust, correct = (torch.from_numpy(rows[name].to_numpy().copy()) for name in ("robust", "clean_correct"))
        bare = BatteryFindings(correct=correct, robust=robust)
        order = {int(index): place for place, index in enumerate(rank(bare, key))}
        alive = set(robust.nonzero().squeeze(1).tolist())
        others = [
            item for other in self.classifiers if other is not classifier for item in self._stored(other, threat, alive)
        ]
        nested = [
            (index, image)
            for wider in self.threats
            if wider is not threat
            for index, image in self._stored(classifier, wider, alive)
        ]
        lying = self._replays(nested, order)
        inside = [] if lying is None else lying.index[threat.contains(lying.clean, lying.images)].tolist()
        fallen = set((correct & ~robust).nonzero().squeeze(1).tolist())
        return BatteryFindings(
            correct=correct,
            robust=robust,
            attacks=_outcomes([stage for stage in self.stages if stage.runs_for(threat)], result),
            own=self._replays(self._stored(classifier, threat, fallen), order),
            others=self._replays(others, order),
            smaller=sorted(set(inside)),
            votes=self.votes,
        )

    def _stored(self, classifier: Classifier, threat: ThreatModel, wanted: set[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield one image of each wanted example that broke a classifier."""
        done = (classifier.entry.name, threat.label) in self.finished
        left = set(wanted) if done else set()
        for stage in self.stages:
            for chunk in range(self.chunks):
                place = self.classifiers.index(classifier)
                file = self.files.attack(place, threat.label, stage.label, chunk).images
                if not left or not file.is_file():
                    continue
                tensors = load_tensors(file.read_bytes())
                for index, image in zip(tensors["index"].tolist(), tensors["adversarial"]):
                    if index in left:
                        left.remove(index)
                        yield index, image.clone()

    def _replays(self, items: Iterable[tuple[int, Tensor]], order: dict[int, int]) -> Replays | None:
        """Bring stored images into the order of the sample, with their clean images."""
        sorted_items = sorted(items, key=lambda item: order[item[0]])
        if not sorted_items:
            return None
        index = torch.tensor([item[0] for item in sorted_items])
        images = torch.stack([item[1] for item in sorted_items]).to(self.device)
        clean, labels = self.data.images[index].to(self.device), self.data.labels[index].to(self.device)
        return Replays(images, clean, labels, index.to(self.device))


def _outcomes(stages: Sequence[Stage], result: Result) -> list[AttackOutcome]:
    """Pair the attacks with what the record says about them."""
    return [
        AttackOutcome(
            stage.label, stage.attack, entry.entered, entry.broken, entry.unverified, entry.forwards, entry.backwards
        )
        for stage, entry in zip(stages, result.attacks, strict=True)
        if entry.skipped is None
    ]
