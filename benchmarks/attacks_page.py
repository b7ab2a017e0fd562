"""What `benchmarks/attacks.py` compares, and its page from what it measured; by itself this file runs nothing."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import peers

Repetitions = Sequence[Mapping[str, Mapping[str, float]]]
"""For each repetition, what everybody's run took and was worth."""

ABOUT = f"""\
Models are twins of pairs of the zoo, examples the first of Fashion-MNIST's test split. Everybody attacks the same
examples on the same model in turn. *Ratio* is our wall time over the peer's in the same repetition, as median with the
lowest and the highest; *processor* is the same of processor time. Our times include our checks and the verification of
every success; peers are used as their documentation says, on models in evaluation mode, {peers.BATCH} images a call.
Robust accuracy is judged by one function for all, on the exact model: correct on the clean image, and on the
adversarial one unless it is outside ball or box. Seeds differ between repetitions; where that moves a robust accuracy,
the lowest and the highest are given.
"""


@dataclass(frozen=True)
class Target:
    """What is asked of the ratio of our time to a peer's."""

    limit: float
    against: str = "fastest"
    """A peer's package, or the fastest peer of the row."""
    as_strong: bool = False
    """The robust accuracy must not be higher than the peer's either."""


@dataclass(frozen=True)
class Row:
    """One comparison: everybody in it takes turns on the same examples."""

    name: str
    pair: str
    twin: str
    examples: int
    repetitions: int
    ours: dict[str, peers.Contestant]
    against: Sequence[peers.Peer]
    targets: dict[str, Target] = field(default_factory=dict)
    """By the name of ours."""

    def asked(self) -> dict[str, Any]:
        """What a stored measurement must have been made with to stand."""
        labels = [*self.ours, *(peer.label for peer in self.against)]
        return {"model": self.model, "examples": self.examples, "repetitions": self.repetitions, "who": labels}

    @property
    def model(self) -> str:
        return f"{self.pair}/{self.twin}"


def page(rows: Sequence[Row], settings: Mapping[str, Any], measured: Mapping[str, Repetitions]) -> str:
    """Return the whole page; rows without a repetition are named as not measured."""
    found = {row.name: measured[row.name] for row in rows if measured.get(row.name)}
    lines = [
        "# Attacks beside those of other libraries",
        "",
        *_trial(settings),
        f"Written by `python benchmarks/attacks.py`. {_where(settings, found)}",
        "",
        ABOUT,
        "## Targets",
        "",
        "| what | model | asked for | measured | met |",
        "|---|---|---|---|---|",
        *_targets(rows, found),
        "",
        "The target of memory is on [its own page](attack_memory.md).",
        "",
        "## Measured",
        "",
        "| row | model | examples x repetitions | ours | peer | ours (s) | peer (s) | ratio | processor | "
        "ours robust | peer robust |",
        "|---|---|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines += (
            _measured(row, found[row.name]) if row.name in found else [f"| {row.name} | {row.model} | not measured |"]
        )
    lines += ["", *_notes(rows, settings, found)]
    return "\n".join(lines).rstrip() + "\n"


def _trial(settings: Mapping[str, Any]) -> list[str]:
    if not settings["trial"]:
        return []
    what = (
        "few examples and few steps" if settings["quick"] else "other numbers of examples or repetitions than its own"
    )
    return [f"**A trial of the script, with {what}: no figure here is a result.**", ""]


def _where(settings: Mapping[str, Any], found: Mapping[str, Repetitions]) -> str:
    card = "" if settings["device"] == "cpu" else f"{settings['device']}, "
    versions = ", ".join(f"{peers.DISTRIBUTIONS[name]} {number}" for name, number in settings["peers"].items())
    loads = [run["load"] for each in found.values() for repetition in each for run in repetition.values()]
    load = f"; load of the machine {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return (
        f"Threat {settings['threat']}; torch {settings['torch']}, {card}{settings['threads']} threads "
        f"on {settings['cores']} cores, "
        f"{settings['machine']}{load}.\n{versions}."
    )


