"""The user's own arrays: what is taken, what is refused in words, and which examples count as the same."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from robustframe.data import Dataset, from_arrays, identity, load
from robustframe.errors import InputError


@pytest.mark.parametrize("kind", ["tensor", "numpy", "float64", "half", "list"])
def test_the_users_arrays_are_taken_as_they_are(kind: str) -> None:
    images = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    labels = torch.tensor([3, 0], dtype=torch.int32)
    given: dict[str, Any] = {
        "tensor": images.requires_grad_(),
        "numpy": images.detach().numpy(),
        "float64": images.detach().double(),
        "half": images.detach().half(),
        "list": images.tolist(),
    }
    data = from_arrays(given[kind], labels, name="mine")
    assert (data.name, data.split, data.classes) == ("mine", "given", ())
    assert data.images.dtype == torch.float32
    assert not data.images.requires_grad
    assert torch.equal(data.images, images.detach())
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [3, 0]


TWO = torch.tensor([0, 1])
IMAGES = np.random.default_rng(0).random((6, 3, 4, 4), "f4")


@pytest.mark.parametrize(
    "images",
    [
        IMAGES.astype(">f4"), IMAGES.astype(">f8"), IMAGES[:, ::-1], IMAGES[::-1], np.asfortranarray(IMAGES),
        IMAGES[:, :, ::2], list(IMAGES), list(map(torch.tensor, IMAGES)), np.ma.masked_array(IMAGES),
        IMAGES.astype("f2"),
    ],
)  # fmt: skip
def test_arrays_are_taken_however_they_lie_in_memory(images: Any) -> None:
    found = from_arrays(images, [0, 1, 2, 0, 1, 2]).images
    assert torch.equal(found, torch.tensor(np.stack([np.asarray(each, "f4") for each in images])))


@pytest.mark.parametrize("kind", ["i1", "u1", "<i2", ">i4", "<u2", ">i8", "<u8", "column", "big-endian column"])
def test_labels_are_taken_in_any_whole_type_and_as_a_column(kind: str) -> None:
    whole = np.array([3, 1, 2, 0, 1, 2], kind if "column" not in kind else ">i4" if "big" in kind else "i8")
    labels = whole[:, None] if "column" in kind else whole
    assert from_arrays(IMAGES, labels).labels.tolist() == [3, 1, 2, 0, 1, 2]


def test_what_rounding_leaves_outside_is_set_to_the_bound() -> None:
    images = torch.tensor([[0.0, 1.0], [0.5, 1.0]]) + 1e-7
    images[0, 0] = -1e-7
    assert float(images.max()) > 1
    found = from_arrays(images, TWO).images
    assert (float(found.min()), float(found.max())) == (0, 1)
    assert torch.equal(from_arrays(torch.tensor([[-0.0, 1.0], [0.5, 1.0]]), TWO).images[0], torch.tensor([-0.0, 1.0]))


def test_what_the_user_does_to_the_arrays_later_changes_nothing() -> None:
    images, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    data = from_arrays(images, labels)
    images.fill_(0.5)
    labels.fill_(7)
    assert data.images.sum() == 0
    assert data.labels.tolist() == [0, 1]
    assert data.sha256 == identity(data.images, data.labels)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (torch.eye(2, 3, dtype=torch.uint8), TWO, r"bytes of 0 and 1 alone; .* images / 255 or images.float\(\)"),
        (torch.ones(2, 3, dtype=torch.uint16), TWO, r"images are uint16, not floating .*\(images / 65535\)"),
        (
            torch.zeros(2, 3, dtype=torch.int64),
            TWO,
            "images are int64, not floating .*; scale them to floats",
        ),
        (torch.tensor([[0.0], [254.0]]), TWO, r"\[0, 254\], not in \[0, 1\]: .*\[0, 255\]; divide by 255"),
        (torch.tensor([[-2.1], [2.6]]), TWO, r"\[-2\.1, 2\.6\].*: they look normalised; undo it and put"),
        (torch.tensor([[0.0], [1.01]]), TWO, r"\[0, 1\.01\], not in \[0, 1\]: clip them, after finding out"),
        (torch.tensor([[0.0], [torch.nan]]), TWO, "1 of 2 images hold NaN or infinity"),
        (torch.tensor([[torch.inf], [0.0]]), TWO, "1 of 2 images hold NaN or infinity"),
        (torch.zeros(2), TWO, r"images have shape \(2,\); they need one row per example"),
        (torch.zeros(0, 3), TWO[:0], r"images have shape \(0, 3\): there is nothing to evaluate"),
        (torch.zeros(2, 0), TWO, r"images have shape \(2, 0\): there is nothing to evaluate"),
        (torch.zeros(3, 3), TWO, "there are 3 images but 2 labels; give one label per image"),
        (torch.zeros(2, 3), torch.eye(2), r"labels have shape \(2, 2\).*one-hot rows .*argmax\(1\)"),
        (torch.zeros(2, 3), torch.tensor([[1, 1, 0], [0, 1, 0]]), r"\(2, 3\), .*several classes, or none, are not sup"),
        (torch.zeros(2, 3), torch.tensor([[0, 0], [0, 1]]), "several classes, or none, are not supported"),
        (torch.zeros(2, 3), torch.tensor([[0.9, 0.1], [0.5, 0.5]]), "rows of probabilities are not supported"),
        (torch.zeros(2, 3), torch.tensor([[3, 1], [5, 2]]), "; an image has one class here"),
        (torch.zeros(2, 3), torch.tensor([[3.0], [1.0]]), "labels are float32; give whole class numbers"),
        (torch.zeros(2, 3, dtype=torch.uint16), TWO, r"images are uint16, .*divide by what white is \(images / 65535"),
        (torch.tensor([[0.0], [1.00001]]), TWO, r"\[0, 1\.00001\d*\], not in \[0, 1\]: clip them"),
        (torch.tensor([[-0.00001], [1.0]]), TWO, r"\[-1e-05, 1\], not in \[0, 1\]"),
        ([torch.zeros(3), torch.zeros(4)], TWO, "images of type list are not an array"),
        (torch.zeros(2, 3), torch.zeros(2, 1, 1), r"labels have shape \(2, 1, 1\), they need shape \(n,\)$"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), r"labels are float32; give whole class numbers"),
        (torch.zeros(2, 3), torch.tensor([True, False]), "labels are bool; give whole class numbers"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "the lowest label is -1; class numbers start at 0"),
        ([[0.0], [0.0, 1.0]], TWO, "images of type list are not an array .*; give a tensor or a NumPy array"),
        ("images.npy", TWO, "images of type str are not an array"),
        (torch.zeros(2, 3), np.array(["a", "b"]), "labels of type ndarray are not an array"),
    ],
)
def test_arrays_that_would_give_meaningless_numbers_are_refused(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_arrays(images, labels)


def test_an_identity_is_the_hash_of_the_stored_bytes_and_labels() -> None:
    stored, labels = np.arange(256, dtype=np.uint8).reshape(4, 64), np.array([0, 1, 2, 3], "<i8")
    expected = hashlib.sha256(b"uint8 (4, 64)\n" + stored.tobytes() + labels.tobytes()).hexdigest()
    assert from_arrays(torch.from_numpy(stored) / 255, labels).sha256 == expected


def test_the_same_examples_are_the_same_however_they_were_given() -> None:
    data = load("digits")
    again = from_arrays(data.images.double().numpy(), data.labels.int(), name="digits")
    assert again.sha256 == data.sha256


def test_every_change_of_an_example_is_another_identity() -> None:
    images, labels = torch.arange(12).view(3, 4) / 255, torch.tensor([0, 1, 2])
    nudged = images.clone()
    nudged[0, 1] = torch.nextafter(nudged[0, 1], torch.tensor(1.0))
    variants = [
        from_arrays(images, labels),
        from_arrays(nudged, labels),
        from_arrays(images, labels.flip(0)),
        from_arrays(images.view(3, 2, 2), labels),
        from_arrays(images.flip(0), labels),
        from_arrays(images, labels).first(2),
    ]
    assert len({data.sha256 for data in variants}) == len(variants)


def test_datasets_are_equal_by_identity_and_print_without_their_pixels() -> None:
    one, other = load("digits"), load("digits")
    assert one == other
    assert hash(one) == hash(other)
    assert one != load("digits", "train")
    assert "tensor" not in repr(one)


def test_the_first_examples_are_a_dataset_of_their_own() -> None:
    data = load("digits")
    part = data.first(7)
    assert isinstance(part, Dataset)
    assert (len(part), part.name, part.split) == (7, "digits", "test")
    assert torch.equal(part.images, data.images[:7])
    assert part.sha256 == identity(data.images[:7], data.labels[:7]) != data.sha256
    assert data.first(len(data)) == data
    for count in (0, -1, 501):
        with pytest.raises(InputError, match=f"digits test has 500 examples; {count} cannot be taken"):
            data.first(count)
