"""Growth: processor time of the driver over chunks, of comparing and of the leaderboard over models.

    python benchmarks/growth.py

writes benchmarks/results/growth.md; some minutes. The driver is that of benchmarks/scale.py before one simulated
worker, whose own time is left out. Runs of many models are those that it leaves, with made-up verdicts on 1,000
examples.
"""

import argparse
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from scale import simulate, stub_task

from robustframe.report.site import build_site
from robustframe.verification.compare import compare_runs

CHUNKS = (250, 500, 1_000, 2_000, 8_000)
MODELS = (25, 50, 100, 200)
EXAMPLES = 1_000
LEAST = 6.0
"""Seconds that the driver may take for 2,000 chunks."""
NOISE = 1.1
"""A time within a tenth of what n log n allows is within it: no two measurements are nearer to each other."""
ABOUT = """\
Seconds of one processor, best of {times}; *allowed* is the time of the row before, grown like n log n. The driver
takes each of {units} units a chunk (clean pass, three attacks) from a worker that writes it, keeps score, and seals the
run in the end; the worker's time is left out. `compare` is given two runs of so many models on {examples:,} examples,
without transfer, `report` one. Ranks are tested over all pairs of models, whose number grows like n^2; as these are
counted and tested at once, they are not what takes the time here.
"""
PAGE = Path(__file__).parent / "results" / "growth.md"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2, help="how often each is measured")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    times = {
        "driver": [(n, best(driver, n, options.times)) for n in CHUNKS],
        "compare": [(n, best(compare, n, options.times)) for n in MODELS],
        "report": [(n, best(report, n, options.times)) for n in MODELS],
    }
    text = page(times, options.times, busy)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)


def best(measure: Callable[[int, Path], float], size: int, times: int) -> float:
    """Return the least of some measurements; what else the machine does only adds to one."""
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(size, Path(folder)))
    return min(found)


def driver(chunks: int, folder: Path) -> float:
    """Processor time of the driver for a run of so many chunks of one example."""
    task = stub_task(1, chunks, threats=1, chunk=1)
    return simulate(task, folder / "run", workers=1, charge=False, write=True).driver


def compare(models: int, folder: Path) -> float:
    """Processor time of comparing two runs of so many models."""
    one, other = many(models, folder / "one"), many(models, folder / "other")
    return processor(lambda: compare_runs(one, other, transfer=False))


def report(models: int, folder: Path) -> float:
    """Processor time of building the leaderboard of a run of so many models."""
    run = many(models, folder / "run")
    return processor(lambda: build_site([str(run)], folder / "site", run_folders=folder))


def many(models: int, folder: Path) -> Path:
    """Leave the published copy of a run of so many models, which holds no images."""
    simulate(stub_task(models, EXAMPLES, threats=1), folder / "made", charge=False)
    shutil.rmtree(folder / "made" / "units", ignore_errors=True)
    (folder / "made" / "evidence.sha256").unlink()
    return folder / "made"


def processor(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def page(times: dict[str, Sequence[tuple[int, float]]], repeated: int, busy: float) -> str:
    """The published page."""
    lines = [
        "# Growth",
        "",
        f"Written by `python benchmarks/growth.py`: {os.cpu_count()} cores, {platform.machine()}, torch "
        f"{torch.__version__}; load of the machine before it began: {busy:.1f}.",
        ABOUT.format(times=repeated, units=4, examples=EXAMPLES),
        "| what | n | seconds | allowed | met |",
        "|---|---:|---:|---:|---|",
    ]
    for what, rows in times.items():
        before: tuple[int, float] | None = None
        for n, seconds in rows:
            allowed = math.inf if before is None else before[1] * grown(before[0], n)
            if what == "driver" and n == 2_000:
                allowed = min(allowed, LEAST)
            said = "" if before is None else f"{allowed:.2f}"
            met = "" if before is None else "yes" if seconds <= NOISE * allowed else "NO"
            lines.append(f"| {unit(what)} | {n:,} | {seconds:.2f} | {said} | {met} |")
            before = n, seconds
    return "\n".join([*lines, ""])


def grown(before: int, n: int) -> float:
    """By which factor n log n grows."""
    return n * math.log(n) / (before * math.log(before))


def unit(what: str) -> str:
    """What is counted."""
    return "driver of `evaluate`, chunks" if what == "driver" else f"`{what}`, models"


if __name__ == "__main__":
    main()
