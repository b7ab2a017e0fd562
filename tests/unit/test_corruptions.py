"""Corruptions: each kind against its formula, random numbers of each image's own, folders, and runs that hold them."""

import colorsys
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import robustframe
from robustframe.cli import app
from robustframe.corruptions import KINDS, corrupt, load_corruptions
from robustframe.corruptions.blur import along, disk
from robustframe.corruptions.digital import _followed
from robustframe.corruptions.weather import plasma
from robustframe.data import Dataset, load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate, evaluate_recipe
from robustframe.runs import open_run
from robustframe.runs.units import parquet

GREY = torch.full((200, 1, 28, 28), 0.5)


def colours(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(count, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(smooth, size=32, mode="bilinear").mul(255).round() / 255


@pytest.mark.parametrize(("severity", "scale"), [*enumerate([0.04, 0.06, 0.08, 0.09, 0.10], start=1)])
def test_gaussian_noise_has_the_published_deviation(severity: int, scale: float) -> None:
    assert float(corrupt(GREY, "gaussian_noise", severity).std()) == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize(("severity", "photons"), [*enumerate([500, 250, 100, 75, 50], start=1)])
def test_shot_noise_has_the_variance_of_counted_photons(severity: int, photons: int) -> None:
    assert float(corrupt(GREY, "shot_noise", severity).var()) == pytest.approx(0.5 / photons, rel=0.05)


@pytest.mark.parametrize(("severity", "share"), [*enumerate([0.01, 0.02, 0.03, 0.05, 0.07], start=1)])
def test_impulse_noise_sets_the_published_share_to_black_and_white(severity: int, share: float) -> None:
    found = corrupt(GREY, "impulse_noise", severity)
    assert float(((found == 0) | (found == 1)).float().mean()) == pytest.approx(share, rel=0.05)
    assert float((found == 1).float().mean()) == pytest.approx(share / 2, rel=0.1)


@pytest.mark.parametrize(("severity", "kept"), [*enumerate([0.75, 0.5, 0.4, 0.3, 0.15], start=1)])
def test_contrast_shrinks_deviations_from_the_mean(severity: int, kept: float) -> None:
    images = colours()
    mean = images.mean((2, 3), keepdim=True)
    assert (corrupt(images, "contrast", severity) - (mean + kept * (images - mean))).abs().max() <= 1 / 255


@pytest.mark.parametrize(("severity", "more"), [*enumerate([0.05, 0.1, 0.15, 0.2, 0.3], start=1)])
def test_brightness_raises_the_value_of_each_colour(severity: int, more: float) -> None:
    image = colours(1)
    image[0, :, 0, 0] = 0
    found = corrupt(image, "brightness", severity)[0].permute(1, 2, 0).reshape(-1, 3)
    for before, after in zip(image[0].permute(1, 2, 0).reshape(-1, 3)[::37].tolist(), found[::37].tolist()):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1)), abs=1.01 / 255)


@pytest.mark.parametrize(("severity", "quality", "scale"), [(1, 80, 0.95), (3, 58, 0.85), (5, 40, 0.65)])
def test_jpeg_and_pixelation_are_those_of_pillow(severity: int, quality: int, scale: float) -> None:
    images = colours(1)
    picture = Image.fromarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    coarse = picture.resize((int(32 * scale),) * 2, Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    for kind, expected in (("jpeg_compression", Image.open(file)), ("pixelate", coarse)):
        found = (corrupt(images, kind, severity)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, np.asarray(expected))


def test_a_blur_spreads_a_point_without_loss_and_leaves_a_plain_image() -> None:
    plain = torch.full((2, 3, 32, 32), 0.6)
    for kind in ("defocus_blur", "motion_blur", "zoom_blur", "elastic_transform", "glass_blur"):
        for severity in (1, 3, 5):
            assert (corrupt(plain, kind, severity) - 0.6).abs().max() <= 1 / 255, kind
    # Half a Gaussian along a line at 0 degrees: the weights themselves, from the point to the left.
    point = np.zeros((1, 9, 31, 1))
    point[0, 4, 20] = 1
    smeared = along(point, 6, 2.0, np.zeros(1))
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    np.testing.assert_allclose(smeared[0, 4, 20 : 20 - 13 : -1, 0], weights / weights.sum())
    np.testing.assert_allclose(smeared.sum(), 1)
    # At severity 4 the lens is a cross of five equal pixels, hardly softened.
    np.testing.assert_allclose(disk(1.0, 0.2)[1:4, 1:4], np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5, atol=1e-5)


def test_three_corners_are_where_they_were_moved_to() -> None:
    moved = np.array([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.25]])
    before = np.array([[26, 26], [26, 6], [6, 6]], dtype=float)
    grid = np.stack([(before + moved)[:, 1], (before + moved)[:, 0]])
    np.testing.assert_allclose(_followed(grid, moved, (32, 32)), before.T[::-1], atol=1e-9)


