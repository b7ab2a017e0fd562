"""The examples that come with the package, checked against their hashes before anything is evaluated."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustframe.data.dataset import Dataset, from_pixels, identity
from robustframe.data.idx import parse_idx
from robustframe.draws import derive_seed
from robustframe.errors import IntegrityError
from robustframe.files import IDX_BYTES, gunzip, parse_safetensors, read_plain

FILES = Path(__file__).parent / "files"

MANIFEST = {
    "fashion-mnist/t10k-images-idx3-ubyte.gz": ("cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": ("8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
    "digits/digits.safetensors": "2368626786ff35f80b63c9e5aefbf839091368ee2e6274f3cc17d63b184883fb",
}
"""SHA-256 of every shipped data file."""

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple(str(digit) for digit in range(10))

_DIGITS_TEST = 500


def read_shipped(name: str) -> bytes:
    """Read one file of the manifest.

    Args:
        name: its key in `MANIFEST`.

    Returns:
        Its bytes, which are those that were hashed.

    Raises:
        IntegrityError: when it is missing, truncated or altered.
    """
    path = FILES / name
    again = "install robustframe again"
    try:
        content = read_plain(path, limit=IDX_BYTES)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {again}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != MANIFEST[name]:
        raise IntegrityError(f"{path} is altered or truncated: sha256 {found}, expected {MANIFEST[name]}; {again}")
    return content


def fashion_mnist_test() -> Dataset:
    """Load the 10,000 test images of Fashion-MNIST (Xiao et al., 2017, arXiv:1708.07747).

    Raises:
        IntegrityError: when a shipped file is missing or altered.
    """
    arrays: list[NDArray[Any]] = []
    for name, dims in (("t10k-images-idx3-ubyte.gz", 3), ("t10k-labels-idx1-ubyte.gz", 1)):
        arrays.append(parse_idx(gunzip(read_shipped(f"fashion-mnist/{name}"), name, limit=IDX_BYTES), dims, where=name))
    return from_pixels("fashion-mnist", "test", arrays[0][:, None], arrays[1], FASHION_CLASSES)


def digits(split: str) -> Dataset:
    """Load the 8 x 8 digits of Alpaydin and Kaynak (1998), their 17 grey levels divided by 16.

    The split is ours: 1,297 to train and 500 to test, in the order of a hash of each image's place in the
    file, so it depends on no library's random numbers. Both parts hold images by the same writers.

    Args:
        split: ``"train"`` or ``"test"``.

    Raises:
        IntegrityError: when the shipped file is missing or altered.
    """
    name = "digits/digits.safetensors"
    arrays = parse_safetensors(read_shipped(name), FILES / name)
    pixels, labels = arrays["images"].numpy(), arrays["labels"].numpy()
    order = sorted(range(len(labels)), key=lambda place: derive_seed("digits", place))
    rows = order[:_DIGITS_TEST] if split == "test" else order[_DIGITS_TEST:]
    images = torch.from_numpy(pixels[rows, None].astype(np.float32) / np.float32(16))
    targets = torch.from_numpy(labels[rows].astype(np.int64))
    return Dataset("digits", split, images, targets, DIGITS, identity(images, targets))
