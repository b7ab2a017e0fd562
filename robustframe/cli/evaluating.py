"""The command that evaluates: what, with whom, within which limits."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustframe.bar import Bar
from robustframe.cli.shared import AsJson, DataRoot, Device, Download, json_text, parsed_normalise, say
from robustframe.errors import InputError, unknown
from robustframe.terminal import fitted

if TYPE_CHECKING:
    import torch

    from robustframe.evaluation import Task
    from robustframe.evaluation.executors import Engine
    from robustframe.runs.run import Run

ENGINES = ("process", "ray")
PREPARE = ("auto", "none")


_MODEL, _DATA, _ASKED = "Without a recipe: the model", "Without a recipe: its images", "Without a recipe: what is asked"
_WHERE, _WORK, _LIMITS = "Where things lie", "How the work is done", "Limits"


def evaluate(
    recipe: Annotated[str | None, typer.Argument(help="A name in evaluations/, a folder, or a recipe.toml.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="zoo:NAME, hf:OWNER/REPO, file:PATH.py:FUNCTION ..., see list models.", rich_help_panel=_MODEL
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of the model's weights, or pretrained.", rich_help_panel=_MODEL)
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes of a model given by name.", rich_help_panel=_MODEL)
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(help="Channels the model takes; the one of grey images is repeated.", rich_help_panel=_MODEL),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            metavar="MEAN/STD",
            rich_help_panel=_MODEL,
            help="Normalise each channel first, such as 0.5,0.5,0.5/0.25,0.25,0.25.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Key or index of the logits, where the model returns more.", rich_help_panel=_MODEL),
    ] = None,
    sigmoid: Annotated[
        bool,
        typer.Option(
            "--sigmoid", help="The model returns one number, to be put through a sigmoid.", rich_help_panel=_MODEL
        ),
    ] = False,
    name: Annotated[str | None, typer.Option(help="Its name in tables.", rich_help_panel=_MODEL)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set, file:PATH.npz or folder:PATH.", show_default="fashion-mnist", rich_help_panel=_DATA
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of a data set, train or test.", show_default="test", rich_help_panel=_DATA)
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Use only the first so many examples.", show_default="all", rich_help_panel=_DATA)
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Folder of images: pixels of the shorter side.", rich_help_panel=_DATA)
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(help="Folder of images: side of the square cut from the middle.", rich_help_panel=_DATA),
    ] = None,
    class_map: Annotated[
        str | None,
        typer.Option(
            help="Folder of images: a file that lists its class folders in the model's order.", rich_help_panel=_DATA
        ),
    ] = None,
    threat: Annotated[
        list[str] | None, typer.Option(help="NORM:EPS.", show_default="linf:8/255", rich_help_panel=_ASKED)
    ] = None,
    battery: Annotated[
        list[str] | None,
        typer.Option(help="See list batteries, or a TOML file.", show_default="quick", rich_help_panel=_ASKED),
    ] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(help="Also corrupt the images: corruptions@1, or folder:PATH.", rich_help_panel=_ASKED),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all random numbers.", show_default="0", rich_help_panel=_ASKED)
    ] = None,
    diagnose: Annotated[
        bool, typer.Option(help="Check whether the numbers can be believed.", rich_help_panel=_WORK)
    ] = True,
    prepare: Annotated[
        str,
        typer.Option(
            help="auto: as the recipe says; none: search the models themselves, not faster copies.",
            rich_help_panel=_WORK,
        ),
    ] = "auto",
    runs: Annotated[Path, typer.Option(help="Where run folders are made.", rich_help_panel=_WHERE)] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The run's folder itself, in place of one below --runs.", rich_help_panel=_WHERE)
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "auto",
    batch_size: Annotated[
        int, typer.Option(help="Images per model call; changes no verdict.", rich_help_panel=_WORK)
    ] = 256,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of a worker.", show_default="all; with ray 1", rich_help_panel=_WORK),
    ] = None,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate",
            rich_help_panel=_WORK,
            help="Run each model in a child process: one that dies costs only its own rows.",
        ),
    ] = False,
    engine: Annotated[
        str, typer.Option(help="process, or ray: many workers, here or on a cluster.", rich_help_panel=_WORK)
    ] = "process",
    workers: Annotated[
        int | None,
        typer.Option(help="Number of workers, with ray.", show_default="as many as fit", rich_help_panel=_WORK),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, such as auto.", rich_help_panel=_WORK)
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds allowed for one unit of work; beyond that its row fails.", rich_help_panel=_LIMITS),
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB of memory for one process, on Linux.", rich_help_panel=_LIMITS)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate the cost, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a recipe, or a model named here; an interrupted run is continued by the same command."""
    with Bar("units", "evaluate") as bar:
        bar.stage("loading models and data ...")
        from robustframe.evaluation import Limits, make_task, run, run_folder
        from robustframe.recipe import Recipe, find_recipe, read_toml, typed

        _check_engine(engine, workers, address, isolate=isolate)
        if prepare not in PREPARE:
            raise unknown("way to prepare models", prepare, PREPARE)
        where, here = _devices(device, engine)
        _set_threads(threads, engine)
        if (recipe is None) == (not model):
            raise InputError("give either a recipe or --model; `robustframe list recipes` shows the recipes")
        # The driver of a cluster only needs to know its models.
        keep = engine == "process" and not dry_run
        if recipe is not None:
            _refuse_with_recipe(
                weights=weights, classes=classes, channels=channels, normalise=normalise, output=output,
                sigmoid=sigmoid or None, name=name, data=data, split=split, count=count, resize=resize, crop=crop,
                class_map=class_map, threat=threat or None, battery=battery or None, seed=seed, corruptions=corruptions,
            )  # fmt: skip
            place = find_recipe(recipe)
            stated = read_toml(place, Recipe)
        else:
            for option, given in (("--weights", weights), ("--name", name)):
                if given and len(model or []) > 1:
                    raise InputError(f"{option} belongs to one model; a recipe gives each its own")
            shared = {
                "weights": weights, "classes": classes, "name": name, "channels": channels,
                "normalise": None if normalise is None else parsed_normalise(normalise),
                "output": int(output) if output is not None and output.isdecimal() else output, "sigmoid": sigmoid,
            }  # fmt: skip
            images = {"use": data or "fashion-mnist", "split": split or "test", "count": count}
            content = {
                "schema": 1, "name": "evaluate", "seed": seed or 0, "threats": threat or ["linf:8/255"],
                "battery": battery or ["quick"],
                "data": {**images, "resize": resize, "crop": crop, "class_map": class_map},
                "corruptions": None if corruptions is None else {"use": corruptions},
                "model": [{"use": use, **shared} for use in model or []],
            }  # fmt: skip
            place, stated = Path("command line"), typed(Recipe, content)
        task = make_task(
            stated, place, device=here, data_root=data_root, download=download, keep=keep,
            isolate=isolate and not dry_run,
        )  # fmt: skip
    if not diagnose:
        task = task.undiagnosed()
    if prepare == "none":
        task = task.unprepared()
    if stated.data.use.startswith("folder:"):
        say(f"labels: {_labels(task.data.classes)}")
    folder = out or run_folder(task, runs)
    if dry_run:
        _say_cost(task, folder, here, batch_size, workers or 1, as_json=as_json)
        return
    limits = Limits(time_limit, memory_limit)
    with Bar("units", task.name) as bar:
        found = run(
            task, folder, device=where, batch_size=batch_size, report=bar.show, limits=limits,
            engine=_engine(engine, address, workers, isolate=isolate),
        )  # fmt: skip
    _finish(found, as_json=as_json)


