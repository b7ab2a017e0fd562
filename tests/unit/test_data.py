"""Datasets by name: the shipped ones are what they were, the others are found, fetched or asked for."""

import gzip
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from cifar_files import Bytes, put_cifar
from numpy.typing import NDArray

from robustframe.data import available, load, loaders, shipped
from robustframe.data.idx import parse_idx
from robustframe.errors import InputError, IntegrityError
from robustframe.files import gunzip

SHA256 = {
    ("fashion-mnist", "test"): "0eb2de1fe6d40eb90457200681ee2a1341379e07c5ef3e0519657c06fcb6f307",
    ("digits", "train"): "300d1982b44e1894b47cbac26b235fc725034162233ad66feb9424bf637550da",
    ("digits", "test"): "53b128caf51eb9f43727c56a5452548dac01d55f594bcec34dd2053ef8bb9a49",
}
FASHION_MNIST_TRAIN = "a5e4450055e17aae05157ccbc0e115c4da607578497b42d702b47fcca1debb6f"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what this machine happens to have."""
    monkeypatch.delenv(loaders.ROOT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loaders, "DEBIAN_FASHION_MNIST", tmp_path / "debian")


def idx(array: NDArray[Any]) -> bytes:
    """Write an array of bytes as an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def tiny(count: int, seed: int = 0) -> tuple[Bytes, Bytes]:
    """Make random grey images with labels."""
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, draws.integers(0, 10, count, dtype=np.uint8)


def put_idx(folder: Path, prefix: str, images: Bytes, labels: Bytes, *, packed: bool = True) -> None:
    """Write both files of a split, as MNIST and its siblings name them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        content = idx(array)
        path = folder / (f"{stem}.gz" if packed else stem)
        path.write_bytes(gzip.compress(content) if packed else content)


def expect_tiny(monkeypatch: pytest.MonkeyPatch, images: Bytes, labels: Bytes) -> None:
    """Let these arrays stand for the training split of Fashion-MNIST."""
    hashes = tuple(hashlib.sha256(idx(array)).hexdigest() for array in (images, labels))
    monkeypatch.setattr(loaders, "_FASHION_TRAIN", hashes)
    monkeypatch.setattr(loaders, "_COUNTS", {"train": len(images), "test": len(images)})


# What is shipped


@pytest.mark.parametrize(("name", "split"), SHA256)
def test_a_shipped_split_holds_the_examples_that_it_always_held(name: str, split: str) -> None:
    data = load(name, split)
    assert data.sha256 == SHA256[name, split]
    assert (data.name, data.split) == (name, split)
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert set(data.labels.tolist()) == set(range(len(data.classes))) == set(range(10))


def test_the_shapes_are_those_of_images() -> None:
    fashion = load("fashion-mnist")
    assert fashion.images.shape == (10_000, 1, 28, 28)
    assert fashion.classes[fashion.labels[0]] == "Ankle boot"
    assert fashion.labels.bincount().tolist() == [1000] * 10
    assert load("digits").images.shape == (500, 1, 8, 8)
    assert load("digits", "train").images.shape == (1297, 1, 8, 8)


def make_digits() -> tuple[Bytes, Bytes]:
    """Make what the shipped digits hold, from scikit-learn's copy; saved with safetensors.numpy.save_file."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images.astype(np.uint8), found.target.astype(np.uint8)


def test_the_shipped_digits_are_those_of_scikit_learn() -> None:
    from safetensors.numpy import load as load_safetensors

    held = load_safetensors(shipped.read_shipped("digits/digits.safetensors"))
    images, labels = make_digits()
    assert np.array_equal(held["images"], images)
    assert np.array_equal(held["labels"], labels)
    assert set(held) == {"images", "labels"}


def test_the_two_splits_of_digits_are_all_of_them_once() -> None:
    images, labels = make_digits()
    parts = [load("digits", split) for split in ("train", "test")]
    found = [
        (int(y), x.tobytes()) for part in parts for x, y in zip(part.images.numpy(), part.labels.numpy(), strict=True)
    ]
    whole = [(int(y), (x / 16).astype(np.float32).tobytes()) for x, y in zip(images, labels, strict=True)]
    assert sorted(found) == sorted(whole)


def test_every_shipped_file_is_in_the_manifest_or_a_licence() -> None:
    files = {str(path.relative_to(shipped.FILES)) for path in shipped.FILES.rglob("*") if path.is_file()}
    assert files == {*shipped.MANIFEST, "fashion-mnist/LICENSE", "digits/LICENSE"}


