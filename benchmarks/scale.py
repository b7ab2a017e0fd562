"""Scale: Ray against one process, the scheduler before 100 workers, resume, and the memory of the driver.

    python benchmarks/scale.py                       # all of it; about a quarter of an hour on two free cores
    python benchmarks/scale.py --only simulated      # without Ray: schedule, resume, memory; some minutes

writes benchmarks/results/scale.md. A simulated worker attacks nothing: it takes the time that a unit is said to take on
a clock that is only counted, and gives rows back as an attack would. What the driver does is real, and its processor
time is added to that clock.
"""

import argparse
import heapq
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import nn

from robustframe.data import from_arrays
from robustframe.draws import derive_seed
from robustframe.evaluation import Task
from robustframe.evaluation.engine import run
from robustframe.evaluation.executors import Executor
from robustframe.evaluation.jobs import ATTACKING, AttackJob, CleanJob, Done, Failed, Job, TryModel
from robustframe.evaluation.limits import Limits, resident_memory
from robustframe.evaluation.progress import Moment
from robustframe.evaluation.scores import Trial
from robustframe.evaluation.workshop import Workshop
from robustframe.models.classifiers import Classifier
from robustframe.models.identity import answers
from robustframe.recipe import load_battery, parse_threats
from robustframe.runs.record import ClassifierEntry, Environment, write_aside
from robustframe.runs.units import ATTACK_SCHEMA, CLEAN_SCHEMA, parquet

THREATS = ["linf:0.1", "l2:0.5", "l1:5"]
WORKERS, SECONDS = 100, 1.0
"""Simulated workers, and the mean time of a unit: short, as the driver has the more to do."""
PAIRS = ("fmnist-chain3-16-linf", "fmnist-residual3-16-linf", "fmnist-dense3-16-linf")
"""What two workers share: six classifiers, three of which cost several times the others."""
PAGE = Path(__file__).parent / "results" / "scale.md"


class Simulated(Executor):
    """Workers on a clock that is counted.

    Args:
        workshop: of the run.
        workers: how many.
        seconds: mean time of a unit.
        charge: add the processor time of the driver to the clock.
        write: leave a table for every unit in the run.
    """

    def __init__(self, workshop: Workshop, workers: int, seconds: float, *, charge: bool, write: bool = False) -> None:
        self.workshop, self.workers, self.seconds, self.charge, self.write = workshop, workers, seconds, charge, write
        self.now, self.units, self.begun, self.worked = 0.0, 0, 0.0, 0.0
        self._queue: list[tuple[float, int, Job[Any]]] = []
        self._since = time.process_time()

    @property
    def environment(self) -> Environment:
        return Environment.here(torch.device("cpu"))

    @property
    def free(self) -> bool:
        return len(self._queue) < self.workers

    def submit(self, job: Job[Any]) -> None:
        self._pay()
        if job.place[0] == ATTACKING and not self.begun:
            self.begun = time.process_time()
        self.units += 1
        # From 0.5 to 1.5 times the mean, the same in every simulation.
        share = 0.5 + derive_seed(job.place) / 2**63
        heapq.heappush(self._queue, (self.now + share * self.seconds, self.units, job))

    def wait(self) -> list[Done[Any] | Failed]:
        self._pay()
        when, _, job = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        begin = time.process_time()
        done = self._done(job)
        self._since = time.process_time()
        self.worked += self._since - begin
        return [done]

    def close(self) -> None:
        self._queue.clear()

    def _pay(self) -> None:
        now = time.process_time()
        self.now += (now - self._since) * self.charge
        self._since = now

    def _done(self, job: Job[Any]) -> Done[Any]:
        found = made_up(job, self.workshop.task, self.write)
        # What is not written cannot be found whole at the end, so only what is written is entered in the journal.
        paths = job.paths(self.workshop.task, self.workshop.files)[: int(self.write)]
        return Done(job, found, {self.workshop.files.name(path): write_aside(path, parquet(found)) for path in paths})


@singledispatch
def made_up(job: Job[Any], task: Task, write: bool) -> Any:
    """Return what a job would give; here that of a certificate, which is none."""
    del job, task, write


@made_up.register
def _(job: TryModel, task: Task, write: bool) -> Trial:
    del write
    return Trial([], (None,) * len(task.stages), answers(task.classifiers[job.classifier].module, task.data.images))


@made_up.register
def _(job: CleanJob, task: Task, write: bool) -> pl.DataFrame:
    del write
    index = task.chunks[job.chunk].tolist()
    zeros, ones = [0] * len(index), [1] * len(index)
    return pl.DataFrame({"index": index, "label": zeros, "prediction": zeros, "forwards": ones}, schema=CLEAN_SCHEMA)


@made_up.register
def _(job: AttackJob, task: Task, write: bool) -> pl.DataFrame:
    # More or fewer fall to each attack, by classifier; tables that are written hold none, as images would belong to it.
    share = 2 + job.classifier % 40
    fallen = [not write and (7919 * at + 31 * job.classifier + job.stage) % 100 < share for at in job.index]
    rows = {
        "index": job.index, "success": fallen, "claimed": fallen, "prediction": [int(each) for each in fallen],
        **{name: [0.05 if name == "distance" else 40] * len(fallen) for name in list(ATTACK_SCHEMA)[4:]},
    }  # fmt: skip
    return pl.DataFrame(rows, schema=ATTACK_SCHEMA)


