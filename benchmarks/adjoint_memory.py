"""Memory and time of every adjoint over the number of sweeps: what the graph keeps, and what a gradient costs.

    python benchmarks/adjoint_memory.py

writes benchmarks/results/adjoint_memory.md. One thread; a convolutional chain on 28 x 28 images, 16 at a time.
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from robustframe.frames import Frame, build_frame
from robustframe.solvers import Adjoint, DeepPursuit, Implicit, OneStep, Solution, Truncated, Unrolled, solve

LAYERS = [
    {"filters": 16, "kernel": 6, "stride": 2, "padding": 2},
    {"filters": 32, "kernel": 6, "stride": 2, "padding": 2},
    {"atoms": 64},
]
ADJOINTS: dict[str, Adjoint] = {
    "Unrolled()": Unrolled(),
    "Truncated(last=5)": Truncated(last=5),
    "OneStep()": OneStep(),
    "Implicit(tolerance=1e-3)": Implicit(tolerance=1e-3),
}
SWEEPS = (5, 20, 80)
RESULT = Path(__file__).parent / "results" / "adjoint_memory.md"


def problem() -> tuple[Frame, Tensor]:
    torch.manual_seed(0)
    frame = build_frame((1, 28, 28), LAYERS)
    for layer in frame.blocks:
        layer.threshold.data.fill_(0.02)
    return frame.requires_grad_(False), torch.rand(16, 1, 28, 28)


def measure(frame: Frame, x: Tensor, sweeps: int, adjoint: Adjoint) -> tuple[float, float, Solution]:
    """Return MiB that the graph keeps for the backward pass, seconds of both passes, and the solution."""
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in frame.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    leaf = x.clone().requires_grad_()
    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        solution = solve(DeepPursuit(sweeps=sweeps), frame, leaf, adjoint)
    size = sum(kept.values()) / 2**20
    torch.autograd.grad(solution.codes[-1].square().sum(), leaf)
    return size, time.perf_counter() - start, solution


def main() -> None:
    torch.set_num_threads(1)
    frame, x = problem()
    lines = [
        "# Memory and time of the adjoints",
        "",
        "Written by `benchmarks/adjoint_memory.py`: deep pursuit in a chain of two convolutional layers and a dense",
        f"one (16 and 32 filters, 64 atoms), 16 images of 28 x 28, float32, one CPU thread, torch {torch.__version__}.",
        "Memory is what the graph keeps between the forward and the backward pass, parameters left out; time is that",
        "of both passes. The implicit adjoint's own work (20 Krylov vectors of the",
        "size of the codes) comes and goes within the backward pass.",
        "",
        "| adjoint | " + " | ".join(f"{n} sweeps: MiB | s" for n in SWEEPS) + " |",
        "|---|" + "---:|---:|" * len(SWEEPS),
    ]
    left = []
    for name, adjoint in ADJOINTS.items():
        cells = []
        for sweeps in SWEEPS:
            size, seconds, solution = measure(frame, x, sweeps, adjoint)
            cells += [f"{size:.2f}", f"{seconds:.2f}"]
            if solution.gradient is not None and solution.gradient.residual is not None:
                worst = float(solution.gradient.residual.max())
                left.append(f"{sweeps} sweeps: {worst:.1e} after {solution.gradient.steps} products")
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += ["", "Relative residual of the implicit adjoint's equation, worst example: " + "; ".join(left) + ".", ""]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
