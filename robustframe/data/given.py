"""Examples as a Python user has them: arrays, datasets, loaders."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as torch_data

from robustframe.data.dataset import Dataset, from_arrays
from robustframe.errors import InputError

log = logging.getLogger("robustframe")


def as_dataset(x: Any, y: Any = None) -> Dataset:
    """Make a dataset of what `robustframe.evaluate` and `robustframe.attack` are given.

    Args:
        x: images as `from_arrays` takes them, bytes among them; or a `Dataset`, a `torch.utils.data.Dataset` or a
            `torch.utils.data.DataLoader` of pairs of image and label.
        y: labels, shape (n,) or (n, 1); left out where ``x`` has them.

    Returns:
        All the examples, on the CPU, in their order.

    Raises:
        InputError: as `from_arrays`; for labels that are missing or given twice, and items that are no such pairs.
    """
    if isinstance(x, Dataset | torch_data.Dataset | torch_data.DataLoader):
        if y is not None:
            raise InputError(f"a {type(x).__name__} has its own labels; leave y out")
        if isinstance(x, Dataset):
            # Made anew, so that its hash is that of its examples, whoever built it.
            return replace(from_arrays(x.images, x.labels, name=x.name), split=x.split, classes=x.classes)
        x, y = _collected(x)
    elif y is None:
        raise InputError("the labels y are missing; give one class number an image, or a Dataset or DataLoader")
    if getattr(x, "dtype", None) in (torch.uint8, "uint8"):
        log.warning("images are bytes from 0 to 255; they are divided by 255")
    return from_arrays(x, y)


def _collected(given: Any) -> tuple[Tensor, Tensor]:
    """Bring the examples of a torch dataset or loader together."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    loader = isinstance(given, torch_data.DataLoader)
    if loader and isinstance(given.sampler, torch_data.RandomSampler):
        log.warning("the DataLoader shuffles, so that its next run is one of other examples; say shuffle=False")
    for item in _items(given):
        image, label = _pair(item, given)
        images.append(image if loader else image[None])
        labels.append(label if loader else label[None])
    if not images:
        raise InputError(f"the {type(given).__name__} is empty: there is nothing to evaluate")
    return _joined(images, "images", given), _joined(labels, "labels", given)


def _joined(parts: list[Tensor], what: str, given: object) -> Tensor:
    sizes = sorted({tuple(each.shape[1:]) for each in parts})
    if len(sizes) > 1:
        raise InputError(f"{what} of the {type(given).__name__} differ in shape, {sizes[0]} and {sizes[1]}")
    return torch.cat(parts)


def _items(given: Any) -> Iterable[Any]:
    if isinstance(given, torch_data.DataLoader | torch_data.IterableDataset):
        return given
    return (given[at] for at in range(len(given)))


def _pair(item: Any, given: object) -> tuple[Tensor, Tensor]:
    kind = type(given).__name__
    if isinstance(item, Mapping):
        keys = ", ".join(map(str, list(item)[:6]))
        raise InputError(f"items of the {kind} are tables of {keys}; give pairs of image and label")
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"items of the {kind} are {type(item).__name__}; give pairs of image and label")
    image, label = _tensor(item[0], "images", kind), _tensor(item[1], "labels", kind)
    if isinstance(given, torch_data.DataLoader) and not (image.dim() and label.dim()):
        raise InputError(f"batches of the {kind} have no rows; give it a batch_size")
    return image, label


def _tensor(value: Any, what: str, kind: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        cure = "transform=torchvision.transforms.ToTensor()" if what == "images" else "class numbers"
        raise InputError(f"{what} of the {kind} are {type(value).__name__}; give it {cure}") from None
