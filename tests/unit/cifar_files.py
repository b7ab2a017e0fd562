"""Small files in the format of CIFAR."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def put_cifar(root: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Bytes, list[int]]:
    """Write small CIFAR batches and let torchvision expect their checksums; returns the test split."""
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    draws = np.random.default_rng(1)
    label_key = "labels" if kind == "CIFAR10" else "fine_labels"

    def put(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name: str, count: int) -> tuple[list[str], Bytes, list[int]]:
        pixels = draws.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = [int(label) for label in draws.integers(0, 10, count)]
        return put(name, {"data": pixels, label_key: labels}), pixels.reshape(-1, 3, 32, 32), labels

    test, pixels, labels = batch(dataset.test_list[0][0], 4)
    train = [batch(name, 2)[0] for name, _ in dataset.train_list]
    names = [f"kind {label}" for label in range(10)]
    meta, md5 = put(dataset.meta["filename"], {dataset.meta["key"]: names})
    monkeypatch.setattr(dataset, "test_list", [test])
    monkeypatch.setattr(dataset, "train_list", train)
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "filename": meta, "md5": md5})
    return pixels, labels
