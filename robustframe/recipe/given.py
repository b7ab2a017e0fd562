"""Batteries and threats as a Python user has them: by name, as objects, put together of attacks."""

from typing import Any

from pydantic import ValidationError

from robustframe.attacks.base import Attack
from robustframe.attacks.registry import as_attack, words_of
from robustframe.errors import InputError, first_mistake
from robustframe.recipe.recipes import Battery, CorruptionSpec, differs_from_shipped, digest, load_battery, make_attacks
from robustframe.threat import ThreatModel


def threat_words(given: Any) -> list[str]:
    """Return the words of one threat or several, each given as text or as a `ThreatModel`."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise InputError("no threat is given; say threat='linf:8/255'")
    for each in several:
        if not isinstance(each, str | ThreatModel):
            raise InputError(f"a threat is text such as 'linf:8/255', or a ThreatModel, not {type(each).__name__}")
    return [each if isinstance(each, str) else each.words for each in several]


def as_corruptions(given: Any) -> CorruptionSpec | None:
    """Take corruptions as Python gives them: ``"corruptions@1"``, or a table as in a recipe.

    Raises:
        InputError: for anything else.
    """
    if given is None:
        return None
    try:
        return CorruptionSpec.model_validate({"use": given} if isinstance(given, str) else given)
    except ValidationError as error:
        raise InputError(f"corruptions: {first_mistake(error)}") from None


def as_batteries(given: Any) -> list[Battery]:
    """Take batteries as Python gives them: by name, by file, as a `Battery`, or put together of attacks.

    Args:
        given: one of these or several, in order; attacks that follow one another make one battery, which is called by
            its content.

    Raises:
        InputError: as `load_battery`, and for attacks that no record could name.
    """
    several = list(given) if isinstance(given, list | tuple) else [given]
    found: list[Battery] = []
    attacks: list[Attack] = []
    for each in [*several, None]:
        if each is not None and not isinstance(each, str | Battery):
            attacks.append(as_attack(each))
            continue
        if attacks:
            found.append(_put_together(attacks))
            attacks = []
        if each is not None:
            found.append(each if isinstance(each, Battery) else load_battery(each))
    if not found:
        raise InputError("no battery is given; say battery='quick', or the attacks, [PGD(steps=40)]")
    for battery in found:
        if sum(battery.cited == each.cited for each in found) > 1:
            raise InputError(f"the battery {battery.cited} is given twice; an example meets each once")
        make_attacks(battery)
        if differs_from_shipped(battery):
            raise InputError(f"a battery calls itself {battery.cited}, which ships with other content; rename it")
    return found


def _put_together(attacks: list[Attack]) -> Battery:
    words = [words_of(each) for each in attacks]
    try:
        return Battery.model_validate(
            {"schema": 1, "name": f"python-{digest({'attack': words})[:8]}", "version": "1", "attack": words}
        )
    except ValidationError as error:
        raise InputError(f"the attacks make no battery: {first_mistake(error)}") from None
