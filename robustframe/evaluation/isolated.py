"""Each model in a process of its own, so that one that brings its process down costs its own rows only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustframe.children import Child, ChildEnded
from robustframe.errors import InputError, StoppedEarly
from robustframe.evaluation.executors import OneAtATime
from robustframe.evaluation.jobs import Done, Failed, Job
from robustframe.evaluation.limits import Limits
from robustframe.evaluation.task import Task
from robustframe.evaluation.worker import Worker, make_order


class Isolated(OneAtATime):
    """Carries units out one at a time, those of each model in a child process, which is started anew when it dies.

    The time limit is kept from outside: a child that takes longer is ended, whatever it is doing.

    Raises:
        InputError: for models passed from Python, which no other process can load.
    """

    def __init__(self, task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> None:
        super().__init__(device)
        self.limits = limits
        order = make_order(task, folder, device, batch_size, Limits(memory=limits.memory))
        # A worker of a cluster has one device only; here there may be several.
        self.order = replace(order, device=str(device))
        self._child: Child | None = None
        self._model: int | None = None
        """Whose child it is: the twins of a pair are one model."""

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def carry_out(self, job: Job[Any]) -> Done[Any] | Failed:
        try:
            outcome = self._child_for(job).call("do", job, seconds=self.limits.seconds)
        except ChildEnded as error:
            self.close()
            return Failed(job, f"its process {error}")
        except TimeoutError:
            self.close()
            return Failed(job, f"a unit took longer than the time limit of {self.limits.seconds:g} s")
        if isinstance(outcome, StoppedEarly):
            raise outcome
        found: Done[Any] | Failed = outcome
        # The job that came back is a copy.
        return replace(found, job=job)

    def _child_for(self, job: Job[Any]) -> Child:
        """Return the child of a job's model; the one of another model is let go, and its memory with it."""
        model = self.order.classifiers[job.classifier][0]
        if self._child is None or self._model != model:
            self.close()
            self._child, self._model = Child(Worker, self.order), model
            # Beforehand, as what it loads besides the model is not to count as time of the unit.
            said = self._child.call("ready")
            if isinstance(said, str):
                raise InputError(f"a process of its own cannot take part: {said}")
        return self._child
