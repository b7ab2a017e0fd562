"""Datasets by name: where their files may lie, and what to do when they do not."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustframe.data import shipped
from robustframe.data.dataset import Dataset, from_arrays, from_pixels
from robustframe.data.idx import parse_idx
from robustframe.errors import InputError, IntegrityError, told, unknown
from robustframe.files import IDX_BYTES, gunzip, read_plain
from robustframe.lending import contained
from robustframe.plugins import Plugin, find_plugin, plugins

ROOT_VARIABLE = "ROBUSTFRAME_DATA"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# Of MNIST and Fashion-MNIST.
_COUNTS = {"train": 60_000, "test": 10_000}

_FASHION_TRAIN = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
)
"""SHA-256 of the unpacked images and labels: distributors compress them differently."""


@dataclass(frozen=True)
class _Place:
    """Where to look: what the caller said."""

    root: Path | None
    download: bool

    def folders(self) -> tuple[Path, ...]:
        if self.root is not None:
            return (self.root.expanduser(),)
        named = os.environ.get(ROOT_VARIABLE)
        return (*([Path(named).expanduser()] if named else []), _cache())

    def target(self) -> Path:
        """Where a download goes."""
        return self.folders()[0]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "robustframe" / "data"


def folders(data_root: Path | None = None) -> tuple[Path, ...]:
    """Return where data that does not ship is looked for, as `load` does it."""
    return _Place(data_root, False).folders()


def _fashion_mnist(split: str, place: _Place) -> Dataset:
    if split == "test":
        return shipped.fashion_mnist_test()
    folders = place.folders()
    if place.root is None:
        folders = (*folders, DEBIAN_FASHION_MNIST)
    images, labels = _idx_files("fashion-mnist", "FashionMNIST", split, place, folders)
    for path, content, expected in ((*images, _FASHION_TRAIN[0]), (*labels, _FASHION_TRAIN[1])):
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise IntegrityError(f"{path} is not Fashion-MNIST's: its content has sha256 {found}, not {expected}")
    return _from_idx("fashion-mnist", split, images, labels, shipped.FASHION_CLASSES)


def _mnist(split: str, place: _Place) -> Dataset:
    images, labels = _idx_files("mnist", "MNIST", split, place, place.folders())
    return _from_idx("mnist", split, images, labels, shipped.DIGITS)


_File = tuple[Path, bytes]


def _idx_files(name: str, kind: str, split: str, place: _Place, folders: tuple[Path, ...]) -> tuple[_File, _File]:
    """Find and unpack the images and labels of one split, fetched by torchvision when that is wished."""
    prefix = "train" if split == "train" else "t10k"
    stems = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    found = _find(folders, kind, stems)
    if found is None and place.download:
        _torchvision(name, kind, (place.target(),), download=True)
        found = _find((place.target(),), kind, stems)
    if found is None:
        package = "do `apt-get install dataset-fashion-mnist`, or " if name == "fashion-mnist" else ""
        raise InputError(
            f"the {split} files of {name} are not in {_listed(folders)}; "
            f"{package}give their folder with --data-root, or fetch them with --download"
        )
    return _read(found[0]), _read(found[1])


def _find(folders: tuple[Path, ...], kind: str, stems: tuple[str, str]) -> list[Path] | None:
    """Find both files in the first folder with both, packed or not."""
    for folder in folders:
        # MNIST's siblings share its file names, so only one whose content is hashed may lie there unnamed.
        flat = [folder] if kind == "FashionMNIST" else []
        for base in (*flat, folder / kind / "raw"):
            places = [next((p for p in (base / f"{s}.gz", base / s) if p.is_file()), None) for s in stems]
            paths = [path for path in places if path is not None]
            if len(paths) == len(stems):
                return paths
    return None


def _read(path: Path) -> _File:
    content = read_plain(path, limit=IDX_BYTES)
    return path, gunzip(content, path, limit=IDX_BYTES) if path.suffix == ".gz" else content


def _from_idx(name: str, split: str, images: _File, labels: _File, classes: tuple[str, ...]) -> Dataset:
    pixels = parse_idx(images[1], 3, where=str(images[0]))
    targets = parse_idx(labels[1], 1, where=str(labels[0]))
    shape = (_COUNTS[split], 28, 28)
    if pixels.shape != shape or targets.shape != shape[:1] or targets.max() >= len(classes):
        raise IntegrityError(
            f"{images[0]} and {labels[0]} are not the {split} split of {name}: images {pixels.shape}, "
            f"expected {shape}; labels {targets.shape}, up to {targets.max(initial=0)}"
        )
    return from_pixels(name, split, pixels[:, None], targets, classes)


def _listed(folders: tuple[Path, ...]) -> str:
    return ", ".join(str(folder) for folder in folders)


def _torchvision(name: str, kind: str, folders: tuple[Path, ...], *, download: bool, **split: bool | str) -> Any:
    """Open a dataset of torchvision's in the first folder that has it; its exceptions become a sentence."""
    # Here and not above: importing torchvision takes longer than loading what is shipped.
    from torchvision import datasets

    failure: Exception
    for folder in folders:
        try:
            return getattr(datasets, kind)(root=str(folder), download=download, **split)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            failure = error
    reason = " ".join(str(failure).split())
    if download:
        way = "put its files there and leave out --download"
        raise InputError(f"{name} could not be fetched into {_listed(folders)} ({reason}); {way}") from failure
    raise InputError(
        f"{name} is not, or not whole, in {_listed(folders)}; name the folder that torchvision filled with "
        f"--data-root or {ROOT_VARIABLE}, or fetch it with --download"
    ) from failure


