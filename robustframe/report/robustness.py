"""The robustness table of a run: every classifier with its intervals, every pair with its difference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from robustframe.report.layout import Cell, Row, Table
from robustframe.runs import Run
from robustframe.runs.record import ClassifierEntry, Incomplete, Record, Result
from robustframe.statistics import PairedDifference, Proportion, holm, resolution_sentence, spearman

_ENOUGH_PAIRS = 5
"""Of fewer, no order of ranks is significant at 5 %."""
_TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent", None: "—"}


def robustness_table(run: Run) -> Table:
    """Build the robustness table of a complete run.

    Args:
        run: a complete run.

    Returns:
        Accuracies with 95 % Wilson intervals; for each pair the difference recurrent minus feed-forward with
        Newcombe's interval and the exact McNemar p, adjusted by Holm over all differences of the table. The caption
        says what the number of examples resolves and, for five pairs or more, how robustness goes with coherence.
    """
    return _table([run])


def robustness_tables(runs: Sequence[Run]) -> list[Table]:
    """Build the robustness tables of several runs: one for each set of examples, as no number spans two of them.

    Args:
        runs: some runs, each of them once. One that is not complete has its classifiers in the table, without numbers
            and with the verdict "unfinished".

    Returns:
        Tables as of `robustness_table`, in the order of the runs; a model that several runs have is named with its run.
    """
    of: dict[str, list[Run]] = {}
    for run in runs:
        of.setdefault(run.record.data.sha256, []).append(run)
    return [_table(same) for same in of.values()]


def model_names(records: Sequence[Record]) -> list[dict[str, str]]:
    """Return for each record what its models are called: with the run where several have one of that name."""
    having = Counter(name for record in records for name in {entry.model for entry in record.classifiers})
    return [
        {
            entry.model: entry.model if having[entry.model] == 1 else f"{entry.model} ({record.cited})"
            for entry in record.classifiers
        }
        for record in records
    ]


def _table(runs: Sequence[Run]) -> Table:
    rows: list[Row] = []
    records = [run.record for run in runs]
    for run, called in zip(runs, model_names(records), strict=True):
        rows += _rows(run, called) if run.complete else _unfinished(run, called)
    rows, tests = _adjusted(rows)
    return Table(title=_title(records, rows), caption=_caption(records, tests), rows=tuple(rows))


def _rows(run: Run, called: Mapping[str, str]) -> list[Row]:
    record = run.record
    entries = {entry.name: entry for entry in record.classifiers}
    done = {(result.classifier, result.threat) for result in run.results}
    rows = []
    for result in run.results:
        entry = entries[result.classifier]
        rows.append(_row(entry, result))
        partner = f"{entry.model}/feedforward"
        if entry.twin == "recurrent" and (partner, result.threat) in done:
            rows.append(_difference(entry, result.threat, run, partner))
    # Where only the checks of a row failed, its numbers are there.
    rows += [
        _missing(entries[each.classifier], each)
        for each in record.incomplete
        if (each.classifier, each.threat) in record.missing
    ]
    return [replace(row, model=called[row.model]) for row in rows]


def _unfinished(run: Run, called: Mapping[str, str]) -> list[Row]:
    """The classifiers of a run that is not complete: nothing is known of them yet."""
    note = f"{run.folder} is not complete; the same evaluate command continues it"
    return [
        Row(
            model=called[entry.model],
            coherence=entry.mutual_coherence,
            twin=_TWINS[entry.twin],
            threat=threat.label,
            clean=Cell(),
            robust=Cell(),
            note=note,
            verdict="unfinished",
        )
        for threat in run.threats
        for entry in run.record.classifiers
    ]


def _title(records: Sequence[Record], rows: Sequence[Row]) -> str:
    threats = ", ".join(dict.fromkeys(row.threat for row in rows))
    data = records[0].data
    name = records[0].name if len(records) == 1 else f"{len(records)} runs"
    return f"{name}: {data.use} {data.split}, {data.count:,} examples, {threats}"


def _caption(records: Sequence[Record], tests: int) -> str:
    differences = ""
    if tests:
        differences = "; differences recurrent minus feed-forward: Newcombe, exact McNemar p, Holm-adjusted over the "
        differences += f"table's {tests} differences"
    runs = ", ".join(record.cited for record in records)
    sentences = [
        f"Clean and robust accuracy in % with 95 % intervals (Wilson{differences}).",
        f"{resolution_sentence(records[0].data.count)}.",
        *_bounds(records),
        *_coherence(records),
        f"Attacks: {_attacks(records)}. Coherence: mutual coherence of the frame. "
        f"Run{'s' if len(records) > 1 else ''} {runs}.",
    ]
    return " ".join(sentences)


def _attacks(records: Sequence[Record]) -> str:
    """Cite the batteries; where runs differ in them, say which is whose."""
    cited: dict[str, list[str]] = {}
    for record in records:
        batteries = " then ".join(f"{battery['name']}@{battery['version']}" for battery in record.batteries)
        cited.setdefault(batteries, []).append(record.cited)
    if len(cited) == 1:
        return next(iter(cited))
    return "; ".join(f"{batteries} in {', '.join(runs)}" for batteries, runs in cited.items()) + (
        ", which bound the robust accuracy from above with different strength"
    )


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


def _bounds(records: Sequence[Record]) -> list[str]:
    """Say what the certified column is, where there is one."""
    if all(result.certified_correct is None for record in records for result in record.results or []):
        return []
    return ["Certified: what no attack can break (Lipschitz bound), and the gap to what these attacks did not."]


def _coherence(records: Sequence[Record]) -> list[str]:
    """Say how the recurrent twins' robust accuracy goes with the coherence of their frames, where there are enough."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        known = {
            entry.name: entry.mutual_coherence
            for entry in record.classifiers
            if entry.twin == "recurrent" and entry.mutual_coherence is not None
        }
        for result in record.results or []:
            if result.classifier in known:
                share = result.robust_correct / result.examples
                found.setdefault(result.threat, []).append((known[result.classifier], share))
    sentences = []
    for threat, numbers in found.items():
        if len(numbers) < _ENOUGH_PAIRS:
            continue
        ranks = spearman([coherence for coherence, _ in numbers], [share for _, share in numbers], seed=0)
        if ranks is not None:
            ends = f"[{ranks.interval.low:+.2f}, {ranks.interval.high:+.2f}]"
            sentences.append(
                f"Coherence and robust accuracy of the {ranks.n} recurrent twins under {threat}: Spearman's rho "
                f"{ranks.value:+.2f} {ends} (bootstrap), p = {ranks.p_value:.2g} (permutation)."
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


def _difference(entry: ClassifierEntry, threat: str, run: Run, partner: str) -> Row:
    cells: list[Cell] = []
    ps: list[float] = []
    first, second = run.rows(partner, threat), run.rows(entry.name, threat)
    for column in ("clean_correct", "robust"):
        difference = PairedDifference.of(first[column].to_numpy(), second[column].to_numpy())
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
