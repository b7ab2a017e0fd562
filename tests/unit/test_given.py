"""What a Python user hands over: images, labels, models, threats and batteries in any of their usual forms."""

import logging
from collections import UserDict
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import robustframe
from robustframe import ThreatModel
from robustframe.attacks import PGD, Attack, Square, TorchAttack
from robustframe.attacks.registry import make_attack, words_of
from robustframe.data import Dataset, as_dataset, from_folder, load
from robustframe.data.listing import list_images
from robustframe.errors import InputError
from robustframe.models.given import classify_given
from robustframe.plugins import Plugin, plugins
from robustframe.recipe import Battery, as_batteries, threat_words
from robustframe.zoo import load_named

DIGITS = load("digits").first(24)
IMAGES, LABELS = DIGITS.images, DIGITS.labels


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


PAIR = load_named("zoo:digits-fc2-16")[0]
BYTES = (IMAGES * 255).round().to(torch.uint8)


def picture(at: int) -> Image.Image:
    return Image.fromarray(IMAGES[at, 0].numpy())


class Rows:
    """Examples as a dataset of Hugging Face gives them, which is none of torch's: by number, and some in one table."""

    def __init__(self, images: str, labels: str, column: Any) -> None:
        self.names, self.column = (images, labels), column

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, at: Any) -> Any:
        made = [self.column(each) for each in range(len(self))[at]] if isinstance(at, slice) else self.column(at)
        return dict(zip(self.names, (made, LABELS[at] if isinstance(at, slice) else int(LABELS[at]))))

    def __iter__(self) -> Any:
        return (self[at] for at in range(len(self)))


TENSORS = Rows("pixel_values", "labels", lambda at: IMAGES[at])
PICTURES = Rows("image", "label", picture)


class Pairs:
    """Pairs of PIL image and label, as torchvision gives them without a transform."""

    def __getitem__(self, at: int) -> Any:
        return picture(at), int(LABELS[at])


def table(rows: Any) -> dict[str, Any]:
    """Put some examples into one table, as a user does whose images are of no one size."""
    return {"img": [row["image"] for row in rows], "target": torch.tensor([row["label"] for row in rows])}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(IMAGES.numpy(), LABELS.tolist()))


BATCH = next(iter(DataLoader(cast("Any", TENSORS), batch_size=len(LABELS))))
ALIKE: dict[str, tuple[Any, Any]] = {
    "tensors": (IMAGES, LABELS),
    "arrays": (IMAGES.numpy(), LABELS.numpy()),
    "labels in a column": (IMAGES, LABELS[:, None]),
    "dataset": (DIGITS, None),
    "torch dataset": (TensorDataset(IMAGES, LABELS), None),
    "loader": (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7), None),
    "stream": (Stream(), None),
    "loader of a stream": (DataLoader(Stream(), batch_size=7), None),
    "tables": (TENSORS, None),
    "tables of PIL images": (PICTURES, None),
    "list of tables": ([PICTURES[at] for at in range(len(LABELS))], None),
    "loader of tables": (DataLoader(cast("Any", TENSORS), batch_size=7), None),
    "loader of lists in tables": (DataLoader(cast("Any", PICTURES), batch_size=7, collate_fn=table), None),
    "list of PIL images": ([picture(at) for at in range(len(LABELS))], LABELS),
    "batch": (BATCH, None),
    "batch of PIL images": (PICTURES[:], None),
    "batch of another class": (UserDict({"input": IMAGES, "targets": LABELS, "id": 3}), None),
    "torch dataset of PIL images": (Subset(cast("Any", Pairs()), range(len(LABELS))), None),
}


@pytest.mark.parametrize("form", ALIKE)
def test_every_form_of_the_same_examples_is_the_same_evaluation(form: str) -> None:
    x, y = ALIKE[form]
    asked: dict[str, Any] = {"threat": "linf:0.05", "battery": [PGD(steps=3)], "diagnose": False}
    expected = robustframe.evaluate(linear(), IMAGES, LABELS, **asked)
    found = robustframe.evaluate(linear(), x, y, **asked)
    assert found.record.data.sha256 == expected.record.data.sha256
    assert found.verdicts.equals(expected.verdicts)
    assert torch.equal(found.examples().images, IMAGES)
    attacked = robustframe.attack(linear(), x, y, PGD(steps=3), "linf:0.05")
    assert len(attacked.images) == len(IMAGES)


