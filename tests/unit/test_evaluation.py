"""The engine: verdicts, survivors, counts, seeds, resume; and every refusal before anything runs."""

import hashlib
import io
import re
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import robustframe
import robustframe.runs.record
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.runs.entries import guessing
from robustframe.runs.units import slug
from robustframe.threat import ThreatModel
from robustframe.zoo import load_card

RECIPE = """
schema = 1
name = "small"
about = "For the tests."
seed = 3
chunk = {chunk}
threats = ["linf:0.15", "l2:0.6"]
battery = ["small.toml"]

[data]
use = "digits"
count = 90

[[model]]
use = "card:{card}"
"""
BATTERY = """
schema = 1
name = "small"
version = "0.1"

[[attack]]
use = "pgd"
steps = 4
step_size = 0.4

[[attack]]
use = "apgd"
steps = 6

[[attack]]
use = "square"
queries = 15
"""


@pytest.fixture
def recipe(tiny_card: Path, tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(BATTERY)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(chunk=40, card=tiny_card))
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_verdicts_agree_with_the_stored_examples_and_an_independent_forward(recipe: Path, tiny_card: Path) -> None:
    run = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    record, folder = run.record, run.folder
    pair, _ = load_card(tiny_card)
    data = load("digits").first(90)
    verdicts = run.verdicts
    assert record.status == "complete"
    assert record.results is not None
    assert [entry.name for entry in record.classifiers] == ["tiny/feedforward", "tiny/recurrent"]
    for twin, model in (("feedforward", pair.feedforward), ("recurrent", pair.recurrent)):
        with torch.no_grad():
            clean = model(data.images).argmax(1) == data.labels
        for threat in (ThreatModel.parse("linf:0.15"), ThreatModel.parse("l2:0.6")):
            rows = verdicts.filter((pl.col("classifier") == f"tiny/{twin}") & (pl.col("threat") == threat.label))
            assert rows["index"].to_list() == list(range(90))
            assert rows["clean_correct"].to_list() == clean.tolist()
            stored = stored_examples(folder, f"tiny/{twin}", threat)
            broken = rows.filter(pl.col("broken_by").is_not_null())["index"].to_list()
            assert sorted(stored) == broken
            assert broken
            robust = rows["robust"].to_list()
            assert robust == [bool(clean[at]) and at not in stored for at in range(90)]
            index = torch.tensor(broken)
            images = torch.stack([stored[at] for at in broken])
            assert threat.contains(data.images[index], images).all()
            with torch.no_grad():
                assert (model(images).argmax(1) != data.labels[index]).all()


def stored_examples(folder: Path, classifier: str, threat: ThreatModel) -> dict[int, torch.Tensor]:
    found = {}
    for path in folder.glob(f"units/*-{slug(classifier)}/{slug(threat.label)}/*/*.safetensors"):
        tensors = load_file(path)
        found |= dict(zip(tensors["index"].tolist(), tensors["adversarial"]))
    return found


def test_only_survivors_go_on_and_counts_add_up(recipe: Path) -> None:
    run = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    record = run.record
    verdicts = run.verdicts
    for result in record.results or []:
        alive = result.clean_correct
        for entry in result.attacks:
            assert entry.entered == alive
            alive -= entry.broken
        assert alive == result.robust_correct
        mine = (pl.col("classifier") == result.classifier) & (pl.col("threat") == result.threat)
        rows = verdicts.filter(mine)
        assert rows["robust"].sum() == result.robust_correct
        assert rows["forwards"].sum() == result.examples + sum(entry.forwards for entry in result.attacks)
        assert rows["backwards"].sum() == sum(entry.backwards for entry in result.attacks)
        # A survivor of PGD makes all its steps: a gradient at the start of each, and one look at the last point.
        survivors = rows.filter(pl.col("robust"))
        assert survivors["backwards"].min() == survivors["backwards"].max()


def test_batch_size_changes_no_byte(recipe: Path, tmp_path: Path) -> None:
    one = evaluate_recipe(recipe, out=tmp_path / "one", device="cpu", batch_size=7)
    all_at_once = evaluate_recipe(str(recipe), out=str(tmp_path / "all"), device="cpu", batch_size=512)
    assert contents(one.folder) == contents(all_at_once.folder)


