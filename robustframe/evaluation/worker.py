"""One of many processes that carry units out: it is told where everything lies, and loads it by itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustframe.errors import InputError, StoppedEarly
from robustframe.evaluation.executors import attempt
from robustframe.evaluation.jobs import Done, Failed, Job
from robustframe.evaluation.limits import Limits
from robustframe.evaluation.loading import make_task
from robustframe.evaluation.task import Origin, Task
from robustframe.evaluation.workshop import Workshop
from robustframe.models.classifiers import Classifier, Source
from robustframe.recipe import Recipe
from robustframe.runs.record import ClassifierEntry, Environment


@dataclass(frozen=True)
class Order:
    """All that a worker is told: where everything lies, and how it has to be done."""

    recipe: dict[str, Any]
    origin: Origin
    classifiers: list[tuple[int, int, ClassifierEntry]]
    """Of each the entry of the recipe it comes from, which of that entry's classifiers it is, and what it must be."""
    hash: str
    folder: Path
    device: str
    threads: int
    batch_size: int
    limits: Limits


def make_order(task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> Order:
    """Write down what a worker needs to know of a task.

    Raises:
        InputError: for models passed from Python, which no other process can load.
    """
    if task.origin is None:
        raise InputError("models passed from Python are evaluated in this process; name them in a recipe to use others")
    sources: list[Source] = []
    classifiers = []
    for classifier in task.classifiers:
        if classifier.source is None:
            raise InputError(
                f"{classifier.entry.name} is a model passed from Python; name it in a recipe to use other processes"
            )
        if classifier.source not in sources:
            sources.append(classifier.source)
        classifiers.append((sources.index(classifier.source), classifier.place, classifier.entry))
    return Order(
        task.recipe, task.origin, classifiers, task.hash, folder.resolve(), device.type, torch.get_num_threads(),
        batch_size, limits,
    )  # fmt: skip


class Worker:
    """One process that carries units out; Ray starts it, and starts it again when it dies."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._workshop: Workshop | None = None

    def ready(self) -> Environment | str:
        """Load what the order names; return what this worker runs on, or why it cannot work."""
        try:
            return Environment.here(self._open().device)
        except (InputError, OSError) as error:
            return str(error)

    def do(self, job: Job[Any]) -> Done[Any] | Failed | StoppedEarly:
        """Carry a unit out; its files are in the run when this returns."""
        try:
            outcome = attempt(self._open(), job, self.order.limits)
        except StoppedEarly as error:
            return error
        if isinstance(outcome, Failed) and type(outcome.error) is not InputError:
            # An exception of the user's own class may not survive the journey.
            outcome = replace(outcome, error=None)
        return outcome

    def _open(self) -> Workshop:
        if self._workshop is None:
            order = self.order
            torch.set_num_threads(order.threads)
            device = torch.device(order.device)
            self._workshop = Workshop(load_ordered(order, device), order.folder, device, order.batch_size, release=True)
        return self._workshop


def load_ordered(order: Order, device: torch.device) -> Task:
    """Load the task of an order, its models when they are needed.

    Raises:
        InputError: when something here is not what it is where the order comes from.
    """
    recipe = Recipe.model_validate(order.recipe)
    path = order.origin.path
    sources = [Source(spec, path.parent, device) for spec in recipe.model]
    classifiers = [Classifier(entry, None, sources[at], place) for at, place, entry in order.classifiers]
    task = make_task(recipe, path, device=device, data_root=order.origin.data_root, classifiers=classifiers)
    if task.hash != order.hash:
        raise InputError("its data, batteries, user files or version of robustframe are not those of the driver")
    return task
