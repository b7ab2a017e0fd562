"""The ways in: a recipe, or one model with images in hand."""

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from robustframe.calls import DEFAULT_BATCH, device_of, require_differentiable
from robustframe.data import Dataset, from_arrays
from robustframe.evaluation.engine import run, whole_number
from robustframe.evaluation.executors import Engine, InProcess
from robustframe.evaluation.isolated import Isolated
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.loading import load_task, pick_device, run_folder
from robustframe.evaluation.progress import Report, silent
from robustframe.evaluation.task import Task
from robustframe.lending import kept
from robustframe.models.classifiers import classify
from robustframe.recipe import ModelSpec, load_battery, parse_threats
from robustframe.recipe.stages import check_stages, make_stages
from robustframe.runs.run import Run


@kept()
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
    isolate: bool = False,
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
        isolate: load and call each model in a child process of its own, so that one that ends its process, hangs
            (with a time limit) or leaks costs its own rows only; it changes no byte. In place of an engine. A script
            that asks for it needs ``if __name__ == "__main__":``, as each child imports it.

    Returns:
        The run in its folder: its record, verdicts and adversarial images, opened as by `robustframe.open_run`. Rows of
        models that failed are named in ``run.record.failed``; the same call tries them again and keeps the others.

    Raises:
        InputError: for anything in the recipe that is unknown or does not fit, a folder of another evaluation, or a
            model that cannot be evaluated.
        StoppedEarly: when the run cannot go on, such as on a full disk; the same call continues it.
    """
    where = pick_device(device)
    if isolate:
        engine = Isolated
    task = load_task(path, device=where, data_root=data_root, download=download, isolate=isolate)
    folder = run_folder(task, runs) if out is None else out
    return run(task, folder, device=where, batch_size=batch_size, report=report, engine=engine, limits=limits)


class HeldFolder:
    """A temporary folder that is removed when nobody holds this any more, at the latest at the end of the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="robustframe-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@kept()
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
    require_differentiable(model)
    data: Dataset = from_arrays(x, y)
    threats = [threat] if isinstance(threat, str) else list(threat)
    named = [battery] if isinstance(battery, str) else list(battery)
    batteries = [load_battery(each) for each in named]
    parsed = parse_threats(threats)
    check_stages(make_stages(batteries, Path()), parsed)
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
    found = run(task, out, device=device_of(model), batch_size=batch_size, report=report, keep_going=False)
    return replace(found, held=held)
