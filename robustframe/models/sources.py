"""Where models come from: a recipe says ``use = "SOURCE:PLACE"``, and each source is one line of `SOURCES`."""

import difflib
import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustframe.calls import forked_random, not_a_model
from robustframe.certify import Smoothed
from robustframe.errors import InputError, told, unknown
from robustframe.files import WEIGHTS_BYTES, read_plain
from robustframe.lending import contained, lent
from robustframe.models.adapters import Answering, Normalised, Repeated
from robustframe.models.robustbench import load_robustbench
from robustframe.models.weights import load_weights, weights_file
from robustframe.pairs import Pair, Untied, reframe
from robustframe.pairs.reframed import SWEEPS as REFRAMED_SWEEPS
from robustframe.plugins import find_plugin, plugins
from robustframe.recipe import ModelSpec, Normalise
from robustframe.userfile import files_of, load_user_file, plain_name
from robustframe.zoo import Card, load_named

PRETRAINED = "pretrained"
REFRAME = "reframe:"
"""Stands before a network that is to be read as a frame, and so becomes a pair."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that a recipe names, loaded."""

    module: nn.Module
    name: str
    """What tables call it, unless the recipe says otherwise."""
    card: Card | None = None
    """Of a pair that has one; it states the identity of the weights."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the user's file and of what it imports from the user, which belong to the identity."""
    normalise: Normalise | None = None
    """What its weights were trained behind."""
    weights_sha256: str | None = None


def find_model(spec: ModelSpec, *, folder: Path, download: bool = False) -> LoadedModel:
    """Load what a recipe names: the module of its source, its weights, and its preprocessing in front.

    Args:
        spec: the model as the recipe names it.
        folder: what relative paths are relative to.
        download: allow pretrained weights to be downloaded.

    Raises:
        InputError: for an unknown source or name, code that builds no module, or weights that do not fit.
    """
    if spec.use.startswith(REFRAME):
        return _reframed(spec, folder, download)
    if spec.shape is not None:
        raise InputError(f"shape is for networks that are read as frames; {spec.use} has no {REFRAME} in front")
    kind, colon, place = spec.use.partition(":")
    source = SOURCES[kind][2] if kind in SOURCES else _of_package
    if not colon or (source is _of_package and find_plugin("models", kind) is None):
        forms = [*(form for form, _, _ in SOURCES.values()), *(f"{name}:NAME" for name in plugins("models"))]
        raise InputError(
            f"model {spec.use!r} must read {', '.join(forms[:-1])} or {forms[-1]}; `robustframe zoo list` shows the zoo"
        )
    found = source(spec, place, folder, download)
    if spec.weights is not None and found.weights_sha256 is None:
        found = replace(found, weights_sha256=load_weights(found.module, *weights_file(folder, spec.weights)))
    normalise = spec.normalise or found.normalise
    answers = spec.output is not None or spec.sigmoid
    if isinstance(found.module, Pair) and (spec.channels or normalise or answers):
        raise InputError(
            f"{spec.use} is a pair, which solves for the image itself; leave channels, normalise, output and sigmoid "
            "out"
        )
    module = Answering(found.module, spec.output, sigmoid=spec.sigmoid) if answers else found.module
    module = module if normalise is None else Normalised(module, normalise.mean, normalise.std)
    module = module if spec.channels is None else Repeated(module, spec.channels)
    return replace(found, module=module if isinstance(module, Pair) else smoothed(module, spec))


def smoothed(module: nn.Module, spec: ModelSpec) -> nn.Module:
    """Return a model as its entry in a recipe has it smoothed, or as it is."""
    how = spec.smooth
    if how is None:
        return module
    return Smoothed(module, how.sigma, draws=how.draws, samples=how.samples, alpha=how.alpha)


def _reframed(spec: ModelSpec, folder: Path, download: bool) -> LoadedModel:
    """Load a network with its weights and preprocessing, and read all of it as a frame."""
    use = spec.use.removeprefix(REFRAME)
    if use.startswith(REFRAME) or spec.shape is None:
        raise InputError(f"{spec.use} needs the shape of one image, such as shape = [1, 28, 28]")
    plain = spec.model_copy(update={"use": use, "shape": None, "sweeps": None})
    found = find_model(plain, folder=folder, download=download)
    if isinstance(found.module, Pair | Untied):
        raise InputError(f"{use} is a pair as it is; leave {REFRAME} out")
    pair = reframe(found.module.eval(), spec.shape, sweeps=spec.sweeps or REFRAMED_SWEEPS).pair
    return replace(found, module=pair, card=None)


def _with_card(spec: ModelSpec, place: str, folder: Path, download: bool) -> LoadedModel:
    _refuse(spec, "its card states them", "weights", "classes", "channels", "normalise")
    pair, card = load_named(spec.use, folder=folder, download=download)
    return LoadedModel(pair, card.name, card)


def _file(spec: ModelSpec, place: str, folder: Path, download: bool) -> LoadedModel:
    """Call a function of the user's file."""
    _refuse(spec, "the function that builds it decides", "classes")
    # One loan for both: what a file sets while it is loaded, its function may rely on.
    with lent():
        return _called(place, folder)


