"""Units of work and the files they leave: one Parquet file each, one safetensors file where an attack broke some."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from robustframe.attacks import AttackResult
from robustframe.diagnose import Diagnosis
from robustframe.errors import IntegrityError
from robustframe.files import TABLE_BYTES, parse_safetensors, read_plain
from robustframe.runs.record import write_aside

DIAGNOSIS = "diagnosis.json"
"""The checks of one row, in the row's folder."""
CLEAN_SCHEMA = pl.Schema({"index": pl.Int64(), "label": pl.Int64(), "prediction": pl.Int64(), "forwards": pl.Int64()})
CORRUPTION_SCHEMA = pl.Schema(
    {"index": pl.Int64(), "severity": pl.Int64(), "label": pl.Int64(), "prediction": pl.Int64()}
)
ATTACK_SCHEMA = pl.Schema(
    {
        "index": pl.Int64(),
        "success": pl.Boolean(),
        "claimed": pl.Boolean(),
        "prediction": pl.Int64(),
        "distance": pl.Float64(),
        "forwards": pl.Int64(),
        "backwards": pl.Int64(),
        "zero_gradients": pl.Int64(),
        "nonfinite_gradients": pl.Int64(),
    }
)


Written = dict[Path, str]
"""Files with the SHA-256 of what was written into them, which is known before anything can happen to the file."""


def slug(text: str) -> str:
    """Make a file name of a name: letters, digits, dot, dash and underscore, never hidden, never a path.

    >>> slug("a/b: c"), slug("linf:1 on 0:3,5")
    ('a_b__c', 'linf_1_on_0_3--5')
    """
    # 'on 0:3,5' and 'on 0,3:5' are two places. File systems take 255 characters; attacks and threats have fewer.
    return re.sub(r"[^A-Za-z0-9._-]", "_", text.replace(",", "--")).lstrip(".")[:240] or "_"


@dataclass(frozen=True)
class Unit:
    """One chunk of examples under one attack (or the clean pass) on one classifier."""

    stage: Path
    """Folder of the classifier, threat and attack, inside the run."""
    chunk: int

    @property
    def table(self) -> Path:
        """The unit's rows; the unit is finished when this file is there."""
        return self.stage / f"{self.chunk:05d}.parquet"

    @property
    def images(self) -> Path:
        """The adversarial images of the unit's successes, where there are any."""
        return self.stage / f"{self.chunk:05d}.safetensors"

    def save_clean(
        self, index: Tensor, labels: Tensor, predictions: Tensor, forwards: int
    ) -> tuple[pl.DataFrame, Written]:
        """Write the clean pass of a chunk; return its rows, and the hash of the file as it was written."""
        return self._write(
            pl.DataFrame(
                {
                    "index": index.numpy(),
                    "label": labels.cpu().numpy(),
                    "prediction": predictions.cpu().numpy(),
                    "forwards": [forwards] * len(index),
                },
                schema=CLEAN_SCHEMA,
            )
        )

    def save_attack(self, index: Tensor, result: AttackResult) -> tuple[pl.DataFrame, Written]:
        """Write the outcome of an attack on the survivors of a chunk, images first; return rows and hashes."""
        success, images = result.success.cpu(), {}
        if success.any():
            tensors = {"adversarial": result.adversarial.cpu()[success].contiguous(), "index": index[success]}
            if result.numbers is not None:
                tensors["numbers"] = result.numbers.cpu()[success].contiguous()
            images = {self.images: write_aside(self.images, save(tensors))}
        else:
            # Of a unit whose files were damaged and that is made again.
            self.images.unlink(missing_ok=True)
        columns = {name: getattr(result, name).cpu().numpy() for name in ATTACK_SCHEMA if name != "index"}
        rows, table = self._write(pl.DataFrame({"index": index.numpy(), **columns}, schema=ATTACK_SCHEMA))
        return rows, {**images, **table}

    def save_corrupted(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Written]:
        """Write the answers to the corrupted images of a chunk, as `corrupted_rows` makes them."""
        return self._write(rows)

    def read_images(self) -> "StoredImages":
        """Read the adversarial images of the unit's successes.

        Raises:
            IntegrityError: when they cannot be read.
        """
        found = parse_images(read_plain(self.images, limit=TABLE_BYTES))
        if isinstance(found, str):
            raise IntegrityError(f"{self.images}: {found}")
        return found

    def _write(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Written]:
        return rows, {self.table: write_aside(self.table, parquet(rows))}


