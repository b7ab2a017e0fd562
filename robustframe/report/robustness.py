"""The robustness table of a run: every classifier with its intervals, every pair with its difference."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from robustframe.report.layout import Cell, Table, TableRow
from robustframe.report.robust_ranks import Rankable, doubted_models, group_of, robust_ranks
from robustframe.runs import Run
from robustframe.runs.record import ClassifierEntry, Record, Result
from robustframe.statistics import PairedDifference, Proportion, family_sentence, resolution_sentence
from robustframe.threat import ThreatModel

_WORDS = {"unfinished": "checks not finished"}
"""What a table calls a verdict that would be taken for one on the run."""
_TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent", None: "—"}
_NOTHING = Cell()


def robustness_table(run: Run) -> Table:
    """Build the robustness table of a complete run.

    Args:
        run: a complete run.

    Returns:
        Accuracies with 95 % Wilson intervals; for each pair the difference recurrent minus feed-forward with
        Newcombe's interval and the exact McNemar p, which agree. The caption says how many differences hold together,
        what the number of examples resolves and, for five pairs or more, how robustness goes with coherence.
    """
    return _table([run])


def robustness_tables(runs: Sequence[Run]) -> list[Table]:
    """Build the robustness tables of several runs: one for each set of examples, as no number spans two of them.

    Args:
        runs: some runs, each of them once. One that is not complete has its classifiers in the table, without numbers
            and with the verdict "run not finished".

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


def share_cell(right: int, examples: int) -> Cell:
    """Return a share of examples with its Wilson interval."""
    share = Proportion(right, examples)
    interval = share.interval()
    return Cell(share.value, interval.low, interval.high)


def corrupted_cell(record: Record, classifier: str) -> Cell:
    """Return the mean accuracy of a classifier on corrupted images, with an interval that is a little too wide.

    All corruptions of an example count as one trial: their mean varies less than one of them.
    """
    mean = None if record.corruptions is None else record.corruptions.mean(classifier, record.data.count)
    if mean is None:
        return Cell()
    interval = Proportion(round(mean * record.data.count), record.data.count).interval()
    return Cell(mean, min(mean, interval.low), max(mean, interval.high))


def _table(runs: Sequence[Run]) -> Table:
    records = [run.record for run in runs]
    rows = [row for run, called in zip(runs, model_names(records), strict=True) for row in _rows(run, called)]
    return Table(title=_title(records, rows), caption=_caption(runs, _tests(rows)), rows=tuple(rows))


def _rows(run: Run, called: Mapping[str, str]) -> Iterator[TableRow]:
    record, entries = run.record, {entry.name: entry for entry in run.record.classifiers}
    if not run.complete:
        note = f"{run.folder} is not complete; the same evaluate command continues it"
        for threat in run.threats:
            for entry in record.classifiers:
                yield _row(entry, called, threat.label, verdict="run not finished", note=note)
        return
    done = {(result.classifier, result.threat) for result in run.results}
    for result in run.results:
        entry, partner = entries[result.classifier], f"{entries[result.classifier].model}/feedforward"
        certified = None if result.certified_correct is None else result.certified_correct / result.examples
        clean, robust = (share_cell(right, result.examples) for right in (result.clean_correct, result.robust_correct))
        corrupted = corrupted_cell(record, result.classifier)
        row = _row(entry, called, result.threat, clean, robust, certified=certified, **_trust(result))
        yield replace(row, corrupted=corrupted)
        if entry.twin == "recurrent" and (partner, result.threat) in done:
            yield _difference(_row(entry, called, result.threat), run, partner, entry.name)
    # Where only the checks of a row failed, its numbers are there.
    for each in record.failed:
        if (each.classifier, each.threat) in record.missing:
            note = f"Not finished: {each.reason}."
            yield _row(entries[each.classifier], called, each.threat, verdict="row failed", note=note)


def _row(
    entry: ClassifierEntry,
    called: Mapping[str, str],
    threat: str,
    clean: Cell = _NOTHING,
    robust: Cell = _NOTHING,
    *,
    certified: float | None = None,
    verdict: str = "",
    note: str = "",
) -> TableRow:
    """A classifier under a threat; nothing is known of its accuracies where none are given."""
    model, coherence, twin = called[entry.model], entry.mutual_coherence, _TWINS[entry.twin]
    return TableRow(model, coherence, twin, threat, clean, robust, certified=certified, verdict=verdict, note=note)


def _trust(result: Result) -> dict[str, str]:
    """The verdict on a row's number, and in a note what it is due to."""
    if result.diagnosis is None:
        return {}
    verdict, reasons = result.diagnosis.verdict, result.diagnosis.reasons
    if not reasons:
        return {"verdict": verdict}
    return {
        "verdict": _WORDS.get(verdict, verdict),
        "note": f"{', '.join(check.name for check in reasons)}: {reasons[0].sentence}",
    }


def _difference(row: TableRow, run: Run, partner: str, name: str) -> TableRow:
    """How much more a recurrent twin gets right than its partner, on the same examples."""
    first, second = run.rows(partner, row.threat), run.rows(name, row.threat)
    clean, robust = (
        PairedDifference.of(first[column].to_numpy(), second[column].to_numpy())
        for column in ("clean_correct", "robust")
    )
    cells = [Cell(each.value, each.interval().low, each.interval().high) for each in (clean, robust)]
    means = [corrupted_cell(run.record, each).value for each in (partner, name)]
    if means[0] is not None and means[1] is not None:
        row = replace(row, corrupted=Cell(means[1] - means[0]))
    return replace(
        row, twin="difference", clean=cells[0], robust=cells[1], p_clean=clean.p_value, p_robust=robust.p_value
    )