@pytest.mark.parametrize("given", [BYTES, BYTES.numpy()], ids=["tensor", "array"])
def test_bytes_are_scaled_and_that_is_said(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = robustframe.attack(linear(), given, LABELS, "fgsm", ThreatModel(norm="linf", eps=1e-9))
    assert "bytes from 0 to 255; they are divided by 255" in caplog.text
    assert torch.allclose(found.images, BYTES / 255, atol=1e-6)


def test_a_loader_that_shuffles_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "robustframe"):
        robustframe.attack(linear(), DataLoader(TensorDataset(IMAGES, LABELS), shuffle=True), attack="fgsm")
    assert "the DataLoader shuffles" in caplog.text


class Odd(TensorDataset):
    """A dataset whose items are given."""

    def __init__(self, *items: Any) -> None:
        super().__init__(IMAGES)
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: Any) -> Any:
        return self.items[at]


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (IMAGES, None, "the labels y are missing; give one class number per image, or a Dataset or DataLoader"),
        (DIGITS, LABELS, "a Dataset has its own labels; leave y out"),
        (TensorDataset(IMAGES, LABELS), LABELS, "a TensorDataset has its own labels; leave y out"),
        (TensorDataset(IMAGES), None, "items of the TensorDataset are tuple; give pairs of image and label"),
        (Odd(), None, "the Odd is empty"),
        (Odd({"image": 1, "fine": 2}), None, "items of the Odd have the keys image, fine, none of which says labels"),
        ({"train": DIGITS, "test": DIGITS}, None, "the dict has the keys train, test, none of which says images; ren"),
        (
            [{"img": 1, "pixel_values": 1, "label": 2}],
            None,
            "items of the list have the keys img, pixel_values, label, of which img and pixel_values may be the images",
        ),
        ({"x": IMAGES, "y": LABELS}, LABELS, "a dict has its own labels; leave y out"),
        ({"x": IMAGES[0], "y": LABELS[0]}, None, r"the dict is a single example; give a batch, such as \[example\]"),
        ({"x": picture(0), "y": 3}, None, "the dict is a single example"),
        ([IMAGES[0], IMAGES[1]], None, "the labels y are missing"),
        ([picture(0), None], [1, 2], "image 1 of the list is NoneType where others are PIL images"),
        ([Image.new("RGBA", (8, 8))], [1], "image 0 of the list has transparent pixels"),
        (Odd((picture(0), 1), (torch.rand(1, 8, 8), 1)), None, "some images of the Odd are PIL images and some are t"),
        (
            Odd((picture(0), 1), (Image.new("L", (9, 8)), 1)),
            None,
            r"images of the Odd differ in shape, \(8, 8\)",
        ),
        ([{"image": Image.new("RGBA", (8, 8)), "label": 1}], None, "image 0 of the list has transparent pixels"),
        (DataLoader(Odd((picture(0), 1))), None, "the DataLoader makes no batches of PIL images; give its dataset"),
        (Odd((object(), 1)), None, "images of the Odd are object; give it transform=torchvision.transforms.ToTensor"),
        (Odd((torch.rand(1, 8, 8), torch.eye(10)[3])), None, r"labels have shape \(1, 10\), they need .*one-hot"),
        (Odd((torch.rand(1, 8, 8), "cat")), None, "labels of the Odd are str; give it class numbers"),
        (Odd((torch.rand(1, 8, 8), 1), (torch.rand(1, 8, 8), torch.tensor([1]))), None, "labels .* differ in shape"),
        (DataLoader(TensorDataset(IMAGES, LABELS), batch_size=None), None, "differ in shape|have no rows"),
        (Odd((torch.rand(1, 8, 8), 1), (torch.rand(1, 9, 8), 1)), None, r"differ in shape, \(1, 8, 8\) and"),
    ],
)
def test_examples_that_are_none_are_refused(x: Any, y: Any, sentence: str) -> None:
    for way in (robustframe.evaluate, robustframe.attack):
        with pytest.raises(InputError, match=sentence):
            way(linear(), x, y)


