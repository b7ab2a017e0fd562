"""The commands on the zoo: what there is, one card, and whether all of it is whole."""

from typing import Annotated

import typer

from robustframe.cli.shared import AsJson, Download, json_text, plain

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
def zoo_show(name: Pair, download: Download = False, as_json: AsJson = False) -> None:
    """Show the card of a pair, after checking its weights."""
    from robustframe.report.cards import card_text
    from robustframe.zoo import load_named

    card = load_named(name if ":" in name else f"zoo:{name}", download=download)[1]
    if as_json:
        typer.echo(json_text(card.model_dump(by_alias=True)))
    else:
        typer.echo(plain(card_text(card)), nl=False)


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
