"""Is everything here that an evaluation needs? Each answer comes with the command that fixes it.

Nothing heavy is imported before it is asked about, and what is broken is reported, never raised.
"""

import importlib
import itertools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from robustframe.errors import InputError

State = Literal["ok", "note", "wrong"]
_NAME = "robustframe"
_OLDEST_PYTHON = (3, 11)
_TORCHATTACKS = "3.5.1"
"""The release that the adapter knows the defects of; others are other software under the same name."""
_MANY = frozenset({"dependencies", "extras", "data", "zoo"})
"""Sections of so many things that a screen holds only their names."""
_PINNED = "~=2.25.1"
"""The requests that its wheel asks for, which holds urllib3 and idna at old releases too."""
_LEAST_FREE, _LITTLE_FREE = 100 * 2**20, 2 * 2**30


@dataclass(frozen=True)
class Item:
    """One thing that was looked at."""

    section: str
    name: str
    state: State
    """``"wrong"``: something needed does not work; ``"note"``: something optional is not there."""
    says: str
    fix: str = ""
    """The command that fixes it."""

    def __str__(self) -> str:
        state = self.state.upper() if self.state == "wrong" else self.state
        fix = f"; {'fix' if self.state == 'wrong' else 'get'} it with: {self.fix}" if self.fix else ""
        return f"{state:<5}  {self.section:<12}  {self.name:<24}  {self.says}{fix}"


def examine(runs: Path = Path("runs"), data_root: Path | None = None) -> Iterator[Item]:
    """Look at everything, and say of each thing what it found as soon as it is found.

    Args:
        runs: where run folders are going to be made.
        data_root: where data lies that does not ship.

    Yields:
        One item a thing; evaluations work when none is ``"wrong"``.
    """
    sections: list[tuple[str, Callable[[], Iterable[Item]]]] = [
        ("environment", _environment),
        ("dependencies", _dependencies),
        ("extras", _extras),
        ("devices", _devices),
        ("data", lambda: _data(data_root)),
        ("zoo", _zoo),
        ("recipes", _recipes),
        ("disk", lambda: _disk(runs)),
    ]
    for section, look in sections:
        try:
            yield from look()
        # Whatever is broken here, the other sections are still worth hearing.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            yield Item(section, section, "wrong", f"it could not be examined: {_short(error)}")


def short_lines(items: Iterable[Item], width: int) -> Iterator[str]:
    """Say what was found so that it fits one screen, section by section as they are found.

    What is wrong stands on a line of its own, with its fix; what many things of a section have in common is one.

    Args:
        items: as `examine` yields them.
        width: columns of the screen.
    """
    for section, found in itertools.groupby(items, lambda item: item.section):
        many = list(found)
        if section not in _MANY:
            yield from map(str, many)
            continue
        yield from (str(item) for item in many if item.state == "wrong")
        for state in ("ok", "note"):
            names = [item.name for item in many if item.state == state]
            if names:
                line = f"{state:<5}  {section:<12}  {len(names)}: {', '.join(names)}"
                yield line if len(line) <= width else f"{line[: width - 4].rpartition(',')[0]}, ..."


def report(items: Iterable[Item]) -> dict[str, Any]:
    """Return what was found as what JSON can hold."""
    found = list(items)
    return {"ok": all(item.state != "wrong" for item in found), "items": [asdict(item) for item in found]}


def _environment() -> Iterator[Item]:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info[:2] < _OLDEST_PYTHON
    needs = f"; {'.'.join(map(str, _OLDEST_PYTHON))} or newer is needed" if old else ""
    yield Item("environment", "python", "wrong" if old else "ok", f"{version} at {sys.executable}{needs}")
    yield Item("environment", "platform", "ok", f"{platform.platform()}, {os.cpu_count()} processors")
    try:
        where = Path(__file__).parent
        yield Item("environment", _NAME, "ok", f"{metadata.version(_NAME)} at {where}")
    except metadata.PackageNotFoundError:
        yield Item("environment", _NAME, "wrong", "it is imported, but not installed", "pip install -e .")


def _dependencies() -> Iterator[Item]:
    for name, needed, extra in _requirements():
        if not extra:
            yield _dependency(name, needed)


def _requirements() -> list[tuple[str, str, str]]:
    """Name, allowed versions and extra of everything that the package asks for."""
    # As likely to be missing as what it is asked about, so not imported before.
    from packaging.requirements import Requirement

    found = []
    for asked in map(Requirement, metadata.requires(_NAME) or []):
        for extra in ["", *(metadata.metadata(_NAME).get_all("Provides-Extra") or [])]:
            if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                found.append((asked.name, str(asked.specifier), extra))
                break
    return found


def _dependency(name: str, needed: str) -> Item:
    version = _version(name)
    fix = f"pip install '{name}{needed}'"
    if version is None:
        return Item("dependencies", name, "wrong", f"not installed; {needed} is needed", fix)
    if not _allowed(version, needed):
        return Item("dependencies", name, "wrong", f"{version}; {needed} is needed", fix)
    problem = _import_problem(name)
    if problem:
        return Item("dependencies", name, "wrong", f"{version}, but its import fails: {problem}", fix)
    return Item("dependencies", name, "ok", version)


