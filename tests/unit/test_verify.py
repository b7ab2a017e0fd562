"""Verification: an honest run holds, and whatever is changed in one is found and named."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tampering import (
    BROKEN,
    BY_FIRST,
    CLEAN,
    CONTENT,
    DERIVED,
    DIAGNOSIS,
    FIRST,
    I0,
    ROBUST,
    T0,
    UNKNOWABLE,
    R,
    V,
    begun,
    cell,
    cut,
    drop,
    other,
    put,
    record,
    reseal,
    seal,
    table,
)
from torch import Tensor, nn

import robustframe
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.runs import open_run
from robustframe.runs.opening import read_run
from robustframe.verification import Verification
from robustframe.verification.flags import check_flags
from robustframe.zoo import load_card, save

RECIPE = """
schema = 1
name = "small"
seed = 3
chunk = 40
threats = ["linf:0.15", "l2:0.6"]
battery = ["small.toml"]
[data]
use = "digits"
count = 90
[[model]]
use = "card:tiny.json"
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
"""


@pytest.fixture(scope="module")
def honest(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its pair, and an honest run in ``run/``; do not change its files."""
    place = tmp_path_factory.mktemp("honest")
    for file in tiny_card.parent.glob("tiny.*"):
        (place / file.name).write_bytes(file.read_bytes())
    (place / "small.toml").write_text(BATTERY)
    (place / "recipe.toml").write_text(RECIPE)
    evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    return place


