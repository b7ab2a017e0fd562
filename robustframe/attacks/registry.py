"""The attacks by name, and how a battery's words become an attack."""

import collections.abc
import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustframe.attacks.adapters import TorchAttack
from robustframe.attacks.apgd import APGD, APGDT
from robustframe.attacks.base import Attack
from robustframe.attacks.cw import CW
from robustframe.attacks.ddn import DDN
from robustframe.attacks.deepfool import DeepFool
from robustframe.attacks.fab import FAB, FABT
from robustframe.attacks.fgsm import FGSM
from robustframe.attacks.fmn import FMN
from robustframe.attacks.grid_search import GridSearch
from robustframe.attacks.hopskipjump import HopSkipJump
from robustframe.attacks.momentum import MIFGSM
from robustframe.attacks.pgd import PGD
from robustframe.attacks.random_search import RandomSearch
from robustframe.attacks.sigma_zero import SigmaZero
from robustframe.attacks.spsa import SPSA
from robustframe.attacks.square import Square
from robustframe.attacks.transfer import TransferAttack
from robustframe.attacks.universal import Universal
from robustframe.errors import InputError, shown, unknown
from robustframe.lending import lent
from robustframe.plugins import find_plugin, plugin_at, plugins
from robustframe.userfile import UserFunction, load_user_file, load_user_function, plain_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "mi-fgsm": MIFGSM,
    "transfer": TransferAttack,
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
    "universal": Universal,
    "grid": GridSearch,
}
"""Our own attacks, by the name a battery gives them."""
_LARGEST = 2**63
"""No setting is a number as large as this."""
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "callable_type": "a function ('file:PATH.py:FUNCTION')",
    "dict_type": "a table of names",
}
"""What a setting must be, by the kind of pydantic's complaint."""


