"""The attacks by name, and how a battery's words become an attack."""

import collections.abc
import dataclasses
import inspect
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from robustframe.attacks.adapters import TorchAttack
from robustframe.attacks.apgd import APGD, APGDT
from robustframe.attacks.base import Attack
from robustframe.attacks.cw import CW
from robustframe.attacks.ddn import DDN
from robustframe.attacks.deepfool import DeepFool
from robustframe.attacks.fab import FAB, FABT
from robustframe.attacks.fgsm import FGSM
from robustframe.attacks.fmn import FMN
from robustframe.attacks.hopskipjump import HopSkipJump
from robustframe.attacks.pgd import PGD
from robustframe.attacks.random_search import RandomSearch
from robustframe.attacks.sigma_zero import SigmaZero
from robustframe.attacks.spsa import SPSA
from robustframe.attacks.square import Square
from robustframe.errors import InputError, shown, unknown
from robustframe.userfile import load_user_file, load_user_function

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "apgd": APGD,
    "apgd-t": APGDT,
    "square": Square,
    "fab": FAB,
    "fab-t": FABT,
    "ddn": DDN,
    "fmn": FMN,
    "cw": CW,
    "deepfool": DeepFool,
    "sigma-zero": SigmaZero,
    "spsa": SPSA,
    "random-search": RandomSearch,
    "hopskipjump": HopSkipJump,
}
"""Our own attacks, by the name a battery gives them."""
_LARGEST = 2**63
"""No setting is a number as large as this."""


def make_attack(use: str, settings: Mapping[str, object], *, where: str = "", folder: Path | None = None) -> Attack:
    """Build an attack from a battery's words.

    Args:
        use: a name in `ATTACKS`, ``"torchattacks:CLASS"``, or ``"file:PATH.py:CLASS"`` for a user's own
            `Attack`.
        settings: the attack's settings by name; those left out keep their defaults.
        where: the file and key this stood in, put in front of every error.
        folder: what a relative ``PATH`` is relative to; the working directory when ``None``.

    Returns:
        The attack, with every setting checked.

    Raises:
        InputError: for an unknown attack or setting, or a setting of the wrong type or range.
    """
    try:
        kind, colon, name = use.partition(":")
        if colon and kind == "torchattacks":
            return TorchAttack(name=name, settings=_plain(settings))
        if colon and kind == "file":
            return _configure(_load(name, folder or Path()), settings, folder or Path())
        if use not in ATTACKS:
            known = [*ATTACKS, "torchattacks:CLASS", "file:PATH.py:CLASS"]
            raise unknown("attack", use, known)
        return _configure(ATTACKS[use], settings, folder or Path())
    except InputError as error:
        if not where:
            raise
        raise InputError(f"{where}: {error}") from error


def settings_of(attack: Attack, *, defaults: bool = True) -> dict[str, Any]:
    """Return the settings of an attack as a record holds them: plain values, functions by name.

    Args:
        attack: any attack.
        defaults: include those that have their default value.
    """
    text = json.dumps(dataclasses.asdict(attack), default=_function_name)
    settings: dict[str, Any] = json.loads(text)
    if defaults:
        return settings
    own = {field.name for field in dataclasses.fields(attack) if getattr(attack, field.name) == _default(field)}
    return {name: value for name, value in settings.items() if name not in own}


def _default(field: "dataclasses.Field[Any]") -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _function_name(function: Any) -> str:
    name = f"{function.__module__}.{function.__qualname__}" if hasattr(function, "__qualname__") else str(function)
    return name


def _configure(cls: type[Attack], settings: Mapping[str, object], folder: Path) -> Attack:
    hints = get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    values: dict[str, object] = {}
    for name, value in settings.items():
        if name not in known:
            raise unknown(f"setting of {cls.__name__}", name, known)
        value = _with_functions(value, known[name], folder)
        if not _fits(value, known[name]):
            raise InputError(f"{cls.__name__}: {name} = {shown(value)} must be {_words(known[name])}")
        values[name] = float(value) if known[name] is float and isinstance(value, int) else value
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.init
        and field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{cls.__name__} needs {', '.join(missing)}")
    return cls(**values)


def _fits(value: object, hint: object) -> bool:
    """Say whether a value has the type of a field; types other than the plain ones are left to the class."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if get_origin(hint) is collections.abc.Callable:
        return callable(value)
    if get_origin(hint) is collections.abc.Mapping:
        return isinstance(value, Mapping) and all(_fits(part, get_args(hint)[1]) for part in value.values())
    if hint is type(None):
        return value is None
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint not in (int, float, str)
    if hint is float:
        return isinstance(value, int | float) and abs(value) < _LARGEST and math.isfinite(value)
    if isinstance(hint, type) and hint in (int, str):
        return isinstance(value, hint) and (isinstance(value, str) or abs(value) < _LARGEST)
    return True


def _with_functions(value: object, hint: object, folder: Path) -> object:
    """Load the functions that a setting names by file, where it takes functions."""
    if isinstance(value, Mapping) and get_origin(hint) is collections.abc.Mapping:
        return {name: _with_functions(part, get_args(hint)[1], folder) for name, part in value.items()}
    takes = any(get_origin(part) is collections.abc.Callable for part in get_args(hint))
    if takes and isinstance(value, str) and value.startswith("file:"):
        return load_user_function(value.removeprefix("file:"), folder, kind="function")
    return value


def _words(hint: object) -> str:
    if get_origin(hint) is collections.abc.Callable:
        return "a function ('file:PATH.py:FUNCTION')"
    if get_origin(hint) is collections.abc.Mapping:
        return f"a table of names, each with {_words(get_args(hint)[1])}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    plain: dict[object, str] = {
        int: "a whole number",
        float: "a finite number",
        str: "text",
        bool: "true or false",
        type(None): "left out",
    }
    return plain.get(hint, str(hint))


def _plain(settings: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    for name, value in settings.items():
        large = isinstance(value, int | float) and not abs(value) < _LARGEST
        if large or not isinstance(value, bool | int | float | str):
            raise InputError(f"{name} = {shown(value)} must be a number, text, true or false")
    return {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}


def _load(place: str, folder: Path) -> type[Attack]:
    """Load a user's attack from a file."""
    module, path, name = load_user_file(place, folder, kind="attack")
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Attack) and not inspect.isabstract(value)
    }
    if name not in found:
        raise unknown(f"attack in {path}", name, found)
    return found[name]
