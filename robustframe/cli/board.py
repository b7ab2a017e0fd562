"""The command that makes the leaderboard of runs."""

from pathlib import Path
from typing import Annotated

import typer

from robustframe.cli.shared import DataRoot, say


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
        say(f"at most {site.examples} adversarial examples a row are shown, to keep the site small")
    if site.size > LIMIT:
        say(f"above {LIMIT / 1e6:g} MB all the same; make a site each of fewer runs")
    typer.echo(str(site.folder / "index.html"))