def make_attack(use: str, settings: Mapping[str, object], *, where: str = "", folder: Path | None = None) -> Attack:
    """Build an attack from a battery's words.

    Args:
        use: a name in `ATTACKS` or of an installed package, ``"torchattacks:CLASS"``, or ``"file:PATH.py:CLASS"`` for
            a user's own `Attack`.
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
        return _configure(ATTACKS.get(use) or _of_package(use), settings, folder or Path())
    except InputError as error:
        if not where:
            raise
        raise InputError(f"{where}: {error}") from error


AnyAttack = str | Mapping[str, object] | Attack
_KNOWN_AS: dict[str, dict[str, object]] = {
    "apgd-ce": {"use": "apgd", "loss": "cross_entropy"},
    "apgd-dlr": {"use": "apgd", "loss": "dlr"},
}
"""What the literature calls an attack with a setting."""


def as_attack(given: Any) -> Attack:
    """Take an attack as Python gives it: a name, one with settings as in a battery, or an `Attack`."""
    if isinstance(given, Attack):
        return given
    if isinstance(given, type) and issubclass(given, Attack):
        raise InputError(f"{given.__name__} is the class of an attack; call it, {given.__name__}()")
    if not isinstance(given, str | Mapping):
        raise InputError(f"an attack is a name, {{'use': NAME, ...settings}} or an Attack, not {type(given).__name__}")
    words = dict(_KNOWN_AS.get(given, {"use": given})) if isinstance(given, str) else dict(given)
    use = words.pop("use", None)
    if not isinstance(use, str):
        raise InputError(f"the attack {given!r} does not say which: {{'use': 'pgd', 'steps': 40}}")
    return make_attack(use, words)


def words_of(attack: Attack) -> dict[str, object]:
    """Return the words of a battery that make an attack again, with its name as ``use``.

    Raises:
        InputError: when none do: for a class or a function that lies in no file.
    """
    if isinstance(attack, TorchAttack):
        return {"use": f"torchattacks:{attack.name}", **dict(attack.settings)}
    cls = type(attack)
    names = {each: name for name, each in ATTACKS.items()}
    of_package = plugin_at("attacks", f"{cls.__module__}:{cls.__qualname__}")
    use = names.get(cls) or of_package or f"file:{_file_of(cls)}:{cls.__name__}"
    words: dict[str, object] = {"use": use}
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        if value != _default(field):
            words[field.name] = _in_words(value)
    return words


def _in_words(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _in_words(part) for name, part in value.items()}
    if isinstance(value, UserFunction):
        return str(value)
    if callable(value):
        return f"file:{_file_of(value)}:{getattr(value, '__name__', '')}"
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _file_of(code: Any) -> Path:
    """Return the file in which a class or function stands at the top."""
    name = getattr(code, "__qualname__", type(code).__name__)
    try:
        found = inspect.getsourcefile(code)
    except (TypeError, OSError):
        found = None
    if getattr(code, "__module__", None) == "__main__":
        raise InputError(
            f"{name} belongs to the script or notebook that is running, so no record could name it; move it to a file"
        )
    if found is None or not Path(found).is_file() or not name.isidentifier():
        raise InputError(f"{name} is not defined at the top level of a file, so no record could name it; move it there")
    return Path(found).resolve()


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
    return plain_name(
        f"{function.__module__}.{function.__qualname__}" if hasattr(function, "__qualname__") else str(function)
    )


def _configure(cls: type[Attack], settings: Mapping[str, object], folder: Path) -> Attack:
    hints, known = get_type_hints(cls), inspect.signature(cls).parameters
    values: dict[str, object] = {}
    for name, value in settings.items():
        if name not in known:
            raise unknown(f"setting of {cls.__name__}", name, known)
        values[name] = _checked(f"{cls.__name__}: {name}", _with_functions(value, hints[name], folder), hints[name])
    missing = [name for name, each in known.items() if each.default is each.empty and name not in values]
    if missing:
        raise InputError(f"{cls.__name__} needs {', '.join(missing)}")
    return cls(**values)


def _checked(place: str, value: object, hint: Any) -> Any:
    """Return a setting as its field has it: of its type, with nothing converted but whole numbers to others."""
    try:
        found = TypeAdapter(hint, config=_STRICT).validate_python(value)
    except ValidationError as error:
        first, *more = error.errors(include_url=False)
        # A union has one problem for each of its types.
        allowed = [_words(each) for each in (first, *more) if each["loc"][:-1] == first["loc"][:-1]]
        allowed += ["left out"] if type(None) in get_args(hint) else []
        listed = " or ".join(filter(None, [", ".join(allowed[:-1]), allowed[-1]]))
        key = f".{first['loc'][0]}" if first["loc"] and isinstance(value, Mapping) else ""
        raise InputError(f"{place}{key} = {shown(first['input'])} must be {listed}") from None
    if isinstance(found, int | float) and abs(found) >= _LARGEST:
        raise InputError(f"{place} = {shown(value)} must be smaller than 2**63")
    return found


def _words(problem: "ErrorDetails") -> str:
    if problem["type"] == "literal_error":
        return f"one of {problem['ctx']['expected']}"
    return _WORDS.get(problem["type"], problem["msg"].removeprefix("Input should be "))


def _with_functions(value: object, hint: object, folder: Path) -> object:
    """Load the functions that a setting names by file, where it takes functions."""
    if isinstance(value, Mapping) and get_origin(hint) is collections.abc.Mapping:
        return {name: _with_functions(part, get_args(hint)[1], folder) for name, part in value.items()}
    takes = any(get_origin(part) is collections.abc.Callable for part in get_args(hint))
    if takes and isinstance(value, str) and value.startswith("file:"):
        return load_user_function(value.removeprefix("file:"), folder, kind="function")
    return value


def _of_package(use: str) -> type[Attack]:
    plugin = find_plugin("attacks", use)
    if plugin is None:
        raise unknown("attack", use, [*ATTACKS, *plugins("attacks"), "torchattacks:CLASS", "file:PATH.py:CLASS"])
    found = plugin.load()
    if not isinstance(found, type) or not issubclass(found, Attack) or inspect.isabstract(found):
        raise InputError(f"{use} of {plugin.label} is not a subclass of robustframe.attacks.Attack")
    return found


def _plain(settings: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    return {name: _checked(name, value, int | float | str | bool) for name, value in settings.items()}


def _load(place: str, folder: Path) -> type[Attack]:
    """Load a user's attack from a file."""
    with lent():
        module, path, name = load_user_file(place, folder, kind="attack")
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Attack) and not inspect.isabstract(value)
    }
    if name not in found:
        raise unknown(f"attack in {path}", name, found)
    return found[name]
