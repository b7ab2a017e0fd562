"""The attacks' side of a run: which example each of them met, broke, and how many passes that took."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.recipe import Battery, digest
from robustframe.runs.record import AttackEntry, ClassifierEntry, Record, Result

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]


class AttackKey(NamedTuple):
    """One attack at one place of a battery; other settings are another attack."""

    label: str
    """Such as ``swift@1/03-apgd-t``."""
    digest: str
    """Of its name in the registry and all its settings."""


class RowKey(NamedTuple):
    """One classifier on some examples under one threat, in whichever run."""

    classifier: str
    """Weights, twin and sweeps."""
    data: str
    threat: str


@dataclass(frozen=True)
class Stint:
    """One attack on one row: arrays of shape (examples,), in the order of the examples."""

    attack: AttackKey
    row: RowKey
    before: frozenset[AttackKey]
    """The attacks that decided what it met, as only what they all missed came to it; empty where it met everything."""
    right: Flags
    """Examples that the classifier gets right when clean."""
    met: Flags
    broken: Flags
    """Of those it met."""
    passes: Counts | None
    """Forwards and backwards on each example it met; `None` for a published copy, which has their sum alone."""
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Walk:
    """A row on its way through all attacks of a run, or through one that met everything: arrays as of `Stint`."""

    path: str
    """Cites the batteries, or names the attack."""
    row: RowKey
    right: Flags
    broken_by: tuple[str | None, ...]
    """The attack that broke each example."""
    passes: Counts
    """Forwards and backwards until an example was broken, or altogether, the clean pass included."""
    closest: bool = False
    """The attack went on after its first success, so that its passes are not those until an example was broken."""


@dataclass(frozen=True)
class Ledger:
    """What every attack of one run met, broke and spent."""

    cited: str
    data: str
    """The examples in words."""
    names: Mapping[RowKey, str]
    """What the classifier of each row is called."""
    stints: tuple[Stint, ...]
    walks: tuple[Walk, ...]
    unknown: tuple[str, ...]
    """Sentences on what the run does not say."""


def read_ledger(
    cited: str,
    record: Record,
    batteries: Sequence[Battery],
    verdicts: Callable[[str, str], pl.DataFrame],
    units: Callable[[str, str, str], pl.DataFrame] | None,
) -> Ledger:
    """Collect what the attacks of a complete run did.

    Args:
        cited: how the run is cited.
        record: its record.
        batteries: those it went through.
        verdicts: gives the verdicts of a classifier under a threat, in the order of the examples.
        units: gives what an attack, by its label, did to each example that it met; ``None`` where units are not
            stored. What sequential attacks met and broke follows from the verdicts all the same.

    Raises:
        InputError: where units and verdicts are of different examples.
    """
    closest = {battery.cited for battery in batteries if battery.closest}
    entries = {entry.name: entry for entry in record.classifiers}
    stints: list[Stint] = []
    walks: list[Walk] = []
    names: dict[RowKey, str] = {}
    for result in record.results or []:
        row = _row(entries[result.classifier], record, result)
        names[row] = result.classifier
        rows = verdicts(result.classifier, result.threat)
        own = list(_stints(cited, result, row, rows, closest, units))
        stints += own
        if closest:
            walks += [_alone(each, each.passes) for each in own if each.passes is not None and not each.before]
        else:
            walks.append(_through(" then ".join(battery.cited for battery in batteries), row, rows))
    unknown: tuple[str, ...] = ()
    if closest and units is None:
        said = f"{cited} is a published copy, which holds the closest success alone and not who else broke an example"
        beside = [battery.cited for battery in batteries if not battery.closest]
        # A nearer success takes the place of one of theirs.
        rest = f", and so is what went beside it: {', '.join(beside)}" if beside else ""
        unknown = (f"{said}; {', '.join(sorted(closest))} is left out{rest}.",)
    entries_of_all = [entry for result in record.results or [] for entry in result.attacks]
    if any(entry.settings.get("source") for entry in entries_of_all):
        unknown += ("An attack with the gradients of a source spends its passes there, which are not counted.",)
    data = f"{record.data.use} {record.data.split}, {record.data.count:,} examples"
    return Ledger(cited, data, names, tuple(stints), tuple(walks), unknown)


def attack_key(entry: AttackEntry) -> AttackKey:
    """Return what tells an attack from others, in whichever run it stands."""
    return AttackKey(entry.label, digest({"use": entry.use, "settings": entry.settings}))


def _row(entry: ClassifierEntry, record: Record, result: Result) -> RowKey:
    return RowKey(f"{entry.sha256}/{entry.twin}/{entry.sweeps}", record.data.sha256, result.threat)


def _stints(
    cited: str,
    result: Result,
    row: RowKey,
    rows: pl.DataFrame,
    closest: set[str],
    units: Callable[[str, str, str], pl.DataFrame] | None,
) -> Iterator[Stint]:
    right: Flags = rows["clean_correct"].to_numpy().copy()
    broken_by, index = rows["broken_by"].to_numpy(), rows["index"].to_numpy()
    standing, before = right.copy(), frozenset[AttackKey]()
    for entry in result.attacks:
        if entry.skipped is not None or (units is None and closest):
            continue
        whole, key = entry.battery in closest, attack_key(entry)
        met, broken, passes = (right if whole else standing).copy(), broken_by == entry.label, None
        if units is not None:
            found = units(result.classifier, result.threat, entry.label)
            at = np.searchsorted(index, found["index"].to_numpy())
            if found.null_count().sum_horizontal().sum() or not np.array_equal(index[at % len(index)], found["index"]):
                raise InputError(f"the units of {entry.label} hold examples that the verdicts of {cited} do not")
            met, broken, passes = np.zeros_like(right), np.zeros_like(right), np.zeros(len(right), dtype=np.int64)
            met[at] = True
            broken[at] = found["success"].to_numpy()
            passes[at] = (found["forwards"] + found["backwards"]).to_numpy()
        after = frozenset() if whole else before
        yield Stint(key, row, after, right, met, broken, passes, entry.forwards, entry.backwards)
        standing = standing & ~broken
        before |= {key}


def _through(path: str, row: RowKey, rows: pl.DataFrame) -> Walk:
    passes = (rows["forwards"] + rows["backwards"]).to_numpy()
    return Walk(path, row, rows["clean_correct"].to_numpy(), tuple(rows["broken_by"].to_list()), passes)


def _alone(stint: Stint, passes: Counts) -> Walk:
    by = tuple(stint.attack.label if each else None for each in stint.broken)
    return Walk(stint.attack.label, stint.row, stint.right, by, passes + 1, closest=True)
