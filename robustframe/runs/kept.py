"""Some adversarial images beside a published copy, which holds no others: a picture of what broke a model needs few."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import save
from torch import Tensor

from robustframe.files import TABLE_BYTES, parse_safetensors, read_plain
from robustframe.runs.record import write_aside

KEPT = "broken.safetensors"
MOST = 32
"""Examples kept of a model under a threat."""
Kept = Mapping[tuple[int, str], dict[int, Tensor]]
"""Images by example, for each classifier by its place in the record and each threat."""


def choose_broken(tables: Sequence[pl.DataFrame], most: int = MOST) -> list[int]:
    """Choose examples to show of classifiers beside each other.

    Args:
        tables: the verdicts on the broken examples of each.
        most: how many.

    Returns:
        Their indices: those that broke every classifier, or any where none did; the first of each class lead, in the
        order of the data.
    """
    shared = set.intersection(*(set(table["index"].to_list()) for table in tables))
    pool = pl.concat([table.select("index", "label") for table in tables]).unique("index").sort("index")
    pool = pool.filter(pl.col("index").is_in(sorted(shared))) if shared else pool
    # The earliest ones, so that few chunks of a run are read for them.
    pool = pool.head(most)
    turn = pl.int_range(pl.len()).over("label")
    found: list[int] = pool.sort(turn, "index")["index"].to_list()
    return found


def write_kept(folder: Path, kept: Kept) -> None:
    """Write images beside a published copy."""
    tensors = {}
    for (position, threat), images in kept.items():
        if images:
            tensors[f"{position}/{threat}/index"] = torch.tensor(list(images), dtype=torch.int64)
            tensors[f"{position}/{threat}/images"] = torch.stack(list(images.values())).contiguous()
    write_aside(folder / KEPT, save(tensors))


def read_kept(folder: Path) -> Kept:
    """Read them again; nothing where a copy has none.

    Raises:
        IntegrityError: for a file that is damaged.
    """
    path = folder / KEPT
    if not path.is_file():
        return {}
    tensors = parse_safetensors(read_plain(path, limit=TABLE_BYTES, what="the examples"), path)
    kept: dict[tuple[int, str], dict[int, Tensor]] = {}
    for name, index in tensors.items():
        place, _, what = name.rpartition("/")
        images = tensors.get(f"{place}/images")
        position, _, threat = place.partition("/")
        if what == "index" and images is not None and len(images) == len(index) and position.isdigit():
            kept[int(position), threat] = dict(zip(index.tolist(), images))
    return kept
