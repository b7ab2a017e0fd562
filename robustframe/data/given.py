"""Examples as a Python user has them: arrays, datasets, loaders, tables."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from robustframe.data.dataset import UNIT, Dataset, as_images, from_arrays
from robustframe.data.image import as_shown, pixels_of, stacked
from robustframe.errors import InputError
from robustframe.files import decoding

log = logging.getLogger("robustframe")

_IMAGES = ("image", "images", "img", "pixel_values", "x", "input", "inputs")
_LABELS = ("label", "labels", "y", "target", "targets")
"""What the columns of a table are called."""
_PICTURE = "transform=torchvision.transforms.ToTensor()"


def as_dataset(x: Any, y: Any = None, *, box: tuple[float, float] = UNIT) -> Dataset:
    """Make a dataset of what `robustframe.evaluate` and `robustframe.attack` are given.

    Args:
        x: images as `from_arrays` takes them, bytes among them; or what has labels too: a `Dataset`, a
            `torch.utils.data.Dataset` or a `torch.utils.data.DataLoader`, whose items are pairs of image and label or
            tables such as ``{"image": ..., "label": ...}``; a list or a dataset of such tables, as Hugging Face's
            `datasets` gives; a table of a whole batch. One column is called image, images, img, pixel_values, x, input
            or inputs, and one label, labels, y, target or targets. A PIL image is what `from_folder` makes of its file.
        y: labels, shape (n,) or (n, 1); left out where ``x`` has them.
        box: smallest and largest value that is allowed.

    Returns:
        All the examples, on the CPU, in their order.

    Raises:
        InputError: as `from_arrays`; for labels that are missing or given twice, items that are no such pairs or
            tables, and PIL images that are ambiguous.
    """
    if _has_labels(x):
        if y is not None:
            raise InputError(f"a {type(x).__name__} has its own labels; leave y out")
        if isinstance(x, Dataset):
            # Made anew, so that its hash is that of its examples, whoever built it.
            return replace(from_arrays(x.images, x.labels, name=x.name, box=box), split=x.split, classes=x.classes)
        x, y = _of_batch(x) if isinstance(x, Mapping) else _collected(x)
    elif y is None:
        raise InputError("the labels y are missing; give one class number per image, or a Dataset or DataLoader")
    elif (pictures := _pictures(x, type(x).__name__, 0)) is not None:
        x = _of_pictures(pictures, x)
    if getattr(x, "dtype", None) in (torch.uint8, "uint8"):
        log.warning("images are bytes from 0 to 255; they are divided by 255")
    return from_arrays(x, y, box=box)


def _has_labels(x: Any) -> bool:
    if isinstance(x, Dataset | torch_data.Dataset | torch_data.DataLoader | Mapping):
        return True
    # Hugging Face's datasets are none of torch's.
    rows = hasattr(x, "__len__") and hasattr(x, "__getitem__") and not hasattr(x, "dtype")
    return rows and isinstance(next(iter(x), None), Mapping)


def _of_batch(given: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Return the images and the labels of one table."""
    kind = type(given).__name__
    images, labels = _columns(given, f"the {kind} has")
    if not getattr(labels, "ndim", hasattr(labels, "__len__")):
        raise InputError(f"the {kind} is a single example; give a batch, such as [example]")
    pictures = _pictures(images, kind, 0)
    return (images if pictures is None else _of_pictures(pictures, given)), labels


