"""Attacks as the thing measured: ranked by what they broke, by what it cost, and by what each alone found."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from robustframe.errors import InputError, unknown
from robustframe.runs.ledger import AttackKey, Ledger, RowKey, Stint, Walk
from robustframe.statistics import PairedDifference

SORTS = ("breaks", "broken", "alone", "order")
"""By breaks per pass, by the share it broke, by what it alone found, as they stand in their batteries."""
_POINTS = 200
"""Points of a descent at most."""


@dataclass(frozen=True)
class RankedAttack:
    """What one attack did, over all classifiers, threats and runs; a case is one example under one of these rows."""

    attack: str
    cases: int
    """That a classifier gets right when clean, in the rows in which the attack was run."""
    met: int
    """Of these. Fewer than all where attacks before it left only what they had missed."""
    broken: int
    alone: int
    """Of the broken: every other attack that was run in the row met the case and missed it."""
    untested: int
    """Of the broken: no other attack broke the case, but at least one never met it."""
    forwards: int
    backwards: int

    @property
    def whole(self) -> bool:
        """Whether it met every case, so that its numbers do not depend on the attacks before it."""
        return self.met == self.cases

    @property
    def passes(self) -> int:
        """Forwards and backwards of single examples, each counted as one."""
        return self.forwards + self.backwards

    @property
    def passes_per_case(self) -> float | None:
        """On average over what it met."""
        return self.passes / self.met if self.met else None

    @property
    def breaks_per_1000(self) -> float | None:
        """Breaks per 1,000 passes."""
        return 1000 * self.broken / self.passes if self.passes else None


@dataclass(frozen=True)
class HeadToHead:
    """Two attacks on the cases that both met, neither because the other had missed them."""

    first: str
    second: str
    cases: int
    both: int
    only_first: int
    only_second: int
    first_passes: int | None
    """On these cases; `None` where a run does not say."""
    second_passes: int | None
    p_value: float
    """Exact McNemar."""


@dataclass(frozen=True)
class Descent:
    """Robust accuracy over the passes spent on each example, along one battery or one attack that met everything."""

    path: str
    """Cites the batteries, or names the attack."""
    data: str
    threat: str
    classifiers: tuple[str, ...]
    """Those that are pooled; descents compare where these, the data and the threat are the same."""
    examples: int
    points: tuple[tuple[int, float, str], ...]
    """Passes, the fraction of examples right when clean and not broken by then, and the attack that broke the last."""
    closest: bool = False
    """The attack went on after its first success, so a break counts at its last pass."""


@dataclass(frozen=True)
class AttackRanking:
    """Everything `robustframe attacks-report` says."""

    runs: tuple[str, ...]
    data: tuple[str, ...]
    classifiers: int
    threats: tuple[str, ...]
    attacks: tuple[RankedAttack, ...]
    pairs: tuple[HeadToHead, ...]
    incomparable: int
    """Pairs of attacks that no run lets meet the same cases independently."""
    repeated: int
    """Rows in which an attack was run more than once; the first run counts."""
    descents: tuple[Descent, ...]
    unknown: tuple[str, ...]
    """Sentences on what the runs do not say."""

    def to_json(self) -> dict[str, Any]:
        """Return the ranking as what JSON can hold."""
        own = asdict(self)
        own["attacks"] = [
            {**asdict(each), "passes_per_case": each.passes_per_case, "breaks_per_1000": each.breaks_per_1000}
            for each in self.attacks
        ]
        return own


def rank_ledgers(ledgers: Sequence[Ledger], *, sort: str = "breaks") -> AttackRanking:
    """Rank the attacks of some runs, pooled.

    In a battery an attack meets only what those before it left. So the attacks that met every case come first and those
    that met a rest come after them, in the same order; only pairs that met the same cases independently are set
    head to head; and what an attack alone found is kept apart from what nobody else tried.

    Args:
        ledgers: see `Run.rank_attacks`.
        sort: one of `SORTS`, from the best.

    Raises:
        InputError: for an unknown order, and where no attack met any example.
    """
    if sort not in SORTS:
        raise unknown("order", sort, SORTS)
    pooled, names, repeated = _pooled(ledgers)
    if not pooled:
        raise InputError("no attack of these runs met an example, so there is nothing to rank")
    by_row: dict[RowKey, list[Stint]] = {}
    for stint in pooled:
        by_row.setdefault(stint.row, []).append(stint)
    attacks = _ranked(by_row.values(), names)
    pairs, incomparable = _pairs(by_row.values(), names)
    rows = {row: name for ledger in ledgers for row, name in ledger.names.items()}
    return AttackRanking(
        runs=tuple(ledger.cited for ledger in ledgers),
        data=tuple(dict.fromkeys(ledger.data for ledger in ledgers)),
        classifiers=len({row.classifier for row in rows}),
        threats=tuple(dict.fromkeys(row.threat for row in rows)),
        attacks=tuple(_sorted(attacks, sort)),
        pairs=tuple(pairs),
        incomparable=incomparable,
        repeated=repeated,
        descents=tuple(_descents(ledgers, rows)),
        unknown=tuple(sentence for ledger in ledgers for sentence in ledger.unknown),
    )


def _pooled(ledgers: Sequence[Ledger]) -> tuple[list[Stint], Mapping[AttackKey, str], int]:
    """Every attack once a row, what each is called, and how often one stood there again."""
    found: dict[tuple[AttackKey, RowKey], Stint] = {}
    cited: dict[AttackKey, str] = {}
    repeated = 0
    for ledger in ledgers:
        for stint in ledger.stints:
            cited.setdefault(stint.attack, ledger.cited)
            repeated += (stint.attack, stint.row) in found
            found.setdefault((stint.attack, stint.row), stint)
    labels = Counter(key.label for key in cited)
    # One label with two settings is two attacks, which their runs tell apart.
    names = {key: key.label if labels[key.label] == 1 else f"{key.label} ({run})" for key, run in cited.items()}
    return list(found.values()), names, repeated


def _ranked(rows: Iterable[Sequence[Stint]], names: Mapping[AttackKey, str]) -> list[RankedAttack]:
    counts: dict[str, Counter[str]] = {}
    for stints in rows:
        # An attack that stands in two batteries is one attack to the others.
        same: dict[str, list[Stint]] = {}
        for each in stints:
            same.setdefault(each.attack.digest, []).append(each)
        times = np.sum([np.any([each.broken for each in group], axis=0) for group in same.values()], axis=0)
        everyone = np.all([np.any([each.met for each in group], axis=0) for group in same.values()], axis=0)
        for each in stints:
            once = each.broken & (times == 1)
            counts.setdefault(names[each.attack], Counter()).update(
                cases=int(each.right.sum()),
                met=int(each.met.sum()),
                broken=int(each.broken.sum()),
                alone=int((once & everyone).sum()),
                untested=int((once & ~everyone).sum()),
                forwards=each.forwards,
                backwards=each.backwards,
            )
    return [RankedAttack(attack=name, **count) for name, count in counts.items()]


def _sorted(attacks: Sequence[RankedAttack], sort: str) -> list[RankedAttack]:
    if sort == "order":
        return list(attacks)
    keys = {
        "breaks": lambda each: each.breaks_per_1000 or 0.0,
        "broken": lambda each: each.broken / each.met if each.met else 0.0,
        "alone": lambda each: (each.alone, each.untested),
    }
    return sorted(sorted(attacks, key=keys[sort], reverse=True), key=lambda each: not each.whole)


def _pairs(rows: Iterable[Sequence[Stint]], names: Mapping[AttackKey, str]) -> tuple[list[HeadToHead], int]:
    found: dict[tuple[str, str], list[tuple[PairedDifference, int | None, int | None]]] = {}
    for stints in rows:
        for one, other in combinations(stints, 2):
            if one.attack.digest == other.attack.digest:
                continue
            mine = found.setdefault((names[one.attack], names[other.attack]), [])
            shared = one.met & other.met
            if _independent(one, other) and shared.any():
                broken = PairedDifference.of(one.broken[shared], other.broken[shared])
                spent = [None if m.passes is None else int(m.passes[shared].sum()) for m in (one, other)]
                mine.append((broken, spent[0], spent[1]))
    pairs = [_pair(*key, parts) for key, parts in found.items() if parts]
    return pairs, len(found) - len(pairs)


def _independent(one: Stint, other: Stint) -> bool:
    """Whether neither met only what the other, in this battery or elsewhere, had missed."""
    digests = [{key.digest for key in each.before} for each in (one, other)]
    return one.attack.digest not in digests[1] and other.attack.digest not in digests[0]


def _pair(first: str, second: str, parts: Sequence[tuple[PairedDifference, int | None, int | None]]) -> HeadToHead:
    total = PairedDifference(
        both=sum(each.both for each, _, _ in parts),
        only_first=sum(each.only_first for each, _, _ in parts),
        only_second=sum(each.only_second for each, _, _ in parts),
        neither=sum(each.neither for each, _, _ in parts),
    )
    spent = [_sum([one for _, one, _ in parts]), _sum([other for _, _, other in parts])]
    return HeadToHead(
        first, second, total.n, total.both, total.only_first, total.only_second, spent[0], spent[1], total.p_value
    )


def _sum(passes: Sequence[int | None]) -> int | None:
    known = [each for each in passes if each is not None]
    return sum(known) if len(known) == len(passes) else None


def _descents(ledgers: Sequence[Ledger], names: Mapping[RowKey, str]) -> list[Descent]:
    walks: dict[tuple[str, str, str], dict[RowKey, Walk]] = {}
    words: dict[str, str] = {}
    for ledger in ledgers:
        for walk in ledger.walks:
            words[walk.row.data] = ledger.data
            walks.setdefault((walk.path, walk.row.data, walk.row.threat), {}).setdefault(walk.row, walk)
    return [
        _descent(path, words[data], threat, list(same.values()), names) for (path, data, threat), same in walks.items()
    ]


def _descent(path: str, data: str, threat: str, walks: Sequence[Walk], names: Mapping[RowKey, str]) -> Descent:
    right = np.concatenate([walk.right for walk in walks])
    passes = np.concatenate([walk.passes for walk in walks])
    by = np.array([each or "" for walk in walks for each in walk.broken_by])
    broken = right & (by != "")
    order = np.flatnonzero(broken)[np.argsort(passes[broken], kind="stable")]
    at, attack = passes[order], by[order]
    left = (int(right.sum()) - np.arange(1, len(order) + 1)) / len(right)
    # Where it falls: the last break at a number of passes, and of many such falls the last of each small step.
    step = np.floor(np.log(np.maximum(at, 1)) * _POINTS / max(np.log(max(passes.max(), 2)), 1))
    last = np.append((step[1:] != step[:-1]) | (attack[1:] != attack[:-1]), True) if len(at) else np.zeros(0, bool)
    start = float(right.mean())
    points = [(1, start, str(attack[0]) if len(at) else ""), *zip(at[last].tolist(), left[last].tolist(), attack[last])]
    end = int(passes.max())
    if points[-1][0] < end:
        points.append((end, points[-1][1], points[-1][2]))
    classifiers = tuple(sorted(names[walk.row] for walk in walks))
    plain = tuple((int(spent), float(share), str(attack)) for spent, share, attack in points)
    return Descent(path, data, threat, classifiers, len(right), plain, any(walk.closest for walk in walks))
