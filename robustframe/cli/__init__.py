"""The command line: results on stdout, progress and messages on stderr.

Exit status: 0 done, 1 done and something failed its check, 2 could not start, 3 stopped early and can be continued.
Heavy imports stay inside the commands, so that help is instant.
"""

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from robustframe.bar import Bar
from robustframe.cli.evaluating import evaluate
from robustframe.cli.frames import frame, rank
from robustframe.cli.new import new_app
from robustframe.cli.reports import FIGURE_HELP, attacks_report, figure, report, table
from robustframe.cli.shared import AsJson, DataRoot, Device, Download, Grouped, json_text, say, write_anywhere
from robustframe.cli.trust import compare, doctor, transfer, verify
from robustframe.cli.zoo import app as zoo_app
from robustframe.errors import InputError, Misbehaved, StoppedEarly
from robustframe.terminal import fitted

app = typer.Typer(
    help="Adversarial robustness evaluation for models that solve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
list_app = typer.Typer(help="What can be named in recipes and batteries.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(zoo_app, name="zoo")
app.add_typer(list_app, name="list")
app.add_typer(new_app, name="new")


def main() -> None:
    """Run the command line; every expected failure is a sentence and an exit status, never a trace."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    write_anywhere()
    try:
        app()
    except (InputError, Misbehaved) as error:
        say(f"error: {error}")
        sys.exit(2)
    except StoppedEarly as error:
        say(f"stopped: {error}; the same command continues")
        sys.exit(3)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left; there is nobody to tell.
        sys.stderr.close()
        sys.exit(0)


def _say_version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        typer.echo(f"robustframe {version('robustframe')}")
        raise typer.Exit
    return asked


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Adversarial robustness evaluation for models that solve."""


app.command(cls=Grouped)(evaluate)
app.command()(table)
app.command("attacks-report")(attacks_report)
app.command(help=FIGURE_HELP)(figure)


@app.command()
def curve(
    run: Annotated[str, typer.Argument(help="Folder of a complete run.")],
    format: Annotated[str, typer.Option(help="terminal or md.")] = "terminal",
    as_json: AsJson = False,
) -> None:
    """Join what a run found in each norm into robust accuracy over eps; status 1 when an attack was too weak."""
    from robustframe.report.curve_text import curves_json, curves_text
    from robustframe.runs import open_run

    curves = open_run(run).curves()
    typer.echo(json_text(curves_json(curves)) if as_json else curves_text(curves, format).rstrip("\n"))
    if any(each.violations for each in curves):
        raise typer.Exit(1)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(help="Folder of a complete run of a shipped recipe.")],
) -> None:
    """Copy a run's record, verdicts and tables to evaluations/NAME/results."""
    from robustframe.report.publish import publish_run
    from robustframe.runs import open_run

    typer.echo(str(publish_run(open_run(run))))


app.command()(verify)
app.command()(compare)
app.command()(transfer)
app.command()(report)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="The name of a zoo pair, or RECIPE.toml; of a grid GRID.toml:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, weights and card.")] = Path("runs/train"),
    device: Device = "auto",
    card: Annotated[
        bool, typer.Option(help="--no-card: stop at the checkpoint; the same command without it measures the card.")
    ] = True,
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Train a pair; an interrupted training is continued by the same command."""
    with Bar("batches", "train") as bar:
        bar.stage("loading ...")
        from robustframe.devices import pick_device
        from robustframe.train import find_training_recipe, folder_of, train_only
        from robustframe.train import train as train_recipe

        stated = find_training_recipe(recipe)
        bar.name = stated.name
        make = train_recipe if card else train_only
        made = make(
            stated, out, device=pick_device(device), source=folder_of(recipe), data_root=data_root, download=download,
            report=bar.show,
        )  # fmt: skip
    if not card:
        say(f"checkpoint: {out / stated.name}.checkpoint; the same command without --no-card measures the card")
        return
    next_step = ["robustframe", "evaluate", "--model", f"card:{made}", "--data", stated.data.use]
    next_step += ["--data-root", str(data_root)] if data_root is not None else []
    say(f"evaluate it with: {shlex.join(next_step)}")
    typer.echo(str(made))


app.command()(frame)
app.command()(rank)
app.command()(doctor)


@list_app.command("attacks")
def list_attacks() -> None:
    """Attacks a battery can use."""
    import dataclasses

    from robustframe.attacks import ATTACKS, GradientAttack
    from robustframe.plugins import plugins

    shared = {field.name for field in dataclasses.fields(GradientAttack)}
    rows = []
    for name, attack in ATTACKS.items():
        own = [field for field in dataclasses.fields(attack) if field.name not in shared]
        settings = ", ".join(f"{field.name} = {field.default!r}" for field in own)
        rows.append((name, "/".join(attack.norms), (attack.__doc__ or "").splitlines()[0]))
        rows.append(("", "", f"{settings} +" if issubclass(attack, GradientAttack) else settings))
    rows += [(name, "", about) for name, about in plugins("attacks").items() if name not in ATTACKS]
    rows.append(("torchattacks:CLASS", "", "a linf, l1 or l2 attack of torchattacks (see `robustframe doctor`)"))
    rows.append(("file:PATH.py:CLASS", "", "your own subclass of robustframe.attacks.Attack"))
    _list(rows)
    typer.echo(fitted(f"+ and how gradients are taken, see docs/attacks.md: {', '.join(sorted(shared))}"))


@list_app.command("batteries")
def list_batteries() -> None:
    """Batteries a recipe can use."""
    from robustframe.recipe import batteries, batteries_of_packages

    rows = []
    for each in (*batteries(), *batteries_of_packages()):
        # A name that stands for several norms is one attack to a reader.
        attacks = ", ".join(dict.fromkeys(spec.name or spec.use for spec in each.attack))
        rows += [(each.cited, each.about), ("", attacks)]
    _list(rows)


@list_app.command("models")
def list_models() -> None:
    """Models a recipe or --model can name."""
    from robustframe.models.sources import SOURCES
    from robustframe.plugins import plugins
    from robustframe.zoo import ZOO, names, read_card

    added = [(f"{name}:NAME", about) for name, about in plugins("models").items() if name not in SOURCES]
    _list([*((form, about) for form, about, _ in SOURCES.values()), *added])
    typer.echo("\nThe zoo:")
    cards = [read_card(ZOO / f"{name}.json") for name in names()]
    _list([(f"zoo:{card.name}", card.about) for card in cards])


@list_app.command("data")
def list_data() -> None:
    """Data sets a recipe can use."""
    from robustframe.data import available

    own = ("file:PATH", "your own arrays images and labels, .npz or .safetensors")
    _list([*available().items(), own, ("folder:PATH", "your own images, a folder for each class")])


@list_app.command("recipes")
def list_recipes() -> None:
    """Recipes `robustframe evaluate` knows by name."""
    from robustframe.recipe import Recipe, read_toml, recipes

    _list([(name, read_toml(path, Recipe).about) for name, path in recipes().items()])


def _list(rows: Sequence[Sequence[str]]) -> None:
    from robustframe.report.tables import listing

    typer.echo(listing(rows), nl=False)