def test_order_of_chunks_and_lost_or_damaged_units_change_no_byte(recipe: Path, tmp_path: Path) -> None:
    folder = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu").folder
    before = contents(folder)
    for unit in folder.glob("units/*/*/*/00000.*"):
        unit.unlink()
    damaged = next(folder.glob("units/*/*/*/00001.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    (folder / "verdicts.parquet").unlink()
    unfinish(folder)
    evaluate_recipe(recipe, out=folder, device="cpu")
    assert contents(folder) == before


def unfinish(folder: Path) -> None:
    """Put the record back to what it is while a run goes on."""
    record, _ = robustframe.runs.record.read_record(folder)
    unknown = dict.fromkeys(("results", "verdicts_sha256", "evidence_sha256"))
    begun = record.model_copy(update={"status": "started", "flags": [], **unknown})
    (folder / "record.json").write_text(begun.to_json())


def test_a_complete_run_is_not_evaluated_again(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    before = contents(first.folder)
    monkeypatch.setattr("robustframe.evaluation.engine.WorkSchedule", None)
    second = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    assert (second.record, second.folder, second.seal) == (first.record, first.folder, first.seal)
    assert contents(first.folder) == before


def test_a_complete_run_that_has_lost_a_file_is_mended(recipe: Path, tmp_path: Path) -> None:
    folder = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu").folder
    before = contents(folder)
    next(folder.glob("units/*/*/*/00001.safetensors")).unlink()
    evaluate_recipe(recipe, out=folder, device="cpu")
    assert contents(folder) == before


def test_another_seed_is_another_run(recipe: Path) -> None:
    first = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    recipe.write_text(recipe.read_text().replace("seed = 3", "seed = 4"))
    second = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    assert first.folder != second.folder
    assert first.record.hash != second.record.hash


def test_a_folder_of_another_recipe_is_refused(recipe: Path, tmp_path: Path) -> None:
    folder = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu").folder
    before = contents(folder)
    recipe.write_text(recipe.read_text().replace("count = 90", "count = 40"))
    with pytest.raises(InputError, match="belongs to another evaluation"):
        evaluate_recipe(recipe, out=folder, device="cpu")
    assert contents(folder) == before


def test_a_folder_with_other_files_is_refused_before_anything_is_done(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"mine holds other files \(notes.txt\) and no run; name a folder that is new"):
        evaluate_recipe(recipe, out=folder, device="cpu")
    assert list(contents(folder)) == ["notes.txt"]
    # What a run left that was stopped before it had a record.
    (folder / "notes.txt").rename(folder / "record.json.0.part")
    (folder / ".lock").touch()
    evaluate_recipe(recipe, out=folder, device="cpu")
    (folder / "notes.txt").write_text("mine")
    assert evaluate_recipe(recipe, out=folder, device="cpu").complete


class Linear(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(classes, 12, generator=generator))
        self.drop = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(images.flatten(1)) @ self.weight.T


def examples(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return images, Linear().eval()(images).argmax(1)


def test_ones_own_model_in_one_call_comes_back_as_it_was(tmp_path: Path) -> None:
    x, y = examples()
    model = Linear()
    model.weight.grad = torch.ones_like(model.weight)
    state = torch.get_rng_state()
    run = robustframe.evaluate(model, x.numpy(), y.numpy(), threat="linf:0.1", out=str(tmp_path / "run"))
    assert run.folder == tmp_path / "run"
    assert run.results[0].clean_correct == 60
    assert 0 < run.results[0].robust_correct < 60
    assert model.training
    assert model.drop.training
    assert model.weight.requires_grad
    assert torch.equal(model.weight.grad, torch.ones_like(model.weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert (tmp_path / "run" / "record.json").is_file()


def test_without_a_folder_the_files_last_as_long_as_the_run() -> None:
    x, y = examples()
    run = robustframe.evaluate(Linear(), x, y, threat="linf:0.1", battery="quick")
    folder = run.folder
    images, broken = run.adversarial()
    assert len(images) == broken.sum() > 0
    del run
    assert not folder.exists()


class Returns(nn.Module):
    """A model that returns what a function makes of its images."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": Returns(lambda x: Linear().eval()(x).softmax(1))}, "returns probabilities"),
        ({"model": Returns(lambda x: torch.full((len(x), 3), torch.nan))}, "NaN"),
        ({"model": Returns(lambda x: x)}, "must return logits of shape"),
        ({"model": Returns(lambda x: x.flatten(1)[:3])}, "must return logits of shape"),
        ({"model": Returns(lambda x: x @ torch.zeros(7, 3))}, "fails on images of shape"),
        ({"model": Returns(lambda x: Linear().eval()(x.reshape(64, 12)))}, "takes 64 images at a time and no other"),
        (
            {"model": Returns(lambda x: Linear().eval()(x.reshape(32, 12)))},
            r"32 images at a time.*view\(len\(x\)",
        ),
        ({"model": Returns(lambda x: Linear().eval()(x.reshape(1, 12)))}, "takes 1 image at a time"),
        ({"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))}, r"has no 1\.weight yet; call it on one image first"),
        ({"x": examples()[0] * 255}, r"\[0, 255\]"),
        ({"x": examples()[0] - 0.5}, "normalised"),
        ({"x": examples()[0][:50]}, "labels"),
        ({"y": examples()[1] + 7}, "has 3 classes, but the labels go up to 9"),
        ({"y": examples()[1] - 5}, "start at 0"),
        ({"threat": "linf:-0.1"}, "above 0"),
        ({"threat": "linf:x"}, "not a number"),
        ({"threat": "linfty:0.1"}, "did you mean 'linf'"),
        ({"threat": "0.1"}, "NORM:EPS"),
        ({"threat": ["linf:0.1", "linf:0.1"]}, "appears twice"),
        ({"battery": "quik@1"}, "did you mean 'quick@1'"),
        ({"battery": "torchattacks", "threat": "l2:0.5"}, "not defined for l2:0.5"),
        ({"seed": -1}, "seed -1 must be"),
        ({"chunk": 0}, "chunk 0 must be"),
        ({"batch_size": 0}, "batch size 0 must be"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_written(
    change: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    x, y = examples()
    call = {"model": Linear(), "x": x, "y": y, "threat": "linf:0.1", "out": tmp_path / "run"} | change
    with pytest.raises(InputError, match=sentence) as caught:
        robustframe.evaluate(**call)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_a_model_whose_classes_stand_in_another_order_is_pointed_out() -> None:
    x, y = examples()
    model = Returns(lambda x: Linear().eval()(x).roll(1, 1))
    run = robustframe.evaluate(model, x, y, threat="linf:0.01", diagnose=False)
    (flag,) = [flag for flag in run.record.flags if "another order" in flag]
    assert flag.startswith(
        "model is right on 0 of 60 clean images, but would be on 60 with its classes in another order"
    )
    assert "it says 2 for 1, 0 for 2; give the data the order" in flag
    found = run.verify(model, x, y)
    assert found.ok, str(found)


def confusion(rows: list[list[int]]) -> dict[tuple[int, int], int]:
    return {(label, answer): times for label, row in enumerate(rows) for answer, times in enumerate(row) if times}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[2, 48], [47, 3]], "right on 5 of 100 .* on 95 with .* 1 for 0 \\(cat\\), 0 for 1 \\(dog\\);"),
        ([[0, 40, 0, 5], [0, 0, 40, 5], [0, 0, 0, 45]], "would be on 125"),
        ([[48, 2], [3, 47]], None),
        ([[30, 20], [26, 24]], "about as often as by chance"),
        ([[50, 0], [50, 0]], "about as often as by chance"),
        # Of few images a class any model is right in some order.
        ([[int(answer == (label + 1) % 60) for answer in range(60)] for label in range(60)], "by chance"),
        ([[0, 5], [5, 0]], None),
        ([[0, 60]], None),
    ],
)
def test_a_model_is_guessing_or_its_classes_are_permuted(rows: list[list[int]], sentence: str | None) -> None:
    said = list(guessing("model", confusion(rows), ("cat", "dog")))
    assert len(said) == (sentence is not None), said
    assert sentence is None or re.search(sentence, said[0]), said


def test_a_model_that_draws_random_numbers_is_flagged() -> None:
    x, y = examples()
    model = Returns(lambda x: Linear().eval()(x) + 1e-3 * torch.randn(len(x), 3))
    run = robustframe.evaluate(model, x, y, threat="linf:0.02")
    assert any("differently each time" in flag for flag in run.record.flags)


def test_a_users_model_is_loaded_from_its_file(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n\n"
        "def broken():\n    return 1 / 0\n"
    )
    text = recipe.read_text()
    start = text.index("[[model]]")
    recipe.write_text(text[:start] + '[[model]]\nuse = "file:mine.py:build"\nname = "my net"\n')
    record = evaluate_recipe(recipe, runs=tmp_path / "runs", device="cpu").record
    assert [entry.name for entry in record.classifiers] == ["my net"]
    assert record.classifiers[0].mutual_coherence is None
    for use, sentence in (
        ("file:mine.py:brokn", r"did you mean 'broken'\?"),
        ("file:mine.py:broken", "ZeroDivisionError"),
        ("file:other.py:build", "model file .*other.py does not exist"),
        ("zoo:nothing", "unknown zoo pair"),
        ("resnet50", "must read zoo:NAME"),
    ):
        recipe.write_text(text[:start] + f'[[model]]\nuse = "{use}"\n')
        with pytest.raises(InputError, match=sentence):
            evaluate_recipe(recipe, runs=tmp_path / "runs", device="cpu")


def test_a_record_survives_its_file(recipe: Path) -> None:
    run = evaluate_recipe(recipe, runs=recipe.parent / "runs", device="cpu")
    record, folder = run.record, run.folder
    assert robustframe.runs.record.read_record(folder)[0] == record
    table = (folder / "verdicts.parquet").read_bytes()
    assert hashlib.sha256(table).hexdigest() == record.verdicts_sha256
    assert pl.read_parquet(io.BytesIO(table))["distance"].null_count() > 0
