"""A run is read through one type, which refuses whatever was edited, and hands out what was found."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from claims import Published
from readme import fill
from tampering import V, begun, both, cell, cut, drop, put, record, reseal, seal, table
from torch import Tensor, nn

import robustframe
from robustframe.errors import InputError
from robustframe.recipe import shipped_folder
from robustframe.report import robustness_table
from robustframe.runs import Run, open_run, open_runs
from robustframe.verification.compare import compare_runs

DEFAULT = shipped_folder("evaluations") / "default" / "results"
SMALL = ("linf:0.1", "linf:0.3", "l2:1")


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


def images() -> Tensor:
    return torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(2))


def labels() -> Tensor:
    with torch.no_grad():
        right = Linear()(images()).argmax(1)
    right[:5] = (right[:5] + 1) % 3
    return right


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an honest run; do not change its files."""
    folder = tmp_path_factory.mktemp("made") / "run"
    robustframe.evaluate(Linear(), images(), labels(), threat=list(SMALL), chunk=16, diagnose=False, out=str(folder))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def fabricated(folder: Path) -> None:
    """Write a difference of twenty points into published verdicts."""
    mine = (pl.col("classifier") == "fmnist-chain3-linf/feedforward") & (pl.col("index") < 300)
    table(V, lambda rows: rows.with_columns(robust=pl.when(mine).then(False).otherwise("robust")))(folder)


def everywhere(folder: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a run is read from its folder, but for `verify`, which looks for what is wrong."""
    return {
        "open_run": lambda: open_run(folder),
        "open_runs": lambda: open_runs([str(folder)]),
        "table": lambda: robustness_table(open_run(folder)),
        "curves": lambda: open_run(str(folder)).curves(),
        "compare": lambda: compare_runs(DEFAULT, folder, transfer=False),
        "claims": lambda: Published.read(folder),
        "readme": lambda: fill(f"<!-- table: {folder} -->\n<!-- end of table -->", Path("/")),
    }


def test_an_edited_run_is_refused_by_every_reader(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "results"))
    for read in everywhere(folder).values():
        read()
    fabricated(folder)
    for name, read in everywhere(folder).items():
        with pytest.raises(InputError, match=r"results/verdicts\.parquet is not what its record says") as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("table",), ("curve",), ("report", "--out", "site"), ("publish",), ("compare", "--no-transfer", str(DEFAULT))]
    + [("figure", kind, "--out", "f.svg") for kind in ("curves", "coherence", "sweeps", "attacks", "examples")],
    ids=" ".join,
)
def test_every_command_refuses_an_edited_run_with_status_2(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "results"))
    fabricated(folder)
    line = [sys.executable, "-m", "robustframe", *words, str(folder)]
    found = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, ""), found.stderr
    assert "verdicts.parquet is not what its record says; `robustframe verify" in found.stderr
    assert "Traceback" not in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"results"}


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        (drop("record.json"), "is not a run"),
        (cut("record.json"), "is not a record of this version"),
        (record(put("schema", 1)), "is not a record of this version: schema"),
        (record(put("schema", 3)), "is not a record of this version: schema"),
        (begun, "is not complete; run the same evaluate command again"),
        (drop(V), "lacks 1 of the files in evidence.sha256, such as verdicts.parquet"),
        (cut(V), "verdicts.parquet is not what its record says"),
        (cell(V, pl.col("robust"), "robust", False), "verdicts.parquet is not what its record says"),
        (drop("evidence.sha256"), "evidence.sha256 is missing"),
        (cut("evidence.sha256"), "evidence.sha256 is not what its record says"),
        (record(put("evidence_sha256", None)), "hashes of files belong to a complete run"),
        (both(record(put("results.0.robust_correct", 3)), seal), "robust_correct is 3, they give"),
        (both(record(put("results.0.clean_correct", 40)), seal), "clean_correct is 40, they give 35"),
        (
            both(record(put("results.0.examples", 41)), seal),
            "model, linf:0.1: its counts are impossible",
        ),
        (both(record(put("results.0.threat", "linf:0.2")), seal), "not one per example"),
        (both(record(put("classifiers.0.name", "mine")), seal), "which is not one of its classifiers"),
        (record(put("flags", ["it is fine"])), "record.json is not what seal.sha256 says"),
        (drop("seal.sha256"), "seal.sha256 is missing"),
        (record(put("recipe.threats", [])), "threats"),
        (record(put("recipe.chunk", 0)), "chunk = 0"),
        (record(put("batteries", [])), "no batteries"),
        (record(put("classifiers", [])), "no classifiers"),
    ],
)
def test_what_is_off_is_said_in_one_sentence(tamper: Callable[[Path], None], sentence: str, place: Path) -> None:
    tamper(place)
    with pytest.raises(InputError, match=sentence) as caught:
        open_run(place)
    assert len(str(caught.value).splitlines()) == 1


def test_a_break_is_whole_even_with_all_hashes_written_anew(place: Path) -> None:
    cell(V, pl.col("robust"), "robust", False)(place)
    reseal(place)
    with pytest.raises(InputError, match=r"example \d+ is neither broken nor not: a break has an attack, a class"):
        open_run(place)


def test_counts_of_the_record_follow_from_the_verdicts(place: Path) -> None:
    record(put("results.0.robust_correct", lambda count: count - 1))(place)
    reseal(place)
    with pytest.raises(InputError, match=r"record\.json is not what its verdicts say: model, l.*: robust_correct is"):
        open_run(place)


def test_a_run_that_is_not_complete_is_opened_on_request(place: Path) -> None:
    begun(place)
    run = open_run(place, unfinished=True)
    assert not run.complete
    assert not len(run.verdicts)
    assert not run.results
    assert "not complete" in repr(run)


def test_evaluate_and_open_run_give_the_same(made: Path) -> None:
    kept = robustframe.evaluate(Linear(), images(), labels(), threat=list(SMALL), chunk=16, diagnose=False)
    run = robustframe.open_run(made)
    assert isinstance(kept, Run)
    assert kept.seal == run.seal == hashlib.sha256((made / "record.json").read_bytes()).hexdigest()
    assert kept.verdicts.equals(run.verdicts)
    assert kept.table("csv") == run.table("csv")
    folder = kept.folder
    assert folder.is_dir()
    del kept
    assert not folder.exists(), "a run that nobody asked to keep is left behind"


def test_adversarial_images_are_those_of_the_broken_examples(made: Path) -> None:
    run, x, y = open_run(made), images(), labels()
    for threat in run.threats:
        found, broken = run.adversarial("model", threat)
        rows = run.rows("model", threat.label)
        assert broken.tolist() == (rows["clean_correct"] & ~rows["robust"]).to_list()
        assert threat.contains(x[broken], found).all()
        assert (Linear()(found).argmax(1) != y[broken]).all()
    assert len(run.adversarial(threat="linf:0.3").images) > 10
    with pytest.raises(InputError, match=r"several threats; name one of linf:0\.1, linf:0\.3, l2:1"):
        run.adversarial()
    with pytest.raises(InputError, match="unknown classifier 'modle'; did you mean 'model'"):
        run.adversarial("modle", "l2:1")


def test_a_damaged_image_is_refused_when_it_is_read(place: Path) -> None:
    image = next((place / "units").rglob("*.safetensors"))
    image.write_bytes(image.read_bytes()[:-1] + b"\x7f")
    run = open_run(place)
    with pytest.raises(InputError, match="safetensors is not what was written; `robustframe verify"):
        [run.adversarial(threat=threat) for threat in run.threats]


def test_one_example_has_everything_that_is_known_of_it(made: Path) -> None:
    run = open_run(made)
    _, broken = run.adversarial(threat="linf:0.3")
    index = int(broken.nonzero()[0])
    one = run.example(index)
    assert (one.index, one.label, one.label_name) == (index, int(labels()[index]), f"class {one.label}")
    assert one.verdicts["threat"].to_list() == list(SMALL)
    assert one.adversarial["model", "linf:0.3"].shape == (1, 3, 4)
    with pytest.raises(InputError, match="example 40 must be one of 0 to 39"):
        run.example(40)


def test_classes_and_perturbations_are_summed_up(made: Path) -> None:
    run = open_run(made)
    classes = run.per_class()
    assert classes.group_by("threat").agg(pl.col("examples").sum())["examples"].to_list() == [40] * 3
    for result in run.results:
        mine = classes.filter(pl.col("threat") == result.threat)
        assert (mine["examples"] * mine["robust_accuracy"]).sum() == pytest.approx(result.robust_correct)
    norms = run.norms()
    assert norms["broken"].sum() == run.verdicts["broken_by"].is_not_null().sum()
    for row in norms.iter_rows(named=True):
        allowed = float(row["threat"].split(":")[1])
        assert 0 < row["median_distance"] <= allowed * 1.001
    curves = {(curve.norm, curve.asked) for curve in run.curves()}
    assert curves == {("linf", (0.1, 0.3)), ("l2", (1.0,))}


def test_a_run_shows_itself(made: Path) -> None:
    run = open_run(made)
    assert (
        repr(run).splitlines()[0].startswith(f"Run {run.name}: custom given, 40 examples, linf:0.1, linf:0.3, l2:1, ")
    )
    assert "  model, linf:0.1: clean 87.5 %, robust" in repr(run)
    assert len(repr(run).splitlines()) == 5
    html = run._repr_html_()
    assert html is not None
    assert html.lstrip().startswith("<")
    assert "<table" in html
    assert run.verify(Linear(), images(), labels()).ok


def test_runs_are_given_once(made: Path) -> None:
    with pytest.raises(InputError, match="give at least one folder of a run"):
        open_runs([])
    with pytest.raises(InputError, match="are the same run; give it once"):
        open_runs([made, made / "record.json"])


def test_a_published_copy_has_no_images() -> None:
    run = open_run(DEFAULT)
    assert not run.stored
    assert run.example(0).adversarial == {}
    with pytest.raises(InputError, match="stores no images; a published copy has none"):
        run.adversarial("fmnist-chain3-linf/recurrent", "linf:0.1")
    assert len(run.examples()) == 1000


def test_a_record_is_json_that_anybody_reads(made: Path) -> None:
    content = json.loads((made / "record.json").read_text())
    assert content["schema"] == 2
    assert content["failed"] == []
    assert content["classifiers"][0]["weights_sha256"] is None
