"""Which unit of work comes next, and what the finished ones add up to."""

import heapq
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl
import torch
from torch import Tensor

from robustframe.evaluation.jobs import Attacked, Bound, Clean, Done, Failed, Job, Workshop
from robustframe.runs.entries import attack_entry, guessing
from robustframe.runs.journal import Journal
from robustframe.runs.record import AttackEntry, Incomplete, Result
from robustframe.runs.units import ATTACK_SCHEMA, CLEAN_SCHEMA, correct
from robustframe.runs.verdicts import fresh_verdicts, judge

log = logging.getLogger("robustframe")


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
    passes: int = 0
    """What all finished units have cost so far: forwards and backwards of single examples."""


@dataclass
class _Row:
    """One classifier under one threat."""

    stages: list[int]
    """The attacks it meets, by their place in the task."""
    alive: dict[int, Tensor] = field(default_factory=dict)
    """By chunk, which of its examples still stand; of finished clean passes."""
    verdicts: dict[int, pl.DataFrame] = field(default_factory=dict)
    tables: dict[int, dict[int, pl.DataFrame]] = field(default_factory=dict)
    """By attack and chunk, until an attack is through."""
    entries: dict[int, AttackEntry] = field(default_factory=dict)
    done: int = 0
    """Finished units, the clean passes apart."""
    reason: str | None = None
    """Why it was given up."""


