"""Many workers on one machine or a cluster, on Ray: its scheduling, its placement, its retries."""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from robustframe.errors import InputError, Interrupted, StoppedEarly
from robustframe.evaluation.executors import Engine, Executor
from robustframe.evaluation.jobs import Done, Failed, Job
from robustframe.evaluation.limits import NO_LIMITS, Limits
from robustframe.evaluation.task import Task
from robustframe.evaluation.worker import Order, Worker, make_order
from robustframe.runs.record import Environment

RETRIES = 3
"""How often Ray does a unit again whose worker or machine has died, before its row is given up; and how often the
driver hands it to another worker when its own is out of reach: until a cluster has noticed that a machine is gone, Ray
spends its own tries on that machine within moments."""
_RECYCLE = 0.5
"""Share of the memory limit above which a worker is replaced between two units."""
_GLANCE = 0.5
"""Seconds to wait at a time before looking whether a stop was asked for."""
_PATIENCE = 15.0
"""Seconds without any worker after which that is said."""
_KNOCK = 10.0
"""Seconds that a cluster has to take a connection; Ray itself tries for a quarter of an hour."""

log = logging.getLogger("robustframe")


def ray_engine(address: str | None = None, workers: int | None = None) -> Engine:
    """Return the engine that works on Ray.

    Args:
        address: of a running cluster, such as ``auto`` or ``ray://head:10001``; one on this machine, which ends with
            the evaluation, when ``None``.
        workers: processes that work at the same time, each on as many cores as torch has threads here, or on one GPU;
            as many as there is room for when ``None``.
    """

    def engine(task: Task, folder: Path, device: torch.device, batch_size: int, limits: Limits) -> Executor:
        # The driver looks after the time: a worker that hangs may not come to look at a clock.
        order = make_order(task, folder, device, batch_size, Limits(memory=limits.memory))
        return Cluster(order, limits, address=address, workers=workers)

    return engine


@dataclass
class WorkerHandle:
    """One worker as the driver sees it."""

    actor: Any
    used: bool = False
    """It has carried out a unit already."""