def _check_engine(engine: str, workers: int | None, address: str | None, *, isolate: bool) -> None:
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers} must be at least 1")
    if engine != "ray" and (workers is not None or address is not None):
        raise InputError("--workers and --address belong with --engine ray")
    if engine == "ray" and isolate:
        raise InputError("--isolate belongs with --engine process; the workers of Ray are processes of their own")


def _devices(name: str, engine: str) -> "tuple[torch.device, torch.device]":
    """Where units are carried out, and where this process loads models."""
    import torch

    from robustframe.devices import pick_device

    if engine == "process":
        return pick_device(name), pick_device(name)
    # The driver of a cluster with GPUs may have none itself.
    return torch.device(name) if name in ("cpu", "cuda") else pick_device(name), torch.device("cpu")


def _set_threads(threads: int | None, engine: str) -> None:
    import torch

    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads} must be at least 1")
    if threads is None and engine == "ray" and "OMP_NUM_THREADS" not in os.environ:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def _engine(name: str, address: str | None, workers: int | None, *, isolate: bool) -> "Engine":
    from robustframe.evaluation.executors import InProcess
    from robustframe.evaluation.isolated import Isolated

    if name == "process":
        return Isolated if isolate else InProcess
    from robustframe.evaluation.cluster import ray_engine

    return ray_engine(address, workers)


def _say_cost(
    task: "Task", folder: Path, device: "torch.device", batch_size: int, workers: int, *, as_json: bool
) -> None:
    from robustframe.evaluation.estimate import estimate

    cost = estimate(task, folder, device, batch_size, workers)
    typer.echo(json_text(asdict(cost)) if as_json else fitted(str(cost)))


def _finish(found: "Run", *, as_json: bool) -> None:
    from robustframe.report.publish import write_tables
    from robustframe.report.robustness import robustness_table
    from robustframe.report.tables import render

    record, folder = found.record, found.folder
    result = robustness_table(found)
    typer.echo(json_text(record.model_dump(by_alias=True)) + "\n" if as_json else render(result, "terminal"), nl=False)
    # A finished run may lie where nobody can write; it is shown all the same.
    files = write_tables(result, folder) if os.access(folder, os.W_OK) else []
    tables = ", ".join(str(file) for file in files) or f"none are written, {folder} is read-only"
    for flag in record.flags:
        say(f"flag: {flag}")
    for row in record.failed:
        say(f"row failed: {row.classifier} under {row.threat}: {row.reason}")
    say(f"record: {folder / 'record.json'}\ntables: {tables}")
    if record.failed:
        say("the same command tries failed rows again and keeps the others")
        raise typer.Exit(1)


def _refuse_with_recipe(**options: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        verb = "belongs" if len(given) == 1 else "belong"
        raise InputError(f"{', '.join(given)} {verb} with --model; a recipe states its own, so change it there")


_LABELS = 20
"""Classes of a folder that are printed; the record has all."""


def _labels(classes: Sequence[str]) -> str:
    """Say which folder has which label."""
    said = ", ".join(f"{label} = {name}" for label, name in enumerate(classes[:_LABELS]))
    more = f" ... {len(classes) - 1} = {classes[-1]}" if len(classes) > _LABELS else ""
    return f"{said}{more}; the order of the model's logits must be this one"