@dataclass(frozen=True)
class RunFiles:
    """Where the files of a run lie."""

    folder: Path
    classifiers: tuple[str, ...]
    """By name, in the order of the record."""

    def clean(self, classifier: int, chunk: int) -> Unit:
        """Return the clean pass of a chunk, for the classifier at a place of the record."""
        return Unit(self._of(classifier) / "clean", chunk)

    def attack(self, classifier: int, threat: str, attack: str, chunk: int) -> Unit:
        """Return a chunk under an attack; threat and attack by their labels."""
        return Unit(self._of(classifier) / slug(threat) / slug(attack), chunk)

    def corrupted(self, classifier: int, kind: str, chunk: int) -> Unit:
        """Return a chunk under one kind of corruption, at all severities."""
        return Unit(self._of(classifier) / "corruptions" / slug(kind), chunk)

    def diagnosis(self, classifier: int, threat: str) -> Path:
        """Return where the checks of a row lie."""
        return self._of(classifier) / slug(threat) / DIAGNOSIS

    def name(self, path: Path) -> str:
        """Return how a manifest calls a file: its place relative to the run."""
        return path.relative_to(self.folder).as_posix()

    def _of(self, classifier: int) -> Path:
        return self.folder / "units" / f"{classifier:02d}-{slug(self.classifiers[classifier])}"


@dataclass(frozen=True)
class StoredImages:
    """The file of a unit's images."""

    adversarial: Tensor
    """Shape (n, ...)."""
    index: Tensor
    """Of their examples, shape (n,)."""
    numbers: Tensor | None
    """What they were made by, where images were moved, shape (n, k); see `robustframe.spaces.Motion`."""


def parquet(rows: pl.DataFrame) -> bytes:
    """Return rows as a Parquet file, the same bytes for the same rows."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def parse_images(content: bytes, shape: tuple[int, ...] | None = None) -> StoredImages | str:
    """Read the file of a unit's images: ``adversarial``, the ``index`` of its examples, and ``numbers`` where images
    were moved; or say why it does not read.

    Args:
        content: what the file holds.
        shape: of one image; any when ``None``.
    """
    try:
        tensors = parse_safetensors(content, "it")
    except IntegrityError:
        return "it cannot be read: truncated, or no safetensors file"
    if set(tensors) - {"numbers"} != {"adversarial", "index"}:
        return f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not adversarial and index"
    images, index = tensors["adversarial"], tensors["index"]
    if index.dtype != torch.int64:
        return f"its index is {index.dtype}, not torch.int64"
    expected = tuple(images.shape[1:]) if shape is None else shape
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != expected or index.shape != images.shape[:1]:
        found = f"{images.dtype} of shape {tuple(images.shape)}"
        return f"its images are {found} for {len(index)} examples of shape {expected}"
    numbers = tensors.get("numbers")
    if numbers is not None and (numbers.dtype != torch.float32 or numbers.dim() != 2 or len(numbers) != len(index)):
        return f"its numbers are {numbers.dtype} of shape {tuple(numbers.shape)} for {len(index)} examples"
    return StoredImages(images, index, numbers)


def parse_diagnosis(content: bytes) -> Diagnosis | None:
    """Read the file of a row's checks; ``None`` when it is none."""
    try:
        return Diagnosis.model_validate_json(content)
    except ValidationError:
        return None


def corrupted_rows(severities: Sequence[int], index: Tensor, labels: Tensor, predictions: Tensor) -> pl.DataFrame:
    """Return the answers to corrupted images as rows of ``CORRUPTION_SCHEMA``, severity by severity.

    Args:
        severities: in order.
        index: the examples, shape (n,).
        labels: theirs, shape (n,).
        predictions: shape (severities n,).
    """
    columns = {
        "index": index.repeat(len(severities)).numpy(),
        "severity": torch.tensor(severities).repeat_interleave(len(index)).numpy(),
        "label": labels.cpu().repeat(len(severities)).numpy(),
        "prediction": predictions.cpu().numpy(),
    }
    return pl.DataFrame(columns, schema=CORRUPTION_SCHEMA)


def corrupted_correct(rows: pl.DataFrame, severities: Sequence[int]) -> list[int]:
    """Count the corrupted images of each severity that are classified right."""
    right = rows.filter(pl.col("prediction") == pl.col("label"))["severity"]
    return [int((right == severity).sum()) for severity in severities]


def correct(rows: pl.DataFrame) -> Tensor:
    """Return which examples of a clean unit are classified correctly."""
    return torch.from_numpy((rows["prediction"] == rows["label"]).to_numpy().copy())


def chunks(count: int, size: int) -> Sequence[Tensor]:
    """Return the example indices of each chunk, fixed by the recipe."""
    return [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]
