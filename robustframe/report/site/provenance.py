"""How a number is made again and checked: the exact commands, and the recipe as a file."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustframe.errors import InputError
from robustframe.recipe import Recipe, read_toml, recipes
from robustframe.runs import Run
from robustframe.runs.record import Record

_FROM_COMMAND_LINE = "evaluate"
"""What `robustframe evaluate --model` calls its recipe."""


@dataclass(frozen=True)
class Provenance:
    """What it takes to make the numbers of a run again."""

    evaluate: str
    """A shell command, or a Python call for a run that was made from Python."""
    verify: str
    python: bool
    """Whether these are calls in Python."""
    recipe: str | None
    """The recipe's TOML, where ``evaluate`` names a file that does not ship."""


def provenance(run: Run, given: str, file: str) -> Provenance:
    """Say how a run is made again.

    Args:
        run: the run.
        given: how the user named its folder.
        file: what to call its recipe where that does not ship.

    Returns:
        Commands that begin from the recipe of the record, whatever has changed since.
    """
    record = run.record
    place = f"runs/{run.name}" if Path(given).is_absolute() else given
    if run.from_python:
        call, folder = _python(record), json.dumps(place)
        return Provenance(call, f"robustframe.verify({folder}, model=model, x=x, y=y)", True, None)
    verify = f"robustframe verify {shlex.quote(place)}"
    if _shipped(record):
        return Provenance(f"robustframe evaluate {shlex.quote(record.name)}", verify, False, None)
    flags = _flags(record.recipe) if record.name == _FROM_COMMAND_LINE else None
    if flags is not None:
        return Provenance(f"robustframe evaluate {flags}", verify, False, None)
    return Provenance(f"robustframe evaluate {shlex.quote(Path(file).name)}", verify, False, recipe_toml(record.recipe))


def _shipped(record: Record) -> bool:
    path = recipes().get(record.name)
    if path is None:
        return False
    try:
        return read_toml(path, Recipe).model_dump(by_alias=True) == record.recipe
    except InputError:
        return False


def _flags(recipe: dict[str, Any]) -> str | None:
    """Return the options that state a recipe; ``None`` where it says more than they can."""
    try:
        stated = Recipe.model_validate(recipe)
    except ValidationError:
        return None
    asked = {
        "schema": 1, "name": _FROM_COMMAND_LINE, "seed": stated.seed, "threats": stated.threats,
        "battery": stated.battery, "diagnose": stated.diagnose, "data": stated.data.model_dump(),
        "model": [{"use": each.use} for each in stated.model],
    }  # fmt: skip
    if Recipe.model_validate(asked) != stated:
        return None
    parts = [("model", each.use) for each in stated.model]
    parts += [("data", stated.data.use), ("split", stated.data.split)]
    parts += [("count", str(stated.data.count))] if stated.data.count is not None else []
    parts += [("threat", each) for each in stated.threats] + [("battery", each) for each in stated.battery]
    parts += [("seed", str(stated.seed))]
    text = " ".join(f"--{option} {shlex.quote(value)}" for option, value in parts)
    return text if stated.diagnose else f"{text} --no-diagnose"


def _python(record: Record) -> str:
    recipe = record.recipe
    names = dict.fromkeys(entry.model for entry in record.classifiers)
    given = {"threat": "threats", "battery": "battery", "seed": "seed", "chunk": "chunk", "diagnose": "diagnose"}
    settings = {name: recipe[key] for name, key in given.items() if key in recipe} | {
        "name": next(iter(names), "model")
    }
    written = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"robustframe.evaluate(model, x, y, {written})"


def recipe_toml(recipe: dict[str, Any]) -> str:
    """Write a recipe as it stands in a record as TOML that reads back as the same recipe.

    Args:
        recipe: tables, lists of tables, and plain values; ``None`` is left out, as TOML has none.

    Returns:
        The text of the file.
    """
    plain = {key: value for key, value in recipe.items() if not _holds_tables(value) and value is not None}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in recipe.items():
        if _holds_tables(value):
            for table in [value] if isinstance(value, dict) else value:
                lines += ["", f"[{_key(key)}]" if isinstance(value, dict) else f"[[{_key(key)}]]"]
                lines += [f"{_key(name)} = {_value(each)}" for name, each in table.items() if each is not None]
    return "\n".join(lines) + "\n"


def _holds_tables(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    # TOML's strings and numbers are JSON's, but for a character that JSON may leave as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
