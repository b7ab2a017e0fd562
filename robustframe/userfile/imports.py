"""Which files a piece of the user's code consists of: what it imports, read off the source without running anything."""

import ast
import hashlib
import importlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from robustframe.userfile.project import LIBRARIES, Project, find_in, find_public, is_users, project_of

_Import = tuple[int, str, tuple[str, ...]]
"""An import statement: how many dots, the module, and what is taken from it."""


@dataclass(frozen=True)
class UserCode:
    """The user's code behind something, by file."""

    files: dict[str, str]
    """SHA-256 of each source file, by its path relative to the folder that imports start from."""
    compiled: tuple[str, ...]
    """Modules of the user's that have no source."""
    packages: tuple[str, ...]
    """Top-level names of the installed packages that the files import."""


@dataclass(frozen=True)
class UserModule:
    """One module of the user's."""

    name: str
    """As imports call it."""
    file: Path
    is_package: bool
    project: Project | None
    """The folder it was loaded from by path; ``None`` for a module that the whole process sees."""

    @property
    def label(self) -> str:
        """Where it lies, wherever the whole lies."""
        if self.project is not None and self.file.is_relative_to(self.project.folder):
            return self.file.relative_to(self.project.folder).as_posix()
        inner = self.name.split(".")[:-1] if not self.is_package else self.name.split(".")
        return "/".join([*inner, self.file.name])

    @property
    def root(self) -> Path:
        """The folder that the label is relative to."""
        return self.file.parents[min(self.label.count("/"), len(self.file.parents) - 1)]

    @property
    def package(self) -> list[str]:
        """What its relative imports start from."""
        parts = self.name.split(".")
        return parts if self.is_package else parts[:-1]

    def read(self) -> bytes | None:
        """Return its source as it was run, or as it would be now; ``None`` where there is none."""
        if self.file.suffix != ".py":
            return None
        if self.project is not None and self.file.resolve() in self.project.sources:
            return self.project.sources[self.file.resolve()]
        try:
            return self.file.read_bytes()
        except OSError:
            return None


def files_of(path: Path, module: ModuleType | None = None) -> dict[str, str]:
    """Return the SHA-256 of a user's file and of every module of the user's that it imports, transitively.

    Imports inside functions count, and so do those that only some machines carry out. Modules that belong to Python or
    an installed package do not.

    Args:
        path: the file, as ``file:PATH.py:NAME`` has it.
        module: what `load_user_file` made of it. Then each file is stated as it was run, even if it has been edited
            since, and modules are included that were imported by a name put together while it ran.

    Returns:
        By path relative to the file's folder; modules of the user's elsewhere by their path as imports spell it.
    """
    return code_behind([module if module is not None else path]).files


def code_behind(starts: Iterable[Path | ModuleType]) -> UserCode:
    """Return the user's code behind some files and modules; see `files_of`.

    Args:
        starts: files to be loaded by path, and modules as they are loaded now.
    """
    importlib.invalidate_caches()
    pending = [module for start in starts for module in _start(start)]
    seen: set[tuple[Path, bool]] = set()
    files: dict[str, str] = {}
    compiled: dict[str, None] = {}
    packages: set[str] = set()
    while pending:
        module = pending.pop()
        key = (module.file.resolve(), module.project is None)
        if key in seen:
            continue
        seen.add(key)
        source = module.read()
        if source is None:
            compiled[module.label] = None
            continue
        _state(files, module.label, hashlib.sha256(source).hexdigest())
        for name in _names(_imports(source), module):
            pending += _located(name, module.project, packages)
    return UserCode(dict(sorted(files.items())), tuple(sorted(compiled)), tuple(sorted(packages)))


def module_behind(module: ModuleType) -> UserModule | None:
    """Return a loaded module as a file of the user's; ``None`` for one of others, or without a file.

    A file that the user named is the user's wherever it lies.
    """
    file, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    if not isinstance(file, str):
        return None
    project = project_of(module)
    if project is not None:
        return UserModule(name.removeprefix(f"{project.name}."), Path(file), hasattr(module, "__path__"), project)
    if name.partition(".")[0] in LIBRARIES or not is_users(Path(file)):
        return None
    if name == "__main__":
        # What `python -m` runs has its name there; a script is called as others would import it.
        spec = getattr(module, "__spec__", None)
        name = Path(file).stem if spec is None else spec.name
    return UserModule(name, Path(file), hasattr(module, "__path__"), None)


def _start(start: Path | ModuleType) -> list[UserModule]:
    if isinstance(start, Path):
        project = Project(start)
        return [UserModule(start.stem.replace(".", "_"), project.path, False, project)]
    project_found = project_of(start)
    modules = [start] if project_found is None else list(project_found.modules.values())
    return [module for each in modules if (module := module_behind(each)) is not None]


def _state(files: dict[str, str], label: str, sha256: str) -> None:
    """Note a file; two files can share a label where one lies in the folder and one elsewhere."""
    while files.get(label, sha256) != sha256:
        label += " (another)"
    files[label] = sha256


def _located(name: str, project: Project | None, packages: set[str]) -> Iterator[UserModule]:
    """Find a module and the packages around it, as far as they are the user's; note the others' package."""
    first, *rest = name.split(".")
    within = project if project is not None and project.holds(first) else None
    dotted = first
    spec = _users(first, packages) if within is None else find_in(first, [str(within.folder)])
    while spec is not None:
        folders = spec.submodule_search_locations
        if spec.has_location and spec.origin is not None:
            yield UserModule(dotted, Path(spec.origin), folders is not None, within)
        if not rest or folders is None:
            return
        tail = rest.pop(0)
        dotted = f"{dotted}.{tail}"
        spec = find_in(tail, list(folders))


def _users(top: str, packages: set[str]) -> ModuleSpec | None:
    if top in sys.stdlib_module_names or top == "__main__":
        return None
    spec = None if top in LIBRARIES else find_public(top)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    if any(is_users(Path(place)) for place in places):
        return spec
    if top in LIBRARIES or spec is not None:
        packages.add(top)
    return None


def _names(imports: Iterable[_Import], module: UserModule) -> Iterator[str]:
    """Spell out which modules some import statements of a module may mean."""
    for level, name, taken in imports:
        base: list[str] = []
        if level:
            if level - 1 > len(module.package):
                continue
            base = module.package[: len(module.package) - level + 1]
        base = [*base, *name.split(".")] if name else base
        if base:
            yield ".".join(base)
        yield from (".".join([*base, each]) for each in taken if each != "*")


@lru_cache(maxsize=4096)
def _imports(source: bytes) -> tuple[_Import, ...]:
    """Read the import statements off a source, wherever they stand; a file that does not parse has none."""
    try:
        with warnings.catch_warnings():
            # What Python has to say about the file it says when it runs it.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: list[_Import] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        # Expressions, most of a file, hold no import statement.
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            pending += inner if isinstance(inner, list) else []
    if b"import_module" in source or b"__import__" in source:
        found += _calls(tree)
    return tuple(found)


def _calls(tree: ast.AST) -> Iterator[_Import]:
    """Find ``import_module("NAME")`` and ``__import__("NAME")``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        name = node.args[0].value
        if called in ("import_module", "__import__") and isinstance(name, str):
            plain = name.lstrip(".")
            yield len(name) - len(plain), plain, ()
