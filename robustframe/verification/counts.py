"""Do verdicts follow from the units, and the record's counts from both."""

from collections.abc import Iterator, Sequence

import polars as pl

from robustframe.errors import IntegrityError
from robustframe.recipe.stages import Stage
from robustframe.runs.entries import attack_entry
from robustframe.runs.record import RECORD, VERDICTS, Result
from robustframe.runs.run import Run
from robustframe.runs.units import ATTACK_SCHEMA
from robustframe.runs.verdicts import VERDICT_ROWS, VERDICT_SCHEMA, ChunkVerdicts, empty_cells, read_table
from robustframe.verification.findings import Finding, VerifiedPart, check
from robustframe.verification.stored import AttackUnits, Stored, verdict_hash

_KEY = ["classifier", "threat", "index"]


def check_verdicts(run: Run, stored: Stored) -> VerifiedPart:
    """Derive every verdict anew from the units, and compare it with the table of verdicts."""
    findings = list(verdict_hash(run))
    verdicts = read_verdicts(run, findings)
    says = "each follows from the units of its example"
    if verdicts is None:
        return check("verdicts", says, findings)
    findings += _keys(run, verdicts)
    unique = verdicts.unique(_KEY, keep="first", maintain_order=True)
    for position in range(len(run.record.classifiers)):
        for threat in run.threats:
            expected = _derived(run, stored, position, threat.label)
            if expected is not None:
                findings += _compare(unique, expected)
    return check("verdicts", f"{len(verdicts):,} verdicts, {says}", findings)


def read_verdicts(run: Run, findings: list[Finding]) -> pl.DataFrame | None:
    """Read the table of verdicts; a finding and `None` when it does not read."""
    path = run.folder / VERDICTS
    if not path.is_file():
        return None
    try:
        verdicts = read_table(path, VERDICT_SCHEMA, rows=VERDICT_ROWS)
    except IntegrityError as error:
        findings.append(Finding(VERDICTS, None, str(error).removeprefix(f"{path}").lstrip(": ")))
        return None
    if holes := empty_cells(verdicts):
        findings.append(Finding(VERDICTS, None, f"there are empty cells in {', '.join(holes)}"))
        return None
    return verdicts


def verdicts_of(run: Run) -> pl.DataFrame | None:
    """Return the table of verdicts; `None` when it does not read, which its own check says."""
    return read_verdicts(run, [])


def _keys(run: Run, verdicts: pl.DataFrame) -> Iterator[Finding]:
    """Verdicts of examples, classifiers or threats that there are none of, or more than one, or no verdict at all."""
    for row in verdicts.filter(verdicts.select(_KEY).is_duplicated()).unique(_KEY).sort(_KEY).iter_rows(named=True):
        yield Finding(VERDICTS, row["index"], f"{_of(row)}: it appears more than once")
    count = len(run.record.classifiers) * len(run.threats) * run.record.data.count
    if count > 4 * len(verdicts) + 10**6:
        yield Finding(VERDICTS, None, f"it holds {len(verdicts):,} verdicts, the record asks for {count:,}")
        return
    asked = pl.DataFrame(
        {"classifier": [entry.name for entry in run.record.classifiers]}, schema={"classifier": pl.String}
    )
    asked = asked.join(pl.DataFrame({"threat": [threat.label for threat in run.threats]}), how="cross")
    asked = asked.join(pl.DataFrame({"index": range(run.record.data.count)}, schema={"index": pl.Int64}), how="cross")
    for row in verdicts.join(asked, on=_KEY, how="anti").iter_rows(named=True):
        yield Finding(VERDICTS, row["index"], f"{_of(row)}: a verdict on something that the record does not ask")
    for row in asked.join(verdicts, on=_KEY, how="anti").iter_rows(named=True):
        if (row["classifier"], row["threat"]) in run.record.missing:
            continue
        yield Finding(VERDICTS, row["index"], f"{_of(row)}: its verdict is missing")


def _derived(run: Run, stored: Stored, position: int, threat: str) -> pl.DataFrame | None:
    """Verdicts of the chunks whose units can all be read, as the evaluation itself derives them."""
    parts = []
    attacks = _attacks(stored, position, threat)
    for number, clean in enumerate(stored.clean[position][1]):
        tables = [each.tables[number] for each in attacks if not each.skipped]
        if clean is None or any(rows is None for rows in tables):
            continue
        part = ChunkVerdicts(clean.unique("index", keep="first", maintain_order=True))
        for each in attacks:
            rows = None if each.skipped else each.tables[number]
            if rows is not None:
                rows = rows.unique("index", keep="first", maintain_order=True)
                part.judge(rows, each.stage.label, closest=each.stage.battery.closest)
        parts.append(part)
    return ChunkVerdicts.table(parts, run.record.classifiers[position].name, threat) if parts else None


def _compare(verdicts: pl.DataFrame, expected: pl.DataFrame) -> Iterator[Finding]:
    both = expected.join(verdicts, on=_KEY, how="inner", suffix="_now")
    for column in expected.columns:
        if column in _KEY:
            continue
        for row in both.filter(pl.col(column).ne_missing(pl.col(f"{column}_now"))).iter_rows(named=True):
            derived, stated = row[column], row[f"{column}_now"]
            text = f"{_of(row)}: {column} is {stated}, its units give {derived}"
            yield Finding(VERDICTS, row["index"], text)


def _of(row: dict[str, object]) -> str:
    return f"{row['classifier']}, {row['threat']}"


