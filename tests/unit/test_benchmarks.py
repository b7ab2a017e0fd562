"""The benchmarks themselves: verdicts and pages follow from what was measured, a killed run goes on."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import robustframe

ROOT = Path(robustframe.__file__).parents[1]
FOLDER = ROOT / "benchmarks"
ROWS = {
    "pgd-broken", "pgd-robust", "apgd-ce-broken", "apgd-ce-robust", "apgd-t", "fab-t", "square",
    "standard-broken-feedforward", "standard-broken-recurrent",
    "standard-robust-feedforward", "standard-robust-recurrent",
}  # fmt: skip
SETTINGS = {
    "torch": "2", "threads": 2, "cores": 2, "machine": "m", "device": "cpu", "peers": {"foolbox": "3"},
    "missing": {"adv_lib": "No module named 'distutils'"}, "trial": False, "quick": False, "threat": "linf:0.1",
    "code": "abc",
}  # fmt: skip


@pytest.fixture(scope="module")
def attacks() -> ModuleType:
    """The script of the attacks, imported and not run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("attacks")


def run(wall: float, robust: int = 5, outside: int = 0) -> dict[str, float]:
    return {"wall": wall, "processor": 2 * wall, "robust": robust, "outside": outside, "load": 1.0}


def row(attacks: ModuleType, name: str, repetitions: int = 3):
    return replace(next(row for row in attacks.ROWS if row.name == name), examples=10, repetitions=repetitions)


def page(attacks: ModuleType, row, repetitions: list[dict[str, dict[str, float]]], **settings: object) -> list[str]:
    return attacks.attacks_page.page([row], {**SETTINGS, **settings}, {row.name: repetitions}).splitlines()


def standard(ours: float, theirs: float, robust: int = 5) -> dict[str, dict[str, float]]:
    return {"standard@1": run(ours, robust), "swift@1": run(0.1), "pyautoattack standard": run(theirs)}


def test_ratios_are_medians_of_the_repetitions_with_their_spread(attacks: ModuleType) -> None:
    one = row(attacks, "standard-robust-feedforward")
    text = page(attacks, one, [standard(1.0, 2.0), standard(3.0, 4.0), standard(0.9, 2.0)])
    (line,) = [line for line in text if line.startswith(f"| {one.name} |") and "| standard@1 |" in line]
    assert "| 10 x 3 | standard@1 | pyautoattack standard | 1.00 | 2.00 | 0.50 (0.45 to 0.75) |" in line
    assert line.endswith("| 50.0 % | 50.0 % |")


@pytest.mark.parametrize(
    ("seconds", "robust", "met"), [(1.1, 5, "yes"), (1.3, 5, "NO"), (1.1, 6, "NO"), (1.1, 4, "yes")]
)
def test_a_battery_must_be_fast_and_as_strong(attacks: ModuleType, seconds: float, robust: int, met: str) -> None:
    text = page(attacks, row(attacks, "standard-robust-feedforward"), [standard(seconds, 2.0, robust)] * 3)
    (line,) = [line for line in text if line.startswith("| standard@1 |")]
    assert line.endswith(f"| {met} |")


@pytest.mark.parametrize(("seconds", "met"), [(0.75, "yes"), (0.85, "NO")])
def test_pgd_is_measured_against_the_fastest_peer(attacks: ModuleType, seconds: float, met: str) -> None:
    one = row(attacks, "pgd-robust")
    found = {"PGD-40": run(seconds)} | {peer.label: run(9.0) for peer in one.against} | {"foolbox LinfPGD": run(1.0)}
    (line,) = [line for line in page(attacks, one, [found] * 3) if line.startswith("| PGD-40 |")]
    assert "(foolbox LinfPGD)" in line
    assert line.endswith(f"| {met} |")


def test_what_was_not_measured_is_said(attacks: ModuleType) -> None:
    one = row(attacks, "square")
    text = "\n".join(page(attacks, one, []))
    assert "adv-lib is left out: it does not import (No module named 'distutils')" in text
    text = attacks.attacks_page.page([one], SETTINGS, {})
    assert f"| {one.name} | {one.model} | not measured |" in text
    assert "A trial" not in text
    assert "no figure here is a result" in "\n".join(page(attacks, one, [], trial=True))


def test_images_outside_the_ball_are_reported(attacks: ModuleType) -> None:
    found = {"Square": run(1.0), "pyautoattack Square": run(1.0, outside=2)}
    text = "\n".join(page(attacks, row(attacks, "square"), [found]))
    assert "pyautoattack Square returned up to 2 images outside ball or box" in text


def test_a_killed_run_goes_on_and_other_settings_begin_anew(attacks: ModuleType, tmp_path: Path) -> None:
    one, file = row(attacks, "square", 2), tmp_path / "page.json"
    found = {"Square": run(1.0), "pyautoattack Square": run(1.0)}
    attacks._State(file, SETTINGS).add(one, found)
    again = attacks._State(file, SETTINGS)
    assert again.repetitions(one) == [found]
    assert not again.complete(one)
    again.add(one, found)
    assert attacks._State(file, SETTINGS).complete(one)
    assert attacks._State(file, SETTINGS).repetitions(replace(one, examples=11)) == []
    assert attacks._State(file, {**SETTINGS, "code": "abd"}).repetitions(one) == []


@pytest.mark.slow
def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    out = tmp_path / "page.md"
    command = [sys.executable, str(FOLDER / "attacks.py"), "--quick", "--out", str(out)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads(out.with_suffix(".json").read_text())
    assert set(stored["rows"]) == ROWS
    for name, each in stored["rows"].items():
        assert all(set(repetition) == set(each["asked"]["who"]) for repetition in each["repetitions"])
        for who, measured in each["repetitions"][0].items():
            assert 0 <= measured["robust"] <= 4
            assert measured["outside"] == 0, (name, who)
    text = out.read_text()
    assert "not measured" not in text
    assert "no figure here is a result" in text
    lines = [line.split(" | ")[0].strip("| ") for line in text.split("## Measured")[1].splitlines() if "% |" in line]
    assert set(lines) == ROWS
    for package, name in {
        "foolbox": "foolbox",
        "art": "ART",
        "torchattacks": "torchattacks",
        "adv_lib": "adv-lib",
    }.items():
        assert (name in text) if package in stored["settings"]["peers"] else (package in stored["settings"]["missing"])
