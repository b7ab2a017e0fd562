"""What installed packages add by entry points; `.ci/run` installs the example into an environment of its own."""

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import robustframe
from robustframe import plugins
from robustframe.attacks.registry import make_attack, words_of
from robustframe.cli import app
from robustframe.data import available, load
from robustframe.errors import InputError
from robustframe.models.sources import find_model
from robustframe.plugins import find_plugin
from robustframe.recipe import ModelSpec, load_battery

EXAMPLE = Path(__file__).parents[1] / "plugin"


def put(folder: Path, name: str, version: str, points: dict[str, dict[str, str]]) -> None:
    """Write what pip writes of a package, so that its entry points are found."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    place.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in each.items()) for group, each in points.items()
    ]
    place.joinpath("entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    plugins._installed.cache_clear()
    yield folder
    plugins._installed.cache_clear()


@pytest.fixture
def example(packages: Path) -> Path:
    shutil.copytree(EXAMPLE / "robustframe_example", packages / "robustframe_example")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    put(packages, project["name"], project["version"], project["entry-points"])
    return packages


def test_a_recipe_of_a_packages_own_things_runs_and_is_verified(example: Path, tmp_path: Path) -> None:
    run = robustframe.evaluate_recipe(EXAMPLE / "recipe.toml", out=tmp_path / "run")
    assert [each.name for each in run.record.classifiers] == ["linear", "deep"]
    assert run.record.data.use == "stripes"
    assert run.results[0].attacks[0].label == "lab@1/01-straight"
    assert "robustframe-example 1.2: robustframe_example" in run.record.classifiers[0].code
    assert robustframe.verify(run.folder).ok
    # The code of the attack belongs to what is asked.
    code = example / "robustframe_example" / "__init__.py"
    code.write_text(code.read_text() + "\n# another attack, who knows\n")
    found = robustframe.verify(run.folder)
    assert not found.ok


def test_everything_lists_what_is_added(example: Path) -> None:
    assert "stripes" in available()
    for what, name in (
        ("attacks", "straight"),
        ("models", "example:NAME"),
        ("data", "stripes"),
        ("batteries", "lab@1"),
    ):
        said = CliRunner().invoke(app, ["list", what])
        assert said.exit_code == 0
        assert name in said.stdout
    assert load_battery("lab").cited == "lab@1"
    attack = make_attack("straight", {"steps": 3})
    assert words_of(attack) == {"use": "straight", "steps": 3}


def test_what_nobody_adds_is_refused_with_what_is_there(example: Path) -> None:
    for ask in (
        lambda: make_attack("strait", {}),
        lambda: load("stripe"),
        lambda: load_battery("labs"),
        lambda: find_model(ModelSpec(use="exampel:linear"), folder=Path()),
    ):
        with pytest.raises(InputError, match=r"straight|stripes|lab@1|example:NAME"):
            ask()


BROKEN = """
def fails(*given):
    raise RuntimeError("not today")


def nothing(*given):
    return None


number = 3
"""


@pytest.mark.parametrize(
    ("group", "value", "sentence"),
    [
        ("attacks", "broken_one:number", "mine of broken 0.1 is not a subclass of robustframe.attacks.Attack"),
        ("attacks", "broken_one:missing", "mine of broken 0.1 cannot be loaded: .*missing"),
        ("attacks", "no_such_module:A", "mine of broken 0.1 cannot be loaded: .*no_such_module"),
        ("attacks", "ends_all:A", "mine of broken 0.1 cannot be loaded: .*SystemExit"),
        ("models", "broken_one:fails", "mine:x of broken 0.1 failed: .*not today"),
        ("models", "broken_one:nothing", "mine:x of broken 0.1 built no model"),
        ("data", "broken_one:fails", "the data mine of broken 0.1 failed: .*not today"),
        ("data", "broken_one:nothing", "the data mine of broken 0.1 failed"),
        ("batteries", "broken_one:number", "the battery mine of broken 0.1 is not the path of a TOML file"),
    ],
)
def test_a_package_that_is_broken_is_named(packages: Path, group: str, value: str, sentence: str) -> None:
    packages.joinpath("broken_one.py").write_text(BROKEN)
    packages.joinpath("ends_all.py").write_text("import sys\n\nsys.exit(7)\n")
    put(packages, "broken", "0.1", {f"robustframe.{group}": {"mine": value}})
    asked: dict[str, Any] = {
        "attacks": lambda: make_attack("mine", {}),
        "models": lambda: find_model(ModelSpec(use="mine:x"), folder=Path()),
        "data": lambda: load("mine"),
        "batteries": lambda: load_battery("mine"),
    }
    with pytest.raises(InputError, match=sentence):
        asked[group]()


def test_one_name_of_two_packages_is_refused_and_ours_is_never_replaced(packages: Path) -> None:
    packages.joinpath("broken_one.py").write_text(BROKEN)
    for name in ("one", "two"):
        put(packages, name, "1", {"robustframe.attacks": {"mine": "broken_one:number", "pgd": "broken_one:number"}})
    with pytest.raises(InputError, match="one 1 and two 1 both add 'mine' to attacks; uninstall one of them"):
        make_attack("mine", {})
    assert type(make_attack("pgd", {})).__module__ == "robustframe.attacks.pgd"
    assert find_plugin("data", "mine") is None