def _targets(rows: Sequence[Row], found: Mapping[str, Repetitions]) -> list[str]:
    return [
        _verdict(row, ours, target, found.get(row.name, ()))
        for row in rows
        for ours, target in row.targets.items()
    ]  # fmt: skip


def _verdict(row: Row, ours: str, target: Target, repetitions: Repetitions) -> str:
    able = {peer.label: peer for peer in row.against if target.against in ("fastest", peer.package)}
    asked = f"at most {target.limit:g} x " + ("the fastest peer" if target.against == "fastest" else target.against)
    asked += ", robust accuracy not higher" if target.as_strong else ""
    head = f"| {ours} | {row.model} | {asked} |"
    if not repetitions or not able:
        return f"{head} not measured | unknown |"
    fastest = min(able, key=lambda label: _median(repetitions, label, "wall"))
    ratios = _ratios(repetitions, ours, fastest, "wall")
    met = statistics.median(ratios) <= target.limit
    text = f"{_spread(ratios)} ({fastest})"
    if target.as_strong:
        mine, theirs = (statistics.mean(_values(repetitions, who, "robust")) for who in (ours, fastest))
        met = met and mine <= theirs
        text += f", robust {100 * mine / row.examples:.1f} % and {100 * theirs / row.examples:.1f} %"
    return f"{head} {text} | {'yes' if met else 'NO'} |"


def _measured(row: Row, repetitions: Repetitions) -> list[str]:
    lines = []
    for ours in row.ours:
        for peer in row.against:
            lines.append(
                f"| {row.name} | {row.model} | {row.examples} x {len(repetitions)} | {ours} | {peer.label} "
                f"| {_median(repetitions, ours, 'wall'):.2f} | {_median(repetitions, peer.label, 'wall'):.2f} "
                f"| {_spread(_ratios(repetitions, ours, peer.label, 'wall'))} "
                f"| {_spread(_ratios(repetitions, ours, peer.label, 'processor'))} "
                f"| {_robust(row, repetitions, ours)} | {_robust(row, repetitions, peer.label)} |"
            )
    return lines


def _notes(rows: Sequence[Row], settings: Mapping[str, Any], found: Mapping[str, Repetitions]) -> list[str]:
    notes = [
        f"- {peers.DISTRIBUTIONS[name]} is left out: it does not import ({reason})."
        for name, reason in settings["missing"].items()
    ]
    once = [row.name for row in rows if len(found.get(row.name, ())) == 1]
    if once:
        notes.append(f"- One repetition, so no spread: {', '.join(once)}.")
    for row in rows:
        repetitions = found.get(row.name, ())
        if repetitions and len(repetitions) < row.repetitions:
            notes.append(f"- {row.name}: {len(repetitions)} of {row.repetitions} repetitions so far.")
        for who in repetitions[0] if repetitions else ():
            outside = max(_values(repetitions, who, "outside"))
            if outside:
                notes.append(f"- {row.name}: {who} returned up to {outside:.0f} images outside ball or box.")
    return notes


def _values(repetitions: Repetitions, who: str, what: str) -> list[float]:
    return [repetition[who][what] for repetition in repetitions]


def _median(repetitions: Repetitions, who: str, what: str) -> float:
    return statistics.median(_values(repetitions, who, what))


def _ratios(repetitions: Repetitions, ours: str, peer: str, what: str) -> list[float]:
    return [a / b for a, b in zip(_values(repetitions, ours, what), _values(repetitions, peer, what))]


def _spread(ratios: Sequence[float]) -> str:
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f} to {max(ratios):.2f})"


def _robust(row: Row, repetitions: Repetitions, who: str) -> str:
    counts = _values(repetitions, who, "robust")
    low, high = (f"{100 * value / row.examples:.1f}" for value in (min(counts), max(counts)))
    return f"{low} %" if low == high else f"{low} to {high} %"
