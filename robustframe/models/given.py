"""Models as a Python user has them: in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from robustframe.calls import device_of, require_differentiable
from robustframe.errors import InputError, shown
from robustframe.models.classifiers import Classifier, classify
from robustframe.recipe import ModelSpec
from robustframe.types import Images

_LETTERS = 100
"""Of a name at most: it becomes part of the names of files."""


def classify_given(given: Any, name: str, images: Images) -> tuple[list[Classifier], torch.device]:
    """Make the classifiers of models passed from Python.

    Args:
        given: a module, or several: by name, or in a list, which calls them ``NAME-1``, ``NAME-2``, ....
        name: what tables call a single one.
        images: a few that each may be shown.

    Returns:
        One classifier for a model, two for a pair; and the device that all of them are on.

    Raises:
        InputError: for what is no module, no models, or models on several devices.
    """
    models = _named(given, name)
    if not models:
        raise InputError("no model is given")
    for key, each in models.items():
        try:
            require_differentiable(each)
        except InputError as error:
            raise error if len(models) == 1 else InputError(f"{key}: {error}") from error
    devices = {device_of(each) for each in models.values()}
    if len(devices) > 1:
        raise InputError(f"models are on {' and '.join(sorted(map(str, devices)))}; move all of them to one device")
    spec = ModelSpec(use="python")
    found = [each for key, model in models.items() for each in classify(model, key, spec, images=images)]
    names = [each.entry.name for each in found]
    for each in names:
        if names.count(each) > 1:
            raise InputError(f"two models are called {each}; give one of them another name")
    return found, devices.pop()


def _named(given: Any, name: str) -> dict[str, Any]:
    if not isinstance(name, str):
        raise InputError(f"the name {name!r} of a model is not text")
    # Containers of torch are modules and no collections of models here.
    if isinstance(given, Mapping) and not isinstance(given, nn.Module):
        odd = [key for key in given if not isinstance(key, str) or not key]
        if odd:
            raise InputError(f"the name {odd[0]!r} of a model is not text")
        found = dict(given)
    elif isinstance(given, list | tuple):
        found = {f"{name}-{place}": each for place, each in enumerate(given, start=1)}
    else:
        found = {name: given}
    for key in found:
        if len(key) > _LETTERS or not key.isprintable():
            raise InputError(f"a model is called {shown(key)}; a name has at most {_LETTERS} letters, all printable")
    return found
