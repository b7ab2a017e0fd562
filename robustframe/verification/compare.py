"""Two runs on the same examples, compared pair by pair: differences, who was broken by what, and transfer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from robustframe.calls import DEFAULT_BATCH
from robustframe.devices import pick_device
from robustframe.errors import InputError
from robustframe.runs import Run, open_run
from robustframe.statistics import PairedDifference, Ranked, crossed_mean, shared_ranks
from robustframe.threat import ThreatModel
from robustframe.verification.code import consent
from robustframe.verification.sources import Sources, load_sources
from robustframe.verification.transfer import Side, Transfer, Verdicts, transfers

ROBUST, WRONG = "robust", "wrong without attack"


@dataclass(frozen=True)
class Difference:
    """Accuracies of two classifiers on the same examples, and the second less the first."""

    first: str
    second: str
    threat: str | None
    """`None` for the clean accuracy, and for the mean over all threats."""
    measure: str
    """``"clean"`` or ``"robust"``."""
    first_value: float
    second_value: float
    value: float
    low: float
    high: float
    """Newcombe's 95 % interval; for the mean over all threats Student's over examples."""
    only_first: int | None = None
    """Examples that only the first gets right."""
    only_second: int | None = None
    p_value: float | None = None
    """Exact McNemar, of this difference alone; as is the interval."""


@dataclass(frozen=True)
class Outcome:
    """How many examples ended in one way for the first and in another (or the same) for the second."""

    first: str
    second: str
    threat: str
    first_outcome: str
    """``"robust"``, ``"wrong without attack"``, or the attack that broke it."""
    second_outcome: str
    count: int


@dataclass(frozen=True)
class Comparison:
    """Everything `robustframe compare` says."""

    first: str
    second: str
    """The runs, by folder, name and hash."""
    examples: int
    threats: tuple[str, ...]
    differences: tuple[Difference, ...]
    averages: tuple[Difference, ...]
    """Over all threats; empty where there is one."""
    outcomes: tuple[Outcome, ...]
    ranks: dict[str, tuple[Ranked, ...]]
    """By threat: classifiers of both runs, sharing a rank where the examples do not tell them apart."""
    transfer: tuple[Transfer, ...] | None
    """`None` where it was left out."""
    left_out: str | None
    """Why transfer was left out."""
    uncompared: tuple[str, ...]
    """Threats that only one of the runs has, and classifiers without a counterpart in the other."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as what JSON can hold."""
        return asdict(self)


def compare_runs(
    first: str | Path | Run,
    second: str | Path | Run,
    *,
    transfer: bool = True,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    data_root: str | Path | None = None,
    code: Sequence[str | Path] = (),
) -> Comparison:
    """Compare two complete runs on the same examples.

    Args:
        first: a run, or its folder.
        second: another's; differences are this one less the first.
        transfer: show the stored images of each run to the classifiers of the other, where that can be done.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        batch_size: rows of one model call at most.
        folder: what paths in the recipes are relative to.
        data_root: where data that does not ship lies.
        code: Python files that the runs name and that may be run.

    Raises:
        InputError: for a run that is not complete, of another schema, altered or with missing parts, and for two runs
            on different examples or without a threat in common.
    """
    runs = [_opened(given, folder) for given in (first, second)]
    _same_examples(*runs)
    threats = _common_threats(*runs)
    verdicts = [_verdicts(run) for run in runs]
    pairs = _pairs(*runs)
    differences = _differences(pairs, threats, *verdicts)
    shown: tuple[Transfer, ...] | None = None
    why: str | None = "not asked for"
    if transfer:
        with consent(runs, code, "robustframe compare", folder):
            shown, why = _transfer(runs, verdicts, threats, device=device, batch_size=batch_size, data_root=data_root)
    return Comparison(
        first=f"{runs[0].folder} ({runs[0].name})",
        second=f"{runs[1].folder} ({runs[1].name})",
        examples=runs[0].record.data.count,
        threats=tuple(threat.label for threat in threats),
        differences=tuple(differences),
        averages=tuple(_averages(pairs, threats, *verdicts)) if len(threats) > 1 else (),
        outcomes=tuple(_outcomes(pairs, threats, *verdicts)),
        ranks={threat.label: tuple(_ranks(threat.label, *verdicts)) for threat in threats},
        transfer=shown,
        left_out=why,
        uncompared=tuple(_uncompared(runs, pairs, threats)),
    )


def _opened(given: str | Path | Run, folder: str | Path | None) -> Run:
    run = given if isinstance(given, Run) else open_run(given, recipe_folder=folder)
    if run.record.missing:
        rows = ", ".join(f"{name} under {threat}" for name, threat in sorted(run.record.missing))
        raise InputError(f"{run.folder} has failed rows ({rows}); run the same evaluate command again")
    return run


def _same_examples(first: Run, second: Run) -> None:
    one, other = first.record.data, second.record.data
    if one.sha256 != other.sha256 or one.count != other.count:
        said = [f"{run.folder} has {d.use} {d.split}, {d.count:,}" for run, d in ((first, one), (second, other))]
        raise InputError(f"the runs are on different examples: {', '.join(said)}; compare runs of the same examples")


def _common_threats(first: Run, second: Run) -> list[ThreatModel]:
    labels = {threat.label for threat in second.threats}
    common = [threat for threat in first.threats if threat.label in labels]
    if not common:
        said = [", ".join(threat.label for threat in run.threats) for run in (first, second)]
        raise InputError(
            f"the runs have no threat in common: {said[0]} in {first.folder}, {said[1]} in {second.folder}"
        )
    return common