def _title(records: Sequence[Record], rows: Sequence[TableRow]) -> str:
    threats = ", ".join(dict.fromkeys(row.threat for row in rows))
    data = records[0].data
    name = records[0].name if len(records) == 1 else f"{len(records)} runs"
    return f"{name}: {data.use} {data.split}, {data.count:,} examples, {threats}"


def _caption(runs: Sequence[Run], ps: Sequence[float]) -> str:
    records = [run.record for run in runs]
    differences = ""
    if ps:
        differences = "; differences recurrent minus feed-forward: Newcombe, exact McNemar p; "
        differences += family_sentence(ps, of="differences")
    cited = ", ".join(run.cited for run in runs)
    sentences = [
        f"Clean and robust accuracy in % with 95 % intervals (Wilson{differences}).",
        f"{resolution_sentence(records[0].data.count)}.",
        *_corruptions(records),
        *_bounds(records),
        *_unchecked(records),
        *_coherence(runs),
        *_no_frames(records),
        f"Attacks: {_attacks(records)}. Coherence: mutual coherence of the frame. "
        f"Run{'s' if len(runs) > 1 else ''} {cited}.",
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


def _tests(rows: Sequence[TableRow]) -> list[float]:
    """The p-values of a table, clean and robust: a clean difference stands once a threat, but is one test."""
    differences = [row for row in rows if row.twin == "difference"]
    tests = {("clean", row.model): row.p_clean for row in differences}
    tests |= {(row.threat, row.model): row.p_robust for row in differences}
    return [p for p in tests.values() if p is not None]


def _corruptions(records: Sequence[Record]) -> list[str]:
    """Say what the corrupted column is, where there is one."""
    found = dict.fromkeys(
        f"{len(each.kinds)} kind{'s' if len(each.kinds) > 1 else ''} of {each.use} at severit"
        f"{'ies' if len(each.severities) > 1 else 'y'} {', '.join(map(str, each.severities))}"
        for each in (record.corruptions for record in records)
        if each is not None
    )
    return [f"Corrupted: mean accuracy over {'; '.join(found)}."] if found else []


def _bounds(records: Sequence[Record]) -> list[str]:
    """Say what the certified column is, where there is one, or that nothing is certified."""
    found: dict[str, None] = {}
    for record in records:
        proved = {result.classifier for result in record.results or [] if result.certified_correct is not None}
        for entry in record.classifiers:
            if entry.name in proved:
                found["randomised smoothing" if _smoothed(record, entry) else "Lipschitz bound"] = None
    if not found:
        return []
    how = ", ".join(found)
    if not any(result.certified_correct for record in records for result in record.results or []):
        return [f"No example is certified ({how})."]
    return [f"Certified: what no attack can break ({how}), and the gap to what these attacks did not."]


def _unchecked(records: Sequence[Record]) -> list[str]:
    """Say which rows nobody checks."""
    parts = any(not ThreatModel.parse(result.threat).whole for record in records for result in record.results or [])
    return ["Rows 'on' a part of the image, or of images that are moved, are not checked."] * parts


def _smoothed(record: Record, entry: ClassifierEntry) -> bool:
    """Say whether what is certified of a classifier is its smoothed answer."""
    if entry.twin is None:
        # A twin that stands alone has sweeps, and of what is neither nothing else is certified.
        return entry.sweeps is None
    models = record.recipe.get("model")
    specs = {spec.get("name") or spec["use"]: spec for spec in models} if isinstance(models, list) else {}
    return bool(specs.get(entry.model, specs.get(entry.use, {})).get("smooth"))


def _no_frames(records: Sequence[Record]) -> list[str]:
    """Say why a model has no coherence, where somebody looked; so many models in so many words."""
    found = {entry.name: entry.no_frame for record in records for entry in record.classifiers if entry.no_frame}
    sentences = [f"{name}: {why.rstrip('.')}." for name, why in found.items()]
    return sentences if len(sentences) <= _NAMED else [f"{len(sentences)} models are no frames, so have no coherence."]


_NAMED = 3
"""So many models without a frame are named."""


def _coherence(runs: Sequence[Run]) -> list[str]:
    """Say how the recurrent twins' robust accuracy goes with the coherence of their frames, where there are enough."""
    found: dict[str, dict[tuple[str, str], Rankable]] = {}
    for run in runs:
        entries = {entry.name: entry for entry in run.record.classifiers if entry.twin == "recurrent"}
        doubted = {threat.label: doubted_models(run, threat.label) for threat in run.threats} if run.complete else {}
        for result in run.record.results or []:
            entry = entries.get(result.classifier)
            if entry is not None and entry.mutual_coherence is not None:
                shares = result.robust_correct / result.examples, result.clean_correct / result.examples
                row = Rankable(entry.mutual_coherence, *shares, group_of(entry), entry.model in doubted[result.threat])
                # A pair at several numbers of sweeps is one pair.
                found.setdefault(result.threat, {}).setdefault((entry.use, entry.sha256), row)
    return [
        f"Coherence and robust accuracy of recurrent twins under {threat}: {ranks.sentence}."
        for threat, rows in found.items()
        if (ranks := robust_ranks(list(rows.values()))).found is not None
    ]
