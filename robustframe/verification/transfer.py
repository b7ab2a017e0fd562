"""The stored images that broke one classifier, shown to another: who is broken by what was made for whom."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from robustframe.calls import borrowed, call_in_batches, predict
from robustframe.models.classifiers import Classifier
from robustframe.runs.run import Run
from robustframe.targets import choose_targets, reached
from robustframe.threat import ThreatModel
from robustframe.verification.sources import Sources

Verdicts = Mapping[tuple[str, str], pl.DataFrame]
"""Verdicts of a run by classifier and threat, in the order of the examples."""


@dataclass(frozen=True)
class Side:
    """One of two runs: what it holds, and its models."""

    run: Run
    sources: Sources
    verdicts: Verdicts


@dataclass(frozen=True)
class Transfer:
    """Images made for one classifier, on another."""

    threat: str
    source: str
    target: str
    direction: str
    """``"first to second"`` or ``"second to first"``."""
    shown: int
    """Examples with a stored image of the source, which the target classifies right when clean."""
    broken: int
    """Of these, misclassified by the target, or taken by it for what the threat aims at."""
    new: int
    """Of these, robust by the target's own attacks: its robust accuracy is too high by them."""


def transfers(
    source: Side, target: Side, threats: list[ThreatModel], direction: str, batch_size: int
) -> list[Transfer]:
    """Show the stored images of every classifier of one run to every classifier of another.

    Args:
        source: the run whose images are shown.
        target: the run whose classifiers see them; one that is the source itself is left out.
        threats: those that both runs have.
        direction: what the result says of it.
        batch_size: rows of one model call at most.

    Raises:
        InputError: when a stored image is missing, damaged, or not allowed by its threat.
    """
    found = []
    for position, entry in enumerate(source.run.record.classifiers):
        others = [each for each in target.sources.classifiers if not _same(each, source.sources.classifiers[position])]
        for threat in threats:
            had: set[int] = set()
            wrong: dict[str, set[int]] = {each.entry.name: set() for each in others}
            for index, images in _stored(source, entry.name, threat):
                had |= set(index.tolist())
                for each in others:
                    wrong[each.entry.name] |= _wrong(each, target.sources, threat, index, images, batch_size)
            for each in others:
                name = each.entry.name
                verdicts = target.verdicts[name, threat.label]
                right = set(verdicts.filter("clean_correct")["index"]) & had
                broken = wrong[name] & right
                new = len(broken & set(verdicts.filter("robust")["index"]))
                found.append(Transfer(threat.label, entry.name, name, direction, len(right), len(broken), new))
    return found


def _same(one: Classifier, other: Classifier) -> bool:
    return (one.entry.sha256, one.entry.twin) == (other.entry.sha256, other.entry.twin)


def _stored(side: Side, classifier: str, threat: ThreatModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Every stored image of a classifier under a threat, unit by unit."""
    run, data = side.run, side.sources.data
    for stored in run.stored_images(classifier, threat.label):
        images, index = stored.adversarial, stored.index
        known = bool(((index >= 0) & (index < len(data))).all())
        alike = images.shape[1:] == data.images.shape[1:]
        if not known or not alike or not bool(threat.contains(data.images[index], images, stored.numbers).all()):
            raise run.off(f"{run.folder} stores an image of {classifier} that {threat.label} does not allow")
        yield index, images


def _wrong(
    classifier: Classifier, sources: Sources, threat: ThreatModel, index: Tensor, images: Tensor, batch_size: int
) -> set[int]:
    data = sources.data
    with borrowed(classifier.module) as model, torch.no_grad():
        predictions = predict(call_in_batches(model, images.to(sources.device), batch_size)).cpu()
        targets = None
        if threat.targets:
            clean = call_in_batches(model, data.images[index].to(sources.device), batch_size).cpu()
            targets = choose_targets(threat.targets, data.images[index], data.labels[index], clean)
    return set(index[reached(predictions, data.labels[index], targets)].tolist())