@pytest.fixture
def place(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest folder that a test may change."""
    return Path(shutil.copytree(honest, tmp_path / "place"))


def verify(place: Path) -> Verification:
    return robustframe.verify(place / "run", device="cpu", folder=place)


def test_an_honest_run_holds_and_every_claimed_break_was_shown_again(honest: Path) -> None:
    found = verify(honest)
    assert found.ok, str(found)
    assert found.whole
    assert not found.findings
    record = open_run(honest / "run").record
    claimed = sum(entry.broken for result in record.results or [] for entry in result.attacks)
    assert found.claimed == found.replayed == claimed > 50
    assert f"{claimed} of {claimed} claimed breaks" in str(found)
    assert json.loads(json.dumps(found.to_json()))["ok"] is True


@pytest.mark.parametrize("seed", [100, 128])
def test_an_honest_run_that_is_over_in_a_few_passes_holds(seed: int) -> None:
    """The first step breaks what little is right, and the checks cost more than the attacks."""
    digits = load("digits").first(50)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    run = robustframe.evaluate(model, digits.images, digits.labels, threat="linf:0.05")
    assert run.record.results is not None
    assert 0 < run.record.results[0].clean_correct < 3
    found = run.verify(model, digits.images, digits.labels)
    assert found.ok, str(found)


def test_every_file_of_a_run_is_bound_to_its_record(honest: Path) -> None:
    run, record = honest / "run", open_run(honest / "run").record
    lines = (run / "evidence.sha256").read_text().splitlines()
    stated = {line[66:]: line[:64] for line in lines}
    there = [run / "verdicts.parquet", *(path for path in run.glob("units/**/*") if path.is_file())]
    assert stated == {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in there}
    assert list(stated) == sorted(stated)
    assert record.evidence_sha256 == hashlib.sha256((run / "evidence.sha256").read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "tamper", "where", "sentence"), CONTENT, ids=[each[0] for each in CONTENT])
def test_what_was_changed_is_named_even_with_all_hashes_written_anew(
    name: str, tamper: Callable[[Path], None], where: str, sentence: str, place: Path
) -> None:
    tamper(place / "run")
    reseal(place / "run")
    found = verify(place)
    assert not found.ok, name
    named = [finding for finding in found.findings if re.search(sentence, finding.differs)]
    assert where in {finding.where for finding in named}, str(found)


@pytest.mark.parametrize(("name", "tamper", "sentence", "where"), DERIVED, ids=[each[0] for each in DERIVED])
def test_what_does_not_follow_from_the_rest_is_named(
    name: str, tamper: Callable[[Path], None], sentence: str, where: str, place: Path
) -> None:
    tamper(place / "run")
    # Writing the other hashes anew would also write a record as it should be written.
    (seal if sentence.startswith(("a key", "not written")) else reseal)(place / "run")
    found = verify(place)
    named = [finding for finding in found.findings if re.search(sentence, finding.differs)]
    assert where in {finding.where for finding in named}, str(found)


def test_there_are_sixty_edits_and_more() -> None:
    assert len(CONTENT) + len(DERIVED) + len(UNKNOWABLE) > 110
    text = (Path(robustframe.__file__).parents[1] / "docs" / "trust.md").read_text(encoding="utf-8")
    for name, _ in UNKNOWABLE:
        assert name in text, "docs/trust.md lists what cannot be known"


@pytest.mark.parametrize(("name", "tamper"), UNKNOWABLE, ids=[each[0] for each in UNKNOWABLE])
def test_a_seal_that_was_kept_tells_what_cannot_be_known_otherwise(
    name: str, tamper: Callable[[Path], None], place: Path
) -> None:
    kept = open_run(place / "run").seal
    assert robustframe.verify(place / "run", device="cpu", folder=place, seal=kept[:16]).ok
    tamper(place / "run")
    if (place / "run" / "units").is_dir():
        reseal(place / "run")
    else:
        content = json.loads((place / "run" / R).read_text())
        content["verdicts_sha256"] = hashlib.sha256((place / "run" / V).read_bytes()).hexdigest()
        (place / "run" / R).write_text(json.dumps(content, indent=2) + "\n")
        seal(place / "run")
    found = robustframe.verify(place / "run", device="cpu", folder=place, seal=kept)
    assert "something was edited" in str(found), name
    assert all(finding.differs.startswith("its seal is") for finding in found.findings), str(found)
    assert "Only a new attack, or a seal that was kept" in str(found)
    with pytest.raises(InputError, match="16 to 64 hexadecimal digits"):
        robustframe.verify(place / "run", device="cpu", folder=place, seal="0123")


@pytest.mark.parametrize(
    "path", [T0, I0, f"{CLEAN}/00000.parquet", V, "evidence.sha256", "units/more.parquet"], ids=str
)
def test_one_other_byte_in_any_file_is_named(path: str, place: Path) -> None:
    file = place / "run" / path
    content = bytearray(file.read_bytes()) if file.is_file() else bytearray(b"new")
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = verify(place)
    assert any(finding.where == path for finding in found.findings), str(found)


@pytest.mark.parametrize("key", ["evidence_sha256", "verdicts_sha256"])
def test_a_record_without_a_hash_is_no_record(key: str, place: Path) -> None:
    record(put(key, None))(place / "run")
    with pytest.raises(InputError, match="hashes of files belong to a complete run"):
        verify(place)


def test_a_manifest_taken_away_is_named(place: Path) -> None:
    (place / "run" / "evidence.sha256").unlink()
    assert "evidence.sha256: it is missing" in str(verify(place))


def test_a_run_without_its_manifest_is_not_taken_for_an_older_one(place: Path) -> None:
    (place / "run" / "evidence.sha256").unlink()
    record(put("evidence_sha256", None))(place / "run")
    with pytest.raises(InputError, match="hashes of files belong to a complete run"):
        verify(place)


def test_a_battery_that_is_not_here_was_not_compared(place: Path) -> None:
    (place / "small.toml").unlink()
    found = verify(place)
    assert found.ok, str(found)
    assert not found.whole
    assert "left out  batteries" in str(found)


def test_no_sentence_is_explained_by_a_classifier_without_a_number(place: Path) -> None:
    def only_the_first(content: dict[str, Any]) -> None:
        gone = [result for result in content["results"] if result["classifier"] != "tiny/feedforward"]
        content["results"] = [result for result in content["results"] if result not in gone]
        keys = ("classifier", "threat")
        content["failed"] = [{key: each[key] for key in keys} | {"reason": "x"} for each in gone]
        content["flags"].append("tiny/recurrent is the most robust model there is")

    record(only_the_first)(place / "run")
    read = read_run(place / "run", recipe_folder=place)
    for of_models in (None, {"tiny/feedforward": []}):
        said = check_flags(read, pl.read_parquet(place / "run" / V), of_models).findings
        assert ["nothing in the run explains" in each.differs for each in said].count(True) == 1, said


def test_a_flag_of_a_doubtful_row_is_missed(place: Path) -> None:
    def doubt(content: dict[str, Any]) -> None:
        diagnosis = content["results"][0]["diagnosis"]
        diagnosis["checks"][0] |= {"passed": False, "sentence": "this is doubtful"}
        diagnosis["verdict"] = "suspicious"
        (place / "run" / DIAGNOSIS).write_text(json.dumps(diagnosis))

    record(doubt)(place / "run")
    assert "a flag is missing: tiny/feedforward, linf:0.15: suspicious" in str(verify(place))


def test_other_weights_under_the_same_name_are_named(place: Path) -> None:
    pair, card = load_card(place / "tiny.json")
    with torch.no_grad():
        next(iter(pair.head.parameters())).mul_(-1)
    save(pair, place, card)
    found = verify(place)
    text = str(found)
    assert "classifiers[0] (tiny/feedforward): sha256 is" in text
    assert "these are other weights" in text
    assert "the exact model says" in json.dumps(found.to_json())


def test_more_findings_than_anyone_reads_are_counted(place: Path) -> None:
    table(V, lambda rows: rows.with_columns(distance=pl.lit(0.01)))(place / "run")
    found = verify(place)
    assert len(found.findings) > 100
    assert re.search(r"and \d+ more \(--json lists all\)", str(found))
    assert len(str(found).splitlines()) < 60


def test_a_published_copy_says_what_could_not_be_checked(place: Path) -> None:
    published = place / "results"
    published.mkdir()
    for name in (R, V, "seal.sha256"):
        shutil.copy(place / "run" / name, published / name)
    found = robustframe.verify(published, device="cpu", folder=place)
    assert found.ok, str(found)
    assert not found.whole
    assert found.replayed == 0
    states = {each.name: each.state for each in found.checks}
    assert states == {
        "record": "holds", "batteries": "holds", "data": "holds", "models": "holds", "answers": "holds",
        "bounds": "holds",
        "files": "left out",
        "clean": "holds", "images": "left out", "verdicts": "holds", "diagnoses": "holds",
        "flags": "holds", "seal": "holds", "tables": "holds",
    }  # fmt: skip
    assert "holds, as far as checked (without files and images); 0 of" in str(found)


COPIED: list[tuple[str, Callable[[Path], None], str]] = [
    ("robust", cell(V, BROKEN, "robust", True), "robust does not follow"),
    ("clean_correct", cell(V, ROBUST, "clean_correct", False), "clean_correct does not follow"),
    ("broken_by", cell(V, BROKEN, "broken_by", "other@1/01-x"), "which is in no battery"),
    ("broken_by another", cell(V, BY_FIRST, "broken_by", "small@0.1/02-apgd"), "02-apgd: broken is"),
    ("label", cell(V, ROBUST, "label", other), "its label is"),
    ("prediction and label", cell(V, ROBUST, "clean_prediction", other), "the exact model says"),
    ("adversarial", cell(V, BROKEN, "adversarial_prediction", None), "a break without its prediction"),
    ("distance", cell(V, BROKEN, "distance", 0.9), "outside the ball"),
    ("forwards", cell(V, BROKEN, "forwards", 900), "its verdicts account for"),
    ("count", record(put(f"{FIRST}.robust_correct", 89)), "robust_correct is 89"),
    ("missing", table(V, lambda rows: rows.slice(1)), "its verdict is missing"),
    ("wrong", cut(V), "damaged or not a Parquet file"),
]


@pytest.mark.parametrize(("name", "tamper", "sentence"), COPIED, ids=[each[0] for each in COPIED])
def test_a_changed_copy_is_named(name: str, tamper: Callable[[Path], None], sentence: str, place: Path) -> None:
    run = place / "run"
    shutil.rmtree(run / "units")
    (run / "evidence.sha256").unlink()
    tamper(run)
    content = json.loads((run / R).read_text())
    content["verdicts_sha256"] = hashlib.sha256((run / V).read_bytes()).hexdigest()
    (run / R).write_text(json.dumps(content))
    found = verify(place)
    assert not found.ok, name
    assert re.search(sentence, str(found)), str(found)


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        (drop(R), "is not a run"),
        (record(put("schema", 7)), "is not a record of this version: schema"),
        (begun, "is not complete; run the same evaluate command again"),
        (record(put("recipe.threats", "linf")), "threats = 'linf' must be a list"),
        (record(put("recipe.threats.0", "linf:x")), "not a number"),
        (record(put("recipe.chunk", 0)), "chunk = 0"),
        (record(put("recipe.model.0.use", "card:other.json")), "--folder names another"),
        (record(put("recipe.model.0.use", "zoo:nothing")), "unknown zoo pair"),
        (record(put("recipe.data.use", "digit")), "did you mean 'digits'"),
        (record(put("recipe.data.count", 9999)), "has 500 examples"),
        (record(put("batteries.0.attack.0.use", "pdg")), "did you mean 'pgd'"),
        (record(put("batteries.0.attack", [])), "batteries: attack"),
        (cut(R), "is not a record of this version"),
        (cut("../tiny.safetensors"), "is not the file its card describes"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_a_sentence(
    tamper: Callable[[Path], None], sentence: str, place: Path
) -> None:
    tamper(place / "run")
    with pytest.raises(InputError, match=sentence) as caught:
        verify(place)
    assert len(str(caught.value).splitlines()) <= 2


class Linear(nn.Module):
    def __init__(self, seed: int = 1, noise: float = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 12, generator=torch.Generator().manual_seed(seed)))
        self.noise = noise

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1) @ self.weight.T
        return logits + self.noise * torch.randn(len(images), 3) if self.noise else logits


def examples() -> tuple[Tensor, Tensor]:
    x = torch.rand(60, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return x, Linear()(x).argmax(1)


def test_a_run_from_python_is_verified_with_its_model_and_images(tmp_path: Path) -> None:
    x, y = examples()
    model = Linear().train()
    robustframe.evaluate(model, x, y, threat=["linf:0.05", "l2:0.3"], out=tmp_path)
    found = robustframe.verify(tmp_path, model, x, y)
    assert found.ok, str(found)
    assert found.whole
    assert found.replayed == found.claimed > 0
    assert model.training
    without = robustframe.verify(tmp_path)
    assert without.ok
    left = [each.name for each in without.checks if each.state == "left out"]
    assert left == ["data", "models", "answers", "bounds", "clean", "images"]
    other = robustframe.verify(tmp_path, Linear(seed=2), x, y)
    assert "these are other weights" in str(other)
    assert "data.sha256" in str(robustframe.verify(tmp_path, model, x.flip(0), y))


def test_a_recipes_run_takes_no_model(honest: Path) -> None:
    with pytest.raises(InputError, match="leave model, x, y out"):
        robustframe.verify(honest / "run", Linear(), *examples(), folder=honest)


def test_a_model_that_draws_random_numbers_is_not_held_to_its_draws(tmp_path: Path) -> None:
    x, y = examples()
    model = Linear(noise=0.01)
    robustframe.evaluate(model, x, y, threat="linf:0.05", out=tmp_path)
    found = robustframe.verify(tmp_path, model, x, y)
    assert found.ok, str(found)
    assert "answers the same images differently each time" in str(found)
    record(put("flags", []))(tmp_path)
    assert "a flag is missing: model answers" in str(robustframe.verify(tmp_path, model, x, y))


def test_the_closest_successes_are_verified_too(tmp_path: Path) -> None:
    x, y = examples()
    (tmp_path / "near.toml").write_text(BATTERY.replace('version = "0.1"', 'version = "0.1"\nclosest = true'))
    battery = str(tmp_path / "near.toml")
    robustframe.evaluate(Linear(), x, y, threat="l2:0.5", battery=battery, out=tmp_path / "run")
    found = robustframe.verify(tmp_path / "run", Linear(), x, y)
    assert found.ok, str(found)
    assert "not here to compare: small@0.1" in str(found)


def test_lost_images_are_made_again(place: Path) -> None:
    before = (place / "run" / I0).read_bytes()
    (place / "run" / I0).unlink()
    begun(place / "run")
    evaluate_recipe(place / "recipe.toml", out=place / "run", device="cpu")
    assert (place / "run" / I0).read_bytes() == before
    assert verify(place).ok


def command(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "robustframe", "verify", *words]
    return subprocess.run(line, cwd=place, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_ends_with_0_1_or_2(place: Path) -> None:
    well = command(place, "run", "--strict")
    assert well.returncode == 0, well.stderr
    assert "claimed breaks were replayed on the exact model." in well.stdout
    record(put(f"{FIRST}.robust_correct", 90))(place / "run")
    ill = command(place, "run")
    assert ill.returncode == 1
    assert "record.json: tiny/feedforward, linf:0.15: robust_correct is 90" in ill.stdout
    found = json.loads(command(place, "run", "--json").stdout)
    assert found["ok"] is False
    assert {each["where"] for check in found["checks"] for each in check["findings"]} >= {"record.json", "seal.sha256"}
    nothing = command(place, "nowhere")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "is not a run" in nothing.stderr
    assert "Traceback" not in nothing.stderr + ill.stderr


def test_a_copy_passes_unless_everything_is_asked_for(place: Path) -> None:
    shutil.rmtree(place / "run" / "units")
    (place / "run" / "evidence.sha256").unlink()
    assert command(place, "run").returncode == 0
    strict = command(place, "run", "--strict")
    assert strict.returncode == 1
    assert "could not be checked" in strict.stderr
