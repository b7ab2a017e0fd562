"""Parquet files read back without trust: whole, with the columns they must have, and no more rows than can be right."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from robustframe.errors import IntegrityError
from robustframe.evaluation.verdicts import fresh_verdicts
from robustframe.files import TABLE_BYTES, read_plain

UNIT_ROWS = 2**22
"""Most rows of one unit, which is one chunk."""
VERDICT_ROWS = 2**26
"""Most rows of the verdicts of a run."""


def read_table(path: Path, schema: Mapping[str, Any], *, rows: int = UNIT_ROWS) -> pl.DataFrame:
    """Read a Parquet file.

    Args:
        path: the file.
        schema: its columns in order, with their types.
        rows: how many it may hold. A few bytes of Parquet can stand for any number, so reading stops there.

    Raises:
        IntegrityError: when it cannot be read, or has other columns or more rows.
    """
    try:
        content = read_plain(path, limit=TABLE_BYTES)
        table = pl.read_parquet(io.BytesIO(content), n_rows=rows + 1)
    # What a damaged file makes the reader raise, a panic of its Rust code among them.
    except (
        IntegrityError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError,
        MemoryError,
    ) as error:  # fmt: skip
        reason = str(error) if isinstance(error, IntegrityError) else "truncated, or no Parquet file"
        raise IntegrityError(f"{path} cannot be read: {reason}") from error
    if dict(table.schema) != dict(schema):
        raise IntegrityError(f"{path}: its columns are {', '.join(table.columns)}, not {', '.join(schema)}")
    if len(table) > rows:
        raise IntegrityError(f"{path} holds more than {rows:,} rows, which cannot be right")
    return table


def verdict_schema() -> dict[str, Any]:
    """Return the columns of ``verdicts.parquet``."""
    clean = pl.DataFrame(schema={name: pl.Int64 for name in ("index", "label", "prediction", "forwards")})
    names = {"classifier": pl.String(), "threat": pl.String()}
    return {**names, **fresh_verdicts(clean).schema}


def empty_cells(verdicts: pl.DataFrame) -> list[str]:
    """Return the columns of verdicts that have empty cells and must not; an example that is robust has no break."""
    of_a_break = ("broken_by", "adversarial_prediction", "distance")
    return [name for name in verdicts.columns if name not in of_a_break and verdicts[name].null_count()]


def read_verdicts(path: Path) -> pl.DataFrame:
    """Read the verdicts of a run, every example once a classifier and threat.

    Args:
        path: a ``verdicts.parquet``.

    Raises:
        IntegrityError: as `read_table`, and for empty cells where there must be none, or an example that stands twice.
    """
    table = read_table(path, verdict_schema(), rows=VERDICT_ROWS)
    if holes := empty_cells(table):
        raise IntegrityError(f"{path}: there are empty cells in {', '.join(holes)}")
    if table.select("classifier", "threat", "index").is_duplicated().any():
        raise IntegrityError(f"{path}: an example stands there more than once")
    return table