@pytest.mark.parametrize("file", sorted(shipped.MANIFEST))
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_harmed_file_is_never_evaluated(
    file: str, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "files"
    shutil.copytree(shipped.FILES, copy)
    monkeypatch.setattr(shipped, "FILES", copy)
    content = bytearray((copy / file).read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    (copy / file).write_bytes({"truncate": content[:-1], "empty": b""}.get(harm, content))
    if harm == "remove":
        (copy / file).unlink()
    expected = "cannot be read" if harm == "remove" else "is altered or truncated: sha256"
    with pytest.raises(IntegrityError, match=rf"{Path(file).name} {expected}.*; install robustframe again"):
        load(file.split("/")[0])


def test_nothing_heavy_is_imported_with_the_room() -> None:
    code = "import sys, robustframe.data; print(*{'torchvision', 'polars', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_name_is_described_in_one_line() -> None:
    assert list(available()) == ["fashion-mnist", "digits", "mnist", "cifar10", "cifar100", "svhn"]
    assert all(about and "\n" not in about and len(about) < 90 for about in available().values())


def test_unknown_names_come_back_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown dataset 'fashionmnist'; did you mean 'fashion-mnist'"):
        load("fashionmnist")
    with pytest.raises(InputError, match="unknown split 'valid'"):
        load("digits", "valid")


# What lies elsewhere


@pytest.mark.parametrize("layout", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("how", ["root", "variable", "cache", "debian"])
def test_the_training_images_are_found_in_every_layout_and_place(
    layout: str, packed: bool, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"cache": tmp_path / "cache/robustframe/data", "debian": tmp_path / "debian"}
    root = places.get(how, tmp_path / "mine")
    images, labels = tiny(5)
    expect_tiny(monkeypatch, images, labels)
    put_idx(root / layout, "train", images, labels, packed=packed)
    if how == "variable":
        monkeypatch.setenv(loaders.ROOT_VARIABLE, str(root))
    data = load("fashion-mnist", "train", data_root=root if how == "root" else None)
    assert np.array_equal((data.images * 255).round().numpy().astype(np.uint8)[:, 0], images)
    assert data.labels.tolist() == labels.tolist()


def test_an_explicit_root_is_the_only_place_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = tiny(5)
    expect_tiny(monkeypatch, images, labels)
    put_idx(tmp_path / "debian", "train", images, labels)
    with pytest.raises(InputError, match=f"are not in {tmp_path}/empty; do `apt-get install"):
        load("fashion-mnist", "train", data_root=tmp_path / "empty")


def test_missing_training_images_come_with_the_three_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load("fashion-mnist", "train")
    assert str(caught.value) == (
        f"the train files of fashion-mnist are not in {tmp_path}/cache/robustframe/data, {tmp_path}/debian; "
        "do `apt-get install dataset-fashion-mnist`, or give their folder with --data-root, "
        "or fetch them with --download"
    )


def test_one_file_of_two_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = tiny(5)
    expect_tiny(monkeypatch, images, labels)
    put_idx(tmp_path, "train", images, labels)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="the train files of fashion-mnist are not in"):
        load("fashion-mnist", "train", data_root=tmp_path)


def test_other_images_are_never_taken_for_fashion_mnist(tmp_path: Path) -> None:
    put_idx(tmp_path, "train", *tiny(5))
    with pytest.raises(IntegrityError, match=r"train-images-idx3-ubyte\.gz is not Fashion-MNIST's: its content"):
        load("fashion-mnist", "train", data_root=tmp_path)


def test_a_truncated_download_is_named(tmp_path: Path) -> None:
    put_idx(tmp_path, "train", *tiny(5))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=f"{path} is damaged or not a gzip file"):
        load("fashion-mnist", "train", data_root=tmp_path)


def test_debians_training_images_are_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    monkeypatch.setattr(loaders, "DEBIAN_FASHION_MNIST", folder)
    data = load("fashion-mnist", "train")
    assert data.images.shape == (60_000, 1, 28, 28)
    assert data.sha256 == FASHION_MNIST_TRAIN


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_read_as_torchvision_lays_it_out(packed: bool, tmp_path: Path) -> None:
    images, labels = tiny(10_000)
    put_idx(tmp_path / "MNIST" / "raw", "t10k", images, labels, packed=packed)
    data = load("mnist", data_root=tmp_path)
    assert data.images.shape == (10_000, 1, 28, 28)
    assert data.labels.tolist() == labels.tolist()
    assert data.classes == tuple("0123456789")


def test_mnist_is_never_read_from_files_that_may_be_its_siblings(tmp_path: Path) -> None:
    put_idx(tmp_path, "t10k", *tiny(10_000))
    with pytest.raises(InputError, match=r"the test files of mnist are not in \S+; give their folder"):
        load("mnist", data_root=tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (np.zeros((9, 28, 28)), np.zeros(10), r"images \(9, 28, 28\)"),
        (np.zeros((10, 28, 27)), np.zeros(10), r"images \(10, 28, 27\)"),
        (np.zeros((10, 28, 28)), np.zeros(9), r"labels \(9,\)"),
        (np.zeros((10, 28, 28)), np.full(10, 10), "up to 10"),
    ],
)
def test_files_of_another_shape_are_no_mnist(
    images: Bytes, labels: Bytes, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "_COUNTS", {"test": 10})
    put_idx(tmp_path / "MNIST" / "raw", "t10k", images, labels)
    with pytest.raises(IntegrityError, match=f"are not the test split of mnist: .*{found}"):
        load("mnist", data_root=tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_what_is_fetched_lands_in_the_users_cache_and_is_found_again(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import mnist

    images, labels = tiny(5)
    expect_tiny(monkeypatch, images, labels)

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        put_idx(Path(download_root), filename.split("-")[0], images, labels, packed=False)

    monkeypatch.setattr(mnist, "download_and_extract_archive", fetch)
    data = load(name, "train", download=True)
    assert (tmp_path / "cache/robustframe/data" / kind / "raw").is_dir()
    monkeypatch.setattr(mnist, "download_and_extract_archive", None)
    assert load(name, "train") == load(name, "train", download=True) == data


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_failed_download_says_why_and_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import mnist

    def fetch(*args: object, **settings: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(mnist, "download_and_extract_archive", fetch)
    with pytest.raises(InputError) as caught:
        load(name, "train", data_root=tmp_path, download=True)
    assert str(caught.value).startswith(f"{name} could not be fetched into {tmp_path} (Error downloading ")
    assert "no route to host" in str(caught.value)
    assert str(caught.value).endswith("; put its files there and leave out --download")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "kind", "batches"), [("cifar10", "CIFAR10", 5), ("cifar100", "CIFAR100", 1)])
def test_cifar_keeps_its_channels_in_front(
    name: str, kind: str, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = put_cifar(tmp_path, kind, monkeypatch)
    data = load(name, data_root=tmp_path)
    assert np.array_equal((data.images * 255).round().numpy().astype(np.uint8), pixels)
    assert data.labels.tolist() == labels
    assert data.classes == tuple(f"kind {label}" for label in range(10))
    assert len(load(name, "train", data_root=tmp_path)) == 2 * batches


def test_svhn_calls_its_zero_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9]], np.uint8)})
    md5 = hashlib.md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()
    monkeypatch.setattr(SVHN, "split_list", {"test": ["", "test_32x32.mat", md5]})
    data = load("svhn", data_root=tmp_path)
    assert data.labels.tolist() == [0, 1, 9]
    assert np.array_equal((data.images * 255).round().numpy().astype(np.uint8), pixels.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_what_torchvision_does_not_find_whole_comes_with_the_way_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "test_32x32.mat").write_bytes(b"cut off")
    with pytest.raises(InputError, match=f"{name} is not, or not whole, in {tmp_path}; .*fetch it with --dow"):
        load(name, data_root=tmp_path)


