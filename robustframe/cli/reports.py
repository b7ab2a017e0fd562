"""The commands that show runs: table, figure, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from robustframe.cli.shared import AsJson, DataRoot, check_output, json_text, print_tables, say
from robustframe.errors import unknown

KINDS = {
    "curves": "robust accuracy over the radius with its interval, feed-forward against recurrent",
    "coherence": "robust accuracy against the coherence of the frame, with regression line and Spearman's rho",
    "sweeps": "clean and robust accuracy over the solver's sweeps",
    "attacks": "which attack broke how many examples of which classifier",
    "examples": "adversarial examples: clean, adversarial, difference, labels, attack",
}
FIGURE_HELP = "Draw a figure of complete runs into an SVG, PDF or PNG file.\n\n\b\nKinds:\n" + "\n".join(
    f"{kind:9}  {about}" for kind, about in KINDS.items()
)


def table(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs.")],
    format: Annotated[str, typer.Option(help="terminal, md, tex, csv or html.")] = "terminal",
    columns: Annotated[
        str | None,
        typer.Option(help="Which columns, with commas between: coherence,clean,robust,corrupted,certified,verdict."),
    ] = None,
    group_by: Annotated[str, typer.Option(help="model, threat or twin.")] = "model",
    sort: Annotated[str, typer.Option(help="robust, clean, coherence or name; descending with a minus: -robust.")] = "",
    pairs: Annotated[
        bool, typer.Option("--pairs", help="One line per pair: twins and difference side by side.")
    ] = False,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Instead, accuracy for each kind and severity of corruption.")
    ] = False,
) -> None:
    """Print the robustness table of runs, one table for each set of examples; status 1 when a run is unfinished."""
    from robustframe.report.arrange import TableStyle
    from robustframe.report.corruption_text import corruption_tables
    from robustframe.report.robustness import robustness_tables
    from robustframe.runs import open_runs

    chosen = tuple(name.strip() for name in columns.split(",")) if columns is not None else ()
    style = TableStyle(columns=chosen, group_by=group_by, sort=sort, pairs=pairs)
    opened = open_runs(runs, unfinished=True)
    made = [table for run in opened for table in corruption_tables(run)] if corruptions else robustness_tables(opened)
    print_tables(made, format, style)
    unfinished = [run for run in opened if not run.complete]
    for run in unfinished:
        say(f"{run.folder} is not complete; run the same evaluate command again to continue it")
    if unfinished:
        raise typer.Exit(1)


def figure(
    kind: Annotated[str, typer.Argument(help="One of the kinds above.")],
    runs: Annotated[list[str], typer.Argument(help="Folders of complete runs.")],
    out: Annotated[Path, typer.Option(help="The file; ends in .svg, .pdf or .png.")],
    theme: Annotated[str, typer.Option(help="light or dark.")] = "light",
    only: Annotated[list[str] | None, typer.Option(help="A model or classifier to draw; may be repeated.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the figure.")] = None,
    count: Annotated[int, typer.Option(help="For examples: how many per classifier and threat.")] = 8,
    top: Annotated[int | None, typer.Option(help="Draw only so many models, the most robust ones.")] = None,
    width: Annotated[
        str | None, typer.Option(help="For print, without title and notes: 1col, 2col or a width such as 120mm.")
    ] = None,
    font: Annotated[float, typer.Option(help="With --width: size of labels in points.")] = 8.0,
    dpi: Annotated[int, typer.Option(help="With --width: of a PNG.")] = 300,
    data_root: DataRoot = None,
) -> None:
    if kind not in KINDS:
        raise unknown("kind of figure", kind, KINDS)
    from robustframe.report import figures
    from robustframe.runs import open_runs
    from robustframe.runs.record import write_aside

    if theme not in figures.THEMES:
        raise unknown("theme", theme, figures.THEMES)
    figures.check_path(out)
    paper = None if width is None else figures.Paper.of(width, font, dpi)
    opened, chosen = open_runs(runs), only or ()
    if top is not None:
        chosen = figures.most_robust(opened, top)
    called: dict[str, Any] = {} if paper is None else {"room": paper.room}
    called |= {} if title is None else {"title": title}
    match kind:
        case "curves":
            chart = figures.curve_figure(figures.gather_curves(opened, chosen), **called)
        case "coherence":
            chart = figures.association_figure(figures.gather_points(opened, chosen), **called)
        case "sweeps":
            chart = figures.sweeps_figure(figures.gather_sweeps(opened, chosen), **called)
        case "attacks":
            chart = figures.outcome_figure(figures.gather_outcomes(opened, chosen), **called)
        case _:
            found = figures.gather_examples(opened, chosen, count=count, data_root=data_root)
            chart = figures.example_figure(found, **called)
    figures.write(chart, out, theme, paper)
    words = out.with_suffix(".txt")
    write_aside(words, f"{figures.caption(chart)}\n".encode())
    say(f"the caption is in {words}")
    typer.echo(str(out))


def attacks_report(
    runs: Annotated[list[str], typer.Argument(help="Folders of complete runs; several are pooled.")],
    format: Annotated[str, typer.Option(help="terminal, md, tex, csv or html.")] = "terminal",
    sort: Annotated[
        str, typer.Option(help="breaks (per pass), broken (share), alone (found by no other) or order (as they ran).")
    ] = "breaks",
    plot: Annotated[
        Path | None, typer.Option(help="Draw robust accuracy over passes into a file that ends in .svg, .pdf or .png.")
    ] = None,
    theme: Annotated[str, typer.Option(help="Of the plot: light or dark.")] = "light",
    as_json: AsJson = False,
) -> None:
    """Rank the attacks of runs: breaks per pass, robust accuracy over passes, what each alone found."""
    from robustframe.report.attack_text import attack_tables
    from robustframe.runs import open_runs
    from robustframe.runs.ranking import SORTS

    check_output(format, plot)
    if sort not in SORTS:
        raise unknown("order", sort, SORTS)
    opened = open_runs(runs)
    ranking = opened[0].rank_attacks(*opened[1:], sort=sort)
    if plot is not None:
        from robustframe.report.figures import descent_figure, write

        write(descent_figure(ranking.descents), plot, theme)
        say(f"the figure is in {plot}")
    if as_json:
        typer.echo(json_text(ranking.to_json()))
        return
    print_tables(attack_tables(ranking), format)


def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs, finished or not, or of published results.")],
    out: Annotated[Path, typer.Option(help="The site's folder: new, empty, or an earlier site.")] = Path("site"),
    run_folders: Annotated[
        Path, typer.Option("--runs", help="Where runs lie, for the images of published results.")
    ] = Path("runs"),
    data_root: DataRoot = None,
) -> None:
    """Make a leaderboard of runs as a folder of pages that need no server and no network."""
    from robustframe.report.site import LIMIT, MOST, build_site

    site = build_site(runs, out, run_folders=run_folders, data_root=data_root)
    say(f"{site.models} model{'s' if site.models != 1 else ''}, {site.rows} rows, {site.size / 1e6:.1f} MB")
    if site.examples < MOST:
        say(f"at most {site.examples} adversarial examples per row are shown, to keep the site small")
    if site.size > LIMIT:
        say(f"above {LIMIT / 1e6:g} MB all the same; make a site each of fewer runs")
    typer.echo(str(site.folder / "index.html"))
