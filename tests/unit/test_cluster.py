"""Ray: the same bytes from every number of workers, whatever dies meanwhile."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from troubled import contents, evaluate, lay_out, run, started

from robustframe.errors import InputError
from robustframe.evaluation.cluster import RETRIES, Cluster, ray_engine
from robustframe.evaluation.jobs import CleanJob, Done, Failed
from robustframe.evaluation.limits import NO_LIMITS
from robustframe.runs.record import read_record

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray's own files and sockets, and what its version says about the future.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning",
                               "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip
RAY = ("--engine", "ray", "--out", "run", "--device", "cpu", "--workers")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of a run in one process, with the checks of its numbers."""
    return contents(evaluate(lay_out(tmp_path_factory.mktemp("undisturbed"), diagnose=True)).folder)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "here", diagnose=True)


def trouble(recipe: Path, kind: str | None) -> None:
    file = recipe.parent / "trouble"
    if kind is None:
        file.unlink()
    else:
        file.write_text(kind)


def wait_for(file: Path, process: subprocess.Popen[str]) -> int:
    """Wait for a number in a file."""
    while not file.exists() or not file.read_text():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    return int(file.read_text())


@pytest.mark.parametrize("workers", [1, 3])
def test_every_number_of_workers_leaves_the_same_bytes(workers: int, recipe: Path, undisturbed: dict[str, str]) -> None:
    done = run(*RAY, str(workers), cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    assert contents(recipe.parent / "run") == undisturbed


def test_a_worker_that_is_killed_costs_nothing(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "hangs")
    with started(*RAY, "2", cwd=recipe.parent) as process:
        worker = wait_for(recipe.parent / "hanging", process)
        assert worker != process.pid
        trouble(recipe, None)
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert contents(recipe.parent / "run") == undisturbed


def test_a_model_that_kills_every_worker_costs_its_own_rows(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "dies")
    done = run(*RAY, "2", cwd=recipe.parent)
    assert done.returncode == 1, done.stderr
    record = read_record(recipe.parent / "run")[0]
    assert {row.classifier for row in record.failed} == {"troubled"}
    assert "its worker died 4 times" in record.failed[0].reason
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(recipe.parent / "run") == undisturbed


def test_a_hanging_worker_is_stopped_by_the_time_limit(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "hangs")
    done = run(*RAY, "2", "--time-limit", "20", cwd=recipe.parent)
    assert done.returncode == 1, done.stderr
    record = read_record(recipe.parent / "run")[0]
    assert {row.classifier for row in record.failed} == {"troubled"}
    assert "longer than the time limit of 20 s" in record.failed[0].reason
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(recipe.parent / "run") == undisturbed


def test_a_leaking_worker_is_replaced_in_time(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "leaks")
    done = run(*RAY, "1", "--memory-limit", "2.2", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    assert contents(recipe.parent / "run") == undisturbed


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_driver_is_started_again(how: signal.Signals, recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "hangs")
    with started(*RAY, "2", cwd=recipe.parent) as process:
        worker = wait_for(recipe.parent / "hanging", process)
        process.send_signal(how)
        _, said = process.communicate(timeout=900)
    assert process.returncode == (-9 if how is signal.SIGKILL else 3), said
    gone = time.monotonic() + 300
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() < gone, "its workers outlive a driver"
        time.sleep(0.1)
    trouble(recipe, None)
    done = run(*RAY, "2", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    assert contents(recipe.parent / "run") == undisturbed


def descendants(process: int) -> Iterator[tuple[int, str]]:
    """Processes below one, each with its command."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(child), Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode()
        yield from descendants(int(child))


def test_a_raylet_that_dies_stops_the_run_which_is_continued(recipe: Path, undisturbed: dict[str, str]) -> None:
    trouble(recipe, "hangs")
    with started(*RAY, "2", cwd=recipe.parent) as process:
        wait_for(recipe.parent / "hanging", process)
        (raylet,) = [number for number, command in descendants(process.pid) if command.endswith("/raylet")]
        os.kill(raylet, signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 3, said
    assert "stopped: Ray has ended on this machine" in said
    trouble(recipe, None)
    evaluate(recipe)
    assert contents(recipe.parent / "run") == undisturbed


@pytest.fixture
def cluster() -> Iterator[object]:
    """Two nodes with one core each, on this machine."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield nodes
    finally:
        nodes.shutdown()


def test_a_node_that_is_killed_costs_nothing(cluster: object, recipe: Path, undisturbed: dict[str, str]) -> None:
    node = cluster.add_node(num_cpus=1)  # type: ignore[attr-defined]
    trouble(recipe, "hangs")
    with started(*RAY, "2", "--address", cluster.address, cwd=recipe.parent) as process:  # type: ignore[attr-defined]
        wait_for(recipe.parent / "hanging", process)
        cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]
        cluster.add_node(num_cpus=1)  # type: ignore[attr-defined]
        trouble(recipe, None)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert contents(recipe.parent / "run") == undisturbed


def test_what_a_worker_cannot_load_is_said(recipe: Path) -> None:
    from robustframe.devices import pick_device
    from robustframe.evaluation import load_task
    from robustframe.evaluation import run as run_task

    device = pick_device("cpu")
    task = load_task(recipe, device=device, keep=False)
    (recipe.parent / "small.toml").write_text((recipe.parent / "small.toml").read_text().replace("20", "21"))
    with pytest.raises(InputError, match="cannot take part: its data, batteries, user files or version"):
        run_task(task, recipe.parent / "run", device=device, engine=ray_engine(workers=1))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_where_none_is(address: str, recipe: Path) -> None:
    begun = time.monotonic()
    done = run(*RAY, "1", "--address", address, cwd=recipe.parent)
    assert done.returncode == 2
    assert f"no Ray cluster answers at {address}" in done.stderr
    assert time.monotonic() - begun < 300, "Ray itself has tried, for a quarter of an hour"


class OutOfReach:
    """Ray as far as a cluster looks at it; the first workers cannot be reached."""

    exceptions = ray.exceptions

    def __init__(self, times: int) -> None:
        self.times, self.started = times, 0

    def get(self, ref: object) -> Done:
        self.times -= 1
        if self.times >= 0:
            raise ray.exceptions.ActorUnavailableError("not now", None)
        return Done(JOB, None, {})

    def kill(self, actor: object, *, no_restart: bool) -> None:
        assert no_restart

    def nodes(self) -> list[dict[str, object]]:
        return [{"NodeID": "here", "Alive": True}]

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(get_node_id=lambda: "here")

    def worker(self, order: object) -> SimpleNamespace:
        self.started += 1
        name = self.started
        return SimpleNamespace(
            ready=SimpleNamespace(remote=lambda: f"ready {name}"), do=SimpleNamespace(remote=lambda job: f"unit {name}")
        )


JOB = CleanJob(0, 0)


@pytest.mark.parametrize(("times", "found"), [(RETRIES, Done), (RETRIES + 1, Failed)])
def test_a_unit_whose_worker_is_out_of_reach_goes_to_another(times: int, found: type) -> None:
    cluster, fake = Cluster.__new__(Cluster), OutOfReach(times)
    cluster.ray, cluster.order, cluster.limits, cluster.clock = fake, None, NO_LIMITS, time.monotonic
    cluster._idle, cluster._starting, cluster._busy, cluster._out_of_reach = [], {}, {}, Counter()
    cluster._worker = SimpleNamespace(remote=fake.worker)
    cluster._give(cluster._start(), JOB)
    outcomes: list[Done | Failed] = []
    for _ in range(times + 1):
        (ref,) = cluster._busy
        outcomes += cluster._collect(ref)
        if outcomes:
            break
    assert [type(outcome) for outcome in outcomes] == [found]
    assert not cluster._busy
    assert fake.started == min(times, RETRIES) + 1 + (found is Failed)
