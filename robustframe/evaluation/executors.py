"""Who carries units of work out: an interface of five words, and the process itself as the simplest answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustframe.calls import out_of_memory
from robustframe.errors import OutOfTime, StoppedEarly, told
from robustframe.evaluation.jobs import Done, Failed, Job, R
from robustframe.evaluation.limits import Limits, memory_limited, resident_memory, time_limited
from robustframe.evaluation.task import Task
from robustframe.evaluation.workshop import Workshop
from robustframe.lending import lent, noting
from robustframe.runs.record import Environment


class Executor(ABC):
    """Takes units of work and gives back what has become of them, in any order."""

    @property
    @abstractmethod
    def environment(self) -> Environment:
        """What the units run on."""

    @property
    @abstractmethod
    def free(self) -> bool:
        """Whether another unit can be put to work now."""

    @abstractmethod
    def submit(self, job: Job[Any]) -> None:
        """Take a unit; its worker leaves its files in the run."""

    @abstractmethod
    def wait(self) -> list[Done[Any] | Failed]:
        """Return the units that have come to an end since, once there is at least one.

        Raises:
            StoppedEarly: when the run cannot go on, such as on a full disk.
        """

    @abstractmethod
    def close(self) -> None:
        """Let every worker go, whatever it is doing."""


Engine = Callable[[Task, Path, torch.device, int, Limits], Executor]
"""Makes the executor of a task, a run's folder, a device, a batch size and limits."""


def carry_out(executor: Executor, take: Callable[[], Job[R] | None]) -> Iterator[Done[R] | Failed]:
    """Keep an executor busy with units, and yield what becomes of each.

    Args:
        executor: who carries them out.
        take: the next unit that is due; ``None`` when none is, until another one has come to its end.
    """
    flying = 0
    while True:
        while executor.free and (job := take()) is not None:
            executor.submit(job)
            flying += 1
        if not flying:
            return
        for outcome in executor.wait():
            flying -= 1
            yield outcome


class OneAtATime(Executor):
    """Carries units out one at a time, on this machine.

    Args:
        device: where the models are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._job: Job[Any] | None = None

    @property
    def environment(self) -> Environment:
        return Environment.here(self.device)

    @property
    def free(self) -> bool:
        return self._job is None

    def submit(self, job: Job[Any]) -> None:
        self._job = job

    def wait(self) -> list[Done[Any] | Failed]:
        job, self._job = self._job, None
        return [] if job is None else [self.carry_out(job)]

    @abstractmethod
    def carry_out(self, job: Job[Any]) -> Done[Any] | Failed:
        """Carry out one unit."""

    def close(self) -> None:
        self._job = None


class InProcess(OneAtATime):
    """Carries units out one at a time, in this process."""

    def __init__(self, task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> None:
        super().__init__(device)
        self.workshop = Workshop(task, folder, device, batch_size)
        self.limits = limits

    def carry_out(self, job: Job[Any]) -> Done[Any] | Failed:
        return attempt(self.workshop, job, self.limits)


def attempt(workshop: Workshop, job: Job[R], limits: Limits) -> Done[R] | Failed:
    """Carry a job out within its limits; what the model or the attack does wrong is an answer, not an exception.

    A job that runs out of memory is done again with half the batch, and again, down to the least batch.

    Raises:
        StoppedEarly: when files cannot be written, which lies in no model.
    """
    while True:
        memory = None if limits.memory is None else limits.memory + workshop.lost / 2**30
        try:
            with _remarking(workshop, job), time_limited(limits.seconds), memory_limited(memory), lent():
                done = job.do(workshop)
            return replace(done, resident=resident_memory())
        except StoppedEarly:
            raise
        except OutOfTime:
            return Failed(job, f"a unit took longer than the time limit of {limits.seconds:g} s")
        except Exception as error:  # noqa: BLE001  a model of the user's may raise anything
            short = out_of_memory(error)
            reason = f"a unit ran out of memory: {told(error)}" if short else told(error)
            failed = Failed(job, reason, error, memory=short)
        if not failed.memory:
            return failed
        # Outside of the handler, and without its traceback, nothing holds on to tensors any more.
        halved = workshop.halve()
        if failed.error is not None:
            failed.error.__traceback__ = failed.error.__context__ = failed.error.__cause__ = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not halved:
            workshop.recover()
            return failed


@contextmanager
def _remarking(workshop: Workshop, job: Job[Any]) -> Iterator[None]:
    """Say afterwards what was done to the process inside."""
    with noting() as changes:
        try:
            yield
        finally:
            workshop.remark(job.classifier, changes)