class Schedule:
    """The units of one evaluation in order: an attack on a chunk becomes due once the one before it is finished.

    Classifiers come one after the other, and for each of them clean passes, threats, attacks, chunks; so one worker
    keeps to the order of the recipe, and many need few models at a time. The order changes no result.

    Args:
        workshop: says where the units lie.
        journal: which are finished already; their rows are read instead of being made again.
        skipped: for each classifier and attack why it is left out, ``None`` where it is run.
        report: called after every unit.
    """

    def __init__(
        self,
        workshop: Workshop,
        journal: Journal,
        skipped: list[tuple[str | None, ...]],
        report: Callable[[Moment], None],
    ) -> None:
        self.workshop, self.task, self.stages = workshop, workshop.task, workshop.stages
        self.journal, self.skipped, self.report = journal, skipped, report
        self.chunks = len(workshop.chunks)
        self.right: list[dict[int, Tensor]] = [{} for _ in self.task.classifiers]
        """By classifier and chunk, which examples are classified correctly without an attack."""
        self.rows = {
            (classifier, threat): _Row([s for s in self._asked(threat) if skipped[classifier][s] is None])
            for classifier in range(len(self.task.classifiers))
            for threat in range(len(self.task.threats))
        }
        stages = sum(len(row.stages) for row in self.rows.values()) + len(self.task.classifiers)
        self.units = stages * self.chunks + self.task.diagnose * len(self.rows)
        self.done, self.passes = 0, 0
        self._heap: list[tuple[tuple[int, ...], Job]] = []
        self.radii: dict[int, Tensor | None] = {}
        """By classifier, the radii that are certified for its examples."""
        for classifier in range(len(self.task.classifiers)):
            self._push(Bound(classifier))
            for chunk in range(self.chunks):
                self._push(Clean(classifier, chunk))

    def next(self) -> Job | None:
        """Return the next unit that somebody has to do; ``None`` while none is due."""
        while self._heap:
            _, job = heapq.heappop(self._heap)
            if self._given_up(job):
                continue
            rows = self._stored(job)
            if rows is None:
                return job
            self._take(job, rows)
        return None

    def take(self, outcome: Done | Failed) -> None:
        """Enter what has become of a unit, and let those become due that waited for it."""
        if isinstance(outcome, Failed):
            self._give_up(outcome)
        elif isinstance(outcome.job, Bound):
            self.radii[outcome.job.classifier] = outcome.content
        else:
            self.journal.add(outcome.files)
            if not self._given_up(outcome.job):
                self._take(outcome.job, outcome.content)

    def _give_up(self, failed: Failed) -> None:
        """Mark the row of a unit that failed, or all rows of its classifier, as not to be finished."""
        job = failed.job
        for threat in range(len(self.task.threats)):
            row = self.rows[job.classifier, threat]
            if row.reason is None and (not isinstance(job, Attacked) or job.threat == threat):
                row.reason = failed.reason
                self.units -= len(row.stages) * self.chunks - row.done + self.task.diagnose
                name, label = self.task.classifiers[job.classifier].entry.name, self.task.threats[threat].label
                log.warning("%s under %s cannot be finished: %s", name, label, failed.reason)
                row.alive.clear()
                row.verdicts.clear()
                row.tables.clear()

    def result(self, classifier: int, threat: int) -> Result | None:
        """Return the counts of a row whose units are all finished; ``None`` where it was given up."""
        row = self.rows[classifier, threat]
        if row.reason is not None:
            return None
        entries = []
        for stage in self._asked(threat):
            reason = self.skipped[classifier][stage]
            empty = pl.DataFrame(schema=ATTACK_SCHEMA)
            entries.append(attack_entry(self.stages[stage], empty, reason) if reason else row.entries[stage])
        return Result(
            classifier=self.task.classifiers[classifier].entry.name,
            threat=self.task.threats[threat].label,
            examples=len(self.task.data),
            clean_correct=self._right(classifier),
            robust_correct=_standing(row),
            certified_correct=None,
            attacks=entries,
            diagnosis=None,
        )

    def verdicts(self, classifier: int, threat: int) -> pl.DataFrame:
        """Return the verdict of each example of a finished row."""
        row = self.rows[classifier, threat]
        names = self.task.classifiers[classifier].entry.name, self.task.threats[threat].label
        columns = [pl.lit(names[0]).alias("classifier"), pl.lit(names[1]).alias("threat")]
        return pl.concat([row.verdicts[chunk] for chunk in range(self.chunks)]).select(*columns, pl.all())

    def incomplete(self) -> list[Incomplete]:
        """Return the rows that were given up, and why."""
        return [
            Incomplete(
                classifier=self.task.classifiers[classifier].entry.name,
                threat=self.task.threats[threat].label,
                reason=row.reason,
            )
            for (classifier, threat), row in self.rows.items()
            if row.reason is not None
        ]

    def guesses(self) -> list[str]:
        """Return a sentence for each classifier that is right about as often as by chance."""
        return [
            sentence
            for at in range(len(self.task.classifiers))
            if len(self.right[at]) == self.chunks
            for sentence in self._guesses(at)
        ]

    def _guesses(self, classifier: int) -> list[str]:
        name, labels = self.task.classifiers[classifier].entry.name, self.task.data.labels.tolist()
        return list(guessing(name, labels, self._right(classifier)))

    def _right(self, classifier: int) -> int:
        return sum(int(each.sum()) for each in self.right[classifier].values())

    def say(self, classifier: int, threat: int | None, attack: str, survivors: int) -> None:
        """Report a finished unit."""
        self.done += 1
        label = "" if threat is None else self.task.threats[threat].label
        name, share = self.task.classifiers[classifier].entry.name, survivors / len(self.task.data)
        self.report(Moment(self.done, self.units, name, label, attack, survivors, share, self.passes))

    def _asked(self, threat: int) -> list[int]:
        return [at for at, stage in enumerate(self.stages) if stage.runs_for(self.task.threats[threat])]

    def _push(self, job: Bound | Clean | Attacked) -> None:
        if isinstance(job, Attacked):
            place = (1 + job.threat, job.stage, job.chunk)
        else:
            place = (0, 0, job.chunk) if isinstance(job, Clean) else (0, 1, 0)
        heapq.heappush(self._heap, ((job.classifier, *place), job))

    def _given_up(self, job: Job) -> bool:
        if isinstance(job, Attacked):
            return self.rows[job.classifier, job.threat].reason is not None
        return all(self.rows[job.classifier, threat].reason is not None for threat in range(len(self.task.threats)))

    def _stored(self, job: Job) -> pl.DataFrame | None:
        if isinstance(job, Clean):
            return self.journal.load(self.workshop.clean_unit(job.classifier, job.chunk), CLEAN_SCHEMA)
        if isinstance(job, Attacked):
            unit = self.workshop.attack_unit(job.classifier, job.threat, job.stage, job.chunk)
            rows = self.journal.load(unit, ATTACK_SCHEMA)
            return rows if rows is not None and tuple(rows["index"].to_list()) == job.index else None
        return None

    def _take(self, job: Job, rows: pl.DataFrame) -> None:
        if isinstance(job, Clean):
            self._take_clean(job, rows)
        elif isinstance(job, Attacked):
            self._take_attack(job, rows)

    def _take_clean(self, job: Clean, rows: pl.DataFrame) -> None:
        right = correct(rows)
        self.right[job.classifier][job.chunk] = right
        for threat in range(len(self.task.threats)):
            row = self.rows[job.classifier, threat]
            if row.reason is None:
                row.alive[job.chunk] = right
                row.verdicts[job.chunk] = fresh_verdicts(rows)
                self._go_on(row, job.classifier, threat, job.chunk, after=-1)
        self.passes += int(rows["forwards"].sum())
        if len(self.right[job.classifier]) == self.chunks:
            # Said at once: nobody wants to wait for the attacks to hear it.
            for sentence in self._guesses(job.classifier):
                log.warning("%s", sentence)
        self.say(job.classifier, None, "clean", self._right(job.classifier))

    def _take_attack(self, job: Attacked, rows: pl.DataFrame) -> None:
        row, stage = self.rows[job.classifier, job.threat], self.stages[job.stage]
        broken = torch.from_numpy(rows["index"].filter(rows["success"]).to_numpy().copy())
        index = self.workshop.chunks[job.chunk]
        row.alive[job.chunk] = row.alive[job.chunk] & ~torch.isin(index, broken)
        closest = stage.battery.closest
        row.verdicts[job.chunk] = judge(row.verdicts[job.chunk], rows, stage.label, closest=closest)
        tables = row.tables.setdefault(job.stage, {})
        tables[job.chunk] = rows
        if len(tables) == self.chunks:
            row.entries[job.stage] = attack_entry(stage, pl.concat(row.tables.pop(job.stage).values()))
        row.done += 1
        self._go_on(row, job.classifier, job.threat, job.chunk, after=job.stage)
        self.passes += int(rows["forwards"].sum()) + int(rows["backwards"].sum())
        self.say(job.classifier, job.threat, stage.label, _standing(row))

    def _go_on(self, row: _Row, classifier: int, threat: int, chunk: int, *, after: int) -> None:
        stage = next((each for each in row.stages if each > after), None)
        if stage is None:
            return
        closest = self.stages[stage].battery.closest
        entering = self.right[classifier][chunk] if closest else row.alive[chunk]
        index = self.workshop.chunks[chunk][entering].tolist()
        self._push(Attacked(classifier, threat, stage, chunk, tuple(index)))


def _standing(row: _Row) -> int:
    return sum(int(each.sum()) for each in row.alive.values())
