"""The entry points: a recipe, or a model and images in memory."""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch import nn

from robustframe.attacks.registry import AnyAttack
from robustframe.calls import DEFAULT_BATCH
from robustframe.corruptions import load_corruptions
from robustframe.data import Dataset, as_dataset
from robustframe.devices import pick_device
from robustframe.errors import InputError, as_path, shown, whole_number
from robustframe.evaluation.engine import run
from robustframe.evaluation.executors import Engine, InProcess
from robustframe.evaluation.isolated import Isolated
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.loading import load_task, run_folder
from robustframe.evaluation.progress import Report, reporting
from robustframe.evaluation.task import Task
from robustframe.lending import kept
from robustframe.models.classifiers import Classifier
from robustframe.models.framed import with_frames
from robustframe.models.given import classify_given
from robustframe.models.identity import answers
from robustframe.recipe import (
    Battery,
    Prepare,
    as_batteries,
    as_corruptions,
    parse_threats,
    spread_threats,
    threat_words,
)
from robustframe.recipe.stages import check_stages, make_stages
from robustframe.runs.examples import save_examples
from robustframe.runs.run import Run
from robustframe.targets import EVERY
from robustframe.threat import ThreatModel


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
    report: Report | None = None,
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
        report: called after every unit of work; without one a terminal and a notebook show a bar, which
            `robustframe.silent` leaves out.
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
    path = as_path(path, "path", "recipe")
    runs, out = as_path(runs, "runs"), None if out is None else as_path(out, "out")
    data_root = None if data_root is None else as_path(data_root, "data_root")
    whole_number(batch_size, "batch size", least=1)
    if not callable(engine):
        raise InputError(f"engine is {type(engine).__name__}; it must make an executor, as InProcess and Isolated do")
    if not isinstance(limits, Limits):
        raise InputError(f"limits is {type(limits).__name__}; say Limits(seconds=60), of robustframe.evaluation")
    where = pick_device(device)
    if isolate:
        engine = Isolated
    task = load_task(path, device=where, data_root=data_root, download=download, isolate=isolate)
    folder = run_folder(task, runs) if out is None else out
    with reporting(report, task.name) as said:
        return run(task, folder, device=where, batch_size=batch_size, report=said, engine=engine, limits=limits)


class HeldFolder:
    """A temporary folder that is removed when nobody holds this any more, at the latest at the end of the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="robustframe-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@kept()
def evaluate(
    model: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    x: Any,
    y: Any = None,
    *,
    threat: str | ThreatModel | Sequence[str | ThreatModel] = "linf:8/255",
    battery: str | Battery | AnyAttack | Sequence[str | Battery | AnyAttack] = "quick",
    name: str = "model",
    seed: int = 0,
    chunk: int = 250,
    batch_size: int = DEFAULT_BATCH,
    out: str | Path | None = None,
    diagnose: bool = True,
    corruptions: str | Mapping[str, Any] | None = None,
    prepare: Prepare = "auto",
    report: Report | None = None,
) -> Run:
    """Evaluate models, or both twins of a pair, on images in memory.

    Args:
        model: maps images in [0, 1] to logits, preprocessing inside; evaluated on the device it is on, and returned
            as it was. Several by name, ``{"mine": one, "theirs": two}``, are compared in one run; a list of them
            is called ``model-1``, ``model-2``, ....
        x: images in [0, 1], or bytes, shape (n, ...): a tensor or an array; or what has the labels too: a
            `robustframe.data.Dataset`, a `torch.utils.data.Dataset` or a `DataLoader`, or tables such as ``{"image":
            ..., "label": ...}``; see `robustframe.data.as_dataset`.
        y: class numbers, shape (n,) or (n, 1); left out where ``x`` has them.
        threat: such as ``"linf:8/255"``, a `ThreatModel`, or several.
        battery: such as ``"quick"`` or ``"quick@1"``, a TOML file, attacks such as ``[PGD(steps=40), {"use":
            "square"}]``, or several in order.
        name: the name of a single model in tables.
        seed: of all random numbers.
        chunk: examples that are attacked together; part of what is asked.
        batch_size: rows of one model call at most; it changes no verdict.
        out: folder to keep the run in; without one it lies in a temporary folder, as long as the run itself is kept.
        diagnose: check after the attacks whether their numbers can be believed.
        corruptions: common corruptions to try the models on as well: ``"corruptions@1"``, ``"folder:CIFAR-10-C"``, or a
            table as in a recipe, such as ``{"kinds": ["fog"], "severities": [1, 3]}``.
        prepare: ``"auto"``: attacks search a faster copy of a model where there is one that agrees with it
            (`robustframe.prepared`); ``"none"``: they search the model itself. Every verdict is the model's own.
        report: called after every unit of work; without one a terminal and a notebook show a bar, which
            `robustframe.silent` leaves out.

    Returns:
        The complete run, opened as by `robustframe.open_run`: ``run.table()`` shows it, ``run.record`` says what was
        asked and found, ``run.verdicts`` has a row for each example, ``run.adversarial()`` the images that broke them.

    Raises:
        InputError: for images outside [0, 1], labels out of range, a model that returns no logits, an unknown
            battery.
    """
    if not isinstance(diagnose, bool):
        raise InputError(f"diagnose = {diagnose!r} must be True or False")
    if prepare not in get_args(Prepare):
        raise InputError(f"prepare = {shown(prepare)} must be 'auto' or 'none'")
    if out is not None:
        out = as_path(out, "out")
    data, words, batteries = as_dataset(x, y), threat_words(threat), as_batteries(battery)
    threats = parse_threats(words)
    check_stages(make_stages(batteries, Path()), threats)
    spec, whole_seed = as_corruptions(corruptions), whole_number(seed, "seed", least=0)
    corrupted = None
    if spec is not None:
        corrupted = load_corruptions(
            spec.use, data, seed=whole_seed, kinds=spec.kinds, severities=spec.severities, folder=Path()
        )
    classifiers, device = classify_given(model, name, data.images)
    classifiers = with_frames(classifiers, tuple(data.images.shape[1:]))
    classes = len(data.classes)
    if not classes and any(each.targets == EVERY for each in threats):
        classes = _classes(classifiers, data)
    threats = spread_threats(threats, classes)
    task = Task(
        name="evaluate",
        recipe={
            "threats": [each.label for each in threats],
            "battery": [each.cited for each in batteries],
            "seed": seed,
            "chunk": chunk,
            "diagnose": diagnose,
            **({} if spec is None else {"corruptions": spec.model_dump()}),
        },
        data=data,
        classifiers=classifiers,
        threats=threats,
        batteries=batteries,
        seed=whole_seed,
        chunk=whole_number(chunk, "chunk", least=1),
        diagnose=diagnose,
        corruptions=corrupted,
    )
    if prepare == "none":
        task = task.unprepared()
    held = None
    if out is None:
        held = HeldFolder()
        out = held.path
    with reporting(report, task.name) as said:
        found = run(task, out, device=device, batch_size=batch_size, report=said, keep_going=False)
    save_examples(data, found.folder)
    return replace(found, held=held)


def _classes(classifiers: Sequence[Classifier], data: Dataset) -> int:
    """How many classes there are where the data does not name them: those that the models tell apart."""
    found = [int(data.labels.max()) + 1]
    for each in classifiers:
        # What is wrong with a model is said when it is tried.
        with contextlib.suppress(Exception):
            found.append(answers(each.module, data.images[:1]).logits.shape[1])
    return max(found)