def stub_task(models: int, examples: int, *, threats: int = 3, chunk: int = 250) -> Task:
    """Return a task of models that are never called, but for a few answers that say which they are."""
    generator = torch.Generator().manual_seed(0)
    data = from_arrays(torch.rand(examples, 1, 8, 8, generator=generator), torch.zeros(examples, dtype=torch.long))
    entries = [
        ClassifierEntry(
            name=f"model-{at:02d}", model=f"model-{at:02d}", twin=None, use="python", sha256=f"{at:064d}",
            parameters=0, sweeps=None, mutual_coherence=None, weights_sha256=None, code={}, unread=[],
        )
        for at in range(models)
    ]  # fmt: skip
    return Task(
        name="scale", recipe={"threats": THREATS[:threats], "battery": ["quick@1"], "seed": 0, "chunk": chunk},
        data=data, classifiers=[Classifier(entry, nn.Flatten()) for entry in entries],
        threats=parse_threats(THREATS[:threats]), batteries=[load_battery("quick@1")], seed=0, chunk=chunk,
        diagnose=False,
    )  # fmt: skip


class Simulation(NamedTuple):
    """What a simulated run took."""

    seconds: float
    """On the counted clock."""
    units: int
    processor: float
    """Of the driver and of making rows up, in seconds."""
    driver: float
    """Of the driver alone, from the task to the sealed run, in seconds."""
    planned: float
    """Processor time of the driver before the first unit was handed out, in seconds."""
    memory: list[int]
    """Resident bytes, at the beginning and after every tenth of the units."""


def simulate(
    task: Task, folder: Path, *, workers: int = WORKERS, seconds: float = SECONDS, charge: bool, write: bool = False
) -> Simulation:
    """Carry a task out with simulated workers."""
    made: list[Simulated] = []

    def engine(task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> Executor:
        made.append(Simulated(Workshop(task, folder, device, batch_size), workers, seconds, charge=charge, write=write))
        return made[0]

    memory, begin = [resident_memory()], time.process_time()

    def report(moment: Moment) -> None:
        if moment.done % max(1, moment.units // 10) == 0:
            memory.append(resident_memory())

    run(task, folder, device=torch.device("cpu"), report=report, engine=engine)
    took = time.process_time() - begin
    return Simulation(made[0].now, made[0].units, took, took - made[0].worked, made[0].begun - begin, memory)


def overhead(task: Task, folder: Path) -> tuple[float, Simulation]:
    """Return the share of time that the driver adds, and the simulation with it."""
    charged = simulate(task, folder / "charged", charge=True)
    free = simulate(task, folder / "free", charge=False)
    return charged.seconds / free.seconds - 1, charged


def seconds_of(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor time of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def simulated_rows(folder: Path) -> list[str]:
    """Measure what needs no Ray."""
    load = stub_task(50, 10_000)
    share, charged = overhead(load, folder)
    grown = (charged.memory[-1] - charged.memory[0]) / 2**20
    task, kept = stub_task(10, 25_000, threats=3), folder / "resume"
    simulate(task, kept, charge=False, write=True)
    units = sum(1 for _ in kept.rglob("*.parquet")) - 1
    again, processor = seconds_of(lambda: run(task, kept, device=torch.device("cpu")))
    return [
        f"| planning of {charged.units:,} units | {charged.planned:.2f} s of processor time | seconds | "
        f"{_met(charged.planned < 5)} |",
        f"| driver before {WORKERS} workers, {charged.units:,} units of {SECONDS:g} s | {100 * share:.1f} % | < 5 % | "
        f"{_met(share < 0.05)} |",
        f"| memory of the driver, 50 models x 3 threats x 10,000 examples | {max(charged.memory) / 2**20:.0f} MiB | "
        f"< 1024 MiB | {_met(max(charged.memory) < 2**30)} |",
        f"| of it, grown over the run (verdicts of 1.5 million rows) | {grown:.0f} MiB | | |",
        f"| resume of a finished run of {units:,} units | {again:.2f} s ({processor:.2f} s of processor time) | "
        f"< 2 s | {_met(again < 2)} |",
    ]  # fmt: skip


def ray_rows(folder: Path, examples: int) -> list[str]:
    """Measure two workers against one process with one thread, by the command line."""
    models = [word for pair in PAIRS for word in ("--model", f"zoo:{pair}")]
    given = [*models, "--count", str(examples), "--threat", "linf:0.1", "--threads", "1"]
    times = {}
    for name, extra in (("one", []), ("two", ["--engine", "ray", "--workers", "2"])):
        words = [sys.executable, "-m", "robustframe", "evaluate", *given, "--out", str(folder / name), *extra]
        begin = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times[name] = time.perf_counter() - begin
    for path in sorted((folder / "one").rglob("*")):
        if path.is_file() and path.read_bytes() != (folder / "two" / path.relative_to(folder / "one")).read_bytes():
            raise SystemExit(f"{path.relative_to(folder / 'one')} differs between one process and two workers")
    ratio = times["one"] / times["two"]
    return [
        f"| two Ray workers against one process with one thread, {len(PAIRS)} pairs x {examples:,} examples, same "
        f"bytes | {ratio:.2f} x ({times['two']:.0f} s against {times['one']:.0f} s, start of Ray included) | >= 1.7 x "
        f"| {_met(ratio >= 1.7)} |"
    ]


def _met(met: bool) -> str:
    return "yes" if met else "NO"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("simulated", "ray"))
    parser.add_argument("--examples", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        if options.only != "ray":
            rows += simulated_rows(Path(place))
        if options.only != "simulated":
            rows += ray_rows(Path(place), options.examples)
    lines = [
        "# Scale",
        "",
        f"Written by `python benchmarks/scale.py`: {os.cpu_count()} cores, {platform.machine()}, torch "
        f"{torch.__version__}; load of the machine before it began: {busy:.1f}.",
        "With other work on the machine, wall-clock times and their ratios mean little.",
        "",
        "| what | measured | target | met |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
