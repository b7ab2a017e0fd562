"""The ways in: a recipe, or one model with images in hand."""

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustframe.calls import DEFAULT_BATCH
from robustframe.data import Dataset, from_arrays
from robustframe.errors import InputError
from robustframe.evaluation.engine import run, whole_number
from robustframe.evaluation.executors import Engine, InProcess
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.progress import Report, silent
from robustframe.evaluation.task import Origin, Task
from robustframe.models.classifiers import Classifier, classify, load_models
from robustframe.recipe import ModelSpec, Recipe, load_battery, parse_threats, read_toml
from robustframe.recipe.examples import load_examples
from robustframe.recipe.stages import check_stages, make_stages
from robustframe.runs.run import Run


def pick_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first CUDA device, or the CPU where there is none.

    Raises:
        InputError: for a device this machine or this torch does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not to be had here; use cpu, or auto") from error
    return device


def load_task(
    path: str | Path,
    *,
    device: torch.device,
    data_root: str | Path | None = None,
    download: bool = False,
    keep: bool = True,
) -> Task:
    """Load everything a recipe file names.

    Args:
        path: the recipe's TOML file; paths in it are relative to its folder.
        device: where the models go.
        data_root: where data that does not ship lies.
        download: allow data and models of the hub to be downloaded.
        keep: hold every model in memory; see `load_models`.

    Raises:
        InputError: for anything in it that is unknown or does not fit, before anything runs.
    """
    path = Path(path)
    recipe = read_toml(path, Recipe)
    return make_task(recipe, path, device=device, data_root=data_root, download=download, keep=keep)


def make_task(
    recipe: Recipe,
    path: str | Path,
    *,
    device: torch.device,
    data_root: str | Path | None = None,
    download: bool = False,
    keep: bool = True,
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
        classifiers: what its models are, for a process that is told and loads each when it needs it.

    Raises:
        InputError: for anything in it that is unknown or does not fit, before anything runs.
    """
    path, root = Path(path), None if data_root is None else Path(data_root)
    folder = path.parent
    if classifiers is None:
        classifiers = load_models(recipe.model, folder=folder, device=device, download=download, keep=keep)
    batteries = [load_battery(name, folder=folder, where=f"{path}: battery") for name in recipe.battery]
    threats = parse_threats(recipe.threats, where=f"{path}: threats")
    check_stages(make_stages(batteries, folder), threats)
    data = load_examples(recipe.data, folder=folder, data_root=root, download=download)
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
        origin=Origin(path.resolve(), None if root is None else root.resolve()),
    )


def run_folder(task: Task, runs: str | Path) -> Path:
    """Return the folder of a task's run: its name and the beginning of its hash."""
    return Path(runs) / f"{task.name}-{task.hash[:8]}"


def evaluate_recipe(
    path: str | Path,
    *,
    runs: str | Path = "runs",
    out: str | Path | None = None,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH,
    data_root: str | Path | None = None,
    download: bool = False,
    report: Report = silent,
    engine: Engine = InProcess,
    limits: Limits = NO_LIMITS,
) -> Run:
    """Evaluate a recipe, or continue its run.

    Args:
        path: the recipe's TOML file.
        runs: folder in which the run gets a folder of its own.
        out: the run's folder itself, instead.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        batch_size: rows of one model call at most; it changes no verdict.
        data_root: where data that does not ship lies.
        download: allow data and models of the hub to be downloaded.
        report: called after every unit of work.
        engine: who carries the units of work out; it changes no byte.
        limits: what one unit may take.

    Returns:
        The run in its folder: its record, verdicts and adversarial images, opened as by `robustframe.open_run`. Rows of
        models that failed are named in ``run.record.incomplete``; the same call tries them again and keeps the others.

    Raises:
        InputError: for anything in the recipe that is unknown or does not fit, a folder of another evaluation, or a
            model that cannot be evaluated.
        StoppedEarly: when the run cannot go on, such as on a full disk; the same call continues it.
    """
    where = pick_device(device)
    task = load_task(path, device=where, data_root=data_root, download=download)
    folder = run_folder(task, runs) if out is None else out
    return run(task, folder, device=where, batch_size=batch_size, report=report, engine=engine, limits=limits)


class HeldFolder:
    """A temporary folder that is removed when nobody holds this any more, at the latest at the end of the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="robustframe-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def evaluate(
    model: nn.Module,
    x: Any,
    y: Any,
    *,
    threat: str | list[str] = "linf:8/255",
    battery: str | list[str] = "quick",
    name: str = "model",
    seed: int = 0,
    chunk: int = 250,
    batch_size: int = DEFAULT_BATCH,
    out: str | Path | None = None,
    diagnose: bool = True,
    report: Report = silent,
) -> Run:
    """Evaluate one model, or both twins of a pair, on images in hand.

    Args:
        model: maps images in [0, 1] to logits, preprocessing inside; evaluated on the device it is on, and given
            back as it was.
        x: images in [0, 1], shape (n, ...); a tensor or an array.
        y: class numbers, shape (n,).
        threat: such as ``"linf:8/255"``, or several.
        battery: such as ``"quick"`` or ``"quick@1"``, a TOML file, or several in order.
        name: what tables call the model.
        seed: of all random numbers.
        chunk: examples that are attacked together; part of what is asked.
        batch_size: rows of one model call at most; it changes no verdict.
        out: folder to keep the run in; without one it lies in a temporary folder, as long as the run itself is kept.
        diagnose: check after the attacks whether their numbers are to be believed.
        report: called after every unit of work.

    Returns:
        The complete run, opened as by `robustframe.open_run`: ``run.table()`` shows it, ``run.record`` says what was
        asked and found, ``run.verdicts`` has a row for each example, ``run.adversarial()`` the images that broke them.

    Raises:
        InputError: for images outside [0, 1], labels out of range, a model that returns no logits, an unknown
            battery.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {type(model).__name__}; it must be a torch.nn.Module")
    data: Dataset = from_arrays(x, y)
    threats = [threat] if isinstance(threat, str) else list(threat)
    named = [battery] if isinstance(battery, str) else list(battery)
    batteries = [load_battery(each) for each in named]
    parsed = parse_threats(threats)
    check_stages(make_stages(batteries, Path()), parsed)
    parameter = next(iter([*model.parameters(), *model.buffers()]), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    task = Task(
        name="evaluate",
        recipe={
            "threats": threats,
            "battery": [each.cited for each in batteries],
            "seed": seed,
            "chunk": chunk,
            "diagnose": diagnose,
        },
        data=data,
        classifiers=classify(model, name, ModelSpec(use="python"), images=data.images),
        threats=parsed,
        batteries=batteries,
        seed=whole_number(seed, "seed", least=0),
        chunk=whole_number(chunk, "chunk", least=1),
        diagnose=diagnose,
    )
    held = None
    if out is None:
        held = HeldFolder()
        out = held.path
    found = run(task, out, device=device, batch_size=batch_size, report=report, keep_going=False)
    return replace(found, held=held)
