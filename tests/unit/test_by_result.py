"""Verdicts by classifier and threat, in whatever order they lie in their file."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_up import make_run

from robustframe.errors import IntegrityError
from robustframe.runs.verdicts import by_result, read_verdicts


@pytest.mark.parametrize("order", ["as written", "reversed", "interleaved"])
def test_verdicts_are_found_in_any_order_and_none_twice(tmp_path: Path, order: str) -> None:
    right = np.arange(5) > 1
    names = [("a", "linf:0.1"), ("a", "l2:1"), ("b", "linf:0.1")]
    path = make_run(tmp_path, {name: (right, right & (np.arange(5) > at)) for at, name in enumerate(names)})
    written = read_verdicts(path / "verdicts.parquet")
    table = {"as written": written, "reversed": written.reverse(), "interleaved": written.sort("index")}[order]
    found = by_result(table)
    assert set(found) == set(names)
    for (classifier, threat), rows in found.items():
        mine = (pl.col("classifier") == classifier) & (pl.col("threat") == threat)
        assert rows.equals(written.filter(mine))
    pl.concat([table, written[3:4]]).write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(IntegrityError, match="an example appears more than once"):
        read_verdicts(tmp_path / "twice.parquet")
