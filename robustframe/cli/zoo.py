"""The commands on the zoo: what there is, one card, and whether all of it is whole."""

import fnmatch
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from robustframe.cli.shared import AsJson, Download, json_text, plain, say

app = typer.Typer(help="Pairs: those that ship, and any card.", no_args_is_help=True, rich_markup_mode=None)

Pair = Annotated[str, typer.Argument(help="A name of the zoo, card:PATH.json, or hf:OWNER/REPO[@REVISION][:NAME].")]


@app.command("list")
def zoo_list(as_json: AsJson = False) -> None:
    """List the shipped pairs."""
    from robustframe.report.cards import cards_table
    from robustframe.report.tables import render
    from robustframe.zoo import ZOO, names, read_card

    cards = [read_card(ZOO / f"{name}.json") for name in names()]
    if as_json:
        typer.echo(json_text([card.model_dump(by_alias=True) for card in cards]))
    else:
        typer.echo(render(cards_table(cards), "terminal"), nl=False)


@app.command("show")
def zoo_show(
    name: Pair,
    filters: Annotated[Path | None, typer.Option(help="Draw its atoms into this .svg, .pdf or .png file.")] = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Show the card of a pair, after checking its weights."""
    from robustframe.report.cards import card_text
    from robustframe.zoo import load_named

    if filters is not None:
        from robustframe.report.figures import check_path, filters_figure, write

        check_path(filters)
    pair, card = load_named(name if ":" in name else f"zoo:{name}", download=download)
    if filters is not None:
        which = ", first sweep" if card.untied else ""
        write(filters_figure(pair.frames[0], title=f"Atoms of {card.name}{which}"), filters)
        say(f"plot: {filters}")
    if as_json:
        typer.echo(json_text(card.model_dump(by_alias=True)))
    else:
        typer.echo(plain(card_text(card)), nl=False)


@app.command("train")
def zoo_train(
    pairs: Annotated[
        list[str] | None, typer.Argument(help="Names or patterns such as 'fmnist-*-joint*'; the whole zoo if none.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, logs, weights and cards.")] = Path("runs/zoo"),
    jobs: Annotated[int, typer.Option(help="Trainings at a time, one thread each.", min=1)] = os.cpu_count() or 1,
    hours: Annotated[float | None, typer.Option(help="Stop after so many hours; the same command continues.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    card: Annotated[
        bool, typer.Option(help="--no-card: stop at the checkpoints; the same command without it measures the cards.")
    ] = True,
    status: Annotated[bool, typer.Option("--status", help="Say what is left, and train nothing.")] = False,
) -> None:
    """Train the pairs that have no card in a folder yet, at low priority; the same command continues anywhere."""
    from robustframe.devices import pick_device
    from robustframe.errors import InputError, unknown
    from robustframe.train.many import left, train_many
    from robustframe.train.spec import training_recipes

    known = training_recipes(own_data=False)
    chosen = {
        name: recipe for given in pairs or ["*"] for name, recipe in known.items() if fnmatch.fnmatchcase(name, given)
    }
    for given in pairs or []:
        if not fnmatch.filter(known, given):
            raise unknown("zoo pair", given, known)
    if hours is not None and not hours > 0:
        raise InputError(f"--hours {hours:g} must be above 0")
    if not status:
        pick_device(device)
        failed = train_many(
            list(chosen.values()), out, jobs=jobs, seconds=None if hours is None else 3600 * hours, device=device,
            card=card,
            report=lambda name, code: say(f"{name}: {'trained' if code == 0 else f'failed, see {out / name}.log'}"),
        )  # fmt: skip
    rest = [each for each in (left(recipe, out) for recipe in chosen.values()) if not each.card]
    for each in rest:
        waits = ", waits for its card" if each.done == each.epochs else ""
        typer.echo(f"{each.name:32} {each.done} of {each.epochs} epochs, {each.seconds / 60:.0f} minutes so far{waits}")
    typer.echo(f"{len(chosen) - len(rest)} of {len(chosen)} pairs have their card.")
    if not status and failed:
        raise typer.Exit(1)


@app.command("check")
def zoo_check(
    pairs: Annotated[
        list[str] | None, typer.Argument(help="Names, card:PATH.json or hf:OWNER/REPO; every shipped pair if none.")
    ] = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Check hash, tensors and card of every pair, and the clean accuracies of both twins on 1,000 test images."""
    from robustframe.errors import InputError
    from robustframe.train import check_pair
    from robustframe.zoo import names

    found = []
    for name in pairs or names():
        try:
            ok, says = True, check_pair(name, download=download)
        except InputError as error:
            ok, says = False, str(error)
        found.append({"pair": name, "ok": ok, "says": says})
        if not as_json:
            typer.echo(plain(f"{name:24} {'' if ok else 'FAILED: '}{says}"))
    failed = sum(not each["ok"] for each in found)
    if as_json:
        typer.echo(json_text(found))
    else:
        typer.echo(f"{failed} of {len(found)} pairs failed." if failed else f"All {len(found)} pairs hold.")
    if failed:
        raise typer.Exit(1)
