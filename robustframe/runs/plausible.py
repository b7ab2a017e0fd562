"""Does a record agree with itself, and with its verdicts."""

import polars as pl

from robustframe.runs.record import Record


def implausible(record: Record) -> str:
    """Say in what a complete record contradicts itself; nothing when it does not."""
    names = [entry.name for entry in record.classifiers]
    rows = [(result.classifier, result.threat) for result in record.results or []]
    if len(set(names)) < len(names) or len(set(rows)) < len(rows):
        return "a classifier or a result appears twice"
    for result in record.results or []:
        if result.classifier not in names:
            return f"it has a result for {result.classifier!r}, which is not one of its classifiers"
        if not 0 <= result.robust_correct <= result.clean_correct <= result.examples == record.data.count:
            return f"{result.classifier}, {result.threat}: its counts are impossible"
        if not 0 <= (result.certified_correct or 0) <= result.examples:
            return f"{result.classifier}, {result.threat}: its certified count is impossible"
    if (corrupted := record.corruptions) is not None:
        shape = {len(corrupted.severities)}
        for name, counts in corrupted.correct.items():
            there = (
                name in names and len(counts) == len(corrupted.kinds) > 0 and {len(each) for each in counts} == shape
            )
            if not there or not all(0 <= count <= record.data.count for each in counts for count in each):
                return f"its counts of corrupted images of {name!r} are impossible"
    for row in record.failed:
        if row.classifier not in names:
            return f"it calls a row of {row.classifier!r} failed, which is not one of its classifiers"
    return ""


def contradiction(record: Record, verdicts: pl.DataFrame) -> str:
    """Say which count of a record does not follow from its verdicts; nothing when all do."""
    counted = {
        (str(row["classifier"]), str(row["threat"])): row
        for row in verdicts.group_by("classifier", "threat")
        .agg(
            pl.len().alias("examples"),
            pl.col("index").min().alias("first"),
            pl.col("index").max().alias("last"),
            pl.col("clean_correct").sum(),
            pl.col("robust").sum().alias("robust_correct"),
        )
        .iter_rows(named=True)
    }
    for result in record.results or []:
        where, n = f"{result.classifier}, {result.threat}", result.examples
        found = counted.pop((result.classifier, result.threat), None)
        if found is None or (found["first"], found["last"], found["examples"]) != (0, n - 1, n):
            return f"{where}: they are not one per example"
        for key in ("clean_correct", "robust_correct"):
            if found[key] != getattr(result, key):
                return f"{where}: {key} is {getattr(result, key)}, they give {found[key]}"
    if counted:
        return f"they are also on {', '.join(next(iter(counted)))}, of which it has no result"
    return ""
