"""Units of work and the files they leave: one Parquet file each, one safetensors file where an attack broke some."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import save
from torch import Tensor

from robustframe.attacks import AttackResult
from robustframe.errors import IntegrityError
from robustframe.evaluation.journal import Journal
from robustframe.evaluation.tables import read_table
from robustframe.record import write_aside

CLEAN_SCHEMA = pl.Schema({"index": pl.Int64(), "label": pl.Int64(), "prediction": pl.Int64(), "forwards": pl.Int64()})
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


def slug(text: str) -> str:
    """Make a file name of a name: letters, digits, dot, dash and underscore, never hidden, never a path.

    >>> slug("a/b: c")
    'a_b__c'
    """
    # File systems take 255 characters; what names an attack or a threat has fewer.
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:240] or "_"


def classifier_folder(position: int, name: str) -> Path:
    """Return where the units of a classifier lie inside a run, from its place in the record and its name."""
    return Path("units", f"{position:02d}-{slug(name)}")


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

    @property
    def files(self) -> list[Path]:
        """The files that are there."""
        return [path for path in (self.table, self.images) if path.is_file()]

    def load(self, schema: Mapping[str, object], journal: Journal) -> pl.DataFrame | None:
        """Return the rows of a finished unit; ``None`` when it is not finished, or its files are not what they were."""
        if journal.read(self.table) is None:
            return None
        try:
            rows = read_table(self.table, schema)
        except IntegrityError:
            return None
        if "success" in rows.columns and bool(rows["success"].any()) and journal.read(self.images) is None:
            return None
        return rows

    def save_clean(self, index: Tensor, labels: Tensor, predictions: Tensor, forwards: int) -> pl.DataFrame:
        """Write the clean pass of a chunk."""
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

    def save_attack(self, index: Tensor, result: AttackResult) -> pl.DataFrame:
        """Write the outcome of an attack on the survivors of a chunk: images first, rows last."""
        success = result.success.cpu()
        if success.any():
            tensors = {"adversarial": result.adversarial.cpu()[success].contiguous(), "index": index[success]}
            write_aside(self.images, save(tensors))
        else:
            # Of a unit whose files were damaged and that is made again.
            self.images.unlink(missing_ok=True)
        columns = {name: getattr(result, name).cpu().numpy() for name in ATTACK_SCHEMA if name != "index"}
        return self._write(pl.DataFrame({"index": index.numpy(), **columns}, schema=ATTACK_SCHEMA))

    def _write(self, rows: pl.DataFrame) -> pl.DataFrame:
        write_aside(self.table, parquet(rows))
        return rows


def parquet(rows: pl.DataFrame) -> bytes:
    """Return rows as a Parquet file, the same bytes for the same rows."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def correct(rows: pl.DataFrame) -> Tensor:
    """Return which examples of a clean unit are classified correctly."""
    return torch.from_numpy((rows["prediction"] == rows["label"]).to_numpy().copy())


def chunks(count: int, size: int) -> Sequence[Tensor]:
    """Return the example indices of each chunk, fixed by the recipe."""
    return [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]