def _held(name: str, kind: str, place: _Place, **split: bool | str) -> Any:
    folders = (place.target(),) if place.download else place.folders()
    return _torchvision(name, kind, folders, download=place.download, **split)


def _cifar(name: str, kind: str) -> Callable[[str, _Place], Dataset]:
    def load_cifar(split: str, place: _Place) -> Dataset:
        held = _held(name, kind, place, train=split == "train")
        return from_pixels(name, split, held.data.transpose(0, 3, 1, 2), np.asarray(held.targets), held.classes)

    return load_cifar


def _svhn(split: str, place: _Place) -> Dataset:
    held = _held("svhn", "SVHN", place, split=split)
    return from_pixels("svhn", split, held.data, held.labels, shipped.DIGITS)


def _digits(split: str, place: _Place) -> Dataset:
    del place
    return shipped.digits(split)


_LOADERS: dict[str, tuple[Callable[[str, _Place], Dataset], str]] = {
    "fashion-mnist": (
        _fashion_mnist,
        "10 kinds of clothes, 28 x 28 grey; the 10,000 test images are shipped",
    ),
    "digits": (_digits, "handwritten digits, 8 x 8 grey; shipped whole, 1,297 to train and 500 to test"),
    "mnist": (_mnist, "handwritten digits, 28 x 28 grey, 10,000 to test; from --data-root or --download"),
    "cifar10": (
        _cifar("cifar10", "CIFAR10"),
        "10 kinds of object, 32 x 32 colour, 10,000 to test; from --data-root or --download",
    ),
    "cifar100": (
        _cifar("cifar100", "CIFAR100"),
        "100 kinds of object, 32 x 32 colour, 10,000 to test; from --data-root or --download",
    ),
    "svhn": (_svhn, "house numbers, 32 x 32 colour, 26,032 to test; from --data-root or --download"),
}


def available() -> dict[str, str]:
    """Say in one line what each dataset is, by the name that `load` takes."""
    return plugins("data") | {name: about for name, (_, about) in _LOADERS.items()}


def load(name: str, split: str = "test", *, data_root: Path | None = None, download: bool = False) -> Dataset:
    """Load one split of a dataset by name, checked to be whole.

    Args:
        name: one of `available`, those of installed packages among them.
        split: ``"train"`` or ``"test"``.
        data_root: the folder that holds the files, as their distributor or torchvision lays them out; when left
            out, the environment variable ROBUSTFRAME_DATA, then the user's cache, then, for Fashion-MNIST,
            Debian's folder. Shipped splits need none.
        download: whether what is not there may be fetched, into the first of those folders.

    Returns:
        The examples in the order of the file.

    Raises:
        InputError: for an unknown name or split, and when the files are not found or not fetched.
        IntegrityError: when a file is missing from the package, truncated or altered.
    """
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    if name in _LOADERS:
        return _LOADERS[name][0](split, _Place(data_root, download))
    plugin = find_plugin("data", name)
    if plugin is None:
        raise unknown("dataset", name, available())
    return _of_package(plugin, split, data_root)


def _of_package(plugin: Plugin, split: str, data_root: Path | None) -> Dataset:
    """Call ``function(split, data_root)`` of a package, which returns a `Dataset`, or images and labels."""
    try:
        with contained():
            found = plugin.load()(split, data_root)
        if isinstance(found, Dataset):
            return found
        images, labels = found
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the data {plugin.name} of {plugin.label} failed: {told(error)}") from error
    return replace(from_arrays(images, labels, name=plugin.name), split=split)