def test_the_cache_is_looked_in_when_the_variables_folder_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(loaders.ROOT_VARIABLE, str(tmp_path / "elsewhere"))
    _, labels = put_cifar(tmp_path / "cache/robustframe/data", "CIFAR10", monkeypatch)
    assert load("cifar10").labels.tolist() == labels


# IDX files


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not an IDX file of unsigned bytes: it starts with ''"),
        (b"\x1f\x8b\x08\x00", "is not an IDX file of unsigned bytes: it starts with '1f 8b 08 00'"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "is not an IDX file of unsigned bytes"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x00", "has 3 dimensions where 1 are expected"),
        (b"\x00\x00\x08\x01\x00\x00", "ends inside its header, after 6 bytes"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03ab", r"states shape \(3,\), 3 bytes, but holds 2"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01ab", r"states shape \(1,\), 1 bytes, but holds 2"),
        (b"\x00\x00\x08\x01\xff\xff\xff\xff", "states shape"),
    ],
)
def test_an_idx_file_is_read_only_when_every_byte_fits(content: bytes, complaint: str) -> None:
    with pytest.raises(IntegrityError, match=f"labels {complaint}"):
        parse_idx(content, 1, where="labels")


def test_an_idx_file_comes_back_as_it_was_written() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse_idx(idx(array), 3, where="images"), array)


@pytest.mark.parametrize(
    "content",
    [b"plain", gzip.compress(b"a" * 99, mtime=0)[:-9], gzip.compress(b"a", mtime=0)[:12]],
    ids=["plain", "without its end", "only its head"],
)
def test_what_is_not_whole_gzip_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="file is damaged or not a gzip file"):
        gunzip(content, "file", limit=1000)


def test_altered_gzip_is_refused() -> None:
    content = bytearray(gzip.compress(bytes(range(256)) * 20))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(IntegrityError, match="file is damaged or not a gzip file"):
        gunzip(bytes(content), "file", limit=10_000)
