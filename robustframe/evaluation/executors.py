"""Who carries units of work out: an interface of five words, and the process itself as the simplest answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch

from robustframe.evaluation.environment import environment
from robustframe.evaluation.jobs import Done, Failed, Job, Limits, Workshop, attempt
from robustframe.evaluation.task import Task
from robustframe.record import Environment


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
    def submit(self, job: Job) -> None:
        """Take a unit; its worker leaves its files in the run."""

    @abstractmethod
    def wait(self) -> list[Done | Failed]:
        """Return the units that have come to an end since, once there is at least one.

        Raises:
            StoppedEarly: when the run cannot go on, such as on a full disk.
        """

    @abstractmethod
    def close(self) -> None:
        """Let every worker go, whatever it is doing."""


Engine = Callable[[Task, Path, torch.device, int, Limits], Executor]
"""Makes the executor of a task, a run's folder, a device, a batch size and limits."""


class InProcess(Executor):
    """Carries units out one at a time, in this process."""

    def __init__(self, task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> None:
        self.workshop = Workshop(task, folder, device, batch_size)
        self.limits = limits
        self._job: Job | None = None

    @property
    def environment(self) -> Environment:
        return environment(self.workshop.device)

    @property
    def free(self) -> bool:
        return self._job is None

    def submit(self, job: Job) -> None:
        self._job = job

    def wait(self) -> list[Done | Failed]:
        job, self._job = self._job, None
        return [] if job is None else [attempt(self.workshop, job, self.limits)]

    def close(self) -> None:
        self._job = None
