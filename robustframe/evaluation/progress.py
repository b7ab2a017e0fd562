"""How far an evaluation is: what is said after each finished unit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from robustframe.bar import Bar
from robustframe.errors import InputError
from robustframe.evaluation.task import Task


@dataclass(frozen=True)
class Moment:
    """What an evaluation says after each finished unit."""

    done: int
    units: int
    classifier: str
    threat: str
    attack: str
    survivors: int
    robust_accuracy: float
    """Survivors so far over the examples of the data set, for this classifier and threat."""
    passes: int
    """What all finished units have cost so far: forwards and backwards of single examples."""

    @property
    def shown(self) -> tuple[int, int, str, tuple[str, ...]]:
        """What a bar shows; see `robustframe.bar.Progress`."""
        what = " ".join(filter(None, [self.classifier, self.threat, self.attack]))
        if not self.threat:
            # A clean pass, chunk by chunk: nothing has been attacked yet.
            return self.done, self.units, what, (f"{self.survivors:,} right",)
        robust = f"robust accuracy {100 * self.robust_accuracy:.1f} %"
        return (
            self.done,
            self.units,
            what,
            (robust, f"{self.survivors:,} survivors", f"{self.passes / 1e6:.2f} M passes"),
        )


Report = Callable[[Moment], None]


def silent(moment: Moment) -> None:
    """Say nothing."""
    del moment


@contextmanager
def reporting(report: Report | None, name: str) -> Iterator[Report]:
    """Lend what reports progress: the one that is given, else a bar for as long as it lasts."""
    if report is not None and not callable(report):
        raise InputError(f"report is {type(report).__name__}; it must be a function of a Moment, or robustframe.silent")
    if report is not None:
        yield report
        return
    with Bar("units", name) as bar:
        yield bar.show


class Reporter:
    """Counts the finished units, and reports each.

    Args:
        task: what is evaluated.
        units: how many there are.
        report: called after every unit.
    """

    def __init__(self, task: Task, units: int, report: Report) -> None:
        self.task, self.units, self.report = task, units, report
        self.done, self.passes = 0, 0

    def finished(self, classifier: int, threat: int | None, attack: str, survivors: int, passes: int = 0) -> None:
        """Report a finished unit; ``threat`` is ``None`` for a clean pass."""
        self.done, self.passes = self.done + 1, self.passes + passes
        label = "" if threat is None else self.task.threats[threat].label
        name, share = self.task.classifiers[classifier].entry.name, survivors / len(self.task.data)
        self.report(Moment(self.done, self.units, name, label, attack, survivors, share, self.passes))

    def dropped(self, units: int) -> None:
        """Count off units that are not going to be made."""
        self.units -= units