def _collected(given: Any) -> tuple[Tensor, Tensor]:
    """Bring the examples of a dataset or loader together."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    pictures: list[NDArray[Any]] = []
    kind, loader = type(given).__name__, isinstance(given, torch_data.DataLoader)
    if loader and isinstance(given.sampler, torch_data.RandomSampler):
        log.warning("the DataLoader shuffles, so that its next run is one of other examples; say shuffle=False")
    for item in _items(given):
        image, label = _pair(item, kind)
        label = _tensor(label, "labels", kind)
        shown = _pictures(image if loader else [image], kind, len(pictures))
        if shown is None:
            image = _tensor(image, "images", kind)
            if loader and not (image.dim() and label.dim()):
                raise InputError(f"batches of the {kind} have no rows; give it a batch_size")
            images.append(image if loader else image[None])
        pictures += shown or []
        labels.append(label if loader else label[None])
    if not labels:
        raise InputError(f"the {kind} is empty: there is nothing to evaluate")
    if pictures and images:
        raise InputError(f"some images of the {kind} are PIL images and some are tensors; give it {_PICTURE}")
    found = _of_pictures(pictures, given) if pictures else _joined(images, "images", given)
    return found, _joined(labels, "labels", given)


def _joined(parts: list[Tensor], what: str, given: object) -> Tensor:
    _check_sizes({tuple(each.shape[1:]) for each in parts}, what, given)
    return torch.cat(parts)


def _check_sizes(sizes: set[tuple[int, ...]], what: str, given: object) -> None:
    if len(sizes) > 1:
        one, two = sorted(sizes)[:2]
        raise InputError(f"{what} of the {type(given).__name__} differ in shape, {one} and {two}")


def _pictures(images: Any, kind: str, before: int) -> list[NDArray[Any]] | None:
    """Return the pixels of PIL images, of shape (h, w) or (h, w, 3); ``None`` for anything else.

    Args:
        images: perhaps a list of them.
        kind: where they are from, for the sentence on one that is not taken.
        before: how many came before them, likewise.
    """
    # Here and not above: arrays do not need it.
    from PIL import Image

    if not isinstance(images, list | tuple) or not any(isinstance(each, Image.Image) for each in images):
        return None
    found = []
    for at, each in enumerate(images, start=before):
        if not isinstance(each, Image.Image):
            raise InputError(f"image {at} of the {kind} is {type(each).__name__} where others are PIL images")
        with decoding(f"image {at} of the {kind}", "an image"):
            found.append(pixels_of(as_shown(each, f"image {at} of the {kind}")[0]))
    return found


def _of_pictures(pictures: list[NDArray[Any]], given: object) -> Tensor:
    _check_sizes({each.shape[:2] for each in pictures}, "images", given)
    return as_images(stacked(pictures))


def _items(given: Any) -> Iterable[Any]:
    if isinstance(given, torch_data.DataLoader):
        return _batches(given)
    if isinstance(given, torch_data.IterableDataset):
        return given
    return (given[at] for at in range(len(given)))


def _batches(loader: "torch_data.DataLoader[Any]") -> Iterator[Any]:
    try:
        yield from loader
    except TypeError as error:
        if "PIL" not in str(error):
            raise
        raise InputError(
            f"the DataLoader makes no batches of PIL images; give its dataset in its place, or give that {_PICTURE}"
        ) from error


def _pair(item: Any, kind: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        return _columns(item, f"items of the {kind} have")
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"items of the {kind} are {type(item).__name__}; give pairs of image and label")
    return item[0], item[1]


def _columns(table: Mapping[Any, Any], what: str) -> tuple[Any, Any]:
    """Return the images and the labels of a table by the names that both usually have."""
    keys = ", ".join(map(str, list(table)[:6]))
    found = []
    for meant, names in (("images", _IMAGES), ("labels", _LABELS)):
        there = [name for name in names if name in table]
        if not there:
            listed = f"{', '.join(names[:-1])} or {names[-1]}"
            raise InputError(f"{what} the keys {keys}, none of which says {meant}; rename one to {listed}")
        if len(there) > 1:
            raise InputError(f"{what} the keys {keys}, of which {' and '.join(there)} may be the {meant}; leave one")
        found.append(table[there[0]])
    return found[0], found[1]


def _tensor(value: Any, what: str, kind: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        cure = _PICTURE if what == "images" else "class numbers"
        raise InputError(f"{what} of the {kind} are {type(value).__name__}; give it {cure}") from None