class Cluster(Executor):
    """Workers on Ray. What they leave lies in the run's folder, which all of them have to share.

    Args:
        order: what every worker is told.
        limits: what one unit may take.
        address: of a running cluster; one of its own on this machine when ``None``.
        workers: how many; as many as there is room for when ``None``.
        clock: seconds that only go forward.

    Raises:
        InputError: when Ray is not installed, no cluster answers, or a worker cannot load what the order names.
    """

    def __init__(
        self,
        order: Order,
        limits: Limits = NO_LIMITS,
        *,
        address: str | None = None,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.order, self.limits, self.clock = order, limits, clock
        self.ray = _ray()
        self.gpus = int(order.device == "cuda")
        self._handlers: dict[int, Any] = {}
        count = self._connect(address, workers)
        self._idle: list[WorkerHandle] = []
        self._starting: dict[Any, WorkerHandle] = {}
        self._busy: dict[Any, tuple[WorkerHandle, Job[Any], float]] = {}
        self._out_of_reach: Counter[tuple[int, ...] | None] = Counter()
        """How often the worker of a unit, by the unit's place, or one that starts could not be reached."""
        self._environment: Environment | None = None
        # Ray starts a worker again wherever there is room, and gives it the unit again that it died of.
        self._worker = self.ray.remote(Worker).options(
            num_cpus=order.threads, num_gpus=self.gpus, max_restarts=-1, max_task_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        for _ in range(count):
            self._start()

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            self._await_worker()
        if self._environment is None:
            raise InputError("no worker has said what it runs on")
        return self._environment

    @property
    def free(self) -> bool:
        if not self._idle and not self._busy:
            self._await_worker()
        return bool(self._idle)

    def submit(self, job: Job[Any]) -> None:
        self._give(self._idle.pop(), job)

    def wait(self) -> list[Done[Any] | Failed]:
        found: list[Done[Any] | Failed] = []
        while self._busy and not found:
            refs = [*self._busy, *self._starting]
            ready, _ = self.ray.wait(refs, num_returns=1, timeout=self._patience())
            if Interrupted.asked:
                raise Interrupted
            if ready:
                # Whatever else is there too is taken along.
                ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in ready:
                found += self._collect(ref)
            found += self._overdue()
        return found

    def close(self) -> None:
        workers = [*self._idle, *self._starting.values(), *(worker for worker, _, _ in self._busy.values())]
        for worker in workers:
            self.ray.kill(worker.actor, no_restart=True)
        self.ray.shutdown()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _connect(self, address: str | None, workers: int | None) -> int:
        """Join a cluster or make one; return how many workers to start."""
        threads = self.order.threads
        if address is None:
            room = torch.cuda.device_count() if self.gpus else max(1, (os.cpu_count() or 1) // threads)
            count = room if workers is None else workers
            options: dict[str, Any] = {"address": "local", "num_cpus": count * threads, "include_dashboard": False}
        else:
            _expect_an_answer(address)
            options = {"address": address}
        at_a_stop = {number: signal.getsignal(number) for number in _stops()}
        try:
            self.ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError) as error:
            where = address or "this machine"
            raise InputError(f"no Ray cluster answers at {where}: {_first_line(error)}") from error
        # Ray puts a handler of its own in this place, which would leave the run without a word; and an exception that
        # a handler raises while Ray looks for signals is lost. So a stop is noted, and raised between two glances.
        if threading.current_thread() is threading.main_thread():
            for number, handler in at_a_stop.items():
                ours = callable(handler) and handler is not signal.default_int_handler
                signal.signal(number, _note if ours else handler)
                self._handlers[number] = handler
        if address is not None:
            there = self.ray.cluster_resources()
            room = int(there.get("GPU", 0)) if self.gpus else int(there.get("CPU", 0)) // threads
            count = max(1, room) if workers is None else workers
        return count

    def _start(self) -> WorkerHandle:
        worker = WorkerHandle(self._worker.remote(self.order))
        self._starting[worker.actor.ready.remote()] = worker
        return worker

    def _give(self, worker: WorkerHandle, job: Job[Any]) -> None:
        self._busy[worker.actor.do.remote(job)] = (worker, job, self.clock())

    def _replace(self, worker: WorkerHandle) -> WorkerHandle:
        self.ray.kill(worker.actor, no_restart=True)
        return self._start()

    def _await_worker(self) -> None:
        while not self._idle:
            if not self._starting:
                self._start()
            ready, _ = self.ray.wait(list(self._starting), num_returns=1, timeout=_PATIENCE)
            for ref in ready:
                self._greet(ref)
            if not ready:
                kind = "GPU" if self.gpus else "CPU"
                there = self.ray.cluster_resources().get(kind, 0)
                asked = self.gpus or self.order.threads
                log.warning("waiting for a worker; each takes %d %s, the cluster has %d", asked, kind, there)

    def _greet(self, ref: Any) -> None:
        """Put a worker that has started to work."""
        worker = self._starting.pop(ref)
        try:
            said = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            if self._working(worker):
                return  # What becomes of its unit says the rest.
            if self._elsewhere(error, None):
                self._replace(worker)
                return
            self._expect_alive(error)
            raise InputError(f"a worker does not start: {_first_line(error)}") from error
        self._out_of_reach[None] = 0
        if isinstance(said, str):
            raise InputError(f"a worker cannot take part: {said}")
        if self._environment is None:
            self._environment = said
        elif said != self._environment:
            log.warning("workers differ (%s; %s); bytes may depend on who did what", said, self._environment)
        # One that was given a unit before it had started is busy already, or has even finished it.
        if not worker.used and not self._working(worker):
            self._idle.append(worker)

    def _collect(self, ref: Any) -> list[Done[Any] | Failed]:
        """Take note of a worker that is ready, or of what has become of a unit."""
        if ref in self._starting:
            self._greet(ref)
            return []
        if ref not in self._busy:
            return []
        worker, job, _ = self._busy.pop(ref)
        try:
            outcome = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            self._expect_alive(error)
            another = self._replace(worker)
            if self._elsewhere(error, job):
                self._give(another, job)
                return []
            return [Failed(job, f"its worker died {1 + RETRIES} times: {_first_line(error)}")]
        if isinstance(outcome, StoppedEarly):
            raise outcome
        if isinstance(outcome, Failed) and outcome.memory and worker.used:
            # What models left behind in this worker may have been what was too much.
            self._give(self._replace(worker), job)
            return []
        worker.used = True
        if (
            isinstance(outcome, Done)
            and self.limits.memory
            and outcome.resident > _RECYCLE * self.limits.memory * 2**30
        ):
            self._replace(worker)
        else:
            self._idle.append(worker)
        return [outcome]

    def _elsewhere(self, error: Exception, job: Job[Any] | None) -> bool:
        """Say whether a unit, or the start of a worker, should be tried on another worker."""
        unreached = isinstance(error, self.ray.exceptions.ActorUnavailableError)
        place = None if job is None else job.place
        self._out_of_reach[place] += unreached
        return unreached and self._out_of_reach[place] <= RETRIES

    def _expect_alive(self, error: Exception) -> None:
        """Stop when the part of Ray that this process talks to is gone: then no unit and no worker is to blame.

        Raises:
            StoppedEarly: so that the run is continued on a cluster that works.
        """
        try:
            here = self.ray.get_runtime_context().get_node_id()
            alive = any(node["NodeID"] == here and node["Alive"] for node in self.ray.nodes())
        except (self.ray.exceptions.RayError, RuntimeError, OSError, ValueError):
            alive = False
        if not alive or isinstance(error, self.ray.exceptions.LocalRayletDiedError):
            raise StoppedEarly(f"Ray has ended on this machine ({_first_line(error)})") from error

    def _working(self, worker: WorkerHandle) -> bool:
        return any(worker is busy for busy, _, _ in self._busy.values())

    def _overdue(self) -> list[Done[Any] | Failed]:
        """Stop the units that take too long, with their workers."""
        limit = self.limits.seconds
        if limit is None:
            return []
        late = [ref for ref, (_, _, since) in self._busy.items() if self.clock() - since > limit]
        found: list[Done[Any] | Failed] = []
        for ref in late:
            worker, job, _ = self._busy.pop(ref)
            self._replace(worker)
            found.append(Failed(job, f"a unit took longer than the time limit of {limit:g} s"))
        return found

    def _patience(self) -> float:
        if self.limits.seconds is None:
            return _GLANCE
        first = min(since for _, _, since in self._busy.values())
        return min(_GLANCE, max(0.05, first + self.limits.seconds - self.clock()))


def _stops() -> list[signal.Signals]:
    return [getattr(signal, name) for name in Interrupted.signals if hasattr(signal, name)]


def _note(number: int, frame: FrameType | None) -> None:
    Interrupted.asked = True


def _expect_an_answer(address: str) -> None:
    """Refuse an address at which nothing listens; one without a port, such as ``auto``, is Ray's to find.

    Raises:
        InputError: when nothing takes a connection there.
    """
    place = re.fullmatch(r"(?:ray://)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:/]+)):(?P<port>\d{1,5})/?", address)
    if place is None:
        return
    try:
        socket.create_connection((place["six"] or place["host"], int(place["port"])), timeout=_KNOCK).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {_first_line(error)}") from error


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'robustframe[ray]'") from error
    # Nothing of an evaluation is anybody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return ray


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
