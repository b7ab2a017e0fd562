"""Is the diagnosis of each row the one that the run left, and is everything doubtful in it also flagged."""

from collections.abc import Iterator

from pydantic import ValidationError

from robustframe.diagnose import Diagnosis
from robustframe.evaluation.engine import distrust
from robustframe.evidence.findings import Check, Finding, check, left_out
from robustframe.evidence.run import Run
from robustframe.record import RECORD, Result


def check_diagnoses(run: Run) -> Check:
    """Compare the diagnoses in the record with their files, their verdicts with their checks, and look for their flags.

    The checks of a diagnosis are not made again: that takes searches, which a verification does without.
    """
    results = run.record.results or []
    known = sum(result.diagnosis is not None for result in results)
    if not run.record.recipe.get("diagnose", True) and not known:
        return check("diagnoses", "none was asked for", [])
    if not known and run.record.evidence_sha256 is None:
        return left_out("diagnoses", "the record is older than diagnoses")
    findings = [finding for result in results for finding in _findings(run, result)]
    return check(
        "diagnoses", f"{known} rows: as the run left them, verdicts and flags follow from their checks", findings
    )


def _findings(run: Run, result: Result) -> Iterator[Finding]:
    where = f"{result.classifier}, {result.threat}"
    said = result.diagnosis
    if said is None:
        yield Finding(RECORD, None, f"{where}: its diagnosis is missing")
        return
    again = Diagnosis.of(said.checks, examples=said.examples, forwards=said.forwards, backwards=said.backwards)
    if again.verdict != said.verdict:
        text = f"its diagnosis says {said.verdict}, its {len(said.checks)} checks make it {again.verdict}"
        yield Finding(RECORD, None, f"{where}: {text}")
    for sentence in distrust(result):
        if sentence not in run.record.flags:
            yield Finding(RECORD, None, f"a flag is missing: {sentence}")
    if run.stored:
        yield from _file(run, result, said)


def _file(run: Run, result: Result, said: Diagnosis) -> Iterator[Finding]:
    names = [entry.name for entry in run.record.classifiers]
    if result.classifier not in names:
        # Its own check has named it.
        return
    path = run.folder / run.diagnosis(names.index(result.classifier), result.threat)
    where = run.where(path)
    if not path.is_file():
        yield Finding(where, None, "the diagnosis is missing")
        return
    try:
        left = Diagnosis.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        yield Finding(where, None, "it cannot be read: truncated, or no diagnosis")
        return
    if left != said:
        yield Finding(RECORD, None, f"{result.classifier}, {result.threat}: its diagnosis is not that of {where}")
