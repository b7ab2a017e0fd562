"""What the record says of an attack, from its rows, and the sentences on what makes a number doubtful."""

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from robustframe.attacks.registry import settings_of
from robustframe.errors import InputError
from robustframe.recipe.stages import Stage
from robustframe.runs.curve import security_curves
from robustframe.runs.record import AttackEntry, Record, Result

_ENOUGH = 50


def doubts(result: Result, entry: AttackEntry) -> Iterator[str]:
    """Sentences on what makes an attack's outcome doubtful."""
    what = f"{result.classifier}, {result.threat}: {entry.name or entry.use}"
    if entry.unverified:
        yield f"{what} claimed {entry.unverified} successes that did not stand up to verification"
    if entry.blind:
        yield (
            f"{what} met no gradient but zero on {entry.blind} of {entry.entered} examples, where it searched blindly; "
            "look for saturated or detached steps, and trust the attacks without gradients more"
        )
    if entry.nonfinite:
        yield f"{what} met gradients with NaN or infinity on {entry.nonfinite} of {entry.entered} examples"


def guessing(classifier: str, labels: Sequence[int], correct: int) -> Iterator[str]:
    """A sentence where a model classifies clean images about as often right as by chance."""
    examples, classes = len(labels), len(set(labels))
    chance = examples / max(classes, 1)
    # Two standard deviations; of fewer examples nothing can be said, and of one class neither.
    if examples >= _ENOUGH and classes > 1 and correct <= chance + 2 * (chance * (1 - 1 / classes)) ** 0.5:
        yield (
            f"{classifier} is right on {correct} of {examples} clean images, about as often as by chance: a model "
            "trained on normalised images needs its preprocessing inside (normalise in a recipe), others their weights "
            "and their order of classes"
        )


def contradictions(record: Record, verdicts: pl.DataFrame) -> Iterator[str]:
    """Sentences on examples that are called robust although the run holds a nearer adversarial image of each.

    None where the verdicts are not those of the record, which others say.
    """
    try:
        curves = security_curves(record, verdicts)
    except InputError:
        return
    yield from (str(violation) for curve in curves for violation in curve.violations)


def distrust(result: Result) -> Iterator[str]:
    """Sentences on the checks that a row failed."""
    if result.diagnosis is not None and result.diagnosis.verdict == "suspicious":
        for check in result.diagnosis.reasons:
            yield f"{result.classifier}, {result.threat}: suspicious ({check.name}): {check.sentence}"


def attack_entry(stage: Stage, rows: pl.DataFrame, skipped: str | None = None) -> AttackEntry:
    """Say what an attack did, from its rows."""
    return entry_of(stage, counted(rows), skipped)


def counted(rows: pl.DataFrame) -> Counter[str]:
    """Count what an attack did, from some of its rows; the counts of several chunks can be added."""
    return Counter(
        entered=len(rows),
        broken=int(rows["success"].sum()),
        unverified=int((rows["claimed"] & ~rows["success"]).sum()),
        forwards=int(rows["forwards"].sum()),
        backwards=int(rows["backwards"].sum()),
        blind=int(((rows["backwards"] > 0) & (rows["zero_gradients"] >= rows["backwards"])).sum()),
        nonfinite=int((rows["nonfinite_gradients"] > 0).sum()),
    )


def entry_of(stage: Stage, counts: Counter[str], skipped: str | None = None) -> AttackEntry:
    """Say what an attack did, from its counts; without any it has met no example."""
    return AttackEntry(
        battery=stage.battery.cited,
        position=stage.position,
        use=stage.spec.use,
        name=stage.spec.name,
        settings=settings_of(stage.attack),
        skipped=skipped,
        entered=counts["entered"],
        broken=counts["broken"],
        unverified=counts["unverified"],
        forwards=counts["forwards"],
        backwards=counts["backwards"],
        blind=counts["blind"],
        nonfinite=counts["nonfinite"],
    )
