"""Time and memory of coherence and of the least deep frame potential; writes benchmarks/results/coherence_cost.md.

Every row runs in a process of its own, whose peak memory is the row's; the first one only imports.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "coherence_cost.md"
ROWS = (
    "nothing", "resnet20", "resnet56", "densenet40-12", "densenet100-12", "vgg16", "chain3-28", "minimum of 20 layers",
)  # fmt: skip
NETWORKS = {"torchvision:resnet18": 32, "torchvision:densenet121": 32, "torchvision:resnet50": 224}
"""Networks that are read as frames first, by the sides of their images."""
LIMITS = {
    "torchvision:resnet18": "20 s, 3 GB",
    "torchvision:resnet50": "300 s, 8 GB",
    "resnet56": "5 s, 2 GB",
    "minimum of 20 layers": "60 s",
}
CHAIN = [{"atoms": atoms} for atoms in [96, 48] * 10]


def measure(row: str) -> dict[str, float | str]:
    """Measure one row in this process."""
    from robustframe.frames import build_frame
    from robustframe.frames.architectures import architecture
    from robustframe.frames.coherence import coherence
    from robustframe.frames.potential import closed_form_minimum, minimum_potential
    from robustframe.report.frame import find_frame, measure_frame

    what, seconds = "", 0.0
    if row == "minimum of 20 layers":
        frame = build_frame((64,), CHAIN)
        start = time.perf_counter()
        found = minimum_potential(frame, optimise=True, restarts=3)
        seconds = time.perf_counter() - start
        exact = closed_form_minimum(frame) or 0.0
        what = f"3 restarts, converged {found.converged}, {found.value / exact - 1:.0e} above the closed form"
    elif row in NETWORKS:
        side = NETWORKS[row]
        start = time.perf_counter()
        report = measure_frame(find_frame(row, shape=(3, side, side)))
        seconds = time.perf_counter() - start
        what = f"{len(report.layers)} rows, {report.coherence.atoms:,} atoms, mu {report.coherence.mutual:.4f}"
    elif row != "nothing":
        frame = architecture(row)
        start = time.perf_counter()
        measured = coherence(frame)
        seconds = time.perf_counter() - start
        what = f"{measured.atoms:,} atoms, mu {measured.mutual:.4f}, F^2 {measured.deep_frame_potential:.3e}"
    return {"what": what, "seconds": seconds, "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def line_of(row: str, name: str) -> str:
    """Measure a row in a process of its own, and return its line of the table."""
    answer = subprocess.run([sys.executable, __file__, row], check=True, capture_output=True, text=True)
    cost = json.loads(answer.stdout)
    seconds = f"{cost['seconds']:.2f}" if cost["seconds"] else ""
    line = f"| {name} | {seconds} | {cost['gigabytes']:.2f} | {LIMITS.get(row, '')} | {cost['what']} |"
    print(line, flush=True)
    return line


def main() -> None:
    """Measure all rows and write the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    lines = [
        "# Cost of coherence",
        "",
        "Mutual coherence, frame potential and deep frame potential of random unit atoms, exact with zero-padded",
        "borders, and the least deep frame potential of a chain of 20 dense layers (64 | 96, 48, ...).",
        "Peak memory is that of the whole process; the first row only imports robustframe.",
        "",
        "| frame | seconds | peak GB | asked for | found |",
        "|---|---|---|---|---|",
    ]
    lines += [line_of(row, row) for row in ROWS]
    lines += [
        "",
        "## Networks",
        "",
        "All that `robustframe frame` does: reading the network, checking that the first sweep is the network, step",
        "sizes, and the coherence of every layer and of the whole frame, exact with zero-padded borders.",
        "",
        "| network | seconds | peak GB | asked for | found |",
        "|---|---|---|---|---|",
        *[line_of(row, f"{row}, {side} x {side}") for row, side in NETWORKS.items()],
        "",
        "## Measured on",
    ]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += [
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, {platform.machine()}; "
        f"load of the machine while measuring {load}. Made by `python benchmarks/coherence_cost.py`.",
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
