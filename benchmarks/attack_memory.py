"""Memory of one gradient step of an attack on a recurrent twin, over its sweeps, beside the feed-forward twin's.

    python benchmarks/attack_memory.py

writes benchmarks/results/attack_memory.md. The step is that of `Probe.gradient`, as every attack makes it.
"""

import argparse
import json
import platform
import tempfile
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustframe import data, zoo
from robustframe.calls import borrowed
from robustframe.gradients import Gradients
from robustframe.losses import margin
from robustframe.pairs import Twin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel

PAIR, THREAT = "fmnist-chain3-linf", "linf:0.1"
SWEEPS = (4, 16, 64)
THROUGH = ("all", "last:1", "cheap", "implicit")
LIMIT = 2.0
"""What is asked of ways that do not differentiate all sweeps, in units of the feed-forward twin's memory."""
ABOUT = """\
*Between* is what the graph keeps when the forward pass is done, *kept* the most that graphs keep at any time of the
step, backward pass included; parameters are left out and every tensor counts once. *Allocated* is the most memory that
the step has allocated at any time, scratch included. *x* is in units of the feed-forward twin's step. The target:
gradients that do not go through all sweeps keep at most {limit:g} x as much, whatever T.
"""
PAGE = Path(__file__).parent / "results" / "attack_memory.md"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    pair, _ = zoo.load(PAIR)
    examples = data.load("fashion-mnist", "test").first(options.examples)
    base = measure(pair.feedforward, examples, "all")
    found = {(through, n): measure(Twin(pair, n), examples, through) for through in THROUGH for n in SWEEPS}
    text = page(base, found, options.examples)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)


def page(base: "Sizes", found: "dict[tuple[str, int], Sizes]", examples: int) -> str:
    """The published page."""
    lines = [
        "# Memory of a gradient step",
        "",
        f"Written by `python benchmarks/attack_memory.py`: one step of an attack on {examples} images, twins of "
        f"`{PAIR}`,",
        f"float32, torch {torch.__version__}, {platform.machine()}.",
        ABOUT.format(limit=LIMIT),
        "| twin | through | T | between MiB | x | kept MiB | x | allocated MiB | x | met |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
        f"| feed-forward | `all` | 1 | {_cells(base, base)} | |",
    ]
    for (through, sweeps), sizes in found.items():
        met = "yes" if sizes.kept <= LIMIT * base.kept else "NO"
        row = f"| recurrent | `{through}` | {sweeps} | {_cells(sizes, base)} |"
        lines.append(f"{row} {'' if through == 'all' else met} |")
    return "\n".join([*lines, ""])


def _cells(sizes: "Sizes", base: "Sizes") -> str:
    return " | ".join(f"{size / 2**20:.2f} | {size / least:.2f}" for size, least in zip(sizes, base))


def measure(model: nn.Module, examples: data.Dataset, through: str) -> "Sizes":
    """Measure one step."""
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda ticket: ticket.tensor):
        between = step(model, examples, through, kept)
    # Once more by itself, because counting holds tensors a little longer than the graph does.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(model, examples, through, kept)
    return Sizes(between, kept.most, allocated(profile))


def step(model: nn.Module, examples: data.Dataset, through: str, kept: "Kept") -> int:
    """Take one gradient as attacks do; return what the graph keeps when the backward pass begins."""
    x, y, between = examples.images, examples.labels, 0

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal between
        value = margin(logits, labels)
        between = kept.now
        return value

    with borrowed(model):
        gradients = Gradients(through=through)
        probe = Probe(model, x, y, ThreatModel.parse(THREAT), batch_size=len(x), gradients=gradients)
        with probe.looking():
            probe.gradient(x, loss)
    return between


def allocated(profile: torch.profiler.profile) -> int:
    """The most bytes that were allocated at any time of a profile, above those at its beginning."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    changes = sorted((each["ts"], each["args"]["Bytes"]) for each in events if each.get("name") == "[memory]")
    now = most = 0
    for _, size in changes:
        now += size
        most = max(most, now)
    return most


class Sizes(NamedTuple):
    """Bytes of one step."""

    between: int
    kept: int
    allocated: int


class _Ticket:
    """Stands for a saved tensor, and goes when the graph lets go of it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Kept:
    """What the graph keeps for the backward pass, parameters left out: how much now, and how much at most."""

    def __init__(self, model: nn.Module) -> None:
        self.now = self.most = 0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
        self._holders: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Ticket:
        """Count a tensor that the graph saves."""
        ticket, storage = _Ticket(tensor), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._own:
            return ticket
        if not self._holders.get(place):
            self.now += size
            self.most = max(self.most, self.now)
        self._holders[place] = self._holders.get(place, 0) + 1
        weakref.finalize(ticket, self._drop, place, size)
        return ticket

    def _drop(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            self.now -= size


if __name__ == "__main__":
    main()
