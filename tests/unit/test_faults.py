"""Everything that happens in days: after each accident the run ends byte-equal, or says which row failed."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest
import torch
from troubled import contents, evaluate, lay_out, remount, run, small_disk, started

import robustframe
from robustframe.calls import out_of_memory
from robustframe.errors import InputError, StoppedEarly
from robustframe.evaluation import Limits, load_task
from robustframe.evaluation.executors import attempt
from robustframe.evaluation.jobs import CleanJob, Done, Failed, Job
from robustframe.evaluation.limits import memory_limited, private_memory
from robustframe.evaluation.workshop import Workshop
from robustframe.models.classifiers import Classifier
from robustframe.runs.journal import Journal
from robustframe.runs.record import read_record, write_aside
from robustframe.runs.units import Written


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of a run without any accident."""
    recipe = lay_out(tmp_path_factory.mktemp("undisturbed"))
    return contents(evaluate(recipe).folder)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "here")


def trouble(recipe: Path, kind: str | None) -> None:
    """Bring trouble on the first model, or take it away."""
    file = recipe.parent / "trouble"
    if kind is None:
        file.unlink()
    else:
        file.write_text(kind)


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    while not file.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "limits", "reason"),
    [
        ("raises", Limits(), r"ZeroDivisionError: a bug of the model's \(models.py, line \d+\)"),
        ("hangs", Limits(seconds=2), r"longer than the time limit of 2 s"),
    ],
)
def test_a_failing_model_costs_its_own_rows_and_the_same_call_mends_them(
    kind: str, limits: Limits, reason: str, recipe: Path, undisturbed: dict[str, str]
) -> None:
    trouble(recipe, kind)
    found = evaluate(recipe, limits=limits)
    record, folder = found.record, found.folder
    assert record.status == "complete"
    assert {row.classifier for row in record.failed} == {"troubled"}
    assert all(re.search(reason, row.reason) for row in record.failed)
    good = {name: sha for name, sha in undisturbed.items() if name.startswith("units/01-good")}
    assert good.items() <= contents(folder).items()
    assert found.verdicts["classifier"].to_list() == ["good"] * 120
    trouble(recipe, None)
    assert not evaluate(recipe).record.failed
    assert contents(folder) == undisturbed


def test_an_incomplete_row_is_shown_with_its_reason_and_status_1(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "raises")
    done = run("--out", "run", cwd=recipe.parent)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "row failed: troubled under linf:0.1: ZeroDivisionError" in done.stderr
    assert "Not finished: ZeroDivisionError" in done.stdout
    table = recipe.parent / "run" / "table.csv"
    lines = {tuple(line.split(",")[i] for i in (0, 3)): line for line in table.read_text().splitlines()}
    assert ",,,," in lines["troubled", "linf:0.1"]
    assert ",,,,,," not in lines["good", "linf:0.1"]
    verified = robustframe.verify(
        recipe.parent / "run", folder=recipe.parent, device="cpu", code=[recipe.parent / "models.py"]
    )
    assert verified.ok, str(verified)
    assert "it calls failed: troubled under linf:0.1" in str(verified)


def test_checks_made_while_a_row_was_missing_are_made_again(tmp_path: Path) -> None:
    whole = contents(evaluate(lay_out(tmp_path / "whole", diagnose=True)).folder)
    recipe = lay_out(tmp_path / "here", diagnose=True)
    trouble(recipe, "raises")
    found = evaluate(recipe)
    assert [result.diagnosis is not None for result in found.results] == [True, True]
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(found.folder) == whole


def test_a_model_in_hand_raises_what_it_raises() -> None:
    class Broken(torch.nn.Module):
        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 8:
                raise ZeroDivisionError("a bug")
            return images.flatten(1)

    images = torch.rand(8, 1, 2, 2)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        robustframe.evaluate(Broken(), images, images.flatten(1).argmax(1), threat="linf:0.1")


def test_nan_now_and_then_ends_with_a_flag(recipe: Path) -> None:
    trouble(recipe, "nan")
    found = evaluate(recipe)
    assert not found.record.failed
    assert any(flag.startswith("troubled, linf:0.1") for flag in found.record.flags)
    rows = found.verdicts.filter(pl.col("classifier") == "good")
    assert rows["adversarial_prediction"].min() != -1


def test_out_of_memory_halves_the_batch_and_changes_no_byte(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "memory")
    found = evaluate(recipe)
    assert not found.record.failed
    assert contents(found.folder) == undisturbed