def _attacks(stored: Stored, position: int, threat: str) -> list[AttackUnits]:
    return [each for each in stored.attacked if each.position == position and each.threat.label == threat]


def check_counts(run: Run, stored: Stored) -> VerifiedPart:
    """Count anew from the units what the record says."""
    findings: list[Finding] = []
    for position, entry in enumerate(run.record.classifiers):
        for result in run.results:
            if result.classifier == entry.name:
                findings += _counts(run, stored, position, result)
    return check("counts", "accuracies and costs in the record follow from the units", findings)


def _counts(run: Run, stored: Stored, position: int, result: Result) -> Iterator[Finding]:
    attacks = _attacks(stored, position, result.threat)
    derived = _derived(run, stored, position, result.threat)
    if derived is None or len(derived) != run.record.data.count:
        # Units are missing or damaged, which their own check has said.
        return
    yield from _totals(result, derived)
    for entry, each in zip(result.attacks, attacks):
        rows = [table for table in each.tables if table is not None]
        counted = attack_entry(
            each.stage, pl.concat(rows) if rows else pl.DataFrame(schema=ATTACK_SCHEMA), each.skipped
        )
        for key, value in counted.model_dump(exclude={"settings"}).items():
            stated = getattr(entry, key)
            if stated != value:
                where = f"{result.classifier}, {result.threat}, {each.stage.label}"
                yield Finding(RECORD, None, f"{where}: {key} is {stated}, the units give {value}")


def _totals(result: Result, verdicts: pl.DataFrame) -> Iterator[Finding]:
    counted = {
        "examples": len(verdicts),
        "clean_correct": int(verdicts["clean_correct"].sum()),
        "robust_correct": int(verdicts["robust"].sum()),
    }
    for key, value in counted.items():
        if getattr(result, key) != value:
            text = f"{result.classifier}, {result.threat}: {key} is {getattr(result, key)}, the verdicts give {value}"
            yield Finding(RECORD, None, text)


def check_copy(run: Run, stages: Sequence[Stage]) -> tuple[VerifiedPart, pl.DataFrame | None]:
    """Check the verdicts of a published copy by themselves: each row in itself, and the record's counts of them."""
    findings = list(verdict_hash(run))
    verdicts = read_verdicts(run, findings)
    if verdicts is None:
        return check("verdicts", "", findings), None
    findings += _keys(run, verdicts)
    right, broken = pl.col("clean_prediction") == pl.col("label"), pl.col("broken_by").is_not_null()
    outcome = (pl.col("adversarial_prediction").is_null() == broken) | (pl.col("distance").is_null() == broken)
    rules = [
        (pl.col("clean_correct") != right, "clean_correct does not follow from label and prediction"),
        (pl.col("robust") != (right & ~broken), "robust does not follow from its clean verdict and its break"),
        (broken & ~right, "broken, though it is wrong without an attack"),
        (outcome, "it has a break without its prediction and distance, or these without a break"),
        (broken & (pl.col("adversarial_prediction") == pl.col("label")), "broken, yet predicted right"),
    ]
    for bad, sentence in rules:
        for row in verdicts.filter(bad.fill_null(True)).iter_rows(named=True):
            findings.append(Finding(VERDICTS, row["index"], f"{_of(row)}: {sentence}"))
    for result in run.results:
        mine = (pl.col("classifier") == result.classifier) & (pl.col("threat") == result.threat)
        findings += _copied(run, stages, result, verdicts.filter(mine))
    return check(
        "verdicts", f"{len(verdicts):,} verdicts in themselves, and the record's counts of them", findings
    ), verdicts


def _copied(run: Run, stages: Sequence[Stage], result: Result, verdicts: pl.DataFrame) -> Iterator[Finding]:
    yield from _totals(result, verdicts)
    where = f"{result.classifier}, {result.threat}"
    known = {stage.label: stage for stage in stages}
    threat = next((each for each in run.threats if each.label == result.threat), None)
    # What only units tell, such as who entered an attack that looks for the closest success, is left to them.
    for column in ("forwards", "backwards"):
        total = sum(getattr(entry, column) for entry in result.attacks)
        clean = max(battery.votes for battery in run.batteries) * result.examples if column == "forwards" else 0
        if verdicts[column].sum() != total + clean:
            accounted = int(verdicts[column].sum()) - clean
            text = f"{where}: its attacks made {total:,} {column}, its verdicts account for {accounted:,}"
            yield Finding(RECORD, None, text)
    order = list(known.values())
    for at, (label, stage) in enumerate(known.items()):
        entries = [e for e in result.attacks if (e.battery, e.position) == (stage.battery.cited, stage.position)]
        count = int((verdicts["broken_by"] == label).sum())
        # What looks for the closest success goes on with what is broken, and may come nearer.
        nearer = any(later.battery.closest for later in order[at:])
        if entries and (entries[0].broken < count or (entries[0].broken > count and not nearer)):
            yield Finding(RECORD, None, f"{where}, {label}: broken is {entries[0].broken}, the verdicts give {count}")
    for row in verdicts.filter(~pl.col("broken_by").is_in(list(known))).iter_rows(named=True):
        yield Finding(VERDICTS, row["index"], f"{where}: broken by {row['broken_by']}, which is in no battery")
    if threat is not None:
        for row in verdicts.filter(~pl.col("distance").is_between(0, threat.eps * (1 + 1e-3) + 1e-3)).iter_rows(
            named=True
        ):
            yield Finding(VERDICTS, row["index"], f"{where}: its distance {row['distance']:.6g} is outside the ball")
