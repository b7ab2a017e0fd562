"""Do the flags of a record follow from its rows: none is missing, and none is there that nothing explains."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from robustframe.models.trials import check_model
from robustframe.runs import Run
from robustframe.runs.entries import contradictions, distrust, doubts, guessing
from robustframe.runs.record import RECORD
from robustframe.verification.findings import Finding, VerifiedPart, check, left_out
from robustframe.verification.sources import Sources


def model_flags(run: Run, sources: Sources | None) -> Mapping[str, list[str]] | None:
    """Return what is said of each model that has a number when it is tried; ``None`` where there are none to try."""
    if sources is None:
        return None
    finished = {result.classifier for result in run.results}
    tried = [each for each in sources.classifiers if each.entry.name in finished]
    return {each.entry.name: check_model(each, sources.data, sources.device) for each in tried}


def check_flags(run: Run, verdicts: pl.DataFrame | None, of_models: Mapping[str, Sequence[str]] | None) -> VerifiedPart:
    """Derive every flag anew.

    Args:
        run: the run.
        verdicts: its verdicts; ``None`` where they do not read.
        of_models: what is said of each model when it is tried; ``None`` where the models are not here.
    """
    if verdicts is None:
        return left_out("flags", "the verdicts do not read")
    derived = [*_derived(run, verdicts), *(flag for flags in (of_models or {}).values() for flag in flags)]
    stated = run.record.flags
    findings = [Finding(RECORD, None, f"a flag is missing: {flag}") for flag in derived if flag not in stated]
    finished = {result.classifier for result in run.results}
    untried = tuple(f"{name} " for name in sorted(finished - (of_models or {}).keys()))
    for flag in stated:
        # What a model says when it is tried begins with its name, and cannot be known without it.
        if flag not in derived and not flag.startswith(untried):
            findings.append(Finding(RECORD, None, f"nothing in the run explains the flag: {flag}"))
    if len(set(stated)) < len(stated):
        findings.append(Finding(RECORD, None, "a flag appears twice"))
    return check("flags", f"{len(stated)} sentences on what is doubtful, each follows from the run", findings)


def _derived(run: Run, verdicts: pl.DataFrame) -> Iterator[str]:
    for name in dict.fromkeys(result.classifier for result in run.results):
        first = next(result.threat for result in run.results if result.classifier == name)
        mine = verdicts.filter((pl.col("classifier") == name) & (pl.col("threat") == first))
        said = Counter(mine.select("label", "clean_prediction").iter_rows())
        yield from guessing(name, said, run.record.data.classes)
    for result in run.results:
        yield from distrust(result)
        for entry in result.attacks:
            yield from doubts(result, entry)
    yield from contradictions(run.record, verdicts)
