"""A walk through the museum: evaluate every piece under every battery, and write down what was said about it.

What was seen is kept in `runs/museum/`, a line per row, as soon as it is seen; the same command continues. It begins
anew when anything changes that could change a line.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from exhibits import BROKEN, HONEST, Exhibit, Honest, nets

import robustframe
from robustframe.diagnose.table import QUESTIONS
from robustframe.errors import InputError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "museum.md"
CHECKS = ROOT / "docs" / "diagnostics.md"
KEPT = ROOT / "runs" / "museum"
BATTERIES = ("quick@1", "swift@2", "standard@1")
EXACT = "standard@1"
"""What the robust accuracy of an undefended net is measured with."""
COUNT = 100
"""Test images of an evaluation."""
INFLATED = 0.05
"""Robust accuracy above the undefended net's that must not pass."""
_REGION = re.compile(r"(<!-- checks -->\n).*?(<!-- end of checks -->)", re.DOTALL)
Piece = Exhibit | Honest


@dataclass(frozen=True)
class Seen:
    """What was said about one row."""

    piece: str
    row: str
    """The piece, or one of the twins of its pair."""
    battery: str
    threat: str
    clean: float
    robust: float
    """Robust accuracy under that battery."""
    verdict: str
    """Of the diagnosis, or why there was none."""
    checks: tuple[str, ...]
    """The checks that the verdict is due to."""
    share: float
    """Passes of the checks over those of the battery."""
    seconds: float

    @property
    def suspicious(self) -> bool:
        """Whether a check failed."""
        return self.verdict == "suspicious"


@dataclass(frozen=True)
class Walk:
    """One evaluation: what is evaluated, under what name, threat and battery."""

    name: str
    build: nets.Build
    battery: str
    threat: str
    data: str = "fashion-mnist"

    def see(self) -> list[Seen]:
        """Evaluate, and say what the diagnosis of each row comes to."""
        data, began = nets.shown(self.data, COUNT), time.monotonic()
        battery = self.battery if "@" in self.battery else str(HERE / self.battery)
        try:
            run = robustframe.evaluate(
                self.build(), data.images, data.labels, threat=self.threat, battery=battery, name=self.name
            )
        except InputError as error:
            said = f"refused: {error}"
            return [Seen(self.name, self.name, self.battery, self.threat, 0.0, 0.0, said, (), 0.0, 0.0)]
        took = time.monotonic() - began
        rows = []
        for result in run.results:
            diagnosis, cost = result.diagnosis, sum(entry.forwards + entry.backwards for entry in result.attacks)
            if diagnosis is None:
                raise ValueError(f"{self.name} was not diagnosed")
            rows.append(
                Seen(
                    self.name,
                    result.classifier,
                    self.battery,
                    self.threat,
                    result.clean_correct / result.examples,
                    result.robust_correct / result.examples,
                    diagnosis.verdict,
                    tuple(check.name for check in diagnosis.reasons),
                    (diagnosis.forwards + diagnosis.backwards) / max(cost, 1),
                    took,
                )
            )
        return rows


def undefended(exhibit: Exhibit) -> Walk:
    """The exact attack on the net that an exhibit wraps; exhibits that share the net share the walk."""
    build = exhibit.undefended
    return Walk(f"undefended:{build.__module__}.{build.__qualname__}", build, EXACT, exhibit.threat)


def walks(pieces: Iterable[Piece], batteries: Iterable[str]) -> Iterator[Walk]:
    """Every evaluation that the page shows, battery by battery."""
    pieces = list(pieces)
    for battery in batteries:
        for piece in pieces:
            data = piece.data if isinstance(piece, Honest) else "fashion-mnist"
            yield Walk(piece.name, piece.build, battery, piece.threat, data)
    for piece in pieces:
        if isinstance(piece, Exhibit):
            yield undefended(piece)
            if piece.cure and piece.cure not in batteries and available(piece.cure):
                yield Walk(piece.name, piece.build, piece.cure, piece.threat)


def available(battery: str) -> bool:
    """Say whether there is such a battery."""
    name = battery.partition("@")[0]
    return (HERE / battery).is_file() or (ROOT / "attacks" / f"{name}.toml").is_file()