def test_fog_is_a_fractal_that_keeps_the_brightest_pixel_in_range() -> None:
    heights = plasma(32, 2.0, np.random.RandomState(0))
    assert (heights.min(), heights.max()) == (0, 1)
    # Rougher where displacements shrink less.
    rough, smooth = (
        np.mean([np.abs(np.diff(plasma(32, decay, np.random.RandomState(seed)))).mean() for seed in range(20)])
        for decay in (1.75, 3.0)
    )
    assert rough > 1.5 * smooth
    assert corrupt(torch.zeros(1, 1, 28, 28), "fog", 5).max() == 0
    assert corrupt(colours(), "fog", 5).max() <= colours().max()


def of_the_process() -> list[object]:
    """The random state that everybody shares."""
    return [repr(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_corrupted_alike_whatever_is_beside_it(kind: str) -> None:
    for images in (load("fashion-mnist").first(12).images, colours(12), load("digits").first(12).images):
        before = of_the_process()
        whole = corrupt(images, kind, 3, seed=7)
        assert whole.shape == images.shape
        assert whole.dtype == torch.float32
        assert torch.equal((whole * 255).round() / 255, whole)
        assert torch.equal(corrupt(images[[2, 9]], kind, 3, seed=7, index=[2, 9]), whole[[2, 9]])
        assert of_the_process() == before
        drawn = kind not in {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
        assert torch.equal(corrupt(images, kind, 3, seed=8), whole) != drawn


def test_damage_grows_with_severity() -> None:
    images = load("fashion-mnist").first(60).images
    for kind in KINDS:
        distance = [float((corrupt(images, kind, severity) - images).abs().mean()) for severity in (1, 5)]
        # Elastic deformation moves less at 5 than at 1, but tears more; as published.
        assert distance[1] > distance[0] or kind == "elastic_transform", kind


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"kind": "fogg"}, "unknown corruption 'fogg'; did you mean 'fog'"),
        ({"severity": 6}, "there is no severity 6; severities are 1, 2, 3, 4 and 5"),
        ({"images": torch.zeros(1, 3, 224, 224)}, "about 32 x 32 pixels"),
        ({"images": torch.zeros(1, 2, 32, 32)}, "grey or colour images"),
        ({"index": [1, 2]}, "1 images and 2 indices"),
    ],
)
def test_bad_input_is_a_sentence(words: dict[str, object], sentence: str) -> None:
    given: dict[str, object] = {"images": torch.zeros(1, 1, 28, 28), "kind": "fog", "severity": 1, **words}
    with pytest.raises(InputError, match=sentence):
        corrupt(**given)  # type: ignore[arg-type]


