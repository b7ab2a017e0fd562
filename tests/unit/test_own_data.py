"""Data of the user's own: arrays in a file, images in folders, and every mistake in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from robustframe.data import from_file, from_folder, identity, load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.recipe import DataSpec, Recipe, read_toml
from robustframe.recipe.examples import load_examples
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


def store(path: Path, pixels: Any, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **more)
    return path


RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
HALF = np.zeros((8, 8, 3), np.uint8)
HALF[:4], HALF[:2, :3] = 255, 90


@pytest.mark.parametrize(
    ("name", "pixels", "right"),
    [
        ("png of 16 bits", ("0.png", RAMP), RAMP / 65535),
        ("tiff of 16 bits", ("0.tif", RAMP), RAMP / 65535),
        ("tiff of 16 bits, big-endian", ("0.tif", Image.fromarray(RAMP.astype(">u2"))), RAMP / 65535),
        ("pgm of 16 bits", ("0.ppm", Image.fromarray(RAMP)), RAMP / 65535),
        ("tiff of floats", ("0.tif", (RAMP / 65535).astype(np.float32)), RAMP / 65535),
        ("black and white", ("0.png", Image.fromarray(RAMP > 30000)), RAMP > 30000),
    ],
)
def test_numbers_of_any_depth_mean_what_they_show(name: str, pixels: Any, right: Any, tmp_path: Path) -> None:
    file, content = pixels
    try:
        store(tmp_path / "a" / file, content)
    except (OSError, TypeError) as error:
        pytest.skip(f"Pillow writes no {name}: {error}")
    found = from_folder(tmp_path, name="d").images
    assert found.shape == (1, 1, 8, 8)
    assert float((found[0, 0].double() - torch.tensor(right).double()).abs().max()) <= 1e-6
    paint(tmp_path / "b" / "0.png", (8, 8), (1, 2, 3))
    mixed = from_folder(tmp_path, name="d")
    grey = mixed.images[mixed.labels == 0][0]
    assert torch.equal(grey, found[0].expand(3, 8, 8))
    assert torch.allclose(mixed.images[mixed.labels == 1][0, :, 0, 0] * 255, torch.tensor([1.0, 2.0, 3.0]))


def test_deep_images_are_scaled_as_others_are(tmp_path: Path) -> None:
    store(tmp_path / "deep" / "a" / "0.png", (RAMP // 257 * 257).astype(np.uint16))
    store(tmp_path / "plain" / "a" / "0.png", (RAMP // 257).astype(np.uint8))
    deep, plain = (from_folder(tmp_path / kind, name="d", resize=4, crop=3).images for kind in ("deep", "plain"))
    assert float((deep - plain).abs().max()) <= 1.01 / 255


def test_palettes_and_opaque_alpha_show_their_colours(tmp_path: Path) -> None:
    colours = Image.fromarray(HALF)
    store(tmp_path / "a" / "0.png", colours.quantize(8))
    store(tmp_path / "a" / "1.png", colours.convert("RGBA"))
    store(tmp_path / "a" / "2.png", colours.convert("L").convert("LA"))
    found = from_folder(tmp_path, name="d").images
    grey = (found[:, :1] == found).all(3).all(2).all(1)
    right = torch.from_numpy(HALF).permute(2, 0, 1) / 255
    assert len(found) == 3
    assert all(torch.allclose(each, right, atol=1e-6) for each in found), grey


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_photograph_stands_as_a_viewer_shows_it(
    way: int, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = Image.fromarray(HALF)
    exif = image.getexif()
    exif[0x0112] = way
    path = store(tmp_path / "a" / f"0.{ending}", image, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).transpose(2, 0, 1) / 255
    assert np.allclose(from_folder(tmp_path, name="d").images[0].numpy(), shown, atol=1e-6)
    said = "1 of 1 images are turned as their EXIF says" in caplog.text
    # Pillow turns TIFF images by itself.
    assert said == (way > 1) or ending == "tif"


def clear(mode: str) -> Image.Image:
    image = Image.fromarray(HALF).convert(mode)
    image.putalpha(Image.fromarray(HALF[..., 0]))
    return image


@pytest.mark.parametrize(
    ("name", "pixels", "more", "sentence"),
    [
        ("0.png", clear("RGB"), {}, "has transparent pixels, and nothing says what is behind them"),
        ("0.png", clear("L"), {}, "has transparent pixels"),
        ("0.png", Image.fromarray(HALF), {"transparency": (255, 255, 255)}, "has transparent pixels"),
        ("0.png", Image.fromarray(HALF).quantize(8), {"transparency": 0}, "has transparent pixels"),
        ("0.tif", RAMP.astype(np.int32), {}, "holds whole numbers of 32 bits from 0 to 65535, and nothing says"),
        ("0.tif", RAMP.astype(np.float32), {}, "holds floats from 0 to 65535, and nothing says which value is white"),
        ("0.tif", (RAMP / 65535 - 0.1).astype(np.float32), {}, "holds floats from -0.1 to 0.9"),
        ("0.tif", np.full((8, 8), np.nan, np.float32), {}, "holds floats from nan to nan"),
        ("0.tif", Image.fromarray(HALF), {"save_all": True, "append_images": [Image.fromarray(HALF)]}, "2 pictures"),
    ],
)
def test_an_image_of_which_nobody_knows_what_it_shows_is_refused(
    name: str, pixels: Any, more: Any, sentence: str, tmp_path: Path
) -> None:
    store(tmp_path / "a" / name, pixels, **more)
    with pytest.raises(InputError, match=sentence):
        from_folder(tmp_path, name="d")


def test_hidden_and_other_files_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in ("cat", "dog"):
        paint(tmp_path / label / "0.png", (4, 4), (1, 2, 3))
    paint(tmp_path / ".ipynb_checkpoints" / "0.png", (4, 4), 0)
    paint(tmp_path / "__MACOSX" / "0.png", (4, 4), 0)
    paint(tmp_path / "cat" / ".thumbs" / "0.png", (4, 4), 0)
    (tmp_path / "cat" / "._0.png").write_bytes(b"of a Mac")
    paint(tmp_path / "1.png", (4, 4), 0)
    (tmp_path / "dog" / "labels.csv").write_text("")
    (tmp_path / "dog" / "more").symlink_to(tmp_path / "cat")
    found = from_folder(tmp_path, name="d")
    assert (found.classes, sorted(found.labels.tolist())) == (("cat", "dog"), [0, 1])
    for text in (
        "are hidden: '.ipynb_checkpoints/', '__MACOSX/', 'cat/._0.png' and 1 more",
        "lie beside the folders of the classes: '1.png'",
        "are not images by their names: 'dog/labels.csv'",
        "are links to folders: 'dog/more'",
    ):
        assert text in caplog.text


def test_folders_that_are_numbers_are_counted_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in range(12):
        paint(tmp_path / str(label) / "0.png", (2, 2), (label, 0, 0))
    data = from_folder(tmp_path, name="d")
    assert data.classes == tuple(map(str, range(12)))
    assert torch.equal((data.images[:, 0, 0, 0] * 255).round().long(), data.labels)
    assert "ImageFolder has them in the order 0, 1, 10, 11" in caplog.text
    in_its_order = from_folder(tmp_path, name="d", class_map=sorted(map(str, range(12))))
    assert in_its_order.classes[2] == "10"
    assert in_its_order.sha256 != data.sha256


@pytest.mark.parametrize(
    ("name", "content", "classes"),
    [
        ("map.txt", "dog\r\n\nowl\ncat\n", ("dog", "owl", "cat")),
        ("map.txt", "\ufeffdog\nowl\ncat", ("dog", "owl", "cat")),
        ("map.json", '["dog", "owl", "cat"]', ("dog", "owl", "cat")),
        ("map.json", '{"cat": 2, "dog": 0, "owl": 1}', ("dog", "owl", "cat")),
        ("map.json", '{"cat": 2, "dog": 0}', "each folder a number, from 0 to 1 and each once"),
        ("map.json", '{"cat": true, "dog": 0}', "each folder a number"),
        ("map.json", '{"cat": "1", "dog": "0"}', "each folder a number"),
        ("map.json", '["cat"', "is damaged or not a class map"),
        ("map.json", "7", "must be the names of 1 to"),
        ("map.json", "[1, 2]", "must be the names of 1 to"),
        ("map.txt", "", "must be the names of 1 to"),
        ("map.txt", "cat\ndog\ncat", "has the folder 'cat' twice"),
        ("map.txt", "cat", "class_map lacks 'dog', a folder of images"),
        ("map.md", None, "cannot be read: No such file"),
    ],
)
def test_a_class_map_says_which_folder_is_which_class(
    name: str, content: str | None, classes: tuple[str, ...] | str, tmp_path: Path
) -> None:
    for value, label in enumerate(("cat", "dog")):
        paint(tmp_path / "d" / label / "0.png", (2, 2), (value, 0, 0))
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    if isinstance(classes, str):
        with pytest.raises(InputError, match=classes):
            from_folder(tmp_path / "d", name="d", class_map=tmp_path / name)
        return
    (tmp_path / "d" / "owl").mkdir()
    data = from_folder(tmp_path / "d", name="d", class_map=tmp_path / name)
    assert data.classes == classes
    seen = (data.images[:, 0, 0, 0] * 255).round().int().tolist()
    assert [classes[label] for label in data.labels] == [("cat", "dog")[value] for value in seen]


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("cat/0.png", "dog/"), "dog has no images, so it is unclear whether it counts as a class"),
        (("cat/0.png", "notes/0.txt"), "notes has no images"),
        (("2/0.png", "5/0.png"), "are numbers with gaps"),
        (("1990/0.png", "1991/0.png"), "are numbers with gaps"),
        (("train/cat/0.png", "val/cat/0.png"), r"holds train, val, which are splits.*folder:.*val"),
    ],
)
def test_folders_of_which_nobody_knows_the_class_are_refused(
    folders: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    for each in folders:
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        if each.endswith(".png"):
            paint(tmp_path / each, (2, 2), 0)
        elif each.endswith("/"):
            (tmp_path / each).mkdir()
        else:
            (tmp_path / each).touch()
    with pytest.raises(InputError, match=sentence):
        from_folder(tmp_path, name="d")


def test_a_recipe_without_a_class_map_asks_what_it_always_did() -> None:
    assert "class_map" not in DataSpec(use="folder:x").model_dump()
    assert DataSpec(use="folder:x", class_map=["a"]).model_dump()["class_map"] == ["a"]


@pytest.mark.parametrize("key", ['class_map = ["a"]', "resize = 4", "crop = 4", 'split = "train"'])
def test_a_setting_that_data_of_ones_own_does_not_have_is_refused(key: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=GOOD, labels=LABELS)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(data=f'use = "file:d.npz"\n{key}'))
    spec = read_toml(tmp_path / "recipe.toml", Recipe).data
    with pytest.raises(InputError, match=r"are for data = 'folder:PATH'|has no splits; leave split = 'train' out"):
        load_examples(spec, folder=tmp_path)


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
        with pytest.raises(InputError, match="resize, crop and class_map are for"):
            evaluate_recipe(tmp_path / "recipe.toml", runs=tmp_path / "runs", device="cpu")