def _called(place: str, folder: Path) -> LoadedModel:
    code, path, name = load_user_file(place, folder, kind="model")
    build = getattr(code, name, None)
    if not callable(build):
        raise unknown(f"function in {path}", name, [key for key, value in vars(code).items() if callable(value)])
    try:
        with contained():
            built = build()
    except Exception as error:
        raise InputError(f"{path}:{name}() failed: {plain_name(told(error))}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{path}:{name}() built no model: {not_a_model(built)}")
    return LoadedModel(built, path.stem, files=files_of(path, code))


def _of_package(spec: ModelSpec, place: str, folder: Path, download: bool) -> LoadedModel:
    """Call ``function(NAME)`` of an installed package, which returns a module."""
    plugin = find_plugin("models", spec.use.partition(":")[0])
    if plugin is None:
        raise InputError(f"no package adds models such as {spec.use}")
    _refuse(spec, f"{plugin.label} decides", "classes")
    try:
        with lent(), contained(), forked_random(0):
            built = plugin.load()(place)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec.use} of {plugin.label} failed: {told(error)}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{spec.use} of {plugin.label} built no model: {not_a_model(built)}")
    return LoadedModel(built, place or plugin.name, files=plugin.files())


def _torchvision(spec: ModelSpec, place: str, folder: Path, download: bool) -> LoadedModel:
    # Here and not above: importing torchvision's models takes longer than loading a pair.
    from torchvision import models

    known = models.list_models(module=models)
    if place not in known:
        raise _no_such("torchvision", place, known, "torchvision.models.list_models()")
    if spec.weights == PRETRAINED:
        _refuse(spec, "the pretrained weights decide", "classes")
        return _pretrained(models, place, download)
    return LoadedModel(_built(models.get_model, place, spec.classes, weights=None), place)


def _pretrained(models: Any, place: str, download: bool) -> LoadedModel:
    """Take torchvision's own weights from torch's cache, where they are or may be fetched to."""
    weights = models.get_model_weights(place).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file() and not download:
        raise InputError(f"the pretrained weights of {place} are not at {file}; fetch them with --download")
    try:
        # With a fixed state, as weights that a file does not hold would be drawn anew each time.
        with forked_random(0):
            weights.get_state_dict(progress=False, check_hash=True)
            module: nn.Module = models.get_model(place, weights=weights, progress=False)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"the pretrained weights of {place} at {file} cannot be had: {error}") from error
    transform = weights.transforms()
    return LoadedModel(
        module,
        place,
        normalise=Normalise(mean=list(transform.mean), std=list(transform.std)),
        weights_sha256=hashlib.sha256(read_plain(file, limit=WEIGHTS_BYTES)).hexdigest(),
    )


def _timm(spec: ModelSpec, place: str, folder: Path, download: bool) -> LoadedModel:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"{spec.use} needs timm, which is not installed: pip install 'robustframe[timm]'") from error
    if spec.weights == PRETRAINED:
        raise InputError(
            f"pretrained weights of {spec.use} are not fetched here; save timm.create_model({place!r}, "
            "pretrained=True).state_dict() with safetensors, and name the file in weights"
        )
    if not timm.is_model(place):
        raise _no_such("timm", place, timm.list_models(), "timm.list_models()")
    return LoadedModel(_built(timm.create_model, place, spec.classes), place)


def _built(create: Callable[..., nn.Module], place: str, classes: int | None, **settings: Any) -> nn.Module:
    """Build a model by name; random weights are the same each time, and nothing is drawn from the user's state."""
    if classes is not None:
        settings["num_classes"] = classes
    with forked_random(0):
        try:
            return create(place, **settings)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{place} cannot be built with {settings}: {error}") from error


def _refuse(spec: ModelSpec, why: str, *keys: str) -> None:
    given = [key for key in keys if getattr(spec, key) is not None]
    if given:
        raise InputError(f"{', '.join(given)} cannot be set for {spec.use}: {why}")


def _no_such(library: str, given: str, known: Sequence[str], where: str) -> InputError:
    """These libraries know hundreds of names, so that only the nearest is worth saying."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"{library} has no classifier {given!r}; {hint}{where} lists them")


Source = Callable[[ModelSpec, str, Path, bool], LoadedModel]
SOURCES: dict[str, tuple[str, str, Source]] = {
    "zoo": ("zoo:NAME", "a pair that ships", _with_card),
    "card": ("card:PATH.json", "a pair by its card, such as one you trained", _with_card),
    "hf": ("hf:OWNER/REPO", "a pair on the Hugging Face hub (needs the extra hub)", _with_card),
    "torchvision": ("torchvision:NAME", "a network by name, with your weights or weights = pretrained", _torchvision),
    "timm": ("timm:NAME", "the same for timm, where it is installed", _timm),
    "robustbench": (
        "robustbench:NAME",
        "a model of RobustBench's zoo, where that is installed",
        lambda spec, place, _, download: LoadedModel(
            load_robustbench(spec, place, download=download), Path(place).name
        ),
    ),
    "file": ("file:PATH.py:FUNCTION", "the torch.nn.Module that a function of yours returns", _file),
}
"""By what stands before the colon: how it is written, what it is, and what loads it."""