def write_folder(folder: Path, data: Dataset, *, more: int = 5, seed: int = 3) -> Path:
    """Write corrupted images as CIFAR-10-C does, with some more images of each severity than are evaluated."""
    folder.mkdir()
    rest = torch.zeros(more, *data.images.shape[1:])
    for kind in ("fog", "contrast"):
        parts = [torch.cat([corrupt(data.images, kind, severity, seed=seed), rest]) for severity in range(1, 6)]
        stored = (torch.cat(parts) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        np.save(folder / f"{kind}.npy", stored[..., 0] if data.images.shape[1] == 1 else stored)
    np.save(folder / "labels.npy", np.tile(np.append(data.labels.numpy(), [0] * more), 5).astype(np.uint8))
    return folder


def test_a_folder_holds_the_same_images_as_were_drawn(tmp_path: Path) -> None:
    data = load("digits").first(20)
    write_folder(tmp_path / "c", data)
    drawn = load_corruptions("corruptions@1", data, seed=3)
    read = load_corruptions("folder:c", data, seed=0, folder=tmp_path)
    assert read.kinds == ("fog", "contrast")
    assert drawn.sha256 is None
    index = torch.tensor([2, 3, 11])
    for kind in read.kinds:
        for severity in read.severities:
            assert torch.equal(read.images(kind, severity, index), drawn.images(kind, severity, index))
    assert read.sha256 != load_corruptions("folder:c", data, seed=0, folder=tmp_path, severities=[1]).sha256


def spoil(folder: Path, what: str) -> None:
    """Make one thing wrong in a folder."""
    if what == "shape":
        np.save(folder / "fog.npy", np.zeros((125, 9, 8), dtype=np.uint8))
    elif what == "dtype":
        np.save(folder / "fog.npy", np.zeros((125, 8, 8)))
    elif what == "count":
        np.save(folder / "fog.npy", np.zeros((100, 8, 8), dtype=np.uint8))
    elif what == "labels":
        np.save(folder / "labels.npy", np.zeros(125, dtype=np.uint8))
    elif what == "later":
        labels = np.load(folder / "labels.npy")
        labels[50] = (labels[50] + 1) % 10
        np.save(folder / "labels.npy", labels)
    elif what == "few":
        np.save(folder / "labels.npy", np.zeros(50, dtype=np.uint8))
    elif what == "pickle":
        np.save(folder / "fog.npy", np.array([{}]), allow_pickle=True)
    else:
        for path in folder.glob("*.npy"):
            path.unlink()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("shape", "holds 125 images of shape \\(9, 8\\)"),
        ("dtype", "it must hold uint8"),
        ("count", "it must hold 125, 5 severities of 25"),
        ("labels", "they are not the same images in the same order"),
        ("later", r"for image 50, digits test \d for image 0: they are not the same images"),
        ("few", "has 50 labels"),
        ("pickle", "object of shape"),
        ("empty", "holds no KIND.npy"),
    ],
)
def test_a_folder_of_other_images_is_refused(what: str, sentence: str, tmp_path: Path) -> None:
    data = load("digits").first(20)
    spoil(write_folder(tmp_path / "c", data), what)
    with pytest.raises(InputError, match=sentence):
        load_corruptions("folder:c", data, seed=0, folder=tmp_path)


RECIPE = """
schema = 1
name = "corrupted"
seed = 3
chunk = 16
threats = ["linf:0.1"]
battery = ["small.toml"]
diagnose = false
[data]
use = "digits"
count = 40
[corruptions]
{corruptions}
[[model]]
use = "card:{card}"
"""


