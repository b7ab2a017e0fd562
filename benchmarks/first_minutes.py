"""How long a user waits: help, import, and the default evaluation. Writes results/first_minutes.md."""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def seconds(command: list[str], cwd: str) -> float:
    """Wall time of one command that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    python = [sys.executable]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, command, repeats in (
            ("`robustframe --help`", [*python, "-m", "robustframe", "--help"], 9),
            ("`import robustframe`", [*python, "-c", "import robustframe"], 9),
            ("`robustframe zoo check`", [*python, "-m", "robustframe", "zoo", "check"], 3),
        ):
            times = [seconds(command, folder) for _ in range(repeats)]
            rows.append((what, repeats, times))
        times = [
            seconds([*python, "-m", "robustframe", "evaluate", "default", "--out", f"{number}"], folder)
            for number in range(3)
        ]
        rows.append(("`robustframe evaluate default`", 3, times))
    lines = [
        "# How long a user waits",
        "",
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; made by `make bench`.",
        "",
        "| command | runs | median s | lowest s | highest s |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {what} | {repeats} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} |"
            for what, repeats, times in rows
        ),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "first_minutes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
