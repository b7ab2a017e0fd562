"""What installed packages add by entry points: attacks, sources of models, data sets and batteries."""

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from robustframe.errors import InputError, told
from robustframe.lending import contained

Group = Literal["attacks", "models", "data", "batteries"]


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package in the group ``robustframe.GROUP``."""

    group: Group
    name: str
    """What recipes and batteries call it."""
    package: str
    version: str
    place: str
    """``MODULE:OBJECT``."""

    @property
    def label(self) -> str:
        """The package with its version."""
        return f"{self.package} {self.version}"

    def load(self) -> Any:
        """Import what it names.

        Raises:
            InputError: when that fails, with the package.
        """
        try:
            with contained():
                return metadata.EntryPoint(self.name, self.place, f"robustframe.{self.group}").load()
        except Exception as error:
            raise InputError(f"{self.name} of {self.label} cannot be loaded: {told(error)}") from error

    def files(self) -> dict[str, str]:
        """SHA-256 of the file that it stands in, by package, version and module: its share in a run's identity."""
        module = self.place.partition(":")[0]
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise InputError(f"{self.name} of {self.label} names the module {module}, which is not there")
        return {f"{self.label}: {module}": hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()}


@cache
def _installed(group: Group) -> tuple[Plugin, ...]:
    found = []
    for point in metadata.entry_points(group=f"robustframe.{group}"):
        if point.dist is not None:
            found.append(Plugin(group, point.name, point.dist.name, point.dist.version, point.value))
    return tuple(sorted(set(found), key=lambda each: (each.name, each.package)))


def plugins(group: Group) -> dict[str, str]:
    """Return the names that packages add to a group, each with a line on where it comes from."""
    found: dict[str, list[str]] = {}
    for each in _installed(group):
        found.setdefault(each.name, []).append(each.label)
    clash = ", which clash: uninstall one of them"
    return {name: f"of {' and '.join(labels)}{clash * (len(labels) > 1)}" for name, labels in found.items()}


def plugin_at(group: Group, place: str) -> str | None:
    """Return the name under which a package adds ``MODULE:OBJECT``; ``None`` where none does."""
    return next((each.name for each in _installed(group) if each.place == place), None)


def find_plugin(group: Group, name: str) -> Plugin | None:
    """Return what a package adds by a name; ``None`` where none does.

    Raises:
        InputError: when several packages add something of this name.
    """
    found = [each for each in _installed(group) if each.name == name]
    if len(found) > 1:
        packages = " and ".join(each.label for each in found)
        raise InputError(f"{packages} both add {name!r} to {group}; uninstall one of them")
    return found[0] if found else None
