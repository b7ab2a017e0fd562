"""What the finished units add up to: verdicts, counts, flags, and the rows that were given up."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from robustframe.diagnose import Diagnosis
from robustframe.evaluation.bounds import certified_correct
from robustframe.evaluation.progress import Report, Reporter
from robustframe.evaluation.task import Task, corruptions_of
from robustframe.models.identity import Answers
from robustframe.prepared import Preparation
from robustframe.runs.entries import counted, distrust, doubts, entry_of, guessing
from robustframe.runs.record import FailedRow, Result
from robustframe.runs.units import corrupted_correct
from robustframe.runs.verdicts import VERDICT_SCHEMA, ChunkVerdicts
from robustframe.types import PerExample

log = logging.getLogger("robustframe")


@dataclass(frozen=True)
class Trial:
    """What trying a classifier says, before anything is written."""

    flags: list[str]
    skipped: tuple[str | None, ...]
    """For each attack of the task why it is left out, ``None`` where it is run."""
    answers: Answers
    """Its logits on the first examples."""
    failed: str | None = None
    """Why it cannot be evaluated at all, so that its rows are given up before they are begun."""
    preparation: Preparation | None = None
    """What is searched in its place; ``None`` where that is itself."""


@dataclass
class RowScore:
    """One classifier under one threat."""

    stages: list[int]
    """The attacks it meets, by their place in the task."""
    verdicts: dict[int, ChunkVerdicts] = field(default_factory=dict)
    """By chunk, of those whose clean pass is finished."""
    counts: dict[int, Counter[str]] = field(default_factory=dict)
    """By attack."""
    standing: int = 0
    """Examples that are right on the clean image and have not been broken so far."""
    finished: int = 0
    """Finished units, the clean passes apart."""
    diagnosis: Diagnosis | None = None
    given_up: str | None = None
    """Why it cannot be finished."""
    unchecked: str | None = None
    """Why its checks could not be made."""


class Scores:
    """Verdicts and counts of an evaluation that goes on, kept up to date unit by unit.

    Classifiers, threats, attacks and chunks are named by their place in the task.

    Args:
        task: what is evaluated.
        trials: what trying each classifier said.
        report: called after every unit.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], report: Report) -> None:
        self.task, self.trials = task, trials
        self.rows = {
            (classifier, threat): RowScore([s for s in self._asked(threat) if trial.skipped[s] is None])
            for classifier, trial in enumerate(trials)
            for threat in range(len(task.threats))
        }
        self._right = Counter[int]()
        """By classifier, the examples that are classified correctly without an attack."""
        self._clean = Counter[int]()
        """By classifier, the finished clean passes."""
        self._said: list[Counter[tuple[int, int]]] = [Counter() for _ in trials]
        """By classifier, how often it gave which answer to clean images of which class, by label and prediction."""
        self._corrupted: dict[int, dict[int, Counter[int]]] = {}
        """By classifier and kind of corruption, how many images of which severity are classified right."""
        self._radii: dict[int, PerExample | None] = {}
        kinds = 0 if task.corruptions is None else len(task.corruptions.kinds)
        stages = sum(len(row.stages) for row in self.rows.values()) + (1 + kinds) * len(task.classifiers)
        self._reporter = Reporter(task, stages * len(task.chunks) + task.diagnose * len(self.rows), report)
        for classifier, threat in self.rows:
            if (reason := trials[classifier].failed) is not None:
                self.give_up(classifier, threat, reason)

    def going_on(self, classifier: int, threat: int | None = None) -> bool:
        """Say whether a row has not been given up; without a threat, whether any row of the classifier has not."""
        threats = range(len(self.task.threats)) if threat is None else (threat,)
        return any(self.rows[classifier, each].given_up is None for each in threats)

    def next_attack(
        self, classifier: int, threat: int, chunk: int, *, after: int = -1
    ) -> tuple[int, tuple[int, ...]] | None:
        """Return the attack that a chunk meets after another one, and the examples that enter it.

        Returns:
            ``None`` after the last attack, and for a row that was given up.
        """
        row = self.rows[classifier, threat]
        stage = next((each for each in row.stages if each > after), None)
        if stage is None or row.given_up is not None:
            return None
        return stage, row.verdicts[chunk].entering(closest=self.task.stages[stage].battery.closest)

    def add_radii(self, classifier: int, radii: PerExample | None) -> None:
        """Enter the radii that are certified for the examples of a classifier."""
        self._radii[classifier] = radii

    def add_clean(self, classifier: int, chunk: int, rows: pl.DataFrame) -> None:
        """Enter the clean pass of a chunk."""
        right = int((rows["prediction"] == rows["label"]).sum())
        self._right[classifier] += right
        self._clean[classifier] += 1
        self._said[classifier].update(rows.select("label", "prediction").iter_rows())
        for threat in range(len(self.task.threats)):
            row = self.rows[classifier, threat]
            if row.given_up is None:
                row.verdicts[chunk] = ChunkVerdicts(rows)
                row.standing += right
        # Said at once: nobody wants to wait for the attacks to hear it.
        for sentence in self._guesses(classifier):
            log.warning("%s", sentence)
        self._reporter.finished(classifier, None, "clean", self._right[classifier], int(rows["forwards"].sum()))

    def add_attack(self, classifier: int, threat: int, stage: int, chunk: int, rows: pl.DataFrame) -> None:
        """Enter the outcome of an attack on a chunk."""
        row, attack = self.rows[classifier, threat], self.task.stages[stage]
        verdicts = row.verdicts[chunk]
        before = verdicts.robust
        verdicts.judge(rows, attack.label, closest=attack.battery.closest)
        row.standing += verdicts.robust - before
        counts = counted(rows)
        row.counts.setdefault(stage, Counter()).update(counts)
        row.finished += 1
        passes = counts["forwards"] + counts["backwards"]
        self._reporter.finished(classifier, threat, attack.label, row.standing, passes)

    def add_corrupted(self, classifier: int, kind: int, rows: pl.DataFrame) -> None:
        """Enter the answers to the corrupted images of a chunk."""
        asked = corruptions_of(self.task)
        own = self._corrupted.setdefault(classifier, {}).setdefault(kind, Counter())
        own.update(dict(zip(asked.severities, corrupted_correct(rows, asked.severities))))
        self._reporter.finished(
            classifier, None, asked.kinds[kind], self._right[classifier], self.task.votes * len(rows)
        )

    def add_diagnosis(self, classifier: int, threat: int, diagnosis: Diagnosis) -> None:
        """Enter the checks of a row."""
        row = self.rows[classifier, threat]
        row.diagnosis = diagnosis
        self._reporter.finished(classifier, threat, "diagnosis", row.standing)

    def give_up(self, classifier: int, threat: int, reason: str) -> None:
        """Mark a row as not to be finished."""
        row = self.rows[classifier, threat]
        if row.given_up is None:
            row.given_up = reason
            row.verdicts.clear()
            self._reporter.dropped(len(row.stages) * len(self.task.chunks) - row.finished + self.task.diagnose)
            log.warning("%s under %s cannot be finished: %s", *self.names(classifier, threat), reason)

    def leave_unchecked(self, classifier: int, threat: int, reason: str) -> None:
        """Mark a row as one whose checks could not be made."""
        self.rows[classifier, threat].unchecked = reason
        self._reporter.dropped(1)
        log.warning("%s under %s cannot be checked: %s", *self.names(classifier, threat), reason)

    def names(self, classifier: int, threat: int) -> tuple[str, str]:
        """Return what a record calls a row."""
        return self.task.classifiers[classifier].entry.name, self.task.threats[threat].label

    def finished(self) -> list[tuple[int, int]]:
        """Return the rows that were not given up, once there is nothing left to do."""
        return [place for place, row in self.rows.items() if row.given_up is None]

    def result(self, classifier: int, threat: int) -> Result:
        """Return the counts of a finished row."""
        row, skipped = self.rows[classifier, threat], self.trials[classifier].skipped
        name, label = self.names(classifier, threat)
        pixels = self.task.data.images[0].numel()
        return Result(
            classifier=name,
            threat=label,
            examples=len(self.task.data),
            clean_correct=self._right[classifier],
            robust_correct=row.standing,
            certified_correct=certified_correct(self._radii[classifier], self.task.threats[threat], pixels),
            attacks=[
                entry_of(self.task.stages[stage], row.counts.get(stage, Counter()), skipped[stage])
                for stage in self._asked(threat)
            ],
            diagnosis=row.diagnosis,
        )

    def corrupted(self) -> dict[str, list[list[int]]]:
        """Return how many corrupted images each classifier that has finished rows classifies right."""
        if self.task.corruptions is None:
            return {}
        severities = self.task.corruptions.severities
        return {
            self.task.classifiers[classifier].entry.name: [
                [own[severity] for severity in severities] for _, own in sorted(self._corrupted[classifier].items())
            ]
            for classifier in sorted({classifier for classifier, _ in self.finished()})
        }

    def verdicts(self, classifier: int, threat: int) -> pl.DataFrame:
        """Return the verdict of each example of a finished row, in order."""
        verdicts = self.rows[classifier, threat].verdicts
        parts = [verdicts[chunk] for chunk in range(len(self.task.chunks))]
        return ChunkVerdicts.table(parts, *self.names(classifier, threat))

    def all_verdicts(self) -> pl.DataFrame:
        """Return the verdicts of every finished row."""
        verdicts = [self.verdicts(*row) for row in self.finished()]
        return pl.concat(verdicts) if verdicts else pl.DataFrame(schema=VERDICT_SCHEMA)

    def failed(self) -> list[FailedRow]:
        """Return the rows that were given up or could not be checked, and why."""
        reasons = [(*place, row.given_up) for place, row in self.rows.items() if row.given_up is not None]
        for place, row in self.rows.items():
            if row.unchecked is not None:
                reasons.append((*place, f"its checks failed: {row.unchecked}"))
        named = [(*self.names(classifier, threat), reason) for classifier, threat, reason in reasons]
        return [FailedRow(classifier=name, threat=label, reason=reason) for name, label, reason in named]

    def flags(self, results: Sequence[Result]) -> list[str]:
        """Return the sentences on what makes a number doubtful, each of a classifier that has one."""
        numbered = sorted({classifier for classifier, _ in self.finished()})
        flags = [flag for classifier in numbered for flag in self.trials[classifier].flags]
        flags += [sentence for classifier in numbered for sentence in self._guesses(classifier)]
        flags += [sentence for result in results for sentence in distrust(result)]
        return flags + [
            sentence for result in results for entry in result.attacks for sentence in doubts(result, entry)
        ]

    def _guesses(self, classifier: int) -> list[str]:
        """A sentence where a classifier whose clean passes are finished is right as by chance, or as if permuted."""
        if self._clean[classifier] < len(self.task.chunks):
            return []
        name = self.task.classifiers[classifier].entry.name
        return list(guessing(name, self._said[classifier], self.task.data.classes))

    def _asked(self, threat: int) -> list[int]:
        return [at for at, stage in enumerate(self.task.stages) if stage.runs_for(self.task.threats[threat])]
