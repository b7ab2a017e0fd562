"""The adversarial images that a run stores, beside the clean ones they were made from."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from torch import Tensor

from robustframe.data import Dataset, load
from robustframe.errors import InputError
from robustframe.report.figures.examples import Example
from robustframe.runs.record import ClassifierEntry, Record
from robustframe.runs.units import Unit, classifier_folder, slug
from robustframe.verification.replay import read_images


class StoredImages:
    """What one run broke.

    Args:
        folder: of the run.
        record: its record.
        verdicts: its verdicts.
        data: its examples; loaded by the name in its record when ``None``.
        root: where data lies that does not ship.

    Raises:
        InputError: when the run stores no images, or the examples are not there or others.
    """

    def __init__(
        self, folder: Path, record: Record, verdicts: pl.DataFrame, *, data: Dataset | None, root: Path | None
    ) -> None:
        if not (folder / "units").is_dir():
            raise InputError(f"{folder} stores no images; a published copy has none, so give the run itself")
        self.folder, self.record, self.verdicts = folder, record, verdicts
        self.data = _named(record, root) if data is None else data
        if self.data.sha256 != record.data.sha256:
            raise InputError(f"the examples of {folder} are not those of {self.data.name} {self.data.split} any more")

    def examples(self, entry: ClassifierEntry, threat: str, called: str, count: int) -> list[Example]:
        """Return broken examples of a classifier under a threat, each attack in turn, at most ``count``."""
        mine = (pl.col("classifier") == entry.name) & (pl.col("threat") == threat) & pl.col("broken_by").is_not_null()
        rows = list(self.verdicts.filter(mine).sort("index").iter_rows(named=True))
        attacks = sorted({row["broken_by"] for row in rows})
        turns = itertools.zip_longest(*([row for row in rows if row["broken_by"] == attack] for attack in attacks))
        chosen = [row for turn in turns for row in turn if row is not None][:count]
        return [
            Example(
                clean=self.data.images[row["index"]],
                adversarial=self._image(entry, threat, row["broken_by"], row["index"]),
                label=self._name(row["label"]),
                predicted=self._name(row["adversarial_prediction"]),
                attack=row["broken_by"],
                threat=threat,
                classifier=called,
                distance=row["distance"],
            )
            for row in sorted(chosen, key=lambda row: (row["broken_by"], row["index"]))
        ]

    def _image(self, entry: ClassifierEntry, threat: str, attack: str, index: int) -> Tensor:
        position = self.record.classifiers.index(entry)
        stage = self.folder / classifier_folder(position, entry.name) / slug(threat) / slug(attack)
        for unit in self._units(stage, index):
            found = read_images(unit, tuple(self.data.images.shape[1:]))
            if isinstance(found, str):
                raise InputError(f"{unit.images}: {found}; `robustframe verify {self.folder}` says more")
            for at in (found["index"] == index).nonzero().flatten().tolist():
                return found["adversarial"][at]
        raise InputError(f"{stage} has no image of example {index}; `robustframe verify {self.folder}` says more")

    def _units(self, stage: Path, index: int) -> Iterator[Unit]:
        size = self.record.recipe.get("chunk")
        if isinstance(size, int) and size > 0:
            yield Unit(stage, index // size)

    def _name(self, label: int) -> str:
        classes = self.record.data.classes
        return classes[label] if 0 <= label < len(classes) else f"class {label}"


def _named(record: Record, root: Path | None) -> Dataset:
    if "model" not in record.recipe:
        raise InputError(f"{record.name} was evaluated from Python, so its record names no data set to show images of")
    data = load(record.data.use, record.data.split, root=root)
    return data.first(record.data.count) if record.data.count <= len(data) else data
