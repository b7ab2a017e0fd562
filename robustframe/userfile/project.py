"""A folder of the user's code: its modules import each other as they do for a script, and nobody else sees them.

Python keeps one module of a name for the whole process, so two defences that both have a ``helper.py`` would get one
helper. Here the modules of a folder are not found by a changed ``sys.path``, which is everyone's, but by an
``__import__`` of the folder's own. An import statement asks the builtins of the module it stands in, whenever it is
carried out and in whichever thread; so imports inside functions, at the time a model is called, are served as well.
"""

import builtins
import importlib
import importlib.util
import re
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from robustframe.draws import derive_seed

USER_MODULE = "_robustframe_user_"
"""How the names of modules begin that were loaded by path; what follows depends on where the file lies."""
LIBRARIES = frozenset({"robustframe", "torch", "torchvision", "timm", "torchattacks", "numpy"})
"""Packages that are nobody's own code, wherever they are installed."""

_PRIVATE = re.compile(rf"{USER_MODULE}\d+\.")
_loading = threading.RLock()


class Project:
    """The modules that one load of a user's file brings with it.

    Each load has a project of its own: a file that is loaded again is run again, with whatever it imports from its
    folder, as a script would be. In ``sys.modules`` its modules stand under private names, where dataclasses and
    `inspect` look for them; the latest load has the names, and an earlier one still has its modules.

    Args:
        path: the user's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.folder = self.path.parent
        self.name = f"{USER_MODULE}{derive_seed(self.path)}"
        self.modules: dict[str, ModuleType] = {}
        """By private name."""
        self.sources: dict[Path, bytes] = {}
        """What was run of each file."""
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._held: dict[str, bool] = {}

    def holds(self, name: str) -> bool:
        """Say whether an absolute import of a name by code of the folder means a module of the folder."""
        top = name.partition(".")[0]
        if top not in self._held:
            self._held[top] = self._holds(top)
        return self._held[top]

    def _holds(self, top: str) -> bool:
        # What Python itself finds before it looks at the folder of a script; and robustframe, of which there is one.
        if top in LIBRARIES or BuiltinImporter.find_spec(top) or FrozenImporter.find_spec(top):
            return False
        if not is_users(self.path):
            return False
        spec = find_in(top, [str(self.folder)])
        if spec is None:
            return False
        # A folder without __init__.py, of data perhaps, is a package only where nothing else has the name.
        return spec.loader is not None or find_public(top) is None

    def run(self) -> ModuleType:
        """Run the user's file, and return it as a module.

        Raises:
            Exception: whatever the file raises; nothing of it is left then.
        """
        importlib.invalidate_caches()
        before = {name: module for name, module in sys.modules.items() if name.startswith(f"{self.name}.")}
        for name in before:
            del sys.modules[name]
        try:
            return self._execute(_source_spec(f"{self.name}.{self.path.stem.replace('.', '_')}", self.path))
        except BaseException:
            for name in [name for name in sys.modules if name.startswith(f"{self.name}.")]:
                del sys.modules[name]
            sys.modules.update(before)
            raise

    def load(self, name: str) -> ModuleType:
        """Return a module of the folder, run if it has not been.

        Args:
            name: as the folder's files call it, such as ``"pkg.net"``.

        Raises:
            ModuleNotFoundError: when there is none.
        """
        full = f"{self.name}.{name}"
        with _loading:
            if full in self.modules:
                return self.modules[full]
            parent, _, tail = name.rpartition(".")
            package = self.load(parent) if parent else None
            if full in self.modules:
                return self.modules[full]
            path = [str(self.folder)] if package is None else getattr(package, "__path__", None)
            spec = None if path is None else find_in(tail, path)
            if spec is None:
                reason = f"; {parent!r} is not a package" if path is None else ""
                raise ModuleNotFoundError(f"No module named {name!r}{reason}", name=name)
            module = self._execute(_renamed(spec, full))
            if package is not None:
                setattr(package, tail, module)
            return module

    def _execute(self, spec: ModuleSpec) -> ModuleType:
        with _loading:
            if isinstance(spec.loader, _Source):
                spec.loader.kept = self.sources
            module = importlib.util.module_from_spec(spec)
            vars(module)["__builtins__"] = self._builtins
            self.modules[spec.name] = sys.modules[spec.name] = module
            try:
                if spec.loader is not None:
                    spec.loader.exec_module(module)
            except BaseException:
                del self.modules[spec.name]
                sys.modules.pop(spec.name, None)
                raise
            # A module may put another object in its own place.
            self.modules[spec.name] = sys.modules.get(spec.name, module)
            return self.modules[spec.name]

    def _private(self, name: str, scope: Mapping[str, Any], level: int) -> str | None:
        """Return what the folder calls a module that an import statement names; ``None`` for a module of others."""
        if level:
            package = str(scope.get("__package__") or "")
            name = importlib.util.resolve_name("." * level + name, package)
        # A private name is met where code puts names together from __name__ or __package__.
        if name == self.name or name.startswith(f"{self.name}."):
            return name[len(self.name) + 1 :]
        return name if not level and self.holds(name) else None

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Stand in for ``builtins.__import__`` in the folder's modules."""
        private = self._private(name, globals or {}, level)
        if private is None:
            found = builtins.__import__(name, globals, locals, fromlist or (), level)
            return _Importlib(self) if found is importlib else found
        if not private:
            return self._from_folder(fromlist or ())
        module = self.load(private)
        if not fromlist:
            return module if level else self.load(private.partition(".")[0])
        wanted = list(fromlist)
        if "*" in wanted:
            wanted += getattr(module, "__all__", [])
        for each in wanted:
            if each != "*" and not hasattr(module, each) and hasattr(module, "__path__"):
                self._try(f"{private}.{each}")
        return module

    def _from_folder(self, names: Sequence[str]) -> ModuleType:
        """Answer ``from . import name`` in a file that lies directly in the folder."""
        package = ModuleType(self.name)
        for name in names:
            if self._try(name):
                setattr(package, name, self.load(name))
        return package

    def _try(self, name: str) -> bool:
        try:
            self.load(name)
        except ModuleNotFoundError as error:
            # One that the module itself lacks is an error of the module.
            if error.name != name:
                raise
            return False
        return True

    def import_module(self, name: str, package: str | None = None) -> Any:
        """Stand in for `importlib.import_module` in the folder's modules."""
        level = len(name) - len(name.lstrip("."))
        private = self._private(name[level:], {"__package__": package}, level)
        return importlib.import_module(name, package) if private is None else self.load(private)