def test_a_leaking_model_meets_its_memory_limit_and_the_others_go_on(recipe: Path, undisturbed: dict[str, str]) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    (data,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmData")]
    trouble(recipe, "leaks fast")
    done = run("--out", "run", "--memory-limit", str(int(data) / 2**20 + 1.5), cwd=recipe.parent)
    assert done.returncode == 1, done.stderr
    record = read_record(recipe.parent / "run")[0]
    assert {row.classifier for row in record.failed} == {"troubled"}
    assert "ran out of memory: MemoryError (models.py, line" in record.failed[0].reason
    trouble(recipe, None)
    assert contents(evaluate(recipe).folder) == undisturbed


class Hungry(Job[int]):
    """Takes memory in pieces of 64 MiB, and keeps them where nobody takes them back."""

    kept: ClassVar[list[bytes]] = []

    @property
    def place(self) -> tuple[int, ...]:
        return (0,)

    def work(self, workshop: Workshop, classifier: Classifier) -> tuple[int, Written]:
        if self.classifier == 0:
            while True:
                self.kept.append(b"x" * 2**26)
        return len(torch.ones(2**26)), {}

    def enter(self, scores: object, found: int) -> None:
        """Nothing is entered."""


def test_memory_that_one_model_keeps_is_not_counted_against_the_next(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not private_memory():
        pytest.skip("no /proc here")
    monkeypatch.setattr(Hungry, "kept", [])
    task = load_task(recipe, device=torch.device("cpu"))
    workshop = Workshop(task, recipe.parent, torch.device("cpu"), 16)
    limits = Limits(memory=private_memory() / 2**30 + 0.5)
    found = [attempt(workshop, Hungry(classifier), limits) for classifier in (0, 1)]
    assert isinstance(found[0], Failed)
    assert "ran out of memory" in found[0].reason
    # What it went through would hold on to its tensors.
    assert found[0].error is not None
    assert found[0].error.__traceback__ is None
    assert isinstance(found[1], Done), found[1]


def test_a_refused_allocation_is_known_as_such() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught, memory_limited(0.5):
        torch.ones(2**31)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU]
)
def test_a_stopped_driver_is_continued_by_the_same_command(
    how: signal.Signals, recipe: Path, undisturbed: dict[str, str]
) -> None:
    here = recipe.parent
    trouble(recipe, "hangs")
    with started("--out", "run", cwd=here) as process:
        wait_for(here / "hanging", process)
        process.send_signal(how)
        _, said = process.communicate()
    assert process.returncode == (-9 if how is signal.SIGKILL else 3)
    if how is not signal.SIGKILL:
        assert said.splitlines()[-1] == "stopped; the same command continues"
    assert read_record(here / "run")[0].status == "started"
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(here / "run") == undisturbed


def test_a_second_driver_leaves_with_a_sentence_and_a_killed_one_leaves_no_lock(
    recipe: Path, undisturbed: dict[str, str]
) -> None:
    here = recipe.parent
    trouble(recipe, "hangs")
    with started("--out", "run", cwd=here) as process:
        wait_for(here / "hanging", process)
        with pytest.raises(InputError, match=rf"process {process.pid} on .* is working in .*wait for it, or stop it"):
            evaluate(recipe)
        process.kill()
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(here / "run") == undisturbed


def test_a_full_disk_stops_with_status_3_and_is_continued(recipe: Path, undisturbed: dict[str, str]) -> None:
    disk = recipe.parent / "disk"
    with small_disk(disk, "60k") as mounted:
        if not mounted:
            pytest.skip("no file system can be mounted here")
        done = run("--out", "disk/run", cwd=recipe.parent)
        assert done.returncode == 3, done.stderr
        assert "No space left on device; the same command continues" in done.stderr
        # What it loads, and why it stops.
        assert len(done.stderr.strip().splitlines()) <= 3
        remount(disk, "size=20m")
        folder = evaluate(recipe, "disk/run").folder
        assert contents(folder) == undisturbed


