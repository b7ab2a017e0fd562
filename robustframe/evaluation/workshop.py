"""What a process needs to carry units of work out: the task, its models, a device, the folder of the run."""

import gc
import logging
import platform
from collections.abc import Iterable
from pathlib import Path

import torch

from robustframe.calls import padded
from robustframe.errors import InputError, StoppedEarly
from robustframe.evaluation.limits import private_memory
from robustframe.evaluation.task import Task
from robustframe.models.classifiers import Classifier
from robustframe.prepared import Preparation, Searched, searched
from robustframe.runs.record import read_record

log = logging.getLogger("robustframe")


class Workshop:
    """Where the units of one task are carried out; there is one in every process that works on it.

    Args:
        task: what to evaluate.
        folder: the run's folder.
        device: where the models are.
        batch_size: rows of one model call at most; it changes no verdict.
        release: let a model go as soon as a unit of another one comes.
    """

    def __init__(
        self, task: Task, folder: Path, device: torch.device, batch_size: int, *, release: bool = False
    ) -> None:
        self.task, self.folder, self.device = task, folder, device
        self.batch_size, self.release = batch_size, release
        self.files = task.files(folder)
        self._current: Classifier | None = None
        self._searched: dict[bool, Searched] = {}
        """What is searched in place of the current classifier, by whether in bfloat16."""
        self._private = private_memory()
        self.lost = 0
        """Bytes that models did not give back which had run out of memory; no fault of those that come after them."""
        self._seen = False
        self._remarked: set[tuple[str, str]] = set()

    def classifier(self, number: int) -> Classifier:
        """Return a classifier by its place in the task; the one before may be let go."""
        classifier, before = self.task.classifiers[number], self._current
        if self.release and before is not None and before.source is not None and before.source is not classifier.source:
            before.source.release()
        if before is not classifier:
            self._current, self._private = classifier, private_memory()
            self._searched.clear()
        return classifier

    def searched(self, classifier: Classifier, preparation: Preparation, *, bfloat16: bool) -> Searched:
        """Return what is searched in place of the current classifier; it is made once."""
        if bfloat16 not in self._searched:
            images = self.task.data.images
            self._searched[bfloat16] = searched(classifier.module, images, preparation, bfloat16=bfloat16)
        return self._searched[bfloat16]

    def recover(self) -> None:
        """Take back from the current classifier, which has run out of memory, what it holds; note what stays."""
        self._searched.clear()
        source = None if self._current is None else self._current.source
        if source is not None:
            source.release()
        gc.collect()
        self.lost += max(0, private_memory() - self._private)
        self._private = private_memory()

    def see_the_run(self) -> None:
        """See to it that the folder is the one that everyone else works in.

        Raises:
            StoppedEarly: when it is not, as on a machine that does not share it; this lies in no model.
        """
        if self._seen:
            return
        try:
            found, _ = read_record(self.folder)
        except InputError as error:
            here = f"{platform.node()} does not see the run in {self.folder}"
            raise StoppedEarly(f"{here}; every machine needs the folder at this path") from error
        if found.hash != self.task.hash:
            raise StoppedEarly(f"{self.folder} has become the folder of another evaluation")
        self._seen = True

    def remark(self, number: int, changes: Iterable[str]) -> None:
        """Say what a classifier, by its place in the task, or an attack on it did to the process; each change once."""
        name = self.task.classifiers[number].entry.name
        for change in changes:
            if (name, change) not in self._remarked:
                self._remarked.add((name, change))
                log.warning("%s %s", name, change)

    def halve(self) -> bool:
        """Halve the batch for the rest of the evaluation; say whether there was anything to halve."""
        least = padded(1)
        if padded(self.batch_size) <= least:
            return False
        self.batch_size = max(least, self.batch_size // 2)
        return True
