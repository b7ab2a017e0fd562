"""Whether the files of a data set are here, without reading them."""

from dataclasses import dataclass
from pathlib import Path

from robustframe.data.loaders import DEBIAN_FASHION_MNIST, folders
from robustframe.data.shipped import read_shipped
from robustframe.errors import InputError

_SHIPPED = {
    ("fashion-mnist", "test"): ("fashion-mnist/t10k-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz"),
    ("digits", "test"): ("digits/digits.safetensors",),
}
_FILES = {
    ("fashion-mnist", "train"): "FashionMNIST/raw/train-images-idx3-ubyte",
    ("mnist", "test"): "MNIST/raw/t10k-images-idx3-ubyte",
    ("cifar10", "test"): "cifar-10-batches-py/test_batch",
    ("cifar100", "test"): "cifar-100-python/test",
    ("svhn", "test"): "test_32x32.mat",
}
"""One file by which to know a split; the loaders check that it is whole."""


@dataclass(frozen=True)
class Presence:
    """What is known of one split without loading it."""

    name: str
    split: str
    shipped: bool
    """It comes with the package, so that it must be there and whole."""
    where: str | None
    """`None` when it is not here."""
    problem: str = ""
    """Why a shipped split cannot be used."""

    @property
    def fetch(self) -> str:
        """The command that fetches it."""
        call = f"load('{self.name}', '{self.split}', download=True)"
        return f'python -c "from robustframe.data import load; {call}"'


def look(data_root: Path | None = None) -> list[Presence]:
    """Look for every split that recipes commonly use.

    Args:
        data_root: where data lies that does not ship; as `robustframe.data.load` takes it.
    """
    found = [_shipped(name, split, files) for (name, split), files in _SHIPPED.items()]
    return found + [_held(name, split, Path(file), data_root) for (name, split), file in _FILES.items()]


def _shipped(name: str, split: str, files: tuple[str, ...]) -> Presence:
    try:
        for file in files:
            read_shipped(file)
    except InputError as error:
        return Presence(name, split, True, None, str(error))
    return Presence(name, split, True, "shipped")


def _held(name: str, split: str, file: Path, root: Path | None) -> Presence:
    for folder in folders(root):
        for path in (folder / file, folder / f"{file}.gz"):
            if path.is_file():
                return Presence(name, split, False, str(folder))
    # Debian's package lies flat, and only Fashion-MNIST may.
    flat = DEBIAN_FASHION_MNIST / f"{file.name}.gz"
    if name == "fashion-mnist" and root is None and flat.is_file():
        return Presence(name, split, False, str(flat.parent))
    return Presence(name, split, False, None)
