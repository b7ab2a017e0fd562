"""Which unit of work comes next."""

import heapq
from collections.abc import Iterable
from typing import Any

from robustframe.evaluation.jobs import Done, Failed, Job
from robustframe.evaluation.scores import Scores
from robustframe.runs.journal import Journal


class WorkSchedule:
    """The units of one evaluation that are due, in order; what has become of each makes others due.

    Classifiers come one after the other, and for each of them clean passes, threats, attacks, chunks; so one worker
    keeps to the order of the recipe, and many need few models at a time. The order changes no result.

    Args:
        scores: where the outcome of each unit is entered.
        journal: which are finished already; what they gave is read instead of being made again.
    """

    def __init__(self, scores: Scores, journal: Journal) -> None:
        self.scores, self.task, self.journal = scores, scores.task, journal
        self.files = self.task.files(journal.folder)
        self.hashes: dict[str, str] = {}
        """The SHA-256 of every file of the run, by its place in it, as it was when it was written."""
        self._due: list[tuple[tuple[int, ...], Job[Any]]] = []

    def add(self, jobs: Iterable[Job[Any]]) -> None:
        """Take in units that have become due."""
        for job in jobs:
            heapq.heappush(self._due, (job.place, job))

    def next(self) -> Job[Any] | None:
        """Return the next unit that someone has to do; ``None`` while none is due."""
        while self._due:
            _, job = heapq.heappop(self._due)
            if not job.wanted(self.scores):
                continue
            found = job.read(self.task, self.files, self.journal)
            if found is None:
                return job
            names = [self.files.name(path) for path in job.paths(self.task, self.files)]
            self.hashes |= {name: self.journal.known[name] for name in names if name in self.journal.known}
            self._enter(job, found)
        return None

    def take(self, outcome: Done[Any] | Failed) -> None:
        """Enter what has become of a unit, and let those become due that waited for it."""
        job = outcome.job
        if isinstance(outcome, Failed):
            # What was there of it was missing a part or damaged.
            for path in job.paths(self.task, self.files):
                path.unlink(missing_ok=True)
            job.give_up(self.scores, outcome.reason)
            return
        self.hashes |= outcome.files
        if job.lasting and outcome.files:
            self.journal.add(outcome.files)
        if job.wanted(self.scores):
            self._enter(job, outcome.found)

    def _enter(self, job: Job[Any], found: object) -> None:
        job.enter(self.scores, found)
        self.add(job.followers(self.scores))
