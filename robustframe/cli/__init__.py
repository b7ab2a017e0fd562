"""The command line: results on stdout, progress and messages on stderr.

Exit status: 0 done, 1 done and something failed its check, 2 could not start, 3 stopped early and can be continued.
Heavy imports stay inside the commands, so that help is instant.
"""

import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustframe.cli.board import report
from robustframe.cli.reports import FIGURE_HELP, figure, table
from robustframe.cli.shared import AsJson, Bar, DataRoot, Device, Download, say
from robustframe.cli.trust import compare, doctor, verify
from robustframe.cli.zoo import app as zoo_app
from robustframe.errors import InputError, Interrupted

if TYPE_CHECKING:
    from robustframe.record import Record

app = typer.Typer(
    help="Adversarial robustness evaluation for models that solve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
list_app = typer.Typer(help="What can be named in recipes and batteries.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(zoo_app, name="zoo")
app.add_typer(list_app, name="list")


def main() -> None:
    """Run the command line; every expected failure is a sentence and an exit status, never a trace."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    # Ctrl-C as an exception of our own: the command-line library turns KeyboardInterrupt into status 1.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except InputError as error:
        say(f"error: {error}")
        sys.exit(2)
    except Interrupted:
        say("stopped; the same command continues")
        sys.exit(3)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left; there is nobody to tell.
        sys.stderr.close()
        sys.exit(0)


@app.command()
def evaluate(
    recipe: Annotated[str | None, typer.Argument(help="A name in evaluations/, a folder, or a recipe.toml.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Instead of a recipe: zoo:NAME, card:PATH.json, hf:OWNER/REPO, file:PATH.py:FUNCTION."),
    ] = None,
    data: Annotated[str, typer.Option(help="With --model: the data set.")] = "fashion-mnist",
    split: Annotated[str, typer.Option(help="With --model: its split.")] = "test",
    count: Annotated[int | None, typer.Option(help="With --model: examples from its beginning.")] = None,
    threat: Annotated[list[str] | None, typer.Option(help="With --model: such as linf:8/255.")] = None,
    battery: Annotated[list[str] | None, typer.Option(help="With --model: such as quick@1.")] = None,
    seed: Annotated[int, typer.Option(help="With --model: of all random numbers.")] = 0,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="The run's folder itself, instead.")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Rows of one model call; changes no verdict.")] = 256,
    diagnose: Annotated[bool, typer.Option(help="Check whether the numbers are to be believed.")] = True,
    data_root: DataRoot = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a recipe, or a model named here; an interrupted run is continued by the same command."""
    from robustframe.evaluation import load_task, make_task, pick_device, run, run_folder
    from robustframe.recipe import Recipe, find_recipe

    where = pick_device(device)
    if (recipe is None) == (not model):
        raise InputError("give either a recipe or --model; `robustframe list recipes` shows the recipes")
    if recipe is not None:
        _refuse_with_recipe(threat=threat, battery=battery, count=count)
        task = load_task(find_recipe(recipe), device=where, root=data_root, download=download)
    else:
        content = {
            "schema": 1, "name": "evaluate", "seed": seed, "threats": threat or ["linf:8/255"],
            "battery": battery or ["quick"], "data": {"use": data, "split": split, "count": count},
            "model": [{"use": use} for use in model or []],
        }  # fmt: skip
        place = Path("command line")
        task = make_task(_validated(Recipe, content), place, device=where, root=data_root, download=download)
    if not diagnose:
        task = task.undiagnosed()
    folder = out or run_folder(task, runs)
    with Bar("units", task.name) as bar:
        record = run(task, folder, device=where, batch_size=batch_size, report=bar.moment)
    _finish(record, folder, as_json=as_json)


app.command()(table)
app.command(help=FIGURE_HELP)(figure)


@app.command()
def curve(run: Annotated[str, typer.Argument(help="Folder of a complete run.")], as_json: AsJson = False) -> None:
    """Join what a run found in each norm into robust accuracy over eps; status 1 when an attack was too weak."""
    from robustframe.curve import security_curves
    from robustframe.evaluation.tables import read_verdicts
    from robustframe.record import VERDICTS, check_usable, find_run, read_record
    from robustframe.report.curves import curves_json, curves_text

    folder = find_run(run)
    record = read_record(run)
    if not (folder / VERDICTS).is_file():
        raise InputError(f"{folder} has no verdicts yet; run the same evaluate command again to continue it")
    check_usable(record, folder)
    curves = security_curves(record, read_verdicts(folder / VERDICTS))
    typer.echo(json.dumps(curves_json(curves), indent=2) if as_json else curves_text(curves).rstrip("\n"))
    if any(each.violations for each in curves):
        raise typer.Exit(1)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="Folder of a complete run of a shipped recipe.")],
) -> None:
    """Copy a run's record, verdicts and tables to evaluations/NAME/results."""
    from robustframe.report.publish import publish_run

    typer.echo(str(publish_run(run)))


