"""What a recurrent forward costs in feed-forward forwards: a chain, a residual and a densely connected frame.

Run it from the repository root: ``python benchmarks/solver_cost.py``; it writes results/solver_cost.md beside itself.
One thread; the time is that of the thread on the processor, so that other programs on the machine hardly matter.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from robustframe.frames import Frame, architecture
from robustframe.solvers import DeepPursuit, solve

# T sweeps apply 2T - 1 operators a layer, the first sweep 1; the promise is at most 1.5 (2T + 1) feed-forward forwards.
FRAMES = ("chain3-28", "resnet8-28", "densenet10-28")
SWEEPS = (2, 4, 8)
BATCH = 64


def main() -> None:
    """Measure every frame and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "solver_cost.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in FRAMES for row in measure(name, options.repetitions)]
    text = page(rows, options.repetitions)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


@torch.no_grad()
def measure(name: str, repetitions: int) -> list[str]:
    """One table row for each number of sweeps."""
    frame = architecture(name)
    images = torch.rand(BATCH, *frame.in_shape, generator=torch.Generator().manual_seed(0))
    calibrate(frame, images)
    runs = {n: partial(solve, DeepPursuit(sweeps=n), frame, images) for n in (1, *SWEEPS)}
    times = timed(runs, repetitions)
    base = statistics.median(times[1])
    rows = []
    for sweeps in SWEEPS:
        ratios = sorted(value / one for value, one in zip(times[sweeps], times[1]))
        cost, limit = statistics.median(times[sweeps]) / base, 1.5 * (2 * sweeps + 1)
        rows.append(
            f"| {name} | {frame.structure} | {sweeps} | {1e3 * base:.1f} | "
            f"{1e3 * statistics.median(times[sweeps]):.1f} | {cost:.1f} | {ratios[0]:.1f} to {ratios[-1]:.1f} | "
            f"{limit:.1f} | {'yes' if cost <= limit else 'NO'} |"
        )
    return rows


def calibrate(frame: Frame, images: torch.Tensor) -> None:
    """Set thresholds to a part of what each layer sees, as training does, so that codes are neither dead nor full."""
    w = [images]
    for j, layer in enumerate(frame.blocks, start=1):
        found = frame.correlate(j, frame.target(j, w))
        layer.threshold.fill_(0.2 * float(found.square().mean().sqrt()))
        w.append(layer.step_size * (found - layer.threshold).relu())


def timed(runs: Mapping[int, Callable[[], object]], repetitions: int) -> dict[int, list[float]]:
    """Seconds of every run, the runs taking turns so that a drift of the machine meets all of them."""
    for run in runs.values():
        run()
    times: dict[int, list[float]] = {key: [] for key in runs}
    for _ in range(repetitions):
        for key, run in runs.items():
            began = time.thread_time()
            run()
            times[key].append(time.thread_time() - began)
    return times


def page(rows: list[str], repetitions: int) -> str:
    """The published page."""
    head = [
        "# Cost of a recurrent forward",
        "",
        f"Deep pursuit without gradients, {BATCH} images, median of {repetitions} alternating repetitions, one thread "
        "(processor time of the thread),",
        f"torch {torch.__version__}, {platform.machine()}. The limit is 1.5 (2T + 1) feed-forward forwards.",
        "Written by `python benchmarks/solver_cost.py`.",
        "",
        "| frame | structure | sweeps T | feed-forward (ms) | T sweeps (ms) | ratio | spread | limit | within |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *rows, ""])


if __name__ == "__main__":
    main()
