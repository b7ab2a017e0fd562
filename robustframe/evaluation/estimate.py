"""What an evaluation is going to cost, before it is made."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from robustframe.attacks import GradientAttack
from robustframe.calls import borrowed, call_in_batches
from robustframe.draws import Draws
from robustframe.evaluation.limits import resident_memory
from robustframe.evaluation.task import Task
from robustframe.models.classifiers import Classifier
from robustframe.recipe.stages import Stage
from robustframe.runs.journal import Journal
from robustframe.runs.manifest import read_manifest
from robustframe.runs.record import EVIDENCE
from robustframe.runs.units import DIAGNOSIS
from robustframe.threat import ThreatModel
from robustframe.types import Images

_TRIED = 64
"""Images of the calls that are timed."""

log = logging.getLogger("robustframe")


@dataclass(frozen=True)
class Cost:
    """At most what an evaluation costs: when every example is classified right and no attack breaks any."""

    folder: str
    classifiers: int
    threats: int
    examples: int
    units: int
    finished: int
    """Units that are there already."""
    forwards: int
    """Of single examples, of the whole evaluation."""
    backwards: int
    workers: int
    seconds: float
    """Of the passes of what is left, shared by the workers; what attacks do between passes comes on top."""
    memory: int
    """Bytes of a process that works: this one now, what one gradient of a batch keeps for the largest model, and what
    the attack that takes most holds beside it."""
    unknown: tuple[str, ...]
    """Attacks whose passes could not be counted beforehand."""

    def __str__(self) -> str:
        lines = [
            f"run       {self.folder}",
            f"units     {self.units:,} ({self.finished:,} finished): {self.classifiers:,} classifiers, "
            f"{self.threats:,} threats, {self.examples:,} examples",
            f"passes    at most {self.forwards:,} forwards and {self.backwards:,} backwards of single examples",
            f"time      at most {_duration(self.seconds)} of passes by {self.workers} worker"
            f"{'s' if self.workers > 1 else ''}, at the speed measured now; less where attacks break examples",
            f"memory    about {self.memory / 2**30:.1f} GiB per worker",
        ]
        if self.unknown:
            lines.append(f"unknown   the passes of {', '.join(self.unknown)}, which are left out above")
        return "\n".join(lines)


def estimate(task: Task, folder: str | Path, device: torch.device, batch_size: int, workers: int) -> Cost:
    """Estimate the cost of an evaluation without attacking any of its models.

    Passes are counted by running every attack on one image and a stand-in that cannot be broken; speed and memory are
    measured on the models themselves.

    Args:
        task: what is going to be evaluated.
        folder: the run's folder, for what is finished already.
        device: where the models are.
        batch_size: rows of one model call at most.
        workers: that share the work.
    """
    folder = Path(folder)
    passes = _Passes(task)
    n, chunks = len(task.data), len(task.chunks)
    forwards = backwards = units = 0
    seconds, kept, held = 0.0, 0, 0
    image = task.data.images[:1].nbytes
    for classifier in task.classifiers:
        speed = _speed(classifier, task.data.images[: min(_TRIED, n)].to(device))
        kept = max(kept, speed.parameters + speed.kept * min(batch_size, task.chunk))
        own = [(0, task.votes, 0)]
        if task.corruptions is not None:
            own += [(0, task.votes * len(task.corruptions.severities), 0)] * len(task.corruptions.kinds)
        for threat in task.threats:
            stages = [s for s in task.stages if s.runs_for(threat) and s.why_not(classifier.module) is None]
            own += [(1, *passes.of(stage, threat, speed.classes)) for stage in stages]
            sizes = [stage.attack.memory(min(n, task.chunk), image, threat.norm, batch_size) for stage in stages]
            held = max([held, *sizes])
        units += len(own) * chunks + task.diagnose * len(task.threats)
        mine = [n * sum(each[at] for each in own) for at in (1, 2)]
        forwards, backwards = forwards + mine[0], backwards + mine[1]
        seconds += mine[0] * speed.forward + mine[1] * speed.backward
        if classifier.source is not None and classifier.source is not _next_source(task, classifier):
            classifier.source.release()
    if task.diagnose:
        # The checks may take a tenth of the battery's passes.
        forwards, backwards, seconds = int(1.1 * forwards), int(1.1 * backwards), 1.1 * seconds
    finished = min(units, _finished(folder))
    left = 1 - finished / units
    return Cost(
        str(folder), len(task.classifiers), len(task.threats), n, units, finished, forwards, backwards,
        workers, seconds * left / workers, resident_memory() + kept + held, tuple(sorted(passes.unknown)),
    )  # fmt: skip


def _finished(folder: Path) -> int:
    """Count the units that are there already, by the manifest of a complete run or the journal of one that goes on."""
    names = read_manifest(folder) if (folder / EVIDENCE).is_file() else Journal(folder).known
    return sum(name.startswith("units/") and name.endswith((".parquet", DIAGNOSIS)) for name in names)


class _Passes:
    """How many passes an attack makes for one example that it does not break."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.unknown: set[str] = set()
        self._known: dict[tuple[str, str, int], tuple[int, int]] = {}

    def of(self, stage: Stage, threat: ThreatModel, classes: int) -> tuple[int, int]:
        """Return forwards and backwards; 0 and a note where the attack cannot be tried."""
        key = (stage.key, threat.label, classes)
        if key not in self._known:
            try:
                self._known[key] = self._count(stage, threat, classes)
            except Exception as error:  # noqa: BLE001  an attack of the user's may raise anything
                log.warning("%s cannot be tried on a stand-in: %s", stage.label, str(error).splitlines()[:1])
                self.unknown.add(stage.label)
                self._known[key] = (0, 0)
        return self._known[key]

    def _count(self, stage: Stage, threat: ThreatModel, classes: int) -> tuple[int, int]:
        attack, image = stage.attack, self.task.data.images[:1]
        stand_in = _Unbreakable(image[0].numel(), classes)
        if isinstance(attack, GradientAttack) and attack.why_not(stand_in) is not None:
            attack = replace(attack, through="all")
        draws = Draws(("estimate", stage.key), 1)
        label = torch.zeros(1, dtype=torch.long)
        battery = stage.battery
        found = attack.run(
            stand_in, image, label, threat, draws, known_correct=True, votes=battery.votes, closest=battery.closest
        )
        return int(found.forwards.sum()), int(found.backwards.sum())


