"""The verdict of each example, from its clean pass through every attack it met; and tables read back without trust."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from robustframe.errors import IntegrityError
from robustframe.files import TABLE_BYTES, decoding, read_plain

UNIT_ROWS = 2**22
"""Most rows of one unit, which is one chunk."""
VERDICT_ROWS = 2**26
"""Most rows of the verdicts of a run."""


def fresh_verdicts(clean: pl.DataFrame) -> pl.DataFrame:
    """Return the verdicts of a chunk before any attack, from its clean pass."""
    right = pl.col("prediction") == pl.col("label")
    return clean.select(
        "index",
        "label",
        pl.col("prediction").alias("clean_prediction"),
        right.alias("clean_correct"),
        right.alias("robust"),
        pl.lit(None, pl.String).alias("broken_by"),
        pl.lit(None, pl.Int64).alias("adversarial_prediction"),
        pl.lit(None, pl.Float64).alias("distance"),
        pl.col("forwards"),
        pl.lit(0, pl.Int64).alias("backwards"),
    )


_NO_CLEAN = pl.DataFrame(schema={name: pl.Int64 for name in ("index", "label", "prediction", "forwards")})
VERDICT_SCHEMA = pl.Schema({"classifier": pl.String(), "threat": pl.String(), **fresh_verdicts(_NO_CLEAN).schema})
"""The columns of ``verdicts.parquet``, in order, with their types."""


def judge(verdicts: pl.DataFrame, rows: pl.DataFrame, attack: str, *, closest: bool = False) -> pl.DataFrame:
    """Enter the outcome of one attack on a chunk.

    Args:
        verdicts: so far.
        rows: the attack's outcome, for the examples that met it.
        attack: its name.
        closest: the attack also met broken examples, and of their successes the one at the smallest distance counts.
    """
    joined = verdicts.join(rows, on="index", how="left", suffix="_now", maintain_order="left")
    success = pl.col("success").fill_null(False)
    nearer = pl.col("distance_now") < pl.col("distance").fill_null(float("inf"))
    broken = success & nearer if closest else success
    return joined.select(
        "index",
        "label",
        "clean_prediction",
        "clean_correct",
        (pl.col("robust") & ~success).alias("robust"),
        pl.when(broken).then(pl.lit(attack)).otherwise("broken_by").alias("broken_by"),
        pl.when(broken).then("prediction").otherwise("adversarial_prediction").alias("adversarial_prediction"),
        pl.when(broken).then("distance_now").otherwise("distance").alias("distance"),
        pl.col("forwards") + pl.col("forwards_now").fill_null(0),
        pl.col("backwards") + pl.col("backwards_now").fill_null(0),
    )


def read_table(
    path: Path, schema: Mapping[str, Any], *, rows: int = UNIT_ROWS, content: bytes | None = None
) -> pl.DataFrame:
    """Read a Parquet file.

    Args:
        path: the file.
        content: what it holds, for who has read it already.
        schema: its columns in order, with their types.
        rows: how many it may hold. A few bytes of Parquet can stand for any number, so reading stops there.

    Raises:
        IntegrityError: when it cannot be read, or has other columns or more rows.
    """
    content = read_plain(path, limit=TABLE_BYTES) if content is None else content
    with decoding(path, "a Parquet file"):
        table = pl.read_parquet(io.BytesIO(content), n_rows=rows + 1)
    if dict(table.schema) != dict(schema):
        raise IntegrityError(f"{path}: its columns are {', '.join(table.columns)}, not {', '.join(schema)}")
    if len(table) > rows:
        raise IntegrityError(f"{path} holds more than {rows:,} rows, which cannot be right")
    return table


_BROKEN = pl.col("clean_correct") & ~pl.col("robust")
_HALF_BROKEN = pl.any_horizontal(
    pl.col(name).is_null() == _BROKEN for name in ("broken_by", "adversarial_prediction", "distance")
) | (pl.col("robust") & ~pl.col("clean_correct"))
"""Rows that say both that an example was broken and that it was not."""


def empty_cells(verdicts: pl.DataFrame) -> list[str]:
    """Return the columns of verdicts that have empty cells and must not; an example that is robust has no break."""
    of_a_break = ("broken_by", "adversarial_prediction", "distance")
    return [name for name in verdicts.columns if name not in of_a_break and verdicts[name].null_count()]


def by_result(verdicts: pl.DataFrame) -> dict[tuple[str, str], pl.DataFrame]:
    """Return the verdicts of each classifier and threat in the order of the examples.

    No row is copied where they lie in this order already, as an evaluation writes them.
    """
    places = verdicts.with_row_index("at").group_by("classifier", "threat", maintain_order=True)
    found = {}
    for classifier, threat, start, count in places.agg(pl.col("at").min(), pl.len()).iter_rows():
        mine = (pl.col("classifier") == classifier) & (pl.col("threat") == threat)
        rows = verdicts.slice(start, count)
        if not rows.select(mine.all()).item():
            rows = verdicts.filter(mine)
        found[classifier, threat] = rows if rows["index"].is_sorted() else rows.sort("index")
    return found


def read_verdicts(path: Path, content: bytes | None = None) -> pl.DataFrame:
    """Read the verdicts of a run, every example once a classifier and threat.

    Args:
        path: a ``verdicts.parquet``.
        content: what it holds, for who has read it already.

    Raises:
        IntegrityError: as `read_table`, and for empty cells where there must be none, or an example that stands twice.
    """
    table = read_table(path, VERDICT_SCHEMA, rows=VERDICT_ROWS, content=content)
    if holes := empty_cells(table):
        raise IntegrityError(f"{path}: there are empty cells in {', '.join(holes)}")
    if len(odd := table.filter(_HALF_BROKEN)):
        where = f"{odd['classifier'][0]}, {odd['threat'][0]}, example {odd['index'][0]}"
        raise IntegrityError(
            f"{path}: {where} is neither broken nor not: a break has an attack, a class and a distance"
        )
    if any((rows["index"].diff() == 0).any() for rows in by_result(table).values()):
        raise IntegrityError(f"{path}: an example stands there more than once")
    return table
