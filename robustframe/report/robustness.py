"""The robustness table of a run: every classifier with its intervals, every pair with its difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.evaluation.tables import read_verdicts
from robustframe.record import VERDICTS, ClassifierEntry, Incomplete, Record, Result, check_usable
from robustframe.report.layout import Cell, Row, Table
from robustframe.statistics import PairedDifference, Proportion, holm, resolution_sentence, spearman

_ENOUGH_PAIRS = 5
"""Of fewer, no order of ranks is significant at 5 %."""
_TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent", None: "—"}


def robustness_table(record: Record, folder: Path) -> Table:
    """Build the robustness table of a complete run.

    Args:
        record: the run's record.
        folder: the run's folder, for the verdicts of the paired differences.

    Returns:
        Accuracies with 95 % Wilson intervals; for each pair the difference recurrent minus feed-forward with
        Newcombe's interval and the exact McNemar p, adjusted by Holm over all differences of the table. The caption
        says what the number of examples resolves and, for five pairs or more, how robustness goes with coherence.

    Raises:
        InputError: when the run is not complete or its verdicts are missing.
    """
    check_usable(record, folder)
    verdicts = _read_verdicts(folder)
    entries = {entry.name: entry for entry in record.classifiers}
    done = {(result.classifier, result.threat) for result in record.results or []}
    rows = []
    for result in record.results or []:
        entry = entries[result.classifier]
        rows.append(_row(entry, result))
        partner = f"{entry.model}/feedforward"
        if entry.twin == "recurrent" and (partner, result.threat) in done:
            rows.append(_difference(entry, result.threat, verdicts, partner))
    # Where only the checks of a row failed, its numbers are there.
    rows += [
        _missing(entries[each.classifier], each)
        for each in record.incomplete
        if (each.classifier, each.threat) in record.missing
    ]
    rows, tests = _adjusted(rows)
    return Table(title=_title(record), caption=_caption(record, tests), rows=tuple(rows))


def _title(record: Record) -> str:
    named = [*(row.threat for row in record.results or []), *(row.threat for row in record.incomplete)]
    threats = ", ".join(dict.fromkeys(named))
    data = record.data
    return f"{record.name}: {data.use} {data.split}, {data.count:,} examples, {threats}"


def _caption(record: Record, tests: int) -> str:
    cited = " then ".join(f"{battery['name']}@{battery['version']}" for battery in record.batteries)
    differences = ""
    if tests:
        differences = "; differences recurrent minus feed-forward: Newcombe, exact McNemar p, Holm-adjusted over the "
        differences += f"table's {tests} differences"
    sentences = [
        f"Clean and robust accuracy in % with 95 % intervals (Wilson{differences}).",
        f"{resolution_sentence(record.data.count)}.",
        *_bounds(record),
        *_coherence(record),
        f"Attacks: {cited}. Coherence: mutual coherence of the frame. Run {record.name}-{record.hash[:8]}.",
    ]
    return " ".join(sentences)


def _adjusted(rows: list[Row]) -> tuple[list[Row], int]:
    """Adjust the p-values of a table together, clean and robust; return the rows and the number of tests."""
    # A clean difference stands once a threat, but is one test.
    tests = {("clean", row.model): row.p_clean for row in rows if row.p_clean is not None}
    tests |= {(row.threat, row.model): row.p_robust for row in rows if row.p_robust is not None}
    adjusted: dict[tuple[str, str], float | None] = dict(zip(tests, holm(list(tests.values()))))
    changed = [
        replace(row, p_clean=adjusted.get(("clean", row.model)), p_robust=adjusted.get((row.threat, row.model)))
        if row.twin == "difference"
        else row
        for row in rows
    ]
    return changed, len(tests)


def _bounds(record: Record) -> list[str]:
    """Say what the certified column is, where there is one."""
    if all(result.certified_correct is None for result in record.results or []):
        return []
    return ["Certified: what no attack can break (Lipschitz bound), and the gap to what these attacks did not."]


def _coherence(record: Record) -> list[str]:
    """Say how the recurrent twins' robust accuracy goes with the coherence of their frames, where there are enough."""
    known = {
        entry.name: entry.mutual_coherence
        for entry in record.classifiers
        if entry.twin == "recurrent" and entry.mutual_coherence is not None
    }
    sentences = []
    for threat in dict.fromkeys(result.threat for result in record.results or []):
        results = [each for each in record.results or [] if each.threat == threat and each.classifier in known]
        if len(results) < _ENOUGH_PAIRS:
            continue
        shares = [each.robust_correct / each.examples for each in results]
        found = spearman([known[each.classifier] for each in results], shares, seed=0)
        if found is not None:
            ends = f"[{found.interval.low:+.2f}, {found.interval.high:+.2f}]"
            sentences.append(
                f"Coherence and robust accuracy of the {found.n} recurrent twins under {threat}: Spearman's rho "
                f"{found.value:+.2f} {ends} (bootstrap), p = {found.p_value:.2g} (permutation)."
            )
    return sentences


def _row(entry: ClassifierEntry, result: Result) -> Row:
    return Row(
        model=entry.model,
        coherence=entry.mutual_coherence,
        twin=_TWINS[entry.twin],
        threat=result.threat,
        clean=_cell(result.clean_correct, result.examples),
        robust=_cell(result.robust_correct, result.examples),
        p_clean=None,
        p_robust=None,
        certified=None if result.certified_correct is None else result.certified_correct / result.examples,
        **_trust(result),
    )


def _missing(entry: ClassifierEntry, row: Incomplete) -> Row:
    """A row whose numbers are not known, with the reason."""
    return Row(
        model=entry.model,
        coherence=entry.mutual_coherence,
        twin=_TWINS[entry.twin],
        threat=row.threat,
        clean=Cell(),
        robust=Cell(),
        verdict="incomplete",
        note=f"Not finished: {row.reason}.",
    )


def _trust(result: Result) -> dict[str, str]:
    """The verdict on a row's number, and in a note what it is due to."""
    if result.diagnosis is None:
        return {}
    verdict, reasons = result.diagnosis.verdict, result.diagnosis.reasons
    if not reasons:
        return {"verdict": verdict}
    return {"verdict": verdict, "note": f"{', '.join(check.name for check in reasons)}: {reasons[0].sentence}"}


def _difference(entry: ClassifierEntry, threat: str, verdicts: pl.DataFrame, partner: str) -> Row:
    cells: list[Cell] = []
    ps: list[float] = []
    for column in ("clean_correct", "robust"):
        difference = PairedDifference.of(
            _verdicts(verdicts, partner, threat, column), _verdicts(verdicts, entry.name, threat, column)
        )
        interval = difference.interval()
        cells.append(Cell(difference.value, interval.low, interval.high))
        ps.append(difference.p_value)
    return Row(
        model=entry.model,
        coherence=entry.mutual_coherence,
        twin="difference",
        threat=threat,
        clean=cells[0],
        robust=cells[1],
        p_clean=ps[0],
        p_robust=ps[1],
    )


def _cell(right: int, examples: int) -> Cell:
    share = Proportion(right, examples)
    interval = share.interval()
    return Cell(share.value, interval.low, interval.high)


def _read_verdicts(folder: Path) -> pl.DataFrame:
    try:
        return read_verdicts(folder / VERDICTS)
    except InputError as error:
        raise InputError(f"{error}; run the same evaluate command again") from error


def _verdicts(verdicts: pl.DataFrame, classifier: str, threat: str, column: str) -> NDArray[np.bool_]:
    rows = verdicts.filter((pl.col("classifier") == classifier) & (pl.col("threat") == threat)).sort("index")
    return rows[column].to_numpy()