class _Importlib(ModuleType):
    """`importlib` as the folder's modules see it."""

    def __init__(self, project: Project) -> None:
        super().__init__("importlib")
        self.import_module = project.import_module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _Source(SourceFileLoader):
    """Runs what stands in a file now, and keeps it; bytecode of an earlier second could be that of another text."""

    kept: dict[Path, bytes]

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        self.kept[Path(self.path).resolve()] = source
        code: CodeType = self.source_to_code(source, self.path)
        return code


def _source_spec(name: str, path: Path, folders: Sequence[str] | None = None) -> ModuleSpec:
    spec = importlib.util.spec_from_file_location(
        name, path, loader=_Source(name, str(path)), submodule_search_locations=None if folders is None else [*folders]
    )
    if spec is None:
        raise ImportError(f"{path} is not a Python file")
    return spec


def _renamed(spec: ModuleSpec, name: str) -> ModuleSpec:
    """Return how a module that was found by its plain name is loaded under a private one."""
    folders = spec.submodule_search_locations
    folders = None if folders is None else list(folders)
    if isinstance(spec.loader, SourceFileLoader):
        return _source_spec(name, Path(spec.loader.path), folders)
    if spec.loader is None:
        found = ModuleSpec(name, None, is_package=True)
        found.submodule_search_locations = folders
        return found
    # Compiled code: the loader holds the name of what it loads.
    again = importlib.util.spec_from_file_location(name, spec.origin, submodule_search_locations=folders)
    if again is None:
        raise ImportError(f"{spec.origin} cannot be loaded")
    return again


def project_of(module: ModuleType) -> Project | None:
    """Return the project that a module was loaded in by path."""
    own = getattr(module, "__builtins__", None)
    found = getattr(own.get("__import__"), "__self__", None) if isinstance(own, dict) else None
    return found if isinstance(found, Project) else None


def find_in(tail: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Find a module in some folders, without running anything.

    Args:
        tail: the last part of its name.
        folders: where to look.
    """
    return PathFinder.find_spec(tail, folders)


def find_public(top: str) -> ModuleSpec | None:
    """Find a top-level module as the process does, without running anything."""
    if top in sys.modules:
        return getattr(sys.modules[top], "__spec__", None)
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


@cache
def _installed() -> tuple[Path, ...]:
    paths = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    package = str(Path(__file__).parent.parent)
    return tuple({Path(path).resolve() for path in (*paths, package) if path})


@cache
def is_users(file: Path) -> bool:
    """Say whether a file belongs to the user, and not to Python, an installed package or robustframe."""
    file = file.resolve()
    if {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(place) for place in _installed())


def plain_name(text: str) -> str:
    """Write the private names of loaded modules in a text as the user's files call them.

    >>> plain_name("cannot import name 'f' from '_robustframe_user_123.pkg.net'")
    "cannot import name 'f' from 'pkg.net'"
    """
    return _PRIVATE.sub("", text)
