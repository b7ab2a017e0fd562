"""Do the diagnoses in the record follow from their figures, and are they those that the run's files hold."""

from collections.abc import Collection, Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

from robustframe.diagnose import Check, Diagnosis
from robustframe.diagnose.question import POINTS, Question, points
from robustframe.diagnose.run import MOST, SHARE
from robustframe.diagnose.table import QUESTIONS
from robustframe.errors import InputError
from robustframe.files import RECORD_BYTES, read_plain
from robustframe.gradients import solves
from robustframe.runs import Run
from robustframe.runs.record import RECORD, Result
from robustframe.runs.units import parse_diagnosis
from robustframe.threat import ThreatModel
from robustframe.verification.findings import Finding, VerifiedPart, check
from robustframe.verification.sources import Sources

_UNRUN = "not run, "
"""How the sentence of a check begins that could not be run."""
_EXCUSED = "no doubt, as "
"""And what stands in that of one whose figure is above the threshold for a reason."""


def check_diagnoses(run: Run, sources: Sources | None) -> VerifiedPart:
    """Derive every verdict from figures and thresholds, and compare each diagnosis with its file.

    All checks that concern a row must be there, in order, with the threshold of the table of checks; a figure above it
    fails, and what was not run is not passed. The figures are not measured again: that takes searches, which a
    verification does without.
    """
    solvers = None
    if sources is not None:
        solvers = {each.entry.name for each in sources.classifiers if solves(each.module)}
    count = sum(result.diagnosis is not None for result in run.results)
    findings = [finding for result in run.results for finding in _row(run, result, solvers)]
    later = [question.name for question in QUESTIONS if not _was_asked(question, run)]
    fewer = f" of robustframe {run.record.environment.robustframe}, which asked {len(later)} fewer" if later else ""
    return check("diagnoses", f"{count} diagnoses, each verdict follows from all its checks{fewer}", findings)


def diagnosis_files(run: Run) -> Iterator[str]:
    """Yield the files that the diagnoses of the record lie in, relative to the run."""
    for result in run.results:
        if result.diagnosis is not None:
            yield _place(run, result)


def _row(run: Run, result: Result, solvers: Collection[str] | None) -> Iterator[Finding]:
    stated, where = result.diagnosis, f"{result.classifier}, {result.threat}"
    if stated is not None:
        yield from (Finding(RECORD, None, f"{where}: {text}") for text in _contradictions(run, result, stated, solvers))
    elif any((row.classifier, row.threat) == (result.classifier, result.threat) for row in run.record.failed):
        # The record says itself that the checks of this row failed.
        return
    elif run.record.recipe.get("diagnose", True) and run.threat(result.threat).whole:
        yield Finding(RECORD, None, f"{where}: its diagnosis is missing")
    if not run.stored:
        return
    place = _place(run, result)
    path = run.folder / place
    if path.is_file() != (stated is not None):
        yield Finding(place, None, "it is missing" if stated is not None else "the record has no such diagnosis")
    elif stated is not None and _read(path) != stated:
        yield Finding(place, None, "the diagnosis in the record is another one")