def test_pil_images_are_what_the_folder_of_their_files_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    deep = Image.fromarray(generator.integers(0, 2**16, (8, 6), dtype=np.uint16))
    colour = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "0").mkdir()
    deep.save(tmp_path / "0" / "deep.png")
    Image.new("P", (6, 8)).save(tmp_path / "0" / "palette.png")
    Image.new("L", (6, 8), 1).save(tmp_path / "0" / "dark.png")
    colour.save(tmp_path / "0" / "turned.png", exif=turned)
    files = [file for file, _ in list_images(tmp_path, None).files]
    opened = [{"image": Image.open(tmp_path / file), "label": 0} for file in files]
    found, expected = as_dataset(opened), from_folder(tmp_path, name="folder")
    assert as_dataset([each["image"] for each in opened], [0] * 4).sha256 == expected.sha256
    assert torch.equal(found.images, expected.images)
    assert found.sha256 == expected.sha256
    assert found.images.shape == (4, 3, 8, 6)
    dark = [{"image": Image.new("L", (6, 8), 1), "label": 0}]
    assert float(as_dataset(dark).images.max()) == pytest.approx(1 / 255)


def test_several_models_share_a_run_and_are_verified(tmp_path: Path) -> None:
    models = {"one": linear(0), "other": linear(1)}
    run = robustframe.evaluate(models, DIGITS, threat="linf:0.05", battery=PGD(steps=3), out=tmp_path / "run")
    assert [each.name for each in run.record.classifiers] == ["one", "other"]
    single = robustframe.evaluate(linear(1), DIGITS, threat="linf:0.05", battery=PGD(steps=3))
    assert run.results[1].robust_correct == single.results[0].robust_correct
    assert robustframe.verify(run.folder, models, DIGITS).ok
    assert robustframe.verify(run.folder, dict(reversed(models.items())), DIGITS).ok
    assert not robustframe.verify(run.folder, {"one": linear(0), "other": linear(2)}, DIGITS).ok
    listed = robustframe.evaluate(list(models.values()), DIGITS, battery=PGD(steps=3), name="net", diagnose=False)
    assert [each.name for each in listed.record.classifiers] == ["net-1", "net-2"]
    assert robustframe.verify(listed.folder, list(models.values()), DIGITS).ok


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({}, "no model is given"),
        ([], "no model is given"),
        ({"one": linear(), "two": 3}, "two: the model is int"),
        ({1: linear()}, "the name 1 of a model is not text"),
        ({"x" * 300: linear()}, "a name has at most 100 letters, all printable"),
        ({"a\nb": linear()}, "a name has at most 100 letters, all printable"),
        ({"p": PAIR, "p/feedforward": linear()}, "two models are called p/feedforward"),
    ],
)
def test_models_that_are_none_are_refused(model: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        classify_given(model, "model", IMAGES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("linf:8/255", ["linf:8/255"]),
        (ThreatModel.parse("linf:8/255"), ["linf:8/255"]),
        (ThreatModel(norm="l2", eps=1 / 3), ["l2:85/255"]),
        (ThreatModel(norm="l2", eps=1 / 7), ["l2:0.14285714285714285"]),
        (ThreatModel(norm="linf", eps=0.1, label="mine"), ["linf:0.1"]),
        (["linf:0.1", ThreatModel(norm="l0", eps=12.0)], ["linf:0.1", "l0:12"]),
    ],
)
def test_the_words_of_a_threat_are_read_as_the_same_ball(given: Any, words: list[str]) -> None:
    assert threat_words(given) == words
    first = given[0] if isinstance(given, list) else given
    if isinstance(first, ThreatModel):
        again = ThreatModel.parse(words[0])
        assert (again.norm, again.eps) == (first.norm, first.eps)


ATTACKS: list[Attack] = [
    PGD(),
    PGD(steps=7, step_size=0.25, restarts=2, loss="dlr"),
    Square(queries=50),
    TorchAttack(name="PGD", settings={"steps": 3}),
    make_attack("apgd", {"loss": "margin"}),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack!r:.40}")