class Notes:
    """What was seen so far, by piece, battery and threat, in a file that only grows."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[tuple[str, str, str], list[Seen]] = {}
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            self._add([Seen(**(row | {"checks": tuple(row["checks"])})) for row in json.loads(line)])

    def _add(self, rows: list[Seen]) -> None:
        self.rows[(rows[0].piece, rows[0].battery, rows[0].threat)] = rows

    def of(self, walk: Walk) -> list[Seen] | None:
        """What was seen on a walk; ``None`` if nobody went."""
        return self.rows.get((walk.name, walk.battery, walk.threat))

    def go(self, walk: Walk) -> list[Seen]:
        """Go on a walk, unless somebody did, and write down what was seen."""
        seen = self.of(walk)
        if seen is None:
            seen = walk.see()
            self._add(seen)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([asdict(row) for row in seen]) + "\n")
            for row in seen:
                sys.stderr.write(
                    f"{row.row} {row.battery} {100 * row.robust:.0f} {row.verdict} {', '.join(row.checks)} "
                    f"({100 * row.share:.1f} %, {row.seconds:.0f} s)\n"
                )
        return seen


@cache
def state() -> str:
    """A hash of everything that a line of the notes hangs on: the library, the batteries, and the pieces."""
    digest = hashlib.sha256(f"{COUNT} {[field.name for field in fields(Seen)]}".encode())
    folders = (
        (ROOT / "robustframe", "*.py"),
        (ROOT / "attacks", "*.toml"),
        (HERE / "exhibits", "*.py"),
        (HERE, "*.toml"),
    )
    for folder, pattern in folders:
        for path in sorted(folder.rglob(pattern)):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def right(exhibit: Exhibit, row: Seen) -> bool:
    """Say whether an exhibit was caught for the right reason."""
    return row.suspicious and bool(set(exhibit.checks) & set(row.checks))


def inflation(exhibit: Exhibit, row: Seen, notes: Notes) -> float | None:
    """How much more robust than the net without it an exhibit looks; ``None`` where nobody looked at that net."""
    plain = notes.of(undefended(exhibit))
    return None if plain is None else row.robust - plain[0].robust


def summary(battery: str, notes: Notes) -> str:
    """One line of the first table: what became of all pieces under a battery."""
    inflated = caught = rightly = 0
    looked = [(exhibit, notes.of(walk)) for exhibit, walk in zip(BROKEN, walks(BROKEN, [battery]))]
    shares = []
    for exhibit, seen in looked:
        for row in seen or ():
            shares.append(row.share)
            gained = inflation(exhibit, row, notes)
            if gained is not None and gained > INFLATED + 1e-9:
                inflated += 1
                caught += row.suspicious
                rightly += right(exhibit, row)
    fair = [row for walk in walks(HONEST, [battery]) for row in notes.of(walk) or ()]
    shares += [row.share for row in fair]
    alarms = sum(row.suspicious for row in fair)
    open_ = sum(row.verdict not in ("suspicious", "sound") for row in fair)
    done = sum(seen is not None for _, seen in looked)
    return (
        f"| {battery} | {done} of {len(BROKEN)} | {inflated} | {caught} | {rightly} | {len(fair)} | {alarms} | "
        f"{open_} | {100 * max(shares, default=0.0):.1f} |"
    )


def cell(rows: list[Seen] | None, at: int = 0, first: tuple[str, ...] = ()) -> str:
    """Say what was seen under one battery: robust accuracy, verdict, and up to two reasons, the right ones first."""
    if rows is None:
        return "not yet"
    row = rows[at]
    reasons = sorted(row.checks, key=lambda name: name not in first)
    named = ", ".join(reasons[:2]) + (f" and {len(reasons) - 2} more" if len(reasons) > 2 else "")
    return f"{100 * row.robust:.0f} {row.verdict}" + (f": {named}" if named else "")


def page(notes: Notes) -> str:
    """Write the page of the museum, as far as it has been seen."""
    lines = [
        "# The museum of broken defences",
        "",
        "Written by `make museum` from `tests/museum/`; nothing here is typed by hand. Every exhibit is a defence that",
        f"does not defend; beside them stand models that hide nothing. Each is evaluated on {COUNT} images under every",
        "battery below.",
        "",
        "*Inflated*: robust accuracy is more than five points above that of the net without the defence, which",
        f"`{EXACT}` attacks. *Caught*: an inflated exhibit is suspicious; *rightly*: for one of the reasons that its",
        "entry names. *Alarms*: honest rows that are suspicious. *Open*: honest rows that are neither sound nor",
        "suspicious. *Passes*: the most that the checks of a row cost, in percent of those of its battery.",
        "",
        "| Battery | Exhibits seen | Inflated | Caught | Rightly | Honest rows | Alarms | Open | Passes (%) |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
        *(summary(battery, notes) for battery in BATTERIES),
        "",
        "## Broken defences",
        "",
        "Robust accuracy in percent, and the verdict with its reasons. *Undefended*: that of the net without the",
        "defence. *Made for it*: under the battery that breaks the exhibit.",
        "",
        f"| Exhibit | Threat | Undefended | {' | '.join(BATTERIES)} | Made for it |",
        f"| :-- | :-- | --: | {':-- | ' * len(BATTERIES)}--: |",
    ]
    for exhibit in BROKEN:
        plain, cure = notes.of(undefended(exhibit)), ""
        if exhibit.cure:
            broken = notes.of(Walk(exhibit.name, exhibit.build, exhibit.cure, exhibit.threat))
            cure = exhibit.cure if broken is None else f"{exhibit.cure}: {100 * broken[0].robust:.0f}"
        cells = [cell(notes.of(walk), first=exhibit.checks) for walk in _seen_under_each(exhibit)]
        without = "not yet" if plain is None else f"{100 * plain[0].robust:.0f}"
        lines.append("| " + " | ".join((exhibit.name, exhibit.threat, without, *cells, cure or "none")) + " |")
    lines += [
        "",
        "## Honest models",
        "",
        f"| Model | Threat | {' | '.join(BATTERIES)} |",
        f"| :-- | :-- | {':-- | ' * len(BATTERIES)}".rstrip(),
    ]
    for piece in HONEST:
        found = [notes.of(walk) for walk in _seen_under_each(piece)]
        known = next((rows for rows in found if rows), None)
        for at, name in enumerate([piece.name] if known is None else [row.row for row in known]):
            lines.append("| " + " | ".join((name, piece.threat, *(cell(rows, at) for rows in found))) + " |")
    lines += [
        "",
        "## What is broken",
        "",
        "| Exhibit | Kind | What is broken | Known from |",
        "| :-- | :-- | :-- | :-- |",
    ]
    lines += [f"| {each.name} | {each.kind} | {each.about} | {each.source} |" for each in BROKEN]
    lines += ["", "## What is honest", "", "| Model | What it is |", "| :-- | :-- |"]
    lines += [f"| {each.name} | {each.about} |" for each in HONEST]
    return "\n".join(lines) + "\n"


def _seen_under_each(piece: Piece) -> list[Walk]:
    return list(walks([piece], BATTERIES))[: len(BATTERIES)]


def shown(text: str) -> list[tuple[str, str]]:
    """Read from a page which pieces it shows, and under which threats."""
    rows = re.findall(r"^\| (\S+) \| ((?:linf|l2|l1):\S+) \|", text, re.MULTILINE)
    known = {piece.name for piece in (*BROKEN, *HONEST)}
    return list(dict.fromkeys((row if row in known else row.rpartition("/")[0], threat) for row, threat in rows))


def checks_table() -> str:
    """Write the table of all checks."""
    lines = ["| check | measures | threshold | source | what to do |", "|---|---|---|---|---|"]
    for question in QUESTIONS:
        cells = (f"`{question.name}`", question.asks, f"{question.threshold:g}: {question.why}", question.source)
        lines.append("| " + " | ".join((*cells, question.remedy)) + " |")
    return "\n".join(lines) + "\n"


def fill(text: str) -> str:
    """Put the table of all checks between its markers."""
    return _REGION.sub(lambda match: f"{match[1]}{checks_table()}{match[2]}", text)


def wrong(notes: Notes) -> list[str]:
    """Name the rows that should have come out otherwise: inflated and not rightly caught, or honest and suspicious."""
    faults = []
    for battery in BATTERIES:
        for exhibit, walk in zip(BROKEN, walks(BROKEN, [battery])):
            for row in notes.of(walk) or ():
                gained = inflation(exhibit, row, notes)
                if gained is not None and gained > INFLATED + 1e-9 and not right(exhibit, row):
                    faults.append(f"{row.row} {battery}: {100 * gained:+.0f} points, {cell([row])}")
        for walk in walks(HONEST, [battery]):
            faults += [f"{row.row} {battery}: {cell([row])}" for row in notes.of(walk) or () if row.suspicious]
    return faults


def main() -> None:
    """Go on, and write both pages anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="pieces or kinds; all of them where none is named")
    parser.add_argument("--battery", action="append", choices=BATTERIES, help="one of the batteries; all where none is")
    asked = parser.parse_args()
    CHECKS.write_text(fill(CHECKS.read_text(encoding="utf-8")), encoding="utf-8")
    notes, wanted = Notes(KEPT / f"{state()}.jsonl"), set(asked.names)
    pieces: list[Piece] = [*BROKEN, *HONEST]
    if wanted:
        pieces = [piece for piece in pieces if wanted & {piece.name, getattr(piece, "kind", "honest")}]
    for walk in walks(pieces, asked.battery or BATTERIES):
        notes.go(walk)
    PAGE.write_text(page(notes), encoding="utf-8")
    sys.stderr.write(f"{PAGE.relative_to(ROOT)} written\n")
    faults = wrong(notes)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
