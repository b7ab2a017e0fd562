"""The examples of a run from Python, kept beside it: whoever opens its folder has the images that were attacked."""

from pathlib import Path

import torch
from safetensors.torch import save

from robustframe.data import Dataset
from robustframe.data.dataset import from_pixels, stored_bytes
from robustframe.errors import IntegrityError
from robustframe.files import DATA_BYTES, parse_safetensors, read_plain
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
    tensors = parse_safetensors(read_plain(path, limit=DATA_BYTES, what="the examples"), path)
    images, labels = tensors.get("images"), tensors.get("labels")
    if images is None or labels is None or len(tensors) > 2 or images.dtype not in (torch.uint8, torch.float32):
        raise IntegrityError(f"{path} is not a file of images and labels; copy the run again")
    # The identity of examples knows the numbers of the labels, not their shape.
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise IntegrityError(f"{path} has labels {labels.dtype} of shape {tuple(labels.shape)}; copy the run again")
    data = from_pixels(entry.use, entry.split, images.numpy(), labels.numpy(), entry.classes)
    if data.sha256 != entry.sha256:
        raise IntegrityError(f"the examples in {path} are not those that were attacked; copy the run again")
    return data