def _contradictions(run: Run, result: Result, stated: Diagnosis, solvers: Collection[str] | None) -> Iterator[str]:
    """Say what in a diagnosis does not follow from the rest of it, or from the row."""
    drawn = Diagnosis.of(stated.checks, examples=stated.examples, forwards=stated.forwards, backwards=stated.backwards)
    if drawn.verdict != stated.verdict:
        yield f"it is called {stated.verdict}, its checks make it {drawn.verdict}"
    if stated.examples > min(MOST, result.clean_correct):
        yield f"its sample has {stated.examples} examples, there are {min(MOST, result.clean_correct)} at most"
    passes = sum(entry.forwards + entry.backwards for entry in result.attacks)
    # Some questions cost a few passes however short the battery was.
    allowed = int(SHARE * passes) + MOST
    if stated.forwards + stated.backwards > allowed or min(stated.forwards, stated.backwards) < 0:
        yield (
            f"its checks made {stated.forwards + stated.backwards:,} passes, where the attacks' {passes:,} leave them "
            f"{allowed:,} at most"
        )
    known = {question.name: question for question in QUESTIONS}
    names = [each.name for each in stated.checks]
    expected = [
        name
        for name, question in known.items()
        if name in names or (_was_asked(question, run) and _concerns(question, run, result, solvers))
    ]
    if stated.examples and names != expected:
        missing = [name for name in expected if name not in names]
        yield f"its checks lack {', '.join(missing)}" if missing else "its checks are not those of the table, in order"
    if not stated.examples and (names or result.clean_correct):
        yield "its checks looked at no example"
    for each in stated.checks:
        if each.name in known:
            yield from (f"{each.name}: {text}" for text in _answer(each, known[each.name], result))
    dear = [each for each in stated.checks if each.figure is not None and known.get(each.name) in _SEARCHING]
    if dear and not stated.forwards:
        yield f"{dear[0].name}: it measured something, but the checks made no passes"


_SEARCHING = tuple(question for question in QUESTIONS if question.looks_at in ("answers", "gradients"))


_COUNTED = ("black-box-beats-gradients", "transfer-beats-attack")
"""Those whose figure is of all examples, so that what is allowed follows from their number."""


def _was_asked(question: Question, run: Run) -> bool:
    """Say whether the version that made a record asked a question at all."""
    try:
        return Version(question.since) <= Version(run.record.environment.robustframe)
    except InvalidVersion:
        return True


def _concerns(question: Question, run: Run, result: Result, solvers: Collection[str] | None) -> bool:
    """Say whether a question has to be asked of a row; of a solver only where it is known that there is one."""
    if ThreatModel.parse(result.threat).norm not in question.norms:
        return False
    return question.looks_at != "solver" or (solvers is not None and result.classifier in solvers)


def _answer(stated: Check, question: Question, result: Result) -> Iterator[str]:
    """Derive whether one check passed from its figure."""
    share = result.robust_correct / max(result.examples, 1)
    limits = {question.threshold, 0.0, max(POINTS, share / stated.examples) if stated.examples else 0.0}
    if question.name in _COUNTED:
        limits.add(points(result.examples))
    if question.name == "large-eps-above-chance":
        # Chance is at most a half, with two classes.
        limits.add(0.5)
    if question.of_nearest and stated.examples:
        # One that falls may be chance, however few are tried.
        limits.add(1 / stated.examples)
    if stated.threshold > float(f"{max(limits):.4g}"):
        yield f"its threshold is {stated.threshold:g}, the table's {float(f'{max(limits):.4g}'):g}"
    if question.decides and not stated.decides:
        yield "it is said not to decide, which the table of checks says it does"
    unrun = stated.sentence.startswith(_UNRUN)
    above = stated.figure is not None and stated.figure > stated.threshold
    excused = _EXCUSED in stated.sentence
    passed = None if unrun else not above or excused
    if stated.passed is not passed:
        words = {True: "passed", False: "failed", None: "was not run"}
        yield f"it is said that it {words[stated.passed]}, its figure and threshold say that it {words[passed]}"
    if not 0 <= stated.examples <= sum(entry.entered for entry in result.attacks) + result.examples:
        yield f"it looked at {stated.examples:,} examples, of {result.examples:,}"
    if any(not 0 <= index < result.examples for index in stated.broken):
        yield "it lists an example that there is not"


def _read(path: Path) -> Diagnosis | None:
    try:
        return parse_diagnosis(read_plain(path, limit=RECORD_BYTES))
    except InputError:
        return None


def _place(run: Run, result: Result) -> str:
    names = [entry.name for entry in run.record.classifiers]
    position = names.index(result.classifier) if result.classifier in names else 0
    return run.files.name(run.files.diagnosis(position, result.threat))
