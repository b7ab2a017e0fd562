"""Accuracy on corrupted images as tables: a classifier a table, a line a kind, a column a severity."""

from robustframe.errors import InputError
from robustframe.report.layout import Cell, Cells, Column, Grid, Measured, TextCell
from robustframe.report.robustness import corrupted_cell, share_cell
from robustframe.runs import Run
from robustframe.runs.record import CorruptionEntry


def corruption_tables(run: Run) -> list[Grid]:
    """Build the tables of a run's corruptions, one for each classifier.

    Raises:
        InputError: for a run whose recipe asks for none, or that is not complete.
    """
    entry = run.record.corruptions
    if entry is None:
        raise InputError(
            f'{run.folder} has no corruptions; ask for them in its recipe, corruptions.use = "corruptions@1"'
        )
    if not entry.correct:
        raise InputError(f"{run.folder} is not complete; run the same evaluate command again to continue it")
    return [_table(run, entry, name) for name in entry.correct]


def _table(run: Run, entry: CorruptionEntry, name: str) -> Grid:
    data, count = run.record.data, run.record.data.count
    columns = [Column("kind", "Corruption"), Column("mean", "Mean (%)", "measured")]
    columns += [Column(f"severity_{each}", f"Severity {each}", "number") for each in entry.severities]
    lines = [_kind_line(kind, counts, count) for kind, counts in zip(entry.kinds, entry.correct[name])]
    means = [sum(column) / len(entry.kinds) for column in zip(*entry.correct[name])]
    whole: Cells = (
        TextCell("mean"),
        Measured(corrupted_cell(run.record, name)),
        *(_share(each / count) for each in means),
    )
    clean = next((result.clean_correct for result in run.results if result.classifier == name), None)
    said = "" if clean is None else f"Clean accuracy {100 * clean / count:.1f} %. "
    caption = (
        f"Accuracy in % on corrupted images of {entry.use}; means with 95 % intervals (Wilson, all corruptions of an "
        f"example as one trial, which is a little too wide). {said}Run {run.cited}."
    )
    title = f"{name} on corrupted images: {data.use} {data.split}, {count:,} examples"
    return Grid(title, caption, tuple(columns), (tuple(lines), (whole,)))


def _kind_line(kind: str, counts: list[int], count: int) -> Cells:
    mean = sum(counts) / (len(counts) * count)
    wide = share_cell(round(mean * count), count)
    ends = (min(mean, wide.low or 0.0), max(mean, wide.high or 0.0))
    return (TextCell(kind), Measured(Cell(mean, *ends)), *(_share(each / count) for each in counts))


def _share(share: float) -> TextCell:
    return TextCell(f"{100 * share:.1f}", raw=repr(share))
