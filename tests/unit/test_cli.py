"""The command line: results on stdout, messages on stderr, exit statuses, never a trace."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from robustframe import evaluation
from robustframe.cli import app
from robustframe.errors import InputError
from robustframe.models.sources import SOURCES
from robustframe.recipe import Recipe
from robustframe.zoo import names

BATTERY = """
schema = 1
name = "small"
version = "0.1"
[[attack]]
use = "pgd"
steps = 3
[[attack]]
use = "apgd"
steps = 4
[[attack]]
use = "square"
queries = 10
"""
RECIPE = """
schema = 1
name = "small"
about = "For the tests."
seed = 3
chunk = 25
threats = ["linf:0.1"]
battery = ["small.toml"]
[data]
use = "digits"
count = 200
[[model]]
use = "card:{card}"
"""


def robustframe(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustframe", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def here(tiny_card: Path, tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(BATTERY)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(card=tiny_card))
    return tmp_path


@pytest.mark.slow
def test_evaluate_prints_the_table_and_says_where_everything_lies(here: Path) -> None:
    run = robustframe("evaluate", "recipe.toml", cwd=here)
    assert run.returncode == 0, run.stderr
    assert "difference" in run.stdout
    assert "small@0.1" in run.stdout
    (folder,) = (here / "runs").iterdir()
    assert f"record: runs/{folder.name}/record.json" in run.stderr
    assert (folder / "table.tex").is_file()
    again = robustframe("evaluate", "recipe.toml", "--json", cwd=here)
    assert json.loads(again.stdout) == json.loads((folder / "record.json").read_text())
    for format in ("md", "tex", "csv", "terminal"):
        table = robustframe("table", folder, "--format", format, cwd=here)
        assert table.returncode == 0
        assert table.stdout.strip()
        if format != "terminal":
            assert table.stdout.strip() == (folder / f"table.{format}").read_text().strip()


def test_evaluate_a_model_without_a_recipe(here: Path, tiny_card: Path) -> None:
    words = ["--model", f"card:{tiny_card}", "--data", "digits", "--count", "40", "--threat", "linf:0.05"]
    run = robustframe("evaluate", *words, "--battery", "small.toml", cwd=here)
    assert run.returncode == 0, run.stderr
    assert "digits test, 40 examples" in run.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate"], "give either a recipe or --model"),
        (["evaluate", "defalt"], "did you mean 'default'"),
        (["evaluate", "recipe.toml", "--threat", "linf:0.1"], "--threat belongs with --model"),
        (["evaluate", "recipe.toml", "--seed", "0"], "--seed belongs with --model; a recipe states its own"),
        (["evaluate", "recipe.toml", "--data", "digits", "--split", "test"], "--data, --split belong with --model"),
        (["evaluate", "recipe.toml", "--name", "x", "--class-map", "x.txt"], "--name, --class-map belong with --model"),
        (["evaluate", "--model", "zoo:a", "--model", "zoo:b", "--name", "x"], "--name belongs to one model"),
        (["evaluate", "--model", "zoo:a", "--normalise", "0.5"], "--normalise 0.5 must read MEAN/STD"),
        (["evaluate", "--model", "zoo:a", "--normalise", "0.5/0"], "std"),
        (["evaluate", "--model", "zoo:a", "--channels", "1"], "model[1].channels = 1: "),
        (["evaluate", "default", "--channels", "3"], "--channels belongs with --model"),
        (["evaluate", "recipe.toml", "--device", "gpu"], "device 'gpu'"),
        (["evaluate", "recipe.toml", "--batch-size", "0"], "batch size 0"),
        (["evaluate", "--model", "zoo:fmnist-chian3"], "unknown zoo pair"),
        (["evaluate", "--model", "zoo:fmnist-chain3", "--data", "cifar11"], "did you mean 'cifar10'"),
        (["evaluate", "--model", "zoo:fmnist-chain3", "--battery", "quik"], "unknown battery"),
        (["evaluate", "--model", "zoo:fmnist-chain3", "--threat", "linf:2"], "wider than the whole box"),
        (["evaluate", "--model", "zoo:fmnist-chain3", "--threat", "linf:-1"], "error: command line: threats: eps '-1'"),
        (["table", "nowhere"], "is not a run"),
        (["table", "broken"], "is not a record"),
        (["publish", "nowhere"], "is not a run"),
        (["train", "nothing"], "unknown training recipe"),
        (["zoo", "show", "nothing"], "unknown zoo pair"),
        (["zoo", "show", "fmnist-chain33"], "did you mean 'fmnist-chain3'? nearest of the "),
    ],
)
def test_bad_input_is_a_sentence_with_status_2_and_no_trace(words: list[str], sentence: str, here: Path) -> None:
    (here / "broken").mkdir()
    (here / "broken" / "record.json").write_text('{"schema": 7}')
    run = robustframe(*words, cwd=here)
    assert run.returncode == 2
    assert run.stdout == ""
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) <= 2
    assert not (here / "runs").exists()


def said(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_help_has_groups_and_defaults_and_is_there_under_both_names() -> None:
    text = said("evaluate", "-h")
    assert text == said("evaluate", "--help")
    groups = [
        line.rstrip(":") for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")
    ]
    assert groups[0] == "Arguments"
    assert groups[-1] == "Options"
    assert {"Without a recipe: the model", "How the work is done", "Limits"} < set(groups)
    flat = " ".join(text.split())
    for default in ("fashion-mnist", "linf:8/255", "quick", "256", "runs"):
        assert re.search(rf"\[default: \(?{re.escape(default)}\)?\]", flat), default
    assert said("list", "-h").startswith("Usage:")


def test_the_version_is_the_installed_one() -> None:
    assert said("--version") == f"robustframe {version('robustframe')}\n"


def test_every_source_of_models_and_every_pair_is_listed() -> None:
    text = said("list", "models")
    assert all(form in text for form, _, _ in SOURCES.values())
    assert all(f"zoo:{name} " in text for name in names())


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["--channels", "3"], {"model": [{"channels": 3}]}),
        (["--normalise", "0.5,0.25/2,4"], {"model": [{"normalise": {"mean": [0.5, 0.25], "std": [2.0, 4.0]}}]}),
        (["--output", "1"], {"model": [{"output": 1}]}),
        (["--output", "logits", "--sigmoid"], {"model": [{"output": "logits", "sigmoid": True}]}),
        (["--name", "mine", "--weights", "w.pt"], {"model": [{"name": "mine", "weights": "w.pt"}]}),
        (["--data", "folder:d", "--resize", "9", "--crop", "8", "--class-map", "c.txt"],
         {"data": {"use": "folder:d", "resize": 9, "crop": 8, "class_map": "c.txt"}}),
        (["--seed", "7", "--split", "train"], {"seed": 7, "data": {"split": "train"}}),
    ],
)  # fmt: skip
def test_what_a_recipe_can_say_the_command_line_can_say_too(
    words: list[str], change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []

    def keep(recipe: Recipe, *place: object, **more: object) -> None:
        asked.append(recipe)
        raise InputError("enough")

    monkeypatch.setattr(evaluation, "make_task", keep)
    CliRunner().invoke(app, ["evaluate", "--model", "file:m.py:f", *words])
    (stated,) = (each.model_dump() for each in asked)
    for key, value in change.items():
        held, wanted = (stated[key][0], value[0]) if key == "model" else (stated[key], value)
        assert held == wanted if not isinstance(wanted, dict) else held | wanted == held


def test_what_training_prints_as_the_next_step_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pair.toml").write_text(
        'schema = 1\nname = "mine"\nabout = "For the tests."\nseed = 0\n[data]\nuse = "digits"\ncount = 64\n'
        "[pair]\nlayers = [{ atoms = 8 }]\nsweeps = 2\n[schedule]\nepochs = 1\nbatch = 32\nlearning_rate = 0.02\n"
    )
    done = CliRunner().invoke(app, ["train", "my pair.toml", "--out", "my pairs"])
    assert done.exit_code == 0, done.exception
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("evaluate it with: ")]
    program, *words = shlex.split(line.removeprefix("evaluate it with: "))
    assert program == "robustframe"
    assert "units" in said(*words, "--dry-run")


def test_an_unfinished_run_has_no_number_in_a_table(here: Path) -> None:
    robustframe("evaluate", "recipe.toml", "--out", "run", cwd=here)
    record = json.loads((here / "run" / "record.json").read_text())
    record |= {"status": "started", "results": None, "verdicts_sha256": None, "evidence_sha256": None}
    (here / "run" / "record.json").write_text(json.dumps(record))
    run = robustframe("table", "run", "--format", "csv", cwd=here)
    assert run.returncode == 1
    assert "is not complete" in run.stderr
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert {row["verdict"] for row in rows} == {"run not finished"}
    assert {row[name] for row in rows for name in ("clean", "robust")} == {""}


@pytest.mark.slow
def test_a_killed_evaluation_ends_byte_equal_to_an_undisturbed_one(here: Path) -> None:
    whole = robustframe("evaluate", "recipe.toml", "--out", "whole", cwd=here)
    assert whole.returncode == 0, whole.stderr
    units = len(list((here / "whole").glob("units/**/*.parquet")))
    # Three points: in the clean pass or the first attack, in the middle, near the end.
    for part in (0.1, 0.5, 0.9):
        start_and_stop(here, int(part * units), signal.SIGKILL)
    finished = robustframe("evaluate", "recipe.toml", "--out", "killed", cwd=here)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == whole.stdout
    assert contents(here / "killed") == contents(here / "whole")


@pytest.mark.slow
def test_ctrl_c_stops_with_status_3_and_the_same_command_continues(here: Path) -> None:
    status, message = start_and_stop(here, 5, signal.SIGINT)
    assert status == 3
    assert "the same command continues" in message
    assert "Traceback" not in message
    assert robustframe("evaluate", "recipe.toml", "--out", "killed", cwd=here).returncode == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_stop_while_everything_is_imported_is_the_same_sentence(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "from pathlib import Path\nimport time\nPath('importing').touch()\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-m", "robustframe", "list", "attacks"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "importing").exists():
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (3, "stopped; the same command continues\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_output_ends_in_the_letters_of_whatever_reads_it(encoding: str, tmp_path: Path) -> None:
    code = (
        "from robustframe.cli.shared import say, write_anywhere\nimport sys\nwrite_anywhere()\n"
        "sys.stdout.write('─ é ≥ ² 中 \\udcff\\n')\nsay('a\\x1b[2J\\x00b ─')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True
    )
    wanted = {"latin-1": "- é >= ² \\u4e2d \\udcff\n", "ascii": "- e >= 2 \\u4e2d \\udcff\n"}
    wanted |= {"cp1252": wanted["latin-1"], "utf-8": "─ é ≥ ² 中 \\udcff\n"}
    assert done.stdout.decode(encoding) == wanted[encoding]
    # The command-line library takes ASCII for a mistake, and writes UTF-8.
    assert done.stderr.decode(encoding, errors="replace").startswith("a\\x1b[2J\\x00b ")


def start_and_stop(here: Path, units: int, how: signal.Signals) -> tuple[int, str]:
    """Start the evaluation, send a signal as soon as so many units are finished; return status and messages."""
    command = [sys.executable, "-m", "robustframe", "evaluate", "recipe.toml", "--out", "killed"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(list((here / "killed").glob("units/**/*.parquet"))) < units:
            time.sleep(0.001)
        os.kill(process.pid, how)
        _, message = process.communicate()
    assert json.loads((here / "killed" / "record.json").read_text())["status"] == "started"
    return process.returncode, message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("attacks", "apgd-t"),
        ("attacks", "queries = 5000, p_init = 0.8"),
        ("batteries", "quick@1"),
        ("batteries", "apgd-ce, apgd-t, fab-t, square"),
        ("data", "fashion-mnist"),
        ("recipes", "default"),
    ],
)
def test_lists_name_what_recipes_can_use(kind: str, word: str, here: Path) -> None:
    run = robustframe("list", kind, cwd=here)
    assert run.returncode == 0
    assert word in run.stdout


@pytest.mark.parametrize("words", [["robustframe.cli"], ["robustframe"]])
def test_imports_stay_light(words: list[str]) -> None:
    code = f"import sys, {words[0]}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "robustframe" in loaded
    assert not {"torch", "torchvision", "polars", "matplotlib", "pydantic", "scipy"} & set(loaded)


def test_evaluating_needs_no_plotting_or_vision(tiny_card: Path) -> None:
    code = "import robustframe, sys; robustframe.evaluate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchvision", "matplotlib", "torchattacks"} & set(loaded)


def test_the_verdicts_are_a_plain_parquet_file(here: Path) -> None:
    robustframe("evaluate", "recipe.toml", "--out", "run", cwd=here)
    verdicts = pl.read_parquet(here / "run" / "verdicts.parquet")
    assert verdicts.columns[:4] == ["classifier", "threat", "index", "label"]
    assert len(verdicts) == 400
