"""Imports go down only: this list is the architecture, lowest room first."""

import ast
import doctest
import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import robustframe

ROOMS = [
    ["types", "errors", "terminal"],
    ["bar"],
    ["lending"],
    ["plugins"],
    ["children"],
    ["files", "devices"],
    ["draws"],
    ["userfile"],
    ["losses"],
    ["targets", "spaces"],
    ["threat"],
    ["frames"],
    ["solvers"],
    ["pairs"],
    ["data"],
    ["corruptions"],
    ["zoo"],
    ["calls"],
    ["prepared"],
    ["differences"],
    ["gradients"],
    ["probe"],
    ["slopes"],
    ["attacks"],
    ["certify"],
    ["statistics"],
    ["diagnose"],
    ["recipe"],
    ["runs"],
    ["models"],
    ["train"],
    ["evaluation"],
    ["report"],
    ["verification"],
    ["compat"],
    ["doctor"],
    ["templates"],
    ["cli"],
    ["__main__"],
]
WHEN_CALLED = {
    ("runs/run.py", "robustframe.report"): "`Run.table` is what the reader of a run asks for first",
    ("runs/run.py", "robustframe.verification"): "`Run.verify` belongs to the run that it judges",
}
"""Imports that may go up, inside of the functions that need them, each with its reason: public methods of a run."""
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
PACKAGE = Path(robustframe.__file__).parent


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _named(module: str, name: str) -> str:
    """The module that ``from module import name`` reaches."""
    inside = PACKAGE.parent / module.replace(".", "/") / name
    below = module == "robustframe" or inside.is_dir() or inside.with_suffix(".py").is_file()
    return f"{module}.{name}" if below else module


def imports(path: Path) -> set[str]:
    """Modules of robustframe that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("robustframe"):
            found |= {_named(node.module, alias.name) for alias in node.names}
            found |= {"robustframe"} & {node.module}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("robustframe.relative")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "robustframe"}
    return found


USERS = [PACKAGE / "templates" / kind for kind in ("attack", "defence")]
"""Files that are copied to a user, and no modules of ours."""
ALL = sorted(path for path in PACKAGE.rglob("*.py") if path.parent not in USERS)
FILES = [path for path in ALL if path != PACKAGE / "__init__.py"]


def downward(path: Path) -> set[str]:
    """What a file imports, but for what stands in `WHEN_CALLED`."""
    place = path.relative_to(PACKAGE).as_posix()
    free = [module for file, module in WHEN_CALLED if file == place]
    return {each for each in imports(path) if not any(f"{each}.".startswith(f"{module}.") for module in free)}


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in FILES} <= set(LEVEL)


def test_no_import_goes_up() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in FILES
        for module in downward(path)
        if module != "robustframe" and LEVEL.get(module.split(".")[1], 99) > LEVEL[room_of(path)]
    ]
    assert not upward


def test_no_room_imports_the_root_of_the_package() -> None:
    assert not [path for path in FILES if "robustframe" in imports(path)]


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Every circle of imports, until none is left."""
    left = {module: set(imported) for module, imported in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
            return found
        except CycleError as error:
            circle = error.args[1][::-1]
            found.append(" imports ".join(circle))
            left[circle[0]].discard(circle[1])


def modules() -> dict[str, Path]:
    """The file of each module of the package, by its name."""
    names = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in ALL}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def test_no_module_imports_itself_in_a_circle() -> None:
    known = modules()
    graph = {name: {each for each in downward(path) if each in known and each != name} for name, path in known.items()}
    assert not circles(graph)


def beside(folder: Path) -> dict[str, set[str]]:
    """Which scripts of a folder import which others there."""
    files = {path.stem: path for path in folder.glob("*.py")}
    found = {}
    for name, path in files.items():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        named |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        found[name] = named & set(files)
    return found


@pytest.mark.parametrize("kind", ["benchmarks", "evaluations", "docs"])
def test_no_script_imports_itself_in_a_circle(kind: str) -> None:
    root = PACKAGE.parent / kind
    for folder in {path.parent for path in root.rglob("*.py")}:
        assert not circles(beside(folder)), folder


def test_what_may_go_up_does_so_only_when_it_is_called() -> None:
    for place, module in WHEN_CALLED:
        path = PACKAGE / place
        assert any(f"{each}.".startswith(f"{module}.") for each in imports(path)), f"{place} does not need it any more"
        at_once = [node.module for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert not [each for each in at_once if f"{each}.".startswith(f"{module}.")]


def twice(named: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Of names and their places, those that stand in several."""
    places = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: sorted(found) for name, found in places.items() if len(found) > 1}


def test_no_class_name_stands_twice() -> None:
    classes = [
        (node.name, path.relative_to(PACKAGE).as_posix())
        for path in ALL
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert not twice(classes)


def test_no_module_name_stands_twice_in_a_room() -> None:
    """Counting the folders themselves: ``recipe/recipe.py`` would be one too many."""
    rooms = {path for path in PACKAGE.iterdir() if path.is_dir()}
    for room in sorted(rooms):
        files = [path for path in ALL if room in path.parents and path.name != "__init__.py"]
        folders = {parent for path in files for parent in path.parents if room in (parent, *parent.parents)}
        places = [(path.stem, path.relative_to(PACKAGE).as_posix()) for path in [*files, *folders]]
        assert not twice(places)


@pytest.mark.parametrize("name", [name for name, path in modules().items() if ">>>" in path.read_text()])
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_recipes_are_no_python_packages() -> None:
    root = PACKAGE.parent
    assert not (root / "attacks" / "__init__.py").exists()
    assert not (root / "evaluations" / "__init__.py").exists()


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from robustframe.evaluation import run\n")
    assert imports(bad) == {"robustframe.evaluation"}
    assert LEVEL["evaluation"] > LEVEL["threat"]


def test_the_checks_see_a_circle_and_a_name_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def f():\n    from two import g\n")
    (tmp_path / "two.py").write_text("import one\n")
    assert circles(beside(tmp_path)) in (["one imports two imports one"], ["two imports one imports two"])
    assert twice([("A", "x"), ("B", "x"), ("A", "y")]) == {"A": ["x", "y"]}


FORMATS = {"read_parquet", "scan_parquet", "safetensors", "loads", "model_validate_json"}
BELOW = {"read_record", "read_run", "read_table", "read_manifest"}
READS = {
    "evaluation": FORMATS,
    "verification": FORMATS,
    **{room: FORMATS | BELOW for room in ("report", "doctor", "cli", "scripts")},
}
"""By room above `runs/`, by what names it could read a run by itself: the formats, and what lies below `open_run`."""
OTHER_FILES = {"robustframe/report/site/folder.py": {"loads"}, "evaluations/study.py": {"model_validate_json"}}
"""What is read there is not a run: the list of a site's own files, and the figures of a study."""


def named(path: Path) -> set[str]:
    """Every name that a file calls, looks up or imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_a_run_is_read_through_its_own_room() -> None:
    rooms = {path: room_of(path) for path in FILES}
    rooms |= dict.fromkeys(sorted((PACKAGE.parent / "evaluations").glob("*.py")), "scripts")
    found = []
    for path, room in rooms.items():
        place = path.relative_to(PACKAGE.parent).as_posix()
        bad = (named(path) & READS.get(room, set())) - OTHER_FILES.get(place, set())
        found += [f"{place}: {name}" for name in sorted(bad)]
    assert not found


def test_the_check_sees_a_reader(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import polars as pl\nfrom safetensors.torch import load\npl.read_parquet('verdicts.parquet')\n")
    assert {"read_parquet", "safetensors"} <= named(bad)
