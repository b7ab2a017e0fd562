"""Imports go down only: this list is the architecture, lowest room first."""

import ast
from pathlib import Path

import robustframe

ROOMS = [
    ["types", "errors"],
    ["files"],
    ["draws"],
    ["userfile"],
    ["threat"],
    ["losses"],
    ["frames"],
    ["solvers"],
    ["pairs"],
    ["data"],
    ["zoo"],
    ["calls"],
    ["gradients"],
    ["probe"],
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
    ["doctor"],
    ["templates"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
PACKAGE = Path(robustframe.__file__).parent


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules of robustframe that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("robustframe"):
            found.add(node.module)
            if node.module == "robustframe":
                found |= {f"robustframe.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("robustframe.relative")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "robustframe"}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in FILES} <= set(LEVEL)


def test_no_import_goes_up() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in FILES
        for module in imports(path)
        if module != "robustframe" and LEVEL.get(module.split(".")[1], 99) > LEVEL[room_of(path)]
    ]
    assert not upward


def test_no_room_imports_the_root_of_the_package() -> None:
    assert not [path for path in FILES if "robustframe" in imports(path)]


def test_recipes_are_no_python_packages() -> None:
    root = PACKAGE.parent
    assert not (root / "attacks" / "__init__.py").exists()
    assert not (root / "evaluations" / "__init__.py").exists()


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from robustframe.evaluation import run\n")
    assert imports(bad) == {"robustframe.evaluation"}
    assert LEVEL["evaluation"] > LEVEL["threat"]