def _verdicts(run: Run) -> Verdicts:
    """Return the verdicts of a run by classifier and threat, each in the order of the examples."""
    parts = run.verdicts.sort("index").partition_by("classifier", "threat", as_dict=True)
    return {(str(classifier), str(threat)): rows for (classifier, threat), rows in parts.items()}


def _pairs(first: Run, second: Run) -> list[tuple[str, str]]:
    """Classifiers of one name against each other; those that only one run has, each against each."""
    ones, others = ([entry.name for entry in run.record.classifiers] for run in (first, second))
    alone = [name for name in others if name not in ones]
    pairs = [(name, name) for name in ones if name in others]
    pairs += [(name, other) for name in ones if name not in others for other in alone]
    if not pairs:
        listed = [", ".join(names) for names in (ones, others)]
        raise InputError(f"there is nothing to pair: {first.folder} has {listed[0]}, {second.folder} {listed[1]}")
    return pairs


def _uncompared(runs: Sequence[Run], pairs: Sequence[tuple[str, str]], threats: Sequence[ThreatModel]) -> list[str]:
    asked = {threat.label for run in runs for threat in run.threats} - {threat.label for threat in threats}
    names = {entry.name for run in runs for entry in run.record.classifiers} - {name for pair in pairs for name in pair}
    return [*sorted(asked), *sorted(names)]


def _differences(
    pairs: Sequence[tuple[str, str]], threats: Sequence[ThreatModel], one: Verdicts, other: Verdicts
) -> list[Difference]:
    found = []
    for first, second in pairs:
        clean = threats[0].label
        found.append(_difference(first, second, None, one[first, clean], other[second, clean]))
        found += [
            _difference(first, second, threat.label, one[first, threat.label], other[second, threat.label])
            for threat in threats
        ]
    return found


def _difference(first: str, second: str, threat: str | None, one: pl.DataFrame, other: pl.DataFrame) -> Difference:
    column = "clean_correct" if threat is None else "robust"
    a, b = one[column].to_numpy(), other[column].to_numpy()
    paired = PairedDifference.of(a, b)
    interval = paired.interval()
    return Difference(
        first=first,
        second=second,
        threat=threat,
        measure="clean" if threat is None else "robust",
        first_value=float(a.mean()),
        second_value=float(b.mean()),
        value=paired.value,
        low=interval.low,
        high=interval.high,
        only_first=paired.only_first,
        only_second=paired.only_second,
        p_value=paired.p_value,
    )


def _averages(
    pairs: Sequence[tuple[str, str]], threats: Sequence[ThreatModel], one: Verdicts, other: Verdicts
) -> list[Difference]:
    """Robust accuracy averaged over all threats; an example counts once, with all its verdicts."""
    found = []
    for first, second in pairs:
        a = np.mean([one[first, threat.label]["robust"].to_numpy() for threat in threats], axis=0)
        b = np.mean([other[second, threat.label]["robust"].to_numpy() for threat in threats], axis=0)
        mean = crossed_mean((b - a)[None]) if len(a) > 1 else None
        # One example says nothing of others.
        low, high = (mean.interval.low, mean.interval.high) if mean else (-1.0, 1.0)
        values = float(a.mean()), float(b.mean()), float((b - a).mean())
        found.append(Difference(first, second, None, "robust", *values, low, high))
    return found


def _outcomes(
    pairs: Sequence[tuple[str, str]], threats: Sequence[ThreatModel], one: Verdicts, other: Verdicts
) -> list[Outcome]:
    found = []
    for first, second in pairs:
        for threat in threats:
            ends = zip(_ends(one[first, threat.label]), _ends(other[second, threat.label]))
            found += [Outcome(first, second, threat.label, *end, count) for end, count in sorted(Counter(ends).items())]
    return found


def _ends(rows: pl.DataFrame) -> list[str]:
    end = pl.when("robust").then(pl.lit(ROBUST)).otherwise(pl.coalesce("broken_by", pl.lit(WRONG)))
    ends: list[str] = rows.select(end.alias("end"))["end"].to_list()
    return ends


def _ranks(threat: str, one: Verdicts, other: Verdicts) -> list[Ranked]:
    robust = {}
    for which, verdicts in (("first", one), ("second", other)):
        for (name, label), rows in verdicts.items():
            if label == threat:
                robust[f"{name} ({which})"] = rows["robust"].to_numpy()
    return shared_ranks(robust)


def _transfer(
    runs: Sequence[Run],
    verdicts: Sequence[Verdicts],
    threats: list[ThreatModel],
    *,
    device: str,
    batch_size: int,
    data_root: str | Path | None,
) -> tuple[tuple[Transfer, ...] | None, str | None]:
    """Transfer both ways, or the reason why not."""
    sides = []
    for run, table in zip(runs, verdicts):
        if not run.stored:
            return None, f"no images are stored in {run.folder}"
        if run.from_python:
            return None, f"{run.folder} was evaluated from Python, so that its models cannot be loaded"
        try:
            sources = load_sources(run, device=pick_device(device), data_root=data_root)
        except InputError as error:
            return None, str(error)
        if not _as_recorded(run, sources):
            return None, f"models or examples are not those of {run.folder}; `robustframe verify` names them"
        sides.append(Side(run, sources, table))
    one, other = sides
    found = transfers(one, other, threats, "first to second", batch_size)
    return (*found, *transfers(other, one, threats, "second to first", batch_size)), None


def _as_recorded(run: Run, sources: Sources) -> bool:
    entries = [each.entry for each in sources.classifiers]
    return entries == run.record.classifiers and sources.data.sha256 == run.record.data.sha256
