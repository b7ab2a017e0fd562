"""Tables beside a run, and the published copy of a run in ``evaluations/``."""

from pathlib import Path

import polars as pl
from torch import Tensor

from robustframe.errors import InputError
from robustframe.recipe import Recipe, read_toml, recipes, shipped_folder
from robustframe.report.layout import Table
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
from robustframe.runs import Run, open_run
from robustframe.runs.kept import Kept, choose_broken, write_kept
from robustframe.runs.record import VERDICTS, Record, write_aside, write_record


def write_tables(table: Table, folder: Path) -> list[Path]:
    """Write a table as Markdown, LaTeX and CSV into a folder; return the files."""
    files = [folder / f"table.{format}" for format in ("md", "tex", "csv")]
    for file in files:
        write_aside(file, render(table, file.suffix.removeprefix(".")).encode())
    return files


def publish_run(run: Run) -> Path:
    """Copy a complete run of a shipped recipe to the recipe's ``results`` folder, with its tables.

    Raises:
        InputError: when rows of the run failed, or it is altered, or the recipe has changed since.
    """
    folder, record = run.folder, run.record
    if record.failed:
        rows = ", ".join(f"{row.classifier} under {row.threat}" for row in record.failed)
        raise InputError(f"{folder} has failed rows ({rows}); run the same evaluate command again")
    table = robustness_table(run)
    results = _stated(record, folder).parent / "results"
    results.mkdir(exist_ok=True)
    write_aside(results / VERDICTS, (folder / VERDICTS).read_bytes())
    write_tables(table, results)
    write_kept(results, _broken(run))
    write_record(results, record)
    open_run(results)
    return results


def _broken(run: Run) -> Kept:
    """Some images of each model under each threat, the same examples for both twins where both are broken."""
    of: dict[tuple[str, str], list[str]] = {}
    for result in run.results:
        of.setdefault((run.entry(result.classifier).model, result.threat), []).append(result.classifier)
    kept: dict[tuple[int, str], dict[int, Tensor]] = {}
    places = [entry.name for entry in run.record.classifiers]
    for (_, threat), twins in of.items():
        tables = [run.rows(name, threat).filter(pl.col("broken_by").is_not_null()) for name in twins]
        chosen = set(choose_broken(tables))
        for name, table in zip(twins, tables):
            index = [each for each in table["index"].to_list() if each in chosen]
            kept[places.index(name), threat] = dict(zip(index, run.breaking_images(name, threat, index)))
    return kept


def _stated(record: Record, folder: Path) -> Path:
    """Return the file of the shipped recipe that a run carried out."""
    known = recipes()
    if shipped_folder("evaluations").parent.name == "_shipped":
        raise InputError("results are published in a checkout, not in an installed package")
    path = known.get(record.name)
    if path is None:
        raise InputError(f"{folder} is a run of {record.name!r}, which is not a recipe in evaluations/")
    if read_toml(path, Recipe).model_dump(by_alias=True) != record.recipe:
        raise InputError(f"{path} has changed since {folder} was run; evaluate it again")
    return path