def test_an_attack_is_made_again_of_its_words(attack: Attack) -> None:
    words = words_of(attack)
    use = words.pop("use")
    assert make_attack(str(use), words) == attack


def test_what_stands_in_a_file_is_named_by_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from robustframe.attacks import PGD\n\n\nclass Mine(PGD):\n    pass\n\n\n"
        "def loss(logits, labels):\n    return -logits.gather(1, labels[:, None]).squeeze(1)\n"
    )
    words: dict[str, Any] = {"loss": f"file:{file}:loss", "steps": 3}
    attack = make_attack(f"file:{file}:Mine", words)
    assert words_of(attack) == {"use": f"file:{file}:Mine", **words}
    run = robustframe.evaluate(linear(), DIGITS, threat="linf:0.05", battery=attack, diagnose=False)
    assert run.results[0].attacks[0].label.startswith("python-")
    assert robustframe.verify(run.folder, linear(), DIGITS, code=[file]).ok


def test_batteries_are_put_together_in_order() -> None:
    found = as_batteries(["quick", PGD(steps=3), {"use": "square", "queries": 9}, "swift@1", "rand"])
    assert [each.cited.split("-")[0] for each in found] == ["quick@1", "python", "swift@1", "rand@1"]
    assert [spec.use for spec in found[1].attack] == ["pgd", "square"]
    assert as_batteries(PGD(steps=3)) == as_batteries([{"use": "pgd", "steps": 3}])
    assert as_batteries(PGD(steps=3))[0].cited != as_batteries(PGD(steps=4))[0].cited
    mine = Battery.model_validate({"schema": 1, "name": "mine", "version": "1", "attack": [{"use": "pgd"}]})
    assert as_batteries(mine) == [mine]


class Script(PGD):
    """An attack of the script that runs."""


Script.__module__ = "__main__"


