"""The doctor says what is wrong and how to mend it, and is never brought down by what it finds."""

import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from robustframe import doctor
from robustframe.data import presence, shipped
from robustframe.doctor import Item, examine, report, short_lines

ROOT = Path(__file__).parents[2]


def find(items: list[Item], name: str) -> Item:
    (item,) = [each for each in items if each.name == name]
    return item


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place, without data sets of the machine."""
    for variable in ("ROBUSTFRAME_DATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "data"))
    monkeypatch.setattr(presence, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    return tmp_path


def test_a_whole_installation_is_well(here: Path) -> None:
    items = list(examine(here / "runs"))
    assert report(items)["ok"], [str(item) for item in items if item.state == "wrong"]
    assert find(items, "torch").state == "ok"
    assert find(items, "fmnist-chain3").says.startswith("SHA-256 45905df3")
    assert find(items, "fashion-mnist test").says == "shipped, hash checked"
    assert "standard@1" in find(items, "batteries").says
    assert not (here / "runs").exists()
    assert not list(here.iterdir())


def test_data_that_is_not_here_comes_with_its_command(here: Path) -> None:
    cifar = find(list(examine(here)), "cifar10 test")
    assert cifar.state == "note"
    assert cifar.fix == "python -c \"from robustframe.data import load; load('cifar10', 'test', download=True)\""
    batch = here / "data" / "cifar-10-batches-py" / "test_batch"
    batch.parent.mkdir(parents=True)
    batch.touch()
    assert find(list(examine(here)), "cifar10 test").says == f"in {here / 'data'}"
    assert find(list(examine(here, here / "elsewhere")), "cifar10 test").state == "note"


def versions(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None]) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name not in changed:
            return true(name)
        found = changed[name]
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor.metadata, "version", version)


@pytest.mark.parametrize(
    ("name", "version", "state", "says", "fix"),
    [
        ("torchattacks", None, "note", "not installed", "pip install --no-deps torchattacks==3.5.1"),
        ("torchattacks", "3.3.0", "wrong", "3.3.0 is installed; attacks of torchattacks need exactly 3.5.1",
         "pip install --no-deps torchattacks==3.5.1"),
        ("torchattacks", "3.5.10", "wrong", "exactly 3.5.1", "pip install --no-deps torchattacks==3.5.1"),
        ("polars", "0.20.31", "wrong", "0.20.31; >=1.0 is needed", "pip install 'polars>=1.0'"),
        ("scipy", None, "wrong", "not installed; >=1.11 is needed", "pip install 'scipy>=1.11'"),
        ("torch", "2.14.1+cu130", "ok", "2.14.1+cu130", ""),
        ("pyautoattack", None, "note", "not installed (extra bench)", "pip install 'robustframe[bench]'"),
        ("ruff", "0.1.0", "note", "0.1.0, but >=0.6 is asked for", "pip install 'robustframe[dev]'"),
        ("robustframe", None, "wrong", "imported, but not installed", "pip install -e ."),
    ],
)  # fmt: skip
def test_versions_are_held_to_what_is_asked_for(
    name: str, version: str | None, state: str, says: str, fix: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, {name: version})
    items = list(examine(here))
    found = find(items, name)
    assert (found.state, found.fix) == (state, fix)
    assert says in found.says
    assert report(items)["ok"] is (state != "wrong")


def broken(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    true = importlib.import_module

    def import_module(wanted: str, *rest: Any) -> Any:
        if wanted == name:
            raise error
        return true(wanted, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)


@pytest.mark.parametrize(
    ("requests", "state", "says", "fix"),
    [
        ("2.32.5", "ok", "`pip check` names requests~=2.25.1, which it pins and never imports", ""),
        (None, "ok", "`pip check` names requests~=2.25.1", ""),
        ("2.25.1", "note", "holds requests at 2.25.1, with known holes", "pip install --upgrade requests urllib3 idna"),
    ],
)
def test_torchattacks_comes_without_what_it_pins(
    requests: str | None, state: str, says: str, fix: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, {"requests": requests})
    found = find(list(doctor._extras()), "torchattacks")
    assert (found.state, found.fix) == (state, fix)
    assert says in found.says


def test_the_line_that_installs_torchattacks_is_the_same_everywhere() -> None:
    line = "pip install --no-deps torchattacks==3.5.1"
    for path in ("docs/first-hour.md", "robustframe/attacks/adapters.py", ".ci/run"):
        assert line in (ROOT / path).read_text(encoding="utf-8"), path
    assert "--no-deps torchattacks==3.5.1" in (ROOT / "Makefile").read_text(encoding="utf-8")
    # With any other line it brings requests 2.25.1, urllib3 1.26 and idna 2.10.
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "torchattacks" not in str([asked["dependencies"], asked["optional-dependencies"]])


def test_pip_check_names_that_pin_and_nothing_else() -> None:
    found = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == [
        f"torchattacks 3.5.1 has requirement requests~=2.25.1, but you have requests {metadata.version('requests')}."
    ]
    for name, least in {"requests": "2.32", "urllib3": "2.5", "idna": "3.7"}.items():
        assert Version(metadata.version(name)) >= Version(least), name


@pytest.mark.parametrize("error", [ImportError("no libfoo.so"), RuntimeError("bad build"), SystemExit(3)], ids=str)
def test_a_broken_extra_is_noted_and_a_broken_dependency_is_wrong(
    error: BaseException, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "torchattacks", error)
    items = list(examine(here))
    extra = find(items, "torchattacks")
    assert extra.state == "note"
    assert f"its import fails: {type(error).__name__}" in extra.says
    assert report(items)["ok"]
    broken(monkeypatch, "torch", error)
    items = list(examine(here))
    assert find(items, "torch").state == "wrong"
    assert find(items, "devices").says.startswith("it could not be examined")
    assert find(items, "fmnist-chain3").state == "ok"


def test_what_is_said_fits_one_screen_and_what_is_wrong_is_said_in_full(here: Path) -> None:
    well = [*examine(here)]
    lines = list(short_lines(well, 100))
    assert len(lines) < 22
    assert all(len(line) <= 100 for line in lines if line.split()[1] in ("dependencies", "extras", "data", "zoo"))
    zoo = sum(item.section == "zoo" for item in well)
    assert any(
        line.startswith(f"ok     zoo           {zoo}: digits-fc2-8, ") and line.endswith(", ...") for line in lines
    )
    ill = Item("zoo", "x", "wrong", "it is damaged", "pip install it")
    assert str(ill) in list(short_lines([*well, ill], 100))
    missing = Item("data", "mnist test", "note", "not here")
    assert list(short_lines([missing], 80)) == ["note   data          1: mnist test"]


def test_the_stray_robustbench_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(list(examine(here)), "robustbench")
    assert (found.state, "came with torchattacks" in found.says) == ("note", True)
    versions(monkeypatch, {"robustbench": "1.1"})
    assert "RobustBench 1.1 is installed too" in find(list(examine(here)), "robustbench").says
    monkeypatch.setattr(doctor.metadata, "files", lambda name: [])
    assert not [item for item in examine(here) if item.name == "robustbench"]


def spoil_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del here
    monkeypatch.setitem(shipped.MANIFEST, "digits/digits.safetensors", "0" * 64)


def spoil_zoo(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustframe.zoo import ZOO, store

    for file in ZOO.glob("fmnist-chain3.*"):
        (here / file.name).write_bytes(file.read_bytes()[: -10 if file.suffix == ".safetensors" else None])
    monkeypatch.setattr(store, "ZOO", here)


def spoil_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del here

    def refuse(**where: object) -> None:
        raise PermissionError(13, "Permission denied", str(where))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)


def fill_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del here
    usage = doctor.shutil.disk_usage("/")._replace(free=2**20)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)


def old_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del here
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4))


@pytest.mark.parametrize(
    ("spoil", "section", "says"),
    [
        (spoil_data, "data", "altered or truncated"),
        (spoil_zoo, "zoo", "is not the file its card describes"),
        (spoil_disk, "disk", "cannot be written (Permission denied)"),
        (fill_disk, "disk", "a run needs more"),
        (old_python, "environment", "3.10.4"),
    ],
)
def test_what_is_needed_and_wrong_is_named(
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    section: str,
    says: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(here, monkeypatch)
    items = list(examine(here))
    wrong = [item for item in items if item.state == "wrong"]
    assert [item.section for item in wrong] == [section]
    assert says in wrong[0].says
    assert str(wrong[0]).startswith("WRONG")


@pytest.mark.slow
def test_the_command_ends_with_0_or_1(here: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "robustframe", "doctor", *words]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)

    well = run()
    assert well.returncode == 0, well.stdout
    assert "\nEverything needed is here.\n" in well.stdout
    found = json.loads(run("--json").stdout)
    assert found["ok"] is True
    (here / "file").write_text("")
    ill = run("--runs", "file/runs")
    assert ill.returncode == 1
    assert "1 thing needed is wrong." in ill.stdout
    assert "Traceback" not in ill.stderr