class _Unbreakable(nn.Module):
    """A classifier with slopes that stays with class 0 all over the box."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(pixels, classes, generator=generator) / pixels)
        self.lead = torch.zeros(classes)
        # Out of reach inside the box, yet not so far that the gradient of a cross-entropy vanishes.
        self.lead[0] = 10.0

    def forward(self, images: Images) -> Tensor:
        return images.flatten(1) @ self.weight + self.lead


@dataclass(frozen=True)
class _Speed:
    forward: float
    """Seconds an example."""
    backward: float
    kept: int
    """Bytes an example that a gradient keeps."""
    parameters: int
    """Bytes."""
    classes: int


def _speed(classifier: Classifier, images: Images) -> _Speed:
    module = classifier.module
    count = len(images)
    size = sum(each.numel() * each.element_size() for each in [*module.parameters(), *module.buffers()])
    with borrowed(module) as model:
        with torch.no_grad():
            classes = call_in_batches(model, images, count).shape[1]
            forward = _seconds(lambda: call_in_batches(model, images, count))

        def gradient() -> None:
            leaf = images.clone().requires_grad_()
            total = call_in_batches(model, leaf, count).sum()
            if total.requires_grad:
                torch.autograd.grad(total, leaf, allow_unused=True)

        with torch.enable_grad():
            with _saved() as sizes:
                gradient()
            both = _seconds(gradient)
    kept = sum(sizes.values()) // count
    return _Speed(forward / count, max(0.0, both - forward) / count, kept, size, classes)


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times)


@contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Collect the bytes of every tensor that autograd keeps inside, by the place of its memory."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def _next_source(task: Task, classifier: Classifier) -> object:
    at = task.classifiers.index(classifier) + 1
    return task.classifiers[at].source if at < len(task.classifiers) else None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
