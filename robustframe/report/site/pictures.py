"""Adversarial examples as small pictures, from images whose hash the record answers for."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from robustframe.data import Dataset
from robustframe.data import load as load_data
from robustframe.errors import InputError
from robustframe.report.site.entries import Entry, Run
from robustframe.runs.manifest import read_manifest, sha256
from robustframe.runs.record import EVIDENCE
from robustframe.runs.units import Unit, classifier_folder, slug

MOST = 6
"""Examples shown of a classifier under a threat."""
_SIDE = 96
"""Pixels of a picture; larger images are shrunk."""
_GAP = 2
_COLOURS = 96
_RAISED, _LOWERED = np.array([196, 66, 28]), np.array([24, 96, 168])
"""What a raised and a lowered pixel are painted in; untouched ones are white."""


@dataclass(frozen=True)
class Example:
    """One image that an attack broke: clean, the perturbation, adversarial, side by side."""

    index: int
    label: str
    wrong: str
    """What the classifier takes it for."""
    attack: str
    distance: float
    picture: str
    """A data URI of a PNG."""
    width: int
    height: int
    parts: int
    """3, or 1 where the clean image is not to be had."""


class Gallery:
    """The pictures of a site; data, manifests and unit files are read once."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._data: dict[tuple[str, str, int], Dataset | None] = {}
        self._manifests: dict[Path, dict[str, str] | None] = {}

    def examples(self, twins: Sequence[Entry]) -> list[list[Example]]:
        """Choose and draw examples of the classifiers of one model under one threat of one run.

        They are the first of each class in the order of the data, and of a pair the same for both twins where both
        are broken, so nobody picked them.

        Args:
            twins: the entries.

        Returns:
            For each at most `MOST` examples; none where no images are stored.

        Raises:
            InputError: for images that are not those of the record.
        """
        run = twins[0].run
        if run.images is None:
            return [[] for _ in twins]
        tables = [_broken(entry) for entry in twins]
        shared = set.intersection(*(set(table["index"].to_list()) for table in tables))
        return [
            [found for row in _chosen(table, shared) if (found := self._example(run, entry, row)) is not None]
            for entry, table in zip(twins, tables)
        ]

    def _example(self, run: Run, entry: Entry, row: dict[str, object]) -> Example | None:
        index, attack = int(str(row["index"])), str(row["broken_by"])
        adversarial = self._adversarial(run, entry, attack, index)
        clean = self._clean(run, index)
        if clean is not None and clean.shape != adversarial.shape:
            clean = None
        picture = _picture(clean, adversarial)
        if picture is None:
            return None
        names = run.record.data.classes
        label, wrong = (int(str(row[key])) for key in ("label", "adversarial_prediction"))
        return Example(
            index=index,
            label=_name(names, label),
            wrong=_name(names, wrong),
            attack=attack,
            distance=float(str(row["distance"])),
            picture=data_uri(picture),
            width=picture.width,
            height=picture.height,
            parts=1 if clean is None else 3,
        )

    def _adversarial(self, run: Run, entry: Entry, attack: str, index: int) -> Tensor:
        folder = run.images or run.folder
        position = run.record.classifiers.index(entry.classifier)
        place = classifier_folder(position, entry.classifier.name) / slug(entry.row.threat if entry.row else "")
        chunk = int(run.record.recipe.get("chunk", 1))
        path = Unit(folder / place / slug(attack), index // chunk).images
        self._check(run, folder, path)
        try:
            tensors = load_tensors(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}); `robustframe verify` says more") from error
        at = (tensors["index"] == index).nonzero()
        if not len(at):
            raise InputError(f"{path} lacks the image of example {index}; `robustframe verify` says more")
        return tensors["adversarial"][int(at[0])]

    def _check(self, run: Run, folder: Path, path: Path) -> None:
        """See that a file is the one whose hash the record is bound to; records from before that have none."""
        if run.record.evidence_sha256 is None:
            return
        if folder not in self._manifests:
            listed = folder / EVIDENCE
            bound = listed.is_file() and sha256(listed) == run.record.evidence_sha256
            self._manifests[folder] = read_manifest(folder) if bound else None
        manifest = self._manifests[folder]
        name = path.relative_to(folder).as_posix()
        if manifest is None or not path.is_file() or manifest.get(name) != sha256(path):
            raise InputError(f"{path} is not what its record says; `robustframe verify {folder}` says more")

    def _clean(self, run: Run, index: int) -> Tensor | None:
        data = run.record.data
        key = (data.use, data.split, data.count)
        if key not in self._data:
            self._data[key] = _loaded(data.use, data.split, data.count, self.root)
        found = self._data[key]
        return found.images[index] if found is not None and found.sha256 == data.sha256 else None


def _loaded(use: str, split: str, count: int, root: Path | None) -> Dataset | None:
    try:
        return load_data(use, split, root=root).first(count)
    except InputError:
        return None


def _broken(entry: Entry) -> pl.DataFrame:
    rows = entry.run.broken
    threat = entry.row.threat if entry.row is not None else ""
    mine = (pl.col("classifier") == entry.classifier.name) & (pl.col("threat") == threat)
    return rows.filter(mine).sort("index")


def _chosen(table: pl.DataFrame, shared: set[int]) -> list[dict[str, object]]:
    pool = table.filter(pl.col("index").is_in(list(shared))) if shared else table
    first = pool.unique("label", keep="first", maintain_order=True).head(MOST)
    rest = pool.filter(~pl.col("index").is_in(first["index"].to_list())).head(MOST - len(first))
    return pl.concat([first, rest]).sort("index").to_dicts()


def _name(classes: list[str], number: int) -> str:
    return classes[number] if number < len(classes) else str(number)


def _picture(clean: Tensor | None, adversarial: Tensor) -> Image.Image | None:
    """Set the images side by side; `None` for data that is no picture."""
    if adversarial.dim() != 3 or adversarial.shape[0] not in (1, 3):
        return None
    parts = [_pixels(adversarial)]
    if clean is not None:
        parts = [_pixels(clean), _perturbation(adversarial - clean), *parts]
    height, width = parts[0].shape[:2]
    whole = Image.new("RGB", (width * len(parts) + _GAP * (len(parts) - 1), height), (255, 255, 255))
    for number, part in enumerate(parts):
        whole.paste(Image.fromarray(part), (number * (width + _GAP), 0))
    if max(width, height) > _SIDE:
        scale = _SIDE / max(width, height)
        whole = whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.BOX)
    return whole.quantize(_COLOURS, dither=Image.Dither.NONE)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(values.repeat(3, axis=2) if values.shape[2] == 1 else values)


def _perturbation(delta: Tensor) -> NDArray[np.uint8]:
    """Paint a perturbation with its largest change at full strength: one channel in two colours, three as they are."""
    scaled = (delta / delta.abs().max().clamp_min(1e-12)).permute(1, 2, 0).double().numpy()
    if scaled.shape[2] == 3:
        return np.asarray((127.5 + 127.5 * scaled).round(), dtype=np.uint8)
    ends = np.where(scaled > 0, _RAISED, _LOWERED)
    return np.asarray((255 + np.abs(scaled) * (ends - 255.0)).round(), dtype=np.uint8)


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a PNG that stands in the page itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
