"""What a check says, and the verdict that follows from all of them."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Trust = Literal["sound", "suspicious", "unfinished"]


class Check(BaseModel):
    """One question about a number, with its answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    figure: float | None
    """What was measured; the check passes up to the threshold. ``None`` where there was nothing to measure."""
    threshold: float
    passed: bool | None
    """``None``: it could not be run, and nobody knows."""
    examples: int
    """How many examples the figure is of."""
    sentence: str
    """What was seen, and what to do about it."""
    decides: bool = True
    """The number is not sound without the answer."""
    broken: list[int] = Field(default_factory=list)
    """Examples, by their index in the data, that it broke inside ball and box although the battery left them robust."""


class Diagnosis(BaseModel):
    """Every check on one classifier under one threat. It changes no verdict of the battery."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    verdict: Trust
    """*suspicious*: a check failed. *unfinished*: none failed, but one that decides could not be run. Else *sound*."""
    examples: int
    """Size of the sample that most checks looked at."""
    forwards: int
    """Passes of single examples that the checks cost, apart from those of the battery."""
    backwards: int
    checks: list[Check]

    @classmethod
    def of(cls, checks: Sequence[Check], *, examples: int, forwards: int, backwards: int) -> "Diagnosis":
        """Draw the verdict from the checks."""
        failed = any(check.passed is False for check in checks)
        verdict: Trust = "suspicious" if failed else "unfinished" if any(map(_open, checks)) else "sound"
        return cls(
            verdict=verdict, examples=examples, forwards=forwards, backwards=backwards, checks=list(checks)
        )  # fmt: skip

    @property
    def reasons(self) -> list[Check]:
        """The checks that the verdict is due to: those that failed, else those that decide and could not be run."""
        failed = [check for check in self.checks if check.passed is False]
        return failed or [check for check in self.checks if _open(check)]


def _open(check: Check) -> bool:
    return check.passed is None and check.decides