class Nowhere:
    """So that a class stands inside something."""

    class Still(PGD):
        """An attack that no file has at its top."""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no battery is given"),
        (PGD, "PGD is the class of an attack; call it, PGD()"),
        ([3], "an attack is a name, .* not int"),
        (["quick", "quick@1"], "the battery quick@1 is given twice"),
        ([PGD(steps=3), "quick", PGD(steps=3)], "the battery python-.* is given twice"),
        ([{"steps": 3}], "does not say which"),
        ([{"use": "pgd", "stps": 3}], "steps"),
        (Script(), "Script belongs to the script or notebook"),
        (Nowhere.Still(), "Still is not defined at the top level"),
        (PGD(loss=lambda logits, labels: logits.sum(1)), "is not defined at the top level"),
    ],
)
def test_batteries_that_are_none_are_refused(given: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        as_batteries(given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no threat is given"),
        (0.1, "a threat is text such as 'linf:8/255', or a ThreatModel, not float"),
        (ThreatModel(norm="linf", eps=0.1, low=-1.0), r"the box is \[-1, 1\]; evaluations take images in \[0, 1\]"),
    ],
)
def test_threats_that_are_none_are_refused(given: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        threat_words(given)


class Terminal:
    """Writes like a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_shows_by_default_in_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"threat": "linf:0.05", "battery": PGD(steps=2), "diagnose": False}
    robustframe.evaluate(linear(), DIGITS, **asked)
    assert capsys.readouterr().err == ""
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    robustframe.evaluate(linear(), DIGITS, **asked)
    assert "survivors" in shown.text
    shown.text = ""
    robustframe.evaluate(linear(), DIGITS, **asked, report=robustframe.silent)
    assert shown.text == ""


def test_datasets_of_ours_are_taken_whole() -> None:
    assert isinstance(DIGITS, Dataset)
    run = robustframe.evaluate(linear(), DIGITS, battery=PGD(steps=2), diagnose=False)
    assert (run.record.data.use, run.record.data.count) == ("digits", len(DIGITS))
    assert np.array_equal(run.examples().labels.numpy(), LABELS.numpy())


class Careless(PGD):
    """An attack of a user's that does something wrong."""

    does: str = ""

    def perturb(self, probe: Any, x: Any, threat: Any, draws: Any) -> Any:
        if self.does.startswith("write"):
            (x.data if "past" in self.does else x).mul_(0.5)
            return x
        return {"few": x[:1], "double": x.double() + 0.01, "none": None}[self.does]


def careless(does: str) -> Careless:
    attack = Careless()
    object.__setattr__(attack, "does", does)
    return attack


def test_points_of_another_shape_are_refused_by_the_name_of_their_attack() -> None:
    with pytest.raises(InputError, match=r"Careless.perturb returned points of shape \(1, 1, 8, 8\) for images of"):
        robustframe.attack(linear(), IMAGES[:5], linear()(IMAGES[:5]).argmax(1), careless("few"), "linf:0.05")


@pytest.mark.parametrize("does", ["write", "write past autograd", "double", "none"])
def test_what_an_attack_makes_of_its_images_moves_no_ball(does: str) -> None:
    model, before = linear(), IMAGES.clone()
    labels = model(IMAGES).argmax(1)
    found = robustframe.attack(model, IMAGES, labels, careless(does), "linf:0.05")
    assert torch.equal(IMAGES, before)
    assert found.images.dtype == torch.float32
    assert float((found.images - before).abs().max()) <= 0.05 + 1e-6
    # The attacks after it meet the same images.
    both = robustframe.attack(model, IMAGES, labels, [careless(does), PGD(steps=3)], "linf:0.05")
    alone = robustframe.attack(model, IMAGES, labels, [careless("none"), PGD(steps=3)], "linf:0.05")
    assert bool((both.success >= alone.success).all())
    assert torch.allclose(both.distance, (both.images - before).double().flatten(1).abs().amax(1))


def test_a_dataset_is_known_by_its_examples_whatever_it_says() -> None:
    lying = replace(DIGITS, images=IMAGES.flip(0))
    assert lying.sha256 == DIGITS.sha256
    assert as_dataset(lying).sha256 == as_dataset(IMAGES.flip(0), LABELS).sha256 != DIGITS.sha256
    with pytest.raises(InputError, match=r"not in \[0, 1\]"):
        as_dataset(replace(DIGITS, images=IMAGES * 255))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": -1}, "seed -1 must be a whole number of at least 0"),
        ({"batch_size": 0}, "batch size 0 must be a whole number of at least 1"),
    ],
)
def test_settings_of_one_batch_are_checked(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        robustframe.attack(linear(), IMAGES, LABELS, **change)


def test_numbers_of_numpy_are_settings_too() -> None:
    assert words_of(PGD(steps=7)) == words_of(make_attack("pgd", {"steps": 7}))
    attack = PGD()
    object.__setattr__(attack, "steps", np.int64(7))
    assert as_batteries(attack) == as_batteries(PGD(steps=7))


def test_a_sigmoid_that_comes_twice_is_flagged() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    labels = (LABELS > 4).long()
    asked: dict[str, Any] = {"threat": "linf:0.05", "battery": PGD(steps=2), "diagnose": False}
    twice = robustframe.adapt(nn.Sequential(inner, nn.Sigmoid()), sigmoid=True)
    run = robustframe.evaluate(twice, IMAGES, labels, **asked)
    assert any("as after a sigmoid" in flag for flag in run.record.flags)
    once = robustframe.evaluate(robustframe.adapt(inner, sigmoid=True), IMAGES, labels, **asked)
    assert not any("as after a sigmoid" in flag for flag in once.record.flags)


def test_one_ball_written_in_two_ways_is_one_threat() -> None:
    with pytest.raises(InputError, match=r"a threat appears twice in linf:1/10, linf:0.1"):
        robustframe.evaluate(linear(), DIGITS, threat=["linf:1/10", "linf:0.1"])


def test_our_attacks_have_words_whatever_packages_clash_over(monkeypatch: pytest.MonkeyPatch) -> None:
    two = tuple(Plugin("attacks", "mine", name, "1", "nowhere:A") for name in ("one", "other"))
    monkeypatch.setattr("robustframe.plugins._installed", lambda group: two)
    assert words_of(PGD()) == {"use": "pgd"}
    assert plugins("attacks") == {"mine": "of one 1 and other 1, which clash: uninstall one of them"}
