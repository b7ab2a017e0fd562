"""A walk through the museum: evaluate every exhibit, and write down what was said about it."""

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from exhibits import BROKEN, COUNT, HERE, HONEST, Exhibit, Honest

import robustframe
from robustframe.data import load
from robustframe.diagnose.table import QUESTIONS
from robustframe.runs.record import Result

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "museum.md"
CHECKS = ROOT / "docs" / "diagnostics.md"
_REGION = re.compile(r"(<!-- checks -->\n).*?(<!-- end of checks -->)", re.DOTALL)


@dataclass(frozen=True)
class Seen:
    """What was said about one row."""

    row: str
    battery: str
    threat: str
    robust: float
    """Robust accuracy under that battery."""
    verdict: str
    checks: tuple[str, ...]
    """The checks that failed, or that could not be run."""
    share: float
    """Passes of the checks over those of the battery."""
    cured: float | None = None
    """Robust accuracy under the battery that is made for it."""
    right: bool = True
    """Whether it was said for the right reason."""


def walk(piece: Exhibit | Honest, battery: str) -> list[Result]:
    """Evaluate one model under one battery."""
    data = load(piece.data if isinstance(piece, Honest) else "digits").first(COUNT)
    named = battery if "@" in battery else str(HERE / battery)
    run = robustframe.evaluate(
        piece.build(), data.images, data.labels, threat=piece.threat, battery=named, name=piece.name
    )
    return list(run.results)


def see(piece: Exhibit | Honest) -> list[Seen]:
    """Say what the diagnosis of each of a model's rows comes to."""
    cured = None
    if isinstance(piece, Exhibit):
        (result,) = walk(piece, piece.cure)
        cured = result.robust_correct / result.examples
    rows = []
    for result in walk(piece, piece.battery):
        diagnosis = result.diagnosis
        if diagnosis is None:
            raise ValueError(f"{piece.name} was not diagnosed")
        names = tuple(check.name for check in diagnosis.reasons)
        if isinstance(piece, Exhibit):
            right = diagnosis.verdict == "suspicious" and set(piece.checks) <= set(names)
        else:
            right = diagnosis.verdict == "sound"
        cost = sum(entry.forwards + entry.backwards for entry in result.attacks)
        share = (diagnosis.forwards + diagnosis.backwards) / cost
        rows.append(
            Seen(
                result.classifier,
                piece.battery,
                piece.threat,
                result.robust_correct / result.examples,
                diagnosis.verdict,
                names,
                share,
                cured,
                right,
            )
        )
    return rows


def page(broken: list[Seen], honest: list[Seen]) -> str:
    """Write the page of the museum."""
    caught, alarms = sum(row.right for row in broken), sum(row.verdict == "suspicious" for row in honest)
    lines = [
        "# The museum of broken defences",
        "",
        "Written by `make museum` from `tests/museum/`; nothing here is typed by hand. Every exhibit is a defence that",
        "does not defend. *Caught*: suspicious, for the right reason. *Made for it*: what the reason recommends.",
        "Threats are such that enough examples survive for every check to be paid for.",
        "",
        f"**Caught {caught} of {len(broken)}. False alarms {alarms} of {len(honest)} rows of honest models. The checks",
        f"cost at most {100 * max(row.share for row in broken + honest):.1f} % of the passes of their battery.**",
        "",
        "| Exhibit | Threat | Battery | Robust (%) | Verdict | Failed checks | Made for it: robust (%) |",
        "| :-- | :-- | :-- | --: | :-- | :-- | --: |",
    ]
    for row in broken:
        lines.append(
            f"| {row.row} | {row.threat} | {row.battery} | {100 * row.robust:.1f} | {row.verdict} | "
            f"{', '.join(row.checks)} | {100 * (row.cured or 0.0):.1f} |"
        )
    lines += ["", "| Honest model | Threat | Battery | Robust (%) | Verdict |", "| :-- | :-- | :-- | --: | :-- |"]
    for row in honest:
        lines.append(f"| {row.row} | {row.threat} | {row.battery} | {100 * row.robust:.1f} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def exhibits(text: str) -> list[tuple[str, str, str]]:
    """Read from a page which rows it has: name, threat, battery."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (\S+) \| \d", text, re.MULTILINE)
    return [(row.split("/")[0], threat, battery) for row, threat, battery in rows]


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


def main() -> None:
    """Write both pages anew."""
    CHECKS.write_text(fill(CHECKS.read_text(encoding="utf-8")), encoding="utf-8")
    broken = [row for piece in BROKEN for row in see(piece)]
    honest = [row for piece in HONEST for row in see(piece)]
    PAGE.write_text(page(broken, honest), encoding="utf-8")
    sys.stderr.write(f"{Path(PAGE).relative_to(ROOT)} written\n")
    wrong = [asdict(row) for row in broken + honest if not row.right]
    if wrong:
        sys.exit(json.dumps(wrong, indent=2))


if __name__ == "__main__":
    main()