def _extras() -> Iterator[Item]:
    yield _torchattacks()
    if stray := _stray_robustbench():
        yield Item("extras", "robustbench", "note", stray)
    seen = {"torchattacks"}
    for name, needed, extra in _requirements():
        if not extra or extra == "all" or name in seen:
            continue
        seen.add(name)
        version, fix = _version(name), f"pip install 'robustframe[{extra}]'"
        if version is None:
            yield Item("extras", name, "note", f"not installed (extra {extra})", fix)
        elif not _allowed(version, needed):
            yield Item("extras", name, "note", f"{version}, but {needed} is asked for (extra {extra})", fix)
        else:
            yield Item("extras", name, "ok", f"{version} (extra {extra})")


def _torchattacks() -> Item:
    version, fix = _version("torchattacks"), f"pip install --no-deps torchattacks=={_TORCHATTACKS}"
    if version is None:
        return Item("extras", "torchattacks", "note", "not installed", fix)
    if version != _TORCHATTACKS:
        text = f"{version} is installed; attacks of torchattacks need exactly {_TORCHATTACKS}"
        return Item("extras", "torchattacks", "wrong", text, fix)
    problem = _import_problem("torchattacks")
    if problem:
        text = f"{version}, but its import fails: {problem}; batteries without its attacks work"
        return Item("extras", "torchattacks", "note", text, fix)
    requests = _version("requests")
    if requests is not None and _allowed(requests, _PINNED):
        text = f"{version}, whose pin holds requests at {requests}, with known holes; it never imports it"
        return Item("extras", "torchattacks", "note", text, "pip install --upgrade requests urllib3 idna")
    text = f"{version}; `pip check` names requests{_PINNED}, which it pins and never imports"
    return Item("extras", "torchattacks", "ok", text)


def _stray_robustbench() -> str:
    """A top-level package that torchattacks brings along, which hides the real one of that name."""
    try:
        files = metadata.files("torchattacks") or []
    except metadata.PackageNotFoundError:
        return ""
    if not any(file.parts[:1] == ("robustbench",) for file in files):
        return ""
    real = _version("robustbench")
    also = f"; RobustBench {real} is installed too, and each overwrites files of the other" if real else ""
    return f"`import robustbench` finds a package that came with torchattacks, not RobustBench{also}"


def _devices() -> Iterator[Item]:
    torch = importlib.import_module("torch")
    yield Item("devices", "cpu", "ok", f"{torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            yield Item("devices", f"cuda:{number}", "ok", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    else:
        yield Item("devices", "cuda", "note", f"no CUDA device that torch {torch.__version__} can use")


def _data(root: Path | None) -> Iterator[Item]:
    from robustframe.data.presence import look

    for found in look(root):
        name = f"{found.name} {found.split}"
        if found.where is not None:
            yield Item("data", name, "ok", "shipped, hash checked" if found.shipped else f"in {found.where}")
        elif found.shipped:
            yield Item("data", name, "wrong", found.problem, "pip install --force-reinstall robustframe")
        else:
            yield Item("data", name, "note", "not here", found.fetch)


def _zoo() -> Iterator[Item]:
    from robustframe.zoo import load, names

    for name in names():
        try:
            _, card = load(name)
            yield Item("zoo", name, "ok", f"SHA-256 {card.sha256[:16]}, {card.parameters:,} parameters")
        except InputError as error:
            yield Item("zoo", name, "wrong", str(error), "pip install --force-reinstall robustframe")


def _recipes() -> Iterator[Item]:
    from robustframe.recipe import Recipe, batteries, read_toml, recipes

    known = recipes()
    for path in known.values():
        read_toml(path, Recipe)
    cited = [battery.cited for battery in batteries()]
    yield Item("recipes", "recipes", "ok" if known else "wrong", ", ".join(known) or "none are found")
    yield Item("recipes", "batteries", "ok" if cited else "wrong", ", ".join(cited) or "none are found")


def _disk(runs: Path) -> Iterator[Item]:
    place = runs.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB free"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        yield Item("disk", str(runs), "wrong", f"{place} cannot be written ({reason}); name another folder with --runs")
        return
    if free < _LEAST_FREE:
        yield Item("disk", str(runs), "wrong", f"{text} in {place}; a run needs more")
    else:
        yield Item("disk", str(runs), "note" if free < _LITTLE_FREE else "ok", f"{text}, can be written")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _import_problem(name: str) -> str:
    try:
        importlib.import_module(name.replace("-", "_"))
    # A broken package raises whatever it likes when it is imported.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return _short(error)
    return ""


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _allowed(version: str, needed: str) -> bool:
    """Whether a version meets requirements such as ``>=2.9`` or ``==3.5.1``."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(needed).contains(version, prereleases=True)
