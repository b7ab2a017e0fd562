"""Data of the user's own: arrays in a file, images in folders, and every mistake in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from robustframe.data import from_file, from_folder, identity, load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.verification import verify


def test_a_file_holds_the_same_examples_as_the_arrays(tmp_path: Path) -> None:
    data = load("fashion-mnist").first(6)
    pixels = (data.images * 255).round().to(torch.uint8).numpy()
    np.savez(tmp_path / "bytes.npz", images=pixels, labels=data.labels.numpy())
    save_file({"images": data.images.numpy(), "labels": data.labels.numpy()}, tmp_path / "floats.safetensors")
    for name in ("bytes.npz", "floats.safetensors"):
        found = from_file(tmp_path / name, name=f"file:{name}")
        assert found.sha256 == data.sha256
        assert (found.name, found.split) == (f"file:{name}", "given")


def arrays(path: Path, **held: Any) -> None:
    np.savez(path, **held)


GOOD = np.zeros((4, 3, 5, 5), np.uint8)
LABELS = np.arange(4)


@pytest.mark.parametrize(
    ("write", "name", "sentence"),
    [
        (lambda path: None, "d.npz", "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"PK..."), "d.npz", "d.npz is damaged or not an npz file"),
        (
            lambda path: path.write_bytes(b"\x00" * 30),
            "d.safetensors",
            "d.safetensors is damaged or not a safetensors file",
        ),
        (lambda path: path.write_text("1, 2"), "d.csv", "must end in .npz or .safetensors"),
        (lambda path: arrays(path, x=GOOD, labels=LABELS), "d.npz", "holds x, labels; it needs the arrays images"),
        (lambda path: arrays(path, images=GOOD.transpose(0, 2, 3, 1), labels=LABELS), "d.npz", "transpose(0, 3, 1, 2)"),
        (lambda path: arrays(path, images=GOOD, labels=LABELS[:2]), "d.npz", "4 images but 2 labels"),
        (lambda path: arrays(path, images=GOOD - 1.5, labels=LABELS), "d.npz", "they look normalised"),
        (
            lambda path: arrays(path, images=np.array([{}]), labels=LABELS),
            "d.npz",
            "d.npz is damaged or not an npz file",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    write: Any, name: str, sentence: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError) as refused:
        from_file(tmp_path / name, name="file")
    assert sentence in str(refused.value)
    assert name in str(refused.value)


def paint(path: Path, size: tuple[int, int], colour: Any, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_a_folder_gives_its_classes_and_first_images_of_all_of_them(tmp_path: Path) -> None:
    for number in range(20):
        for value, label in enumerate(("bird", "cat", "dog")):
            paint(tmp_path / label / f"{number}.png", (6, 4), (value, number, 7))
    (tmp_path / "notes.txt").write_text("no class")
    data = from_folder(tmp_path, name="folder:pets")
    assert data.classes == ("bird", "cat", "dog")
    assert data.images.shape == (60, 3, 4, 6)
    assert torch.equal((data.images[:, 0, 0, 0] * 255).round().long(), data.labels)
    few = from_folder(tmp_path, name="folder:pets", count=15)
    assert set(few.labels.tolist()) == {0, 1, 2}
    assert few.sha256 == identity(data.images[:15], data.labels[:15])


def test_images_of_several_sizes_are_resized_and_cropped_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision import transforms

    generator = np.random.default_rng(0)
    for number, size in enumerate(((300, 260), (250, 400))):
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "a" / f"{number}.png")
    with pytest.raises(InputError, match=r"differ in size.*resize = 256 and crop = 224"):
        from_folder(tmp_path, name="folder")
    with pytest.raises(InputError, match="crop = 400 is cut from it"):
        from_folder(tmp_path, name="folder", crop=400)
    data = from_folder(tmp_path, name="folder", resize=256, crop=224)
    assert data.images.shape == (2, 3, 224, 224)
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    expected = [usual(Image.open(tmp_path / "a" / f"{number}.png")) for number in (0, 1)]
    for image in data.images:
        assert min(float((image - other).abs().max()) for other in expected) < 1e-6


def test_a_folder_is_grey_where_every_image_is(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "0.png", (4, 4), 9, "L")
    assert from_folder(tmp_path, name="folder").images.shape == (1, 1, 4, 4)
    paint(tmp_path / "b" / "0.jpg", (4, 4), (1, 2, 3))
    assert from_folder(tmp_path, name="folder").images.shape == (2, 3, 4, 4)


def test_a_folder_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        from_folder(tmp_path / "none", name="folder")
    paint(tmp_path / "0.png", (4, 4), (1, 2, 3))
    with pytest.raises(InputError, match="it needs a folder for each class"):
        from_folder(tmp_path, name="folder")
    paint(tmp_path / "a" / "0.png", (4, 4), (1, 2, 3))
    with pytest.raises(InputError, match="has 1 images; 2 cannot be taken"):
        from_folder(tmp_path, name="folder", count=2)
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1.png is damaged or not an image"):
        from_folder(tmp_path, name="folder")


RECIPE = """
schema = 1
name = "own"
seed = 0
threats = ["linf:4/255"]
battery = ["one.toml"]
diagnose = false
[data]
{data}
[[model]]
use = "torchvision:squeezenet1_1"
classes = 3
normalise = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
"""
BATTERY = 'schema = 1\nname = "one"\nversion = "1"\n[[attack]]\nuse = "fgsm"\n'


@pytest.mark.parametrize("shape", ["cifar", "imagenet"])
def test_data_and_model_of_ones_own_go_through_a_recipe_and_verify(shape: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    if shape == "cifar":
        images = generator.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
        np.savez(tmp_path / "data.npz", images=images, labels=np.arange(6) % 3)
        data = 'use = "file:data.npz"'
    else:
        for number in range(6):
            pixels = generator.integers(0, 256, (230 + number, 240, 3), dtype=np.uint8)
            (tmp_path / "images" / f"class{number % 3}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "images" / f"class{number % 3}" / f"{number}.png")
        data = 'use = "folder:images"\ncount = 4\nresize = 232\ncrop = 224'
    (tmp_path / "one.toml").write_text(BATTERY)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(data=data))
    run = evaluate_recipe(tmp_path / "recipe.toml", runs=tmp_path / "runs", device="cpu")
    assert run.record.data.count == (6 if shape == "cifar" else 4)
    assert "has random weights" in run.record.flags[0]
    found = verify(run.folder, folder=tmp_path, device="cpu")
    assert found.ok, str(found)
    if shape == "imagenet":
        (tmp_path / "recipe.toml").write_text(RECIPE.format(data='use = "digits"\ncrop = 4'))
        with pytest.raises(InputError, match="resize and crop are for"):
            evaluate_recipe(tmp_path / "recipe.toml", runs=tmp_path / "runs", device="cpu")
