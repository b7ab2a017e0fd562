"""The examples of a run from Python, kept beside it: whoever opens its folder has the images that were attacked."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from robustframe.data import Dataset
from robustframe.data.dataset import from_pixels, stored_bytes
from robustframe.errors import IntegrityError
from robustframe.files import TABLE_BYTES, parse_safetensors, read_plain
from robustframe.runs.record import GIVEN, DataEntry, write_aside


def save_examples(data: Dataset, folder: Path) -> None:
    """Write the examples of a run into its folder; images of bytes as bytes."""
    images = stored_bytes(data.images)
    pixels = data.images if images is None else torch.from_numpy(images)
    write_aside(folder / GIVEN, save({"images": pixels.contiguous(), "labels": data.labels.contiguous()}))


def read_examples(folder: Path, entry: DataEntry) -> Dataset:
    """Read them again.

    Args:
        folder: the run's.
        entry: what its record says of them, which their identity must be.

    Raises:
        IntegrityError: when they are missing, damaged, or others.
    """
    path = folder / GIVEN
    tensors = parse_safetensors(read_plain(path, limit=TABLE_BYTES, what="the examples"), path)
    if set(tensors) != {"images", "labels"} or tensors["images"].dtype not in (torch.uint8, torch.float32):
        raise IntegrityError(f"{path} holds no examples; copy the run again")
    pixels, labels = (tensors[name].numpy() for name in ("images", "labels"))
    data = from_pixels(entry.use, entry.split, pixels, labels.astype(np.int64), entry.classes)
    if data.sha256 != entry.sha256:
        raise IntegrityError(f"the examples in {path} are not those that were attacked; copy the run again")
    return data
