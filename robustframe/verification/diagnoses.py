"""Do the diagnoses in the record follow from their checks, and are they those that the run's files hold."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from robustframe.diagnose import Diagnosis
from robustframe.errors import InputError
from robustframe.files import RECORD_BYTES, read_plain
from robustframe.runs.entries import distrust
from robustframe.runs.record import RECORD, Result
from robustframe.runs.run import Run
from robustframe.verification.findings import Finding, VerifiedPart, check


def check_diagnoses(run: Run) -> VerifiedPart:
    """Compare every diagnosis of the record with its file, where the run has files, and its verdict with its checks.

    What a row is suspected of must also stand in the flags. The checks themselves are not made again: that takes
    searches, which a verification does without.
    """
    results = run.results
    count = sum(result.diagnosis is not None for result in results)
    findings = [finding for result in results for finding in _row(run, result)]
    return check("diagnoses", f"{count} diagnoses, each verdict follows from its checks", findings)


def diagnosis_files(run: Run) -> Iterator[str]:
    """Yield the files that the diagnoses of the record lie in, relative to the run."""
    for result in run.results:
        if result.diagnosis is not None:
            yield _place(run, result)


def _row(run: Run, result: Result) -> Iterator[Finding]:
    stated, where = result.diagnosis, f"{result.classifier}, {result.threat}"
    if stated is not None:
        drawn = Diagnosis.of(
            stated.checks, examples=stated.examples, forwards=stated.forwards, backwards=stated.backwards
        )
        if drawn.verdict != stated.verdict:
            sentence = f"{where}: it is called {stated.verdict}, its checks make it {drawn.verdict}"
            yield Finding(RECORD, None, sentence)
        for flag in distrust(result):
            if flag not in run.record.flags:
                yield Finding(RECORD, None, f"a flag is missing: {flag}")
    elif any((row.classifier, row.threat) == (result.classifier, result.threat) for row in run.record.incomplete):
        # The record says itself that the checks of this row failed.
        return
    elif run.record.recipe.get("diagnose", True):
        yield Finding(RECORD, None, f"{where}: its diagnosis is missing")
    if not run.stored:
        return
    place = _place(run, result)
    path = run.folder / place
    if path.is_file() != (stated is not None):
        yield Finding(place, None, "it is missing" if stated is not None else "the record has no such diagnosis")
    elif stated is not None and _read(path) != stated:
        yield Finding(place, None, "the diagnosis in the record is another one")


def _read(path: Path) -> Diagnosis | None:
    try:
        return Diagnosis.model_validate_json(read_plain(path, limit=RECORD_BYTES))
    except (ValidationError, InputError):
        return None


def _place(run: Run, result: Result) -> str:
    names = [entry.name for entry in run.record.classifiers]
    position = names.index(result.classifier) if result.classifier in names else 0
    return run.files.name(run.files.diagnosis(position, result.threat))