app.command()(verify)
app.command()(compare)
app.command()(report)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A training recipe's TOML file, or the name of a zoo pair.")],
    out: Annotated[Path, typer.Option(help="Where checkpoint, weights and card go.")] = Path("runs/train"),
    device: Device = "auto",
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Train a pair; an interrupted training is continued by the same command."""
    from robustframe.evaluation import pick_device
    from robustframe.train import find_training_recipe, read_training_recipe
    from robustframe.train import train as train_recipe

    stated = read_training_recipe(find_training_recipe(recipe))
    with Bar("batches", stated.name) as bar:
        card = train_recipe(
            stated, out, device=pick_device(device), root=data_root, download=download, report=bar.progress
        )
    say(f"evaluate it with: robustframe evaluate --model card:{card}")
    typer.echo(str(card))


@app.command()
def frame(
    model: Annotated[str, typer.Argument(help="zoo:NAME, card:PATH.json, hf:OWNER/REPO, or such as resnet20.")],
    minimum: Annotated[
        bool, typer.Option("--minimum", help="Optimise the least deep frame potential; minutes for large frames.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw |Gram| into this .svg, .pdf or .png file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report on the frame of a pair or an architecture: structure, coherence, potential, solver."""
    from robustframe.report.frame import find_frame, frame_report
    from robustframe.report.frame_text import render_frame

    if plot is not None:
        from robustframe.report.figures import check_path, gram_figure, write

        check_path(plot)
    report = frame_report(model, minimum=minimum)
    built = find_frame(model)[0]
    text = json.dumps(report.to_json(), indent=2) + "\n" if as_json else render_frame(report, built)
    typer.echo(text, nl=False)
    if plot is not None:
        write(gram_figure(built, title=f"|Gram| of {report.name}"), plot)
        say(f"plot: {plot}")


app.command()(doctor)


@list_app.command("attacks")
def list_attacks() -> None:
    """Attacks a battery can use."""
    import dataclasses

    from robustframe.attacks import ATTACKS, GradientAttack

    shared = {field.name for field in dataclasses.fields(GradientAttack)}
    for name, attack in ATTACKS.items():
        own = [field for field in dataclasses.fields(attack) if field.name not in shared]
        settings = ", ".join(f"{field.name} = {field.default!r}" for field in own)
        if issubclass(attack, GradientAttack):
            settings += " +"
        typer.echo(
            f"{name:13} {'/'.join(attack.norms):15} {(attack.__doc__ or '').splitlines()[0]}\n{'':29} {settings}"
        )
    typer.echo(f"+ and how gradients are taken, see docs/attacks.md: {', '.join(sorted(shared))}")
    typer.echo("torchattacks:CLASS       a linf, l1 or l2 attack of torchattacks (the extra of that name)")
    typer.echo("file:PATH.py:CLASS       your own subclass of robustframe.attacks.Attack")


@list_app.command("batteries")
def list_batteries() -> None:
    """Batteries a recipe can use."""
    from robustframe.recipe import batteries

    for each in batteries():
        # A name that stands for several norms is one attack to a reader.
        attacks = ", ".join(dict.fromkeys(spec.name or spec.use for spec in each.attack))
        typer.echo(f"{each.cited:18} {each.about}\n{'':18} {attacks}")


@list_app.command("data")
def list_data() -> None:
    """Data sets a recipe can use."""
    from robustframe.data import available

    for name, about in available().items():
        typer.echo(f"{name:16} {about}")


@list_app.command("recipes")
def list_recipes() -> None:
    """Recipes `robustframe evaluate` knows by name."""
    from robustframe.recipe import Recipe, read_toml, recipes

    for name, path in recipes().items():
        typer.echo(f"{name:16} {read_toml(path, Recipe).about}")


def _finish(record: "Record", folder: Path, *, as_json: bool) -> None:
    from robustframe.report.publish import write_tables
    from robustframe.report.robustness import robustness_table
    from robustframe.report.tables import render

    result = robustness_table(record, folder)
    files = write_tables(result, folder)
    typer.echo(record.to_json() if as_json else render(result, "terminal"), nl=False)
    for flag in record.flags:
        say(f"flag: {flag}")
    say(f"record: {folder / 'record.json'}\ntables: {', '.join(str(file) for file in files)}")


def _refuse_with_recipe(**options: object) -> None:
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise InputError(f"{', '.join(given)} belong with --model; a recipe states its own")


def _validated(model: type[Any], content: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{key} = {first['input']!r}: {first['msg']}") from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted
