"""The verdict of each example, from its clean pass through every attack it met; and tables read back without trust."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from robustframe.errors import IntegrityError
from robustframe.files import TABLE_BYTES, decoding, read_plain

UNIT_ROWS = 2**22
"""Most rows of one unit, which is one chunk."""
VERDICT_ROWS = 2**26
"""Most rows of the verdicts of a run."""


VERDICT_SCHEMA = pl.Schema(
    {
        "classifier": pl.String(),
        "threat": pl.String(),
        "index": pl.Int64(),
        "label": pl.Int64(),
        "clean_prediction": pl.Int64(),
        "clean_correct": pl.Boolean(),
        "robust": pl.Boolean(),
        "broken_by": pl.String(),
        "adversarial_prediction": pl.Int64(),
        "distance": pl.Float64(),
        "forwards": pl.Int64(),
        "backwards": pl.Int64(),
    }
)
"""The columns of ``verdicts.parquet``, in order, with their types."""
_OF_A_BREAK = ("broken_by", "adversarial_prediction", "distance")
"""Empty where an example was not broken."""


class ChunkVerdicts:
    """What becomes of the examples of a chunk on one classifier under one threat, attack by attack.

    They are held in arrays, so that what an evaluation does between two units costs little, however many there are.

    Args:
        clean: the clean pass of the chunk, every example once, without empty cells.
    """

    def __init__(self, clean: pl.DataFrame) -> None:
        self._columns: dict[str, NDArray[Any]] = {name: clean[name].to_numpy() for name in ("index", "label")}
        right = (clean["prediction"] == clean["label"]).to_numpy()
        self._columns |= {
            "clean_prediction": clean["prediction"].to_numpy(),
            "clean_correct": right,
            "robust": right.copy(),
            "broken_by": np.full(len(clean), None, dtype=object),
            "adversarial_prediction": np.zeros(len(clean), dtype=np.int64),
            "distance": np.full(len(clean), np.inf),
            "forwards": clean["forwards"].to_numpy().copy(),
            "backwards": np.zeros(len(clean), dtype=np.int64),
        }
        self._order = np.argsort(self._columns["index"], kind="stable")

    @property
    def robust(self) -> int:
        """How many examples are right on the clean image and have not been broken."""
        return int(np.count_nonzero(self._columns["robust"]))

    def entering(self, *, closest: bool) -> tuple[int, ...]:
        """Return the examples that meet the next attack: those not broken, or all that were right where the closest
        success is looked for."""
        return tuple(self._columns["index"][self._columns["clean_correct" if closest else "robust"]].tolist())

    def judge(self, rows: pl.DataFrame, attack: str, *, closest: bool = False) -> None:
        """Enter the outcome of one attack.

        Args:
            rows: of ``ATTACK_SCHEMA``, for the examples that met it, without empty cells; others are left out.
            attack: its name.
            closest: the attack also met broken examples, and of their successes the one at the smallest distance
                counts.
        """
        known = self._columns["index"][self._order]
        index = rows["index"].to_numpy()
        place = np.minimum(np.searchsorted(known, index), len(known) - 1)
        here = known[place] == index
        at = self._order[place[here]]
        found = {name: rows[name].to_numpy()[here] for name in ("success", "prediction", "distance")}
        success, columns = found["success"], self._columns
        columns["robust"][at[success]] = False
        broken = success & (found["distance"] < columns["distance"][at]) if closest else success
        for name, value in (("adversarial_prediction", "prediction"), ("distance", "distance")):
            columns[name][at[broken]] = found[value][broken]
        columns["broken_by"][at[broken]] = attack
        for name in ("forwards", "backwards"):
            columns[name][at] += rows[name].to_numpy()[here]

    @staticmethod
    def table(parts: "Sequence[ChunkVerdicts]", classifier: str, threat: str) -> pl.DataFrame:
        """Return the verdicts of some chunks as rows of ``VERDICT_SCHEMA``."""
        own = list(VERDICT_SCHEMA.items())[2:]
        columns = {name: np.concatenate([part._columns[name] for part in parts]) for name, _ in own}
        found = pl.DataFrame({**columns, "broken_by": columns["broken_by"].tolist()}, schema=own)
        empty = [pl.when(pl.col("broken_by").is_not_null()).then(name).alias(name) for name in _OF_A_BREAK[1:]]
        names = [pl.lit(classifier).alias("classifier"), pl.lit(threat).alias("threat")]
        return found.with_columns(empty).select(*names, pl.all())


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
_HALF_BROKEN = pl.any_horizontal(pl.col(name).is_null() == _BROKEN for name in _OF_A_BREAK) | (
    pl.col("robust") & ~pl.col("clean_correct")
)
"""Rows that say both that an example was broken and that it was not."""


def empty_cells(verdicts: pl.DataFrame) -> list[str]:
    """Return the columns of verdicts that have empty cells and must not; an example that is robust has no break."""
    return [name for name in verdicts.columns if name not in _OF_A_BREAK and verdicts[name].null_count()]


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
        raise IntegrityError(f"{path}: an example appears more than once")
    return table
