"""From a recipe to a task with everything loaded, and where its run lies."""

from pathlib import Path

import torch

from robustframe.corruptions import load_corruptions
from robustframe.evaluation.task import Origin, Task
from robustframe.models.classifiers import Classifier, load_models
from robustframe.models.framed import with_frames
from robustframe.models.sources import REFRAME
from robustframe.recipe import Recipe, load_battery, parse_threats, read_toml, spread_threats
from robustframe.recipe.examples import load_examples
from robustframe.recipe.stages import check_stages, make_stages


def load_task(
    path: str | Path,
    *,
    device: torch.device,
    data_root: str | Path | None = None,
    download: bool = False,
    keep: bool = True,
    isolate: bool = False,
) -> Task:
    """Load everything a recipe file names.

    Args:
        path: the recipe's TOML file; paths in it are relative to its folder.
        device: where the models go.
        data_root: where data that does not ship lies.
        download: allow data and models of the hub to be downloaded.
        keep: hold every model in memory; see `load_models`.
        isolate: load no model in this process, for `Isolated`; see `load_models`.

    Raises:
        InputError: for anything in it that is unknown or does not fit, before anything runs.
    """
    path = Path(path)
    recipe = read_toml(path, Recipe)
    return make_task(recipe, path, device=device, data_root=data_root, download=download, keep=keep, isolate=isolate)


def make_task(
    recipe: Recipe,
    path: str | Path,
    *,
    device: torch.device,
    data_root: str | Path | None = None,
    download: bool = False,
    keep: bool = True,
    isolate: bool = False,
    classifiers: list[Classifier] | None = None,
) -> Task:
    """Load everything a recipe names.

    Args:
        recipe: what to evaluate.
        path: where it is said to stand; paths in it are relative to the folder of this.
        device: where the models go.
        data_root: where data that does not ship lies.
        download: allow data and models of the hub to be downloaded.
        keep: hold every model in memory; see `load_models`.
        isolate: load no model in this process, for `Isolated`; see `load_models`.
        classifiers: what its models are, for a process that is told and loads each when it needs it.

    Raises:
        InputError: for anything in it that is unknown or does not fit, before anything runs.
    """
    path, root = Path(path), None if data_root is None else Path(data_root)
    folder = path.parent
    recipe = _with_shapes(recipe, folder, root, download)
    told = classifiers is not None
    if classifiers is None:
        classifiers = load_models(
            recipe.model, folder=folder, device=device, download=download, keep=keep, isolate=isolate
        )
    batteries = [load_battery(name, folder=folder, where=f"{path}: battery") for name in recipe.battery]
    threats = parse_threats(recipe.threats, where=f"{path}: threats")
    check_stages(make_stages(batteries, folder), threats)
    data = load_examples(recipe.data, folder=folder, data_root=root, download=download)
    threats = spread_threats(threats, len(data.classes), where=f"{path}: threats")
    corruptions = None
    if (asked := recipe.corruptions) is not None:
        corruptions = load_corruptions(
            asked.use, data, seed=recipe.seed, kinds=asked.kinds, severities=asked.severities, folder=folder
        )
    if not told and not isolate:
        classifiers = with_frames(classifiers, tuple(data.images.shape[1:]))
    return Task(
        name=recipe.name,
        recipe=recipe.model_dump(by_alias=True),
        data=data,
        classifiers=classifiers,
        threats=threats,
        batteries=batteries,
        seed=recipe.seed,
        chunk=recipe.chunk,
        folder=folder,
        diagnose=recipe.diagnose,
        corruptions=corruptions,
        prepare=recipe.prepare == "auto",
        origin=Origin(path.resolve(), None if root is None else root.resolve()),
    )


def _with_shapes(recipe: Recipe, folder: Path, root: Path | None, download: bool) -> Recipe:
    """State the shape of one image for models that are read as frames, which cannot be built without it."""
    if not any(spec.use.startswith(REFRAME) and spec.shape is None for spec in recipe.model):
        return recipe
    shape = load_examples(recipe.data, folder=folder, data_root=root, download=download).images.shape[1:]
    models = [
        spec.model_copy(update={"shape": spec.shape or list(shape)}) if spec.use.startswith(REFRAME) else spec
        for spec in recipe.model
    ]
    return recipe.model_copy(update={"model": models})


def run_folder(task: Task, runs: str | Path) -> Path:
    """Return the folder of a task's run: its name and the beginning of its hash."""
    return Path(runs) / f"{task.name}-{task.hash[:8]}"
