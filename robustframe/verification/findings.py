"""What a verification says: checks that hold, failed or were left out, and everything that differs, by name."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

UNKNOWABLE = (
    "Only a new attack, or a seal that was kept, would reveal erased breaks, invented effort, another seed, a larger "
    "eps or another environment (docs/trust.md)."
)
"""What ends every verification, whatever it found."""

State = Literal["holds", "failed", "left out"]
_SHOWN = 20
"""Findings of one check that the text writes out; JSON has all."""


@dataclass(frozen=True)
class Finding:
    """One thing that differs from what the record says."""

    where: str
    """The file, or the unit without its suffix, relative to the run's folder."""
    index: int | None
    """The example, counted from 0 as in the tables; `None` where it is not about one."""
    differs: str

    def __str__(self) -> str:
        example = "" if self.index is None else f", example {self.index}"
        return f"{self.where}{example}: {self.differs}"


@dataclass(frozen=True)
class VerifiedPart:
    """One check: what was looked at, and what differs."""

    name: str
    state: State
    says: str
    findings: tuple[Finding, ...] = ()


def check(name: str, says: str, findings: Iterable[Finding]) -> VerifiedPart:
    """Make a check of what it looked at and of what it found."""
    found = tuple(findings)
    return VerifiedPart(name, "failed" if found else "holds", says, found)


def left_out(name: str, why: str) -> VerifiedPart:
    """Make a check that could not be made."""
    return VerifiedPart(name, "left out", why)


@dataclass(frozen=True)
class Verification:
    """Whether a run is what its record says."""

    run: str
    title: str
    claimed: int
    """Breaks that the record claims."""
    replayed: int
    """Of these, stored images that the exact model was shown again."""
    checks: tuple[VerifiedPart, ...]

    @property
    def ok(self) -> bool:
        """Nothing that could be checked differs."""
        return all(each.state != "failed" for each in self.checks)

    @property
    def whole(self) -> bool:
        """Nothing was left out."""
        return all(each.state != "left out" for each in self.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that differs, in the order of the checks."""
        return tuple(finding for each in self.checks for finding in each.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the verification as what JSON can hold."""
        return {**asdict(self), "ok": self.ok, "whole": self.whole}

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.checks)
        lines = [f"{self.run}: {self.title}"]
        for each in self.checks:
            state = each.state.upper() if each.state == "failed" else each.state
            lines.append(f"  {state:<8}  {each.name:<{width}}  {each.says}")
        for each in self.checks:
            if each.findings:
                lines += ["", f"{each.name}:", *_shown(each.findings)]
        return "\n".join([*lines, "", self._conclusion(), UNKNOWABLE]) + "\n"

    def _conclusion(self) -> str:
        images = f"{self.replayed:,} of {self.claimed:,} claimed breaks were replayed on the exact model"
        if not self.ok:
            count = len(self.findings)
            return f"NOT what the record says: {count:,} finding{'s' if count > 1 else ''}; {images}."
        missing = [each.name for each in self.checks if each.state == "left out"]
        return f"holds{f', as far as checked (without {_listed(missing)})' if missing else ''}; {images}."


def _shown(findings: Sequence[Finding]) -> list[str]:
    lines = [f"  {finding}" for finding in findings[:_SHOWN]]
    rest = len(findings) - _SHOWN
    return [*lines, f"  and {rest:,} more (--json lists all)"] if rest > 0 else lines


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
