"""What the record says of an attack, from its rows, and the sentences on what makes a number doubtful."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from robustframe.attacks.registry import settings_of
from robustframe.errors import InputError
from robustframe.recipe.stages import Stage
from robustframe.runs.curve import security_curves
from robustframe.runs.record import AttackEntry, Record, Result

_ENOUGH = 50
_EACH = 5
"""Images a class from which on an order of classes can be told from chance."""
_SHOWN = 4


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


def guessing(classifier: str, said: Mapping[tuple[int, int], int], names: Sequence[str] = ()) -> Iterator[str]:
    """A sentence where a model classifies clean images about as often right as by chance, or as if permuted.

    Args:
        classifier: its name.
        said: how often it gave which answer to images of which class, by label and prediction.
        names: what each label means, where that is known.
    """
    examples, correct = sum(said.values()), sum(times for (label, answer), times in said.items() if label == answer)
    classes = len({label for label, _ in said})
    if sentence := _permuted(classifier, said, names):
        yield sentence
        return
    chance = examples / max(classes, 1)
    # Two standard deviations; of fewer examples nothing can be said, and of one class neither.
    if examples >= _ENOUGH and classes > 1 and correct <= chance + 2 * (chance * (1 - 1 / classes)) ** 0.5:
        yield (
            f"{classifier} is right on {correct} of {examples} clean images, about as often as by chance: a model "
            "trained on normalised images needs its preprocessing inside (normalise in a recipe), others their weights "
            "and their order of classes"
        )


def _permuted(classifier: str, said: Mapping[tuple[int, int], int], names: Sequence[str]) -> str:
    """Say that a model is right as soon as its classes are put into another order; nothing where it is not."""
    examples, correct = sum(said.values()), sum(times for (label, answer), times in said.items() if label == answer)
    labels = sorted({label for label, _ in said})
    # An order that fits can be found for any model with few images a class.
    if examples < max(_ENOUGH, _EACH * len(labels)) or 2 * correct > examples or len(labels) < 2:
        return ""
    # Here and not above: few models ask for it.
    from scipy.optimize import linear_sum_assignment

    columns = sorted({*labels, *(answer for _, answer in said)})
    table = [[said.get((label, answer), 0) for answer in columns] for label in labels]
    rows, places = linear_sum_assignment(table, maximize=True)
    best = sum(table[row][place] for row, place in zip(rows, places))
    if 2 * best < examples or best < 2 * correct:
        return ""
    moved = [(labels[row], columns[place]) for row, place in zip(rows, places) if labels[row] != columns[place]]
    shown = ", ".join(
        f"{answer} for {label}" + (f" ({names[label]})" if 0 <= label < len(names) else "")
        for label, answer in moved[:_SHOWN]
    )
    more = " and so on" if len(moved) > _SHOWN else ""
    return (
        f"{classifier} is right on {correct} of {examples} clean images, but would be on {best} with its classes in "
        f"another order: it says {shown}{more}; give the data the order of classes that it was trained with"
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
