"""The commands that say whether a number is believable: verify, compare, doctor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from robustframe.bar import Bar
from robustframe.cli.shared import AsJson, DataRoot, Device, Download, check_output, json_text, print_tables, say
from robustframe.terminal import columns, fitted

RecipeFolder = Annotated[
    Path | None, typer.Option("--folder", help="Folder that paths in the recipe are relative to; this one by default.")
]
Code = Annotated[
    list[Path] | None,
    typer.Option("--code", help="A Python file that the run names and that may be executed; may be repeated."),
]
BatchSize = Annotated[int, typer.Option(help="Images per model call.")]


def verify(
    run: Annotated[str, typer.Argument(help="Folder of a complete run, or of published results.")],
    seal: Annotated[
        str | None,
        typer.Option(help="The seal printed by a table, a paper or a board; any later edit is then reported."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also fail when something could not be checked.")] = False,
    folder: RecipeFolder = None,
    code: Code = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    data_root: DataRoot = None,
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Replay a run's stored images on its exact models, derive its counts anew, and name whatever differs."""
    with Bar("parts", "verify") as bar:
        bar.stage("loading ...")
        from robustframe.verification import verify as verify_run

        found = verify_run(
            run,
            device=device,
            batch_size=batch_size,
            folder=folder,
            code=code or (),
            seal=seal,
            data_root=data_root,
            download=download,
            report=bar.show,
        )
    typer.echo(json_text(found.to_json()) if as_json else fitted(str(found).rstrip("\n")))
    if strict and not found.whole:
        say("something could not be checked, and --strict asks for everything")
    if not found.ok or (strict and not found.whole):
        raise typer.Exit(1)


def compare(
    first: Annotated[str, typer.Argument(help="Folder of a complete run.")],
    second: Annotated[str, typer.Argument(help="Folder of another run on the same examples.")],
    format: Annotated[str, typer.Option(help="terminal or md.")] = "terminal",
    transfer: Annotated[bool, typer.Option(help="Show each run's stored images to the other's classifiers.")] = True,
    folder: RecipeFolder = None,
    code: Code = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs on the same examples: paired differences, who was broken by what, transfer."""
    with Bar("parts", "compare") as bar:
        bar.stage("loading ...")
        from robustframe.errors import unknown
        from robustframe.report.tables import PROSE
        from robustframe.verification.compare import compare_runs
        from robustframe.verification.compare_text import render_comparison

        if format not in PROSE:
            raise unknown("format", format, PROSE)
        bar.stage("comparing ...")
        found = compare_runs(
            first,
            second,
            transfer=transfer,
            device=device,
            batch_size=batch_size,
            folder=folder,
            code=code or (),
            data_root=data_root,
        )
    typer.echo(json_text(found.to_json()) if as_json else render_comparison(found, format).rstrip("\n"))


def transfer(
    run: Annotated[str, typer.Argument(help="Folder of a complete run of several classifiers.")],
    format: Annotated[str, typer.Option(help="terminal, md, tex, csv or html.")] = "terminal",
    plot: Annotated[
        Path | None, typer.Option(help="Draw the matrix into a file that ends in .svg, .pdf or .png.")
    ] = None,
    theme: Annotated[str, typer.Option(help="Of the plot: light or dark.")] = "light",
    folder: RecipeFolder = None,
    code: Code = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Show how many examples of each classifier are broken by what was found with another's gradients."""
    with Bar("parts", "transfer") as bar:
        bar.stage("loading ...")
        from robustframe.verification.matrix import matrix_tables, transfer_matrix

        check_output(format, plot)
        found = transfer_matrix(
            run, device=device, batch_size=batch_size, folder=folder, code=code or (), data_root=data_root
        )
    if plot is not None:
        from robustframe.report.figures import transfer_figure, write

        write(transfer_figure(found.shares), plot, theme)
        say(f"the figure is in {plot}")
    if as_json:
        typer.echo(json_text(found.to_json()))
        return
    print_tables(matrix_tables(found), format)


def doctor(
    runs: Annotated[Path, typer.Option(help="Where run folders are going to be made.")] = Path("runs"),
    data_root: DataRoot = None,
    each: Annotated[bool, typer.Option("--all", help="One line per item, with the command that installs it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that everything an evaluation needs is here, and print the command that fixes what is not."""
    from robustframe.doctor import Item, examine, report, short_lines

    found: list[Item] = []

    def noted() -> Iterator[Item]:
        for item in examine(runs, data_root):
            found.append(item)
            yield item

    for line in map(str, noted()) if each or as_json else short_lines(noted(), columns()):
        if not as_json:
            typer.echo(fitted(line))
    wrong = sum(item.state == "wrong" for item in found)
    if as_json:
        typer.echo(json_text(report(found)))
    elif wrong:
        typer.echo(f"{wrong} thing{'s' if wrong > 1 else ''} needed {'are' if wrong > 1 else 'is'} wrong.")
    else:
        typer.echo("Everything needed is here.")
    if not each and not as_json and any(item.state == "note" for item in found):
        typer.echo("robustframe doctor --all has a line per item, with the command that installs it.")
    if wrong:
        raise typer.Exit(1)
