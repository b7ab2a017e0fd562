"""Many units: planned within seconds, a driver that hardly costs anything, and what a dry run says."""

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_up import make_run
from torch import nn
from troubled import evaluate, lay_out, run
from typer.main import get_command
from typer.testing import CliRunner

import robustframe
from robustframe.cli import app
from robustframe.data import from_arrays
from robustframe.errors import InputError
from robustframe.evaluation import Moment, load_task
from robustframe.evaluation import run as run_task
from robustframe.evaluation.cluster import ray_engine
from robustframe.evaluation.estimate import estimate
from robustframe.evaluation.schedule import WorkSchedule
from robustframe.evaluation.task import Task
from robustframe.models.classifiers import classify
from robustframe.recipe import ModelSpec, load_battery, parse_threats
from robustframe.report.site.board import read_runs
from robustframe.report.site.rows import sections
from robustframe.statistics import PairedDifference
from robustframe.verification.compare import compare_runs

FOLDER = Path(robustframe.__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    """The benchmark of scale, imported and not run: it has the simulated workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("scale")


def test_a_hundred_workers_wait_for_the_driver_less_than_a_twentieth_of_the_time(
    scale: ModuleType, tmp_path: Path
) -> None:
    share, simulation = scale.overhead(scale.stub_task(1, 10_000), tmp_path)
    # A unit for each attack, threat and chunk, the clean passes, a check and a certificate.
    assert simulation.units == 3 * 3 * 40 + 40 + 2
    assert 0 <= share < 0.05


@pytest.mark.slow
def test_the_simulation_sees_a_slow_driver(scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = WorkSchedule.take

    def slow(self: WorkSchedule, outcome: object) -> None:
        sum(range(1_000_000))
        take(self, outcome)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkSchedule, "take", slow)
    share, _ = scale.overhead(scale.stub_task(1, 10_000), tmp_path)
    assert share > 0.05


_FIFTY = """
import json, pathlib, scale
simulation = scale.simulate(scale.stub_task(50, 10_000), pathlib.Path("run"), charge=True)
print(json.dumps(simulation._asdict()))
"""


@pytest.mark.slow
def test_fifty_models_are_planned_in_seconds_by_a_driver_under_a_gigabyte(tmp_path: Path) -> None:
    # In a process of its own: this one holds the memory of the tests before.
    words, place = [sys.executable, "-c", _FIFTY], {**os.environ, "PYTHONPATH": f"{FOLDER}:{FOLDER.parent}"}
    done = subprocess.run(words, cwd=tmp_path, env=place, capture_output=True, text=True, check=True)
    simulation = json.loads(done.stdout.splitlines()[-1])
    assert simulation["units"] == 50 * (3 * 3 * 40 + 40 + 2)
    assert simulation["planned"] < 5
    memory = simulation["memory"]
    assert max(memory) < 2**30
    # Once everything is loaded, what grows are the verdicts of 1.5 million rows.
    assert memory[-1] - memory[1] < 250 * 2**20


def work(call: Callable[[], object]) -> int:
    """Count the lines of robustframe that run, each turn of a loop by itself, and rows of tables that are searched."""
    package, count, true = str(Path(robustframe.__file__).parent), 0, pl.DataFrame.filter

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(package):
            return None
        count += event == "line"
        return trace

    def searched(self: pl.DataFrame, *given: Any, **named: Any) -> pl.DataFrame:
        nonlocal count
        count += len(self)
        return true(self, *given, **named)

    before = sys.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pl.DataFrame, "filter", searched)
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
    return count


def hardly_more_than_twice(work_of: Callable[[int], int], size: int) -> bool:
    """Whether twice the size makes twice the work, beside what each call costs once; with n^2 it is four times."""
    found = [work_of(each) for each in (size, 2 * size, 4 * size)]
    return (found[2] - found[1]) <= 2.3 * (found[1] - found[0])


def test_the_driver_does_as_much_for_a_chunk_however_many_there_are(scale: ModuleType, tmp_path: Path) -> None:
    def of(chunks: int) -> int:
        task = scale.stub_task(1, chunks, threats=1, chunk=1)
        return work(lambda: scale.simulate(task, tmp_path / str(chunks), workers=1, charge=False))

    assert hardly_more_than_twice(of, 12)


@pytest.mark.parametrize("what", ["compare", "leaderboard"])
def test_reading_runs_does_as_much_for_a_model_however_many_there_are(what: str, tmp_path: Path) -> None:
    def of(models: int) -> int:
        rng = np.random.default_rng(0)
        drawn = {(f"m{at}", "linf:0.1"): (np.ones(40, bool), rng.random(40) < 0.7) for at in range(models)}
        runs = [make_run(tmp_path / f"{models}-{at}", drawn) for at in range(2)]
        if what == "compare":
            return work(lambda: compare_runs(*runs, transfer=False))
        return work(lambda: sections(read_runs([str(runs[0])], tmp_path)))

    assert hardly_more_than_twice(of, 10)


def test_the_work_of_a_quadratic_loop_is_seen() -> None:
    verdicts = np.random.default_rng(0).random((40, 30)) < 0.5

    def every_pair(size: int) -> int:
        pairs = itertools.product(verdicts[:size], repeat=2)
        return work(lambda: [PairedDifference.of(*pair) for pair in pairs])

    assert not hardly_more_than_twice(every_pair, 10)


def test_progress_counts_every_unit_and_what_it_cost(tmp_path: Path) -> None:
    moments: list[Moment] = []
    found = evaluate(lay_out(tmp_path / "here", diagnose=True), report=moments.append)
    assert [moment.done for moment in moments] == list(range(1, moments[0].units + 1))
    attacks = [entry for result in found.results for entry in result.attacks]
    passes = sum(entry.forwards + entry.backwards for entry in attacks) + 2 * 60
    assert moments[-1].passes == passes
    assert all(a.passes <= b.passes for a, b in itertools.pairwise(moments))
    standing = {(moment.classifier, moment.threat): moment.survivors for moment in moments}
    for result in found.results:
        assert standing[result.classifier, ""] == result.clean_correct
        assert standing[result.classifier, result.threat] == result.robust_correct < result.clean_correct


def test_units_of_a_row_that_is_given_up_are_not_counted(tmp_path: Path) -> None:
    recipe = lay_out(tmp_path / "here")
    (recipe.parent / "trouble").write_text("raises")
    moments: list[Moment] = []
    evaluate(recipe, report=moments.append)
    assert moments[-1].done == moments[-1].units < moments[0].units


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(tmp_path: Path) -> None:
    recipe = lay_out(tmp_path / "here", diagnose=True)
    done = run("--dry-run", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    for word in ("units", "passes", "time", "memory", "2 classifiers, 2 threats, 60 examples"):
        assert word in done.stdout
    assert not (recipe.parent / "runs").exists()
    cost = json.loads(run("--dry-run", "--json", cwd=recipe.parent).stdout)
    moments: list[Moment] = []
    folder = evaluate(recipe, report=moments.append).folder
    assert cost["units"] == moments[0].units
    assert cost["finished"] == 0
    again = estimate(load_task(recipe, device=torch.device("cpu")), folder, torch.device("cpu"), 256, 1)
    assert again.finished == again.units
    assert again.seconds == 0


class Constant(nn.Module):
    """A classifier that nothing breaks."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] * 1e-3 + torch.tensor([9.0, 0.0, 0.0])


def stub(battery: str = "quick") -> Task:
    """A task of that classifier, in hand."""
    data = from_arrays(torch.rand(4, 1, 3, 3), torch.zeros(4, dtype=torch.long))
    return Task(
        name="x", recipe={"threats": ["linf:0.1"], "chunk": 4}, data=data,
        classifiers=classify(Constant(), "m", ModelSpec(use="p")),
        threats=parse_threats(["linf:0.1"]), batteries=[load_battery(battery)], seed=0, chunk=4, diagnose=False,
    )  # fmt: skip


@pytest.mark.parametrize("battery", ["quick", "minimal"])
def test_a_dry_run_counts_the_passes_of_a_model_that_nothing_breaks(battery: str, tmp_path: Path) -> None:
    task = stub(battery)
    device = torch.device("cpu")
    cost = estimate(task, tmp_path / "run", device, 256, 1)
    (result,) = run_task(task, tmp_path / "run", device=device).results
    assert result.robust_correct == 4
    # Square's proposals depend on the image, and so do its passes by a little.
    assert cost.forwards == pytest.approx(4 + sum(entry.forwards for entry in result.attacks), rel=0.2)
    assert cost.backwards == pytest.approx(sum(entry.backwards for entry in result.attacks), rel=0.05)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--engine", "spark"], "unknown engine 'spark'"),
        (["--workers", "2"], "belong with --engine ray"),
        (["--engine", "ray", "--workers", "0"], "--workers 0 must be at least 1"),
        (["--threads", "0"], "--threads 0 must be at least 1"),
        (["--time-limit", "0"], "time limit 0.0 must be above 0"),
        (["--memory-limit", "-2"], "memory limit -2.0 must be above 0"),
    ],
)
def test_engines_and_limits_that_are_none_are_refused(words: list[str], sentence: str, tmp_path: Path) -> None:
    recipe = lay_out(tmp_path / "here")
    found = CliRunner().invoke(app, ["evaluate", str(recipe), "--out", str(tmp_path / "run"), *words])
    assert isinstance(found.exception, InputError)
    assert sentence in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_models_in_hand_are_not_sent_to_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluated in this process; name them in a recipe to use others"):
        run_task(stub(), tmp_path / "run", device=torch.device("cpu"), engine=ray_engine())


def test_the_launchers_in_the_docs_are_what_they_look_like(tmp_path: Path) -> None:
    page = (FOLDER.parent / "docs" / "scale.md").read_text()
    slurm, kubernetes = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-n"], input=slurm, text=True, check=True)
    job = pytest.importorskip("yaml").safe_load(kubernetes)
    assert job["kind"] == "RayJob"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["template"] == cluster["workerGroupSpecs"][0]["template"]
    command = get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    ours = [line for line in (slurm + kubernetes).splitlines() if "robustframe evaluate" in line]
    assert len(ours) == 2
    assert {word for line in ours for word in line.split() if word.startswith("--")} <= known
