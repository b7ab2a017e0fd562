"""What a record names, loaded again: examples and exact models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustframe.data import Dataset, as_dataset
from robustframe.errors import InputError
from robustframe.models.classifiers import Classifier, load_models
from robustframe.models.framed import with_frames
from robustframe.models.given import classify_given
from robustframe.recipe import ModelSpec
from robustframe.recipe.examples import load_examples
from robustframe.runs.run import Run

MADE_IN_PYTHON = "evaluated from Python; robustframe.verify(folder, model) checks them"


@dataclass(frozen=True)
class Sources:
    """The examples and the models of a run, as they are now."""

    data: Dataset
    classifiers: list[Classifier]
    device: torch.device


def load_sources(
    run: Run, *, device: torch.device, data_root: str | Path | None = None, download: bool = False
) -> Sources:
    """Load what a run's recipe names.

    Args:
        run: a run of a recipe.
        device: where the models go.
        data_root: where data that does not ship lies.
        download: allow data to be downloaded.

    Raises:
        InputError: when the recipe does not read, or a model or the data cannot be loaded.
    """
    recipe = run.recipe()
    root = None if data_root is None else Path(data_root)
    data = load_examples(recipe.data, folder=run.recipe_folder, data_root=root, download=download)
    try:
        classifiers = load_models(recipe.model, folder=run.recipe_folder, device=device, download=download)
    except InputError as error:
        relative = [spec.use for spec in recipe.model if _relative(spec)]
        hint = f"; paths are looked up in {run.recipe_folder.resolve()}, --folder names another" if relative else ""
        raise InputError(f"a model of {run.folder} cannot be loaded: {error}{hint}") from error
    return Sources(data, _framed(run, classifiers, data), device)


def given_sources(run: Run, model: Any, x: Any, y: Any) -> Sources:
    """Take the model of a run that was made with `robustframe.evaluate`, and its images where they are not kept.

    Raises:
        InputError: when the run names its own, or the images are none.
    """
    if not run.from_python:
        raise InputError(f"{run.folder} is the run of a recipe, which names its models and data; leave model, x, y out")
    names = [entry.model for entry in run.record.classifiers]
    # A list was called NAME-1, NAME-2, ....
    first = names[0] if names else "model"
    name = first.rpartition("-")[0] if isinstance(model, list | tuple) else first
    if isinstance(model, Mapping) and set(model) == set(names):
        # They are known by name, in whatever order.
        model = {each: model[each] for each in names}
    data = run.examples() if x is None and y is None else as_dataset(x, y)
    classifiers, device = classify_given(model, name, data.images)
    return Sources(data, _framed(run, classifiers, data), device)


def _framed(run: Run, classifiers: list[Classifier], data: Dataset) -> list[Classifier]:
    """Measure the frames of models that are no pairs, where the run did."""
    entries = [entry for entry in run.record.classifiers if entry.twin is None]
    looked = any(entry.no_frame or entry.mutual_coherence is not None for entry in entries)
    return with_frames(classifiers, tuple(data.images.shape[1:])) if looked else classifiers


def _relative(spec: ModelSpec) -> bool:
    kind, _, place = spec.use.partition(":")
    paths = [*([place] if kind in ("card", "file") else []), *([spec.weights] if spec.weights else [])]
    return any(not Path(path).is_absolute() for path in paths)
