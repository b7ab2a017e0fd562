"""Adversarial examples as small pictures, from images whose hash the record answers for."""

import contextlib
import hashlib
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
from robustframe.report.pixels import eight_bit, png
from robustframe.report.site.board import BoardEntry
from robustframe.report.site.rows import BoardRow
from robustframe.runs import Run
from robustframe.runs.kept import KEPT, choose_broken
from robustframe.spaces import Motion

_SIDE = 96
"""Pixels of a picture; larger images are shrunk."""
_GAP = 2
_COLOURS = 96
_NEAR = 1e-5
"""By how much a distance may differ for the order in which it was summed."""
_RAISED, _LOWERED = np.array([196, 66, 28]), np.array([24, 96, 168])
"""What a raised and a lowered pixel are painted in; untouched ones are white."""


@dataclass(frozen=True)
class TwinOutcome:
    """What became of an example at one classifier."""

    twin: str | None
    wrong: str
    """What the classifier takes the image for; empty where it was not broken."""
    attack: str
    distance: float
    clean: bool
    """Whether it was right before any attack."""


@dataclass(frozen=True)
class ExamplePicture:
    """One image that an attack broke: clean, then perturbation and adversarial image of each twin, side by side."""

    index: int
    label: str
    outcomes: tuple[TwinOutcome, ...]
    content: bytes
    """The picture as PNG."""
    width: int
    height: int
    parts: int
    """Images in the picture."""

    @property
    def name(self) -> str:
        """Its file name, the same for the same picture."""
        return f"{hashlib.sha256(self.content).hexdigest()[:12]}.png"


def draw_examples(rows: Iterable[BoardRow], root: Path | None) -> dict[BoardRow, list[ExamplePicture]]:
    """Choose and draw examples of every row whose images are stored.

    They are the first of each class in the order of the data and then those that follow, of a pair where both twins are
    broken before others.

    Args:
        rows: of any runs.
        root: where data that does not ship lies, for the clean images.

    Returns:
        For each of these rows some examples, as `choose_broken` chooses them.

    Raises:
        InputError: for images that are not those of the record.
    """
    of: dict[str, list[BoardRow]] = {}
    for row in rows:
        if row.first.result is not None and (row.first.source.images is not None or row.first.source.kept):
            of.setdefault(row.first.run.record.data.sha256, []).append(row)
    # One data set after the other, so that no two of them are in memory.
    return {row: drawn for same in of.values() for row, drawn in _draw(same, root)}


def _draw(rows: Sequence[BoardRow], root: Path | None) -> Iterator[tuple[BoardRow, list[ExamplePicture]]]:
    """Draw what was made from one data set."""
    clean = _clean(dict.fromkeys(row.first.run for row in rows), root)
    for row in rows:
        tables = [_stored(entry) for entry in row.shown]
        chosen = choose_broken(tables)
        if chosen:
            yield row, list(_drawn(row, chosen, clean))


def _stored(entry: BoardEntry) -> pl.DataFrame:
    """The verdicts on broken examples whose images are at hand."""
    broken = entry.verdicts.filter(pl.col("broken_by").is_not_null())
    if entry.source.images is not None:
        return broken
    return broken.filter(pl.col("index").is_in(list(_kept(entry))))


def _kept(entry: BoardEntry) -> dict[int, Tensor]:
    position = [each.name for each in entry.run.record.classifiers].index(entry.classifier.name)
    return entry.source.kept.get((position, entry.threat.label), {})


def _clean(runs: Iterable[Run], root: Path | None) -> Tensor | None:
    """Return the clean images of runs of the same examples, if any of them says where to find them."""
    for run in runs:
        with contextlib.suppress(InputError):
            return run.examples(root).images
    return None


def _drawn(row: BoardRow, chosen: Sequence[int], clean: Tensor | None) -> Iterator[ExamplePicture]:
    found = [_images(entry, chosen) for entry in row.shown]
    if clean is not None and row.first.source.images is None:
        for entry, images in zip(row.shown, found):
            _check_kept(entry, chosen, images, clean)
    broken = [dict(zip(chosen, images)) for images in found]
    said = [{each["index"]: each for each in _rows(entry, chosen)} for entry in row.shown]
    run = row.first.run
    for index in chosen:
        images = [each[index] for each in broken]
        first = next(image for image in images if image is not None)
        before = None if clean is None or clean.shape[1:] != first.shape else clean[index]
        picture = _picture(before, images)
        if picture is None:
            continue
        outcomes = tuple(_outcome(entry, each[index]) for entry, each in zip(row.shown, said))
        yield ExamplePicture(
            index=index, label=run.class_name(said[0][index]["label"]), outcomes=outcomes, content=png(picture),
            width=picture.width, height=picture.height, parts=_parts(before, images),
        )  # fmt: skip


def _rows(entry: BoardEntry, chosen: Sequence[int]) -> list[dict[str, Any]]:
    return entry.verdicts.filter(pl.col("index").is_in(list(chosen))).to_dicts()


def _images(entry: BoardEntry, chosen: Sequence[int]) -> list[Tensor | None]:
    """The adversarial image of each example, `None` where this classifier was not broken."""
    stored = set(_stored(entry)["index"].to_list())
    index = [each for each in chosen if each in stored]
    source = entry.source
    if source.images is None:
        of = _kept(entry)
    else:
        of = dict(zip(index, source.images.breaking_images(entry.classifier.name, entry.threat.label, index)))
    return [of.get(each) for each in chosen]


def _check_kept(entry: BoardEntry, index: Sequence[int], images: Sequence[Tensor | None], clean: Tensor) -> None:
    """See that images beside a published copy lie where its verdicts say; those of a run are hashed instead."""
    far = dict(entry.verdicts.select("index", "distance").iter_rows())
    for each, image in zip(index, images):
        if image is None:
            continue
        if (
            image.shape != clean.shape[1:]
            # How an image was moved is not kept beside it.
            or (
                not isinstance(entry.threat.space, Motion)
                and abs(float(entry.threat.distance(clean[[each]], image[None])) - far[each]) > _NEAR
            )
        ):
            raise InputError(f"{entry.run.folder / KEPT} is not what its record says: example {each} lies elsewhere")


def _outcome(entry: BoardEntry, said: dict[str, Any]) -> TwinOutcome:
    if said["broken_by"] is None:
        return TwinOutcome(entry.classifier.twin, "", "", 0.0, bool(said["clean_correct"]))
    wrong = entry.run.class_name(said["adversarial_prediction"])
    return TwinOutcome(entry.classifier.twin, wrong, said["broken_by"], said["distance"], clean=True)


def _parts(clean: Tensor | None, images: Sequence[Tensor | None]) -> int:
    return (clean is not None) + len(images) * (1 if clean is None else 2)


def _picture(clean: Tensor | None, images: Sequence[Tensor | None]) -> Image.Image | None:
    """Set images side by side, a white place where a twin was not broken; `None` for data that is no picture."""
    first = next(image for image in images if image is not None)
    if first.dim() != 3 or first.shape[0] not in (1, 3):
        return None
    parts: list[NDArray[np.uint8] | None] = [] if clean is None else [eight_bit(clean)]
    for image in images:
        parts += [] if clean is None else [None if image is None else _perturbation(image - clean)]
        parts.append(None if image is None else eight_bit(image))
    height, width = first.shape[1:]
    whole = Image.new("RGB", (width * len(parts) + _GAP * (len(parts) - 1), height), (255, 255, 255))
    for number, part in enumerate(parts):
        if part is not None:
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
