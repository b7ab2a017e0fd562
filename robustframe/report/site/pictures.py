"""Adversarial examples as small pictures, from images whose hash the record answers for."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustframe.errors import InputError
from robustframe.report.pixels import eight_bit, png_url
from robustframe.report.site.board import BoardEntry
from robustframe.runs import Run

MOST = 6
"""Examples shown of a classifier under a threat."""
_SIDE = 96
"""Pixels of a picture; larger images are shrunk."""
_GAP = 2
_COLOURS = 96
_RAISED, _LOWERED = np.array([196, 66, 28]), np.array([24, 96, 168])
"""What a raised and a lowered pixel are painted in; untouched ones are white."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class ExamplePicture:
    """One image that an attack broke: clean, the perturbation, adversarial, side by side."""

    index: int
    label: str
    wrong: str
    """What the classifier takes it for."""
    attack: str
    distance: float
    url: str
    """Holds the picture."""
    width: int
    height: int
    parts: int
    """3, or 1 where the clean image is not to be had."""


def draw_examples(entries: Sequence[BoardEntry], root: Path | None) -> dict[BoardEntry, list[ExamplePicture]]:
    """Choose and draw examples of every entry whose images are stored.

    They are the first of each class in the order of the data, and of a pair the same for both twins where both are
    broken, so nobody picked them.

    Args:
        entries: of any runs.
        root: where data that does not ship lies, for the clean images.

    Returns:
        For each of these entries at most `MOST` examples.

    Raises:
        InputError: for images that are not those of the record.
    """
    twins: dict[tuple[object, ...], list[BoardEntry]] = {}
    for entry in entries:
        if entry.source.images is not None:
            classifier = entry.classifier
            key = (entry.source, classifier.model, classifier.sha256, entry.threat.label)
            twins.setdefault(key, []).append(entry)
    of: dict[str, list[list[BoardEntry]]] = {}
    for pair in twins.values():
        of.setdefault(pair[0].run.record.data.sha256, []).append(pair)
    # One data set after the other, so that no two of them are in memory.
    return {entry: drawn for pairs in of.values() for entry, drawn in _draw(pairs, root)}


def _draw(
    pairs: Sequence[Sequence[BoardEntry]], root: Path | None
) -> Iterator[tuple[BoardEntry, list[ExamplePicture]]]:
    """Draw what was made from one data set."""
    clean = _clean(dict.fromkeys(pair[0].run for pair in pairs), root)
    for pair in pairs:
        tables = [entry.verdicts.filter(pl.col("broken_by").is_not_null()) for entry in pair]
        shared = set.intersection(*(set(table["index"].to_list()) for table in tables))
        for entry, table in zip(pair, tables):
            yield entry, _drawn(entry, _chosen(table, shared), clean)


def _clean(runs: Iterable[Run], root: Path | None) -> Tensor | None:
    """Return the clean images of runs of the same examples, if any of them says where to find them."""
    for run in runs:
        with contextlib.suppress(InputError):
            return run.examples(root).images
    return None


def _chosen(table: pl.DataFrame, shared: set[int]) -> Rows:
    pool = table.filter(pl.col("index").is_in(list(shared))) if shared else table
    first = pool.unique("label", keep="first", maintain_order=True).head(MOST)
    rest = pool.filter(~pl.col("index").is_in(first["index"].to_list())).head(MOST - len(first))
    return pl.concat([first, rest]).sort("index").to_dicts()


def _drawn(entry: BoardEntry, rows: Rows, clean: Tensor | None) -> list[ExamplePicture]:
    if entry.source.images is None or entry.result is None:
        return []
    indices = [row["index"] for row in rows]
    images = entry.source.images.breaking_images(entry.classifier.name, entry.result.threat, indices)
    found = []
    for row, adversarial in zip(rows, images, strict=True):
        before = None if clean is None or clean.shape[1:] != adversarial.shape else clean[row["index"]]
        picture = _picture(before, adversarial)
        if picture is not None:
            found.append(
                ExamplePicture(
                    index=row["index"],
                    label=entry.run.class_name(row["label"]),
                    wrong=entry.run.class_name(row["adversarial_prediction"]),
                    attack=row["broken_by"],
                    distance=row["distance"],
                    url=png_url(picture),
                    width=picture.width,
                    height=picture.height,
                    parts=1 if before is None else 3,
                )
            )
    return found


def _picture(clean: Tensor | None, adversarial: Tensor) -> Image.Image | None:
    """Set the images side by side; `None` for data that is no picture."""
    if adversarial.dim() != 3 or adversarial.shape[0] not in (1, 3):
        return None
    parts = [eight_bit(adversarial)]
    if clean is not None:
        parts = [eight_bit(clean), _perturbation(adversarial - clean), *parts]
    height, width = parts[0].shape[:2]
    whole = Image.new("RGB", (width * len(parts) + _GAP * (len(parts) - 1), height), (255, 255, 255))
    for number, part in enumerate(parts):
        coloured = part.repeat(3, axis=2) if part.shape[2] == 1 else part
        whole.paste(Image.fromarray(coloured), (number * (width + _GAP), 0))
    if max(width, height) > _SIDE:
        scale = _SIDE / max(width, height)
        whole = whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.BOX)
    return whole.quantize(_COLOURS, dither=Image.Dither.NONE)


def _perturbation(delta: Tensor) -> NDArray[np.uint8]:
    """Paint a perturbation with its largest change at full strength: one channel in two colours, three as they are."""
    scaled = (delta / delta.abs().max().clamp_min(1e-12)).permute(1, 2, 0).double().numpy()
    if scaled.shape[2] == 3:
        return np.asarray((127.5 + 127.5 * scaled).round(), dtype=np.uint8)
    ends = np.where(scaled > 0, _RAISED, _LOWERED)
    return np.asarray((255 + np.abs(scaled) * (ends - 255.0)).round(), dtype=np.uint8)