def test_a_disk_that_is_full_for_moments_is_met_wherever_it_strikes(
    recipe: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, write = [0], Path.write_bytes

    def fail_sometimes(path: Path, content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_sometimes)
    stops = 0
    for writes in range(1, 60):
        left[0] = writes
        try:
            folder = evaluate(recipe).folder
            break
        except StoppedEarly:
            stops += 1
    assert stops > 3
    assert contents(folder) == undisturbed


def test_a_read_only_folder_is_refused_and_a_complete_run_in_one_is_shown(
    recipe: Path, undisturbed: dict[str, str]
) -> None:
    disk = recipe.parent / "disk"
    with small_disk(disk, "20m") as mounted:
        if not mounted:
            pytest.skip("no file system can be mounted here")
        found = evaluate(recipe, "disk/run")
        remount(disk, "ro")
        with pytest.raises(InputError, match="cannot be written to: Read-only file system; name another folder"):
            evaluate(recipe, "disk/other")
        assert evaluate(recipe, "disk/run").seal == found.seal
        assert contents(found.folder) == undisturbed
        shown = run("--out", "disk/run", cwd=recipe.parent)
        assert shown.returncode == 0, shown.stderr
        assert "is read-only" in shown.stderr
        assert "Clean and robust accuracy" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("suffix", "damage", "complete"),
    [
        (".parquet", "truncated", False),
        (".parquet", "one bit", True),
        (".safetensors", "truncated", True),
        (".safetensors", "one bit", False),
    ],
)
def test_a_damaged_shard_is_found_by_its_hash_redone_and_said(
    suffix: str, damage: str, complete: bool, recipe: Path, undisturbed: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = evaluate(recipe).folder
    if not complete:
        unfinish(folder)
    file = sorted(folder.glob(f"units/00-*/*/*/*{suffix}"))[0]
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[:-9]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        evaluate(recipe)
    assert f"{file.name} is damaged (its SHA-256 is not what was written)" in caplog.text
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("moment", range(10))
def test_a_unit_that_is_damaged_at_any_moment_of_a_run_is_made_again(
    moment: int, recipe: Path, undisturbed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    units = [name for name in undisturbed if name.startswith("units/") and name.endswith(".parquet")]
    draw, done, damaged = random.Random(moment), 0, []

    def harm(progress: object) -> None:
        nonlocal done
        done += 1
        # The last moment is that of the last unit, after which the verdicts are written.
        if damaged or done < len(units) * (moment + 1) // 10:
            return
        file = draw.choice([each for each in (recipe.parent / "run" / "units").rglob("*.*") if each.is_file()])
        content = file.read_bytes()
        damaged.append(file)
        if moment % 3 == 0:
            file.unlink()
        else:
            file.write_bytes(content[: len(content) // 2] if moment % 3 == 1 else content + b"x")

    with caplog.at_level(logging.WARNING):
        folder = evaluate(recipe, report=harm).folder
    (file,) = damaged
    assert file.name in caplog.text
    assert contents(folder) == undisturbed


def unfinish(folder: Path) -> None:
    """Put a complete run back to what it is while it goes on."""
    lines = (folder / "evidence.sha256").read_text().splitlines(keepends=True)
    (folder / "progress.sha256").write_text("".join(line for line in lines if "units/" in line))
    for name in ("evidence.sha256", "verdicts.parquet"):
        (folder / name).unlink()
    record = json.loads((folder / "record.json").read_text())
    empty = {"results": None, "verdicts_sha256": None, "evidence_sha256": None, "flags": [], "status": "started"}
    (folder / "record.json").write_text(json.dumps(record | empty))


def test_half_a_line_in_the_journal_counts_for_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add({"units/a": "0" * 64})
    with (tmp_path / "progress.sha256").open("a") as file:
        file.write("1" * 40)
    journal = Journal(tmp_path)
    assert journal.known == {"units/a": "0" * 64}
    journal.add({"units/b": "2" * 64})
    assert Journal(tmp_path).known == {"units/a": "0" * 64, "units/b": "2" * 64}


def test_what_a_killed_writer_left_behind_is_swept(recipe: Path, undisturbed: dict[str, str]) -> None:
    folder = evaluate(recipe).folder
    unfinish(folder)
    (folder / "units" / "00-troubled" / "clean" / "00000.parquet.abc.part").write_bytes(b"half")
    evaluate(recipe)
    assert contents(folder) == undisturbed


def test_clocks_that_jump_change_nothing(
    recipe: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: numbers.uniform(-1e9, 1e10))
    folder = evaluate(recipe, limits=Limits(seconds=60)).folder
    unfinish(folder)
    for file in folder.rglob("*"):
        when = numbers.choice([0, 4_000_000_000])
        os.utime(file, (when, when))
    next(folder.glob("units/01-*/clean/00001.parquet")).unlink()
    evaluate(recipe, limits=Limits(seconds=60))
    assert contents(folder) == undisturbed


def test_a_machine_that_does_not_share_the_folder_stops_the_run_and_costs_no_row(recipe: Path) -> None:
    task = load_task(recipe, device=torch.device("cpu"))
    workshop = Workshop(task, recipe.parent / "run", torch.device("cpu"), 256)
    with pytest.raises(StoppedEarly, match=r"does not see the run in .*; every machine needs the folder"):
        attempt(workshop, CleanJob(0, 0), Limits())


def test_limits_must_be_above_0() -> None:
    with pytest.raises(InputError, match="time limit 0 must be above 0"):
        Limits(seconds=0)
    with pytest.raises(InputError, match="memory limit -1 must be above 0"):
        Limits(memory=-1)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    replace = Path.replace

    def remember(self: Path, target: Path) -> Path:
        names.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", remember)
    for content in (b"one", b"two"):
        write_aside(tmp_path / "file", content)
    assert len(set(names)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