@pytest.fixture
def recipe(tiny_card: Path, tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text('schema = 1\nname = "small"\nversion = "1"\n[[attack]]\nuse = "fgsm"\n')
    asked = 'kinds = ["fog", "impulse_noise"]\nseverities = [1, 4]'
    (tmp_path / "recipe.toml").write_text(RECIPE.format(card=tiny_card, corruptions=asked))
    return tmp_path / "recipe.toml"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_counts_what_the_model_itself_gets_right(recipe: Path, tmp_path: Path) -> None:
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    data = run.examples()
    pair = robustframe.zoo.load_card(next(Path(use.removeprefix("card:")) for use in [run.record.classifiers[0].use]))[
        0
    ]
    for name, model in (("feedforward", pair.feedforward), ("recurrent", pair.recurrent)):
        for kind, severity in (("fog", 4), ("impulse_noise", 1)):
            right = model(corrupt(data.images, kind, severity, seed=3)).argmax(1) == data.labels
            rows = run.corrupted().filter(pl.col("classifier").str.ends_with(name), kind=kind, severity=severity)
            assert rows["correct"].to_list() == [int(right.sum())]
    mean = run.corrupted().filter(classifier=run.record.classifiers[0].name)["accuracy"].mean()
    assert f"{100 * mean:.1f}" in run.table("md")
    found = robustframe.verify(run, device="cpu", folder=tmp_path)
    assert found.ok
    assert found.whole


def test_bytes_do_not_depend_on_the_batch_and_a_run_goes_on(recipe: Path, tmp_path: Path) -> None:
    one = evaluate_recipe(recipe, out=tmp_path / "one", device="cpu")
    evaluate_recipe(recipe, out=tmp_path / "two", device="cpu", batch_size=16)
    assert contents(one.folder) == contents(tmp_path / "two")
    for path in one.folder.glob("units/*/corruptions/fog/00001.parquet"):
        path.unlink()
    evaluate_recipe(recipe, out=tmp_path / "one", device="cpu")
    assert contents(one.folder) == contents(tmp_path / "two")


def test_verify_names_an_edited_answer_and_an_edited_count(recipe: Path, tmp_path: Path) -> None:
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    unit = next(iter(sorted(run.folder.glob("units/*/corruptions/fog/00000.parquet"))))
    rows = pl.read_parquet(unit)
    changed = (rows["prediction"][0] + 1) % 10
    unit.write_bytes(parquet(rows.with_columns(prediction=pl.Series([changed, *rows["prediction"].to_list()[1:]]))))
    record = json.loads((run.folder / "record.json").read_text())
    name = record["classifiers"][1]["name"]
    record["corruptions"]["correct"][name][1][0] -= 1
    (run.folder / "record.json").write_text(json.dumps(record))

    def said() -> str:
        found = {part.name: part for part in robustframe.verify(run.folder, device="cpu").checks}["corruptions"]
        return "\n".join(map(str, found.findings))

    assert f"for fog at severity 1, the table {changed}" in said()
    assert f"{name}, impulse_noise: correct is" in said()
    record["corruptions"]["correct"]["nobody"] = [[0]]
    (run.folder / "record.json").write_text(json.dumps(record))
    assert "do not agree on nobody" in said()
    assert "of nobody are not one for each kind and severity" in said()
    with pytest.raises(InputError, match="robustframe verify"):
        open_run(run.folder)


def test_a_recipe_from_a_folder_is_bound_to_its_images(recipe: Path, tmp_path: Path, tiny_card: Path) -> None:
    write_folder(tmp_path / "c", load("digits").first(40))
    recipe.write_text(RECIPE.format(card=tiny_card, corruptions='use = "folder:c"'))
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    assert robustframe.verify(run, device="cpu", folder=tmp_path).ok
    images = np.load(tmp_path / "c" / "fog.npy")
    images[0] = 0
    np.save(tmp_path / "c" / "fog.npy", images)
    assert not robustframe.verify(run, device="cpu", folder=tmp_path).ok
    with pytest.raises(InputError, match="other corrupted images"):
        evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")


def test_from_python_and_as_tables(tmp_path: Path) -> None:
    data = load("digits").first(30)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    asked = {"kinds": ["snow"], "severities": [2]}
    run = evaluate(net, data, threat="linf:0.01", corruptions=asked, out=tmp_path / "run", diagnose=False)
    assert robustframe.verify(run, net).ok
    assert run.corrupted()["kind"].to_list() == ["snow"]
    shown = CliRunner().invoke(app, ["table", str(run.folder), "--corruptions", "--format", "md"]).stdout
    assert "| snow |" in shown
    plain = evaluate(net, data, threat="linf:0.01", out=tmp_path / "plain", diagnose=False)
    assert "corruptions" not in json.loads((plain.folder / "record.json").read_text())
    found = CliRunner().invoke(app, ["table", str(plain.folder), "--corruptions"])
    assert isinstance(found.exception, InputError)
    assert open_run(plain.folder).corrupted().is_empty()
    for wrong, sentence in (({"kinds": ["rain"]}, "rain"), ("weather@1", "unknown corruptions"), ({"many": 1}, "many")):
        with pytest.raises(InputError, match=sentence):
            evaluate(net, data, corruptions=wrong)
