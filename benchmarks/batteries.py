"""What each battery leaves standing, in how many passes and how much time: models and examples alike, in one process.

Run it from the repository root: ``python benchmarks/batteries.py``; it writes results/batteries.md beside itself and
takes about half an hour. One thread; the time is that of the process on the processor, so that other programs on the
machine hardly matter.
"""

import argparse
import platform
import runpy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import robustframe
from robustframe import data, zoo
from robustframe.recipe import Prepare

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1)


def twin(pair: str, name: str) -> nn.Module:
    """One twin of a pair of the zoo."""
    found, _ = zoo.load(pair)
    return found.feedforward if name == "feedforward" else found.recurrent


def resnet() -> nn.Module:
    """The ResNet with batch norm of evaluations/reframed."""
    folder = ROOT / "evaluations" / "reframed"
    net: nn.Module = runpy.run_path(str(folder / "net.py"))["build"]()
    net.load_state_dict(load_file(folder / "net.safetensors"))
    return net


@dataclass(frozen=True)
class Row:
    """A model under a threat, on the first test images of Fashion-MNIST."""

    name: str
    build: Callable[[], nn.Module]
    threat: str
    examples: int
    batteries: Sequence[tuple[str, Prepare]]


_BATTERIES: tuple[tuple[str, Prepare], ...] = (
    ("swift@1", "auto"),
    ("swift@2", "auto"),
    ("standard@1", "auto"),
    ("strong@1", "auto"),
)
_SEARCHED: tuple[tuple[str, Prepare], ...] = (("standard@1", "none"), ("standard-bf16@1", "auto"))


def _of_pair(pair: str, name: str, threat: str, examples: int) -> Row:
    return Row(f"{pair}/{name}", partial(twin, pair, name), threat, examples, _BATTERIES)


ROWS = (
    _of_pair("fmnist-chain3-16-linf", "feedforward", "linf:0.1", 500),
    _of_pair("fmnist-chain3-16-linf", "recurrent", "linf:0.1", 100),
    _of_pair("fmnist-dense3-16-l2", "feedforward", "l2:1.5", 250),
    _of_pair("fmnist-chain3-linf", "feedforward", "linf:0.1", 60),
    Row("ResNet with batch norm", resnet, "linf:0.01", 100, (*_BATTERIES, *_SEARCHED)),
)


def main() -> None:
    """Measure every row and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, help="examples of every row; each has its own number by itself")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "batteries.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for row in ROWS:
        lines += measure(row, options.examples or row.examples)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page(lines), encoding="utf-8")
    print(page(lines))


def measure(row: Row, count: int) -> list[str]:
    """One line of the table for each battery."""
    examples, model = data.load("fashion-mnist", "test").first(count), row.build().eval()
    lines = []
    for battery, prepare in row.batteries:
        left, passes, seconds = [], [], []
        for seed in SEEDS:
            began = time.process_time()
            run = robustframe.evaluate(
                model, examples.images, examples.labels, threat=row.threat, battery=battery, seed=seed,
                diagnose=False, prepare=prepare, report=robustframe.silent,
            )  # fmt: skip
            seconds.append(time.process_time() - began)
            (result,) = run.results
            left.append(result.robust_correct)
            passes.append(sum(attack.forwards + attack.backwards for attack in result.attacks) / count)
        named = battery if prepare == "auto" else f"{battery}, not prepared"
        lines.append(
            f"| {row.name} | {row.threat} | {count} | {named} | {', '.join(map(str, left))} | "
            f"{sum(passes) / len(passes):,.0f} | {', '.join(f'{each:.1f}' for each in seconds)} |"
        )
    return lines


def page(lines: Sequence[str]) -> str:
    """The page with its table."""
    return "\n".join(
        [
            "# Batteries side by side",
            "",
            "Written by `python benchmarks/batteries.py`. *Left*: correct images that no attack broke, for each of two",
            "seeds. *Passes*: forwards and backwards an image. *Seconds*: of one thread on the processor, for each",
            "seed, with all of an evaluation but its checks.",
            "",
            f"torch {torch.__version__}, {platform.machine()}",
            "",
            "| Model | Threat | Images | Battery | Left | Passes | Seconds |",
            "| :-- | :-- | --: | :-- | --: | --: | --: |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
