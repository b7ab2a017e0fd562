"""Memory of attacks: of one gradient step on a recurrent twin over its sweeps, and of every attack beside its model.

    python benchmarks/attack_memory.py

writes benchmarks/results/attack_memory.md; some minutes. The step is that of `Probe.gradient`, as every attack makes
it.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import weakref
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robustframe import data, zoo
from robustframe.attacks import ATTACKS, Attack
from robustframe.calls import borrowed
from robustframe.draws import Draws
from robustframe.gradients import Gradients
from robustframe.losses import margin
from robustframe.pairs import Twin
from robustframe.probe import Probe
from robustframe.threat import ThreatModel
from robustframe.types import Norm

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
ATTACKED, BATCH, SHAPE = 48, 32, (3, 128, 128)
"""Examples of the chunk, rows of a model call, and an image: so large that no search is small."""
FEW: dict[str, object] = {"steps": 2, "queries": 8, "searches": 1, "samples": 16}
"""What makes an attack short; it holds as much after a step as after many."""
EPS: dict[Norm, float] = {"linf": 1e-4, "l2": 1e-2, "l1": 1e-1, "l0": 1.0}
"""So near that nothing breaks, and everything is searched to the end."""
ABOUT_ATTACKS = """\
## Memory of an attack beside its model

Every attack, shortened, on {examples} images of {shape} in batches of {batch}, on a linear model that it does not
break. *Held* is the most memory that tensors take at any time, less what a gradient of one batch takes by itself, in
images; images, labels and model are left out. The target: at most 12 x the batch and 6 x the chunk, {allowed:,} images.
Searches below 64 MiB in all may hold more; none is here.

| attack | norm | held | of what is allowed | met |
|---|---|---:|---:|---|
"""
DRY_RUNS = {
    "deepfool": ("l2:0.01", "steps = 2"),
    "fab": ("linf:1e-4", "steps = 2"),
    "apgd": ("linf:1e-4", "steps = 2"),
    "square": ("linf:1e-4", "queries = 8"),
}
"""Attacks, by the threat and the setting with which a whole evaluation is measured."""
ABOUT_DRY_RUNS = """\
## What `--dry-run` says

A whole `robustframe evaluate` of one attack on {examples} images of {shape} in batches of {batch}, on a small
convolutional net: the memory of the process that `--dry-run` says, and the most that it took. The target: within a
factor of {factor:g}.

| attack | threat | said MiB | taken MiB | taken / said | met |
|---|---|---:|---:|---:|---|
"""
FACTOR = 1.5
NET = """\
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return nn.Sequential(net, nn.Linear(256, 10)).eval()
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
    text = page(base, found, options.examples) + attacks_page() + dry_runs_page()
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


def attacks_page() -> str:
    """The part of the page on whole attacks."""
    allowed = 12 * BATCH + 6 * ATTACKED
    shape = " x ".join(map(str, SHAPE))
    lines = [ABOUT_ATTACKS.format(examples=ATTACKED, shape=shape, batch=BATCH, allowed=allowed)]
    for name, kind in ATTACKS.items():
        # The grid of motions holds a few numbers an example.
        for norm in kind.norms if name != "grid" else ():
            held = held_by(short(kind), norm, examples=ATTACKED, batch=BATCH, shape=SHAPE)
            met = "yes" if held <= allowed else "NO"
            lines.append(f"| `{name}` | {norm} | {held:,.0f} | {held / allowed:.2f} | {met} |\n")
    return "\n" + "".join(lines)


def dry_runs_page() -> str:
    """The part of the page on what `--dry-run` says."""
    shape = " x ".join(map(str, SHAPE))
    lines = [ABOUT_DRY_RUNS.format(examples=ATTACKED, shape=shape, batch=BATCH, factor=FACTOR)]
    for name, (threat, setting) in DRY_RUNS.items():
        said, taken = said_and_taken(name, threat, setting)
        met = "yes" if 1 / FACTOR <= taken / said <= FACTOR else "NO"
        sizes = f"{said / 2**20:,.0f} | {taken / 2**20:,.0f} | {taken / said:.2f}"
        lines.append(f"| `{name}` | {threat} | {sizes} | {met} |\n")
    return "\n" + "".join(lines)


def said_and_taken(name: str, threat: str, setting: str) -> tuple[float, float]:
    """Return what `--dry-run` says that an evaluation takes, and what it takes, in bytes."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "net.py").write_text(NET)
        names: dict[str, Any] = {}
        exec(NET, names)
        images = (torch.rand((ATTACKED, *SHAPE), generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
        with torch.no_grad():
            labels = names["build"]()(images.float() / 255).argmax(1)
        np.savez(folder / "data.npz", images=images.numpy(), labels=labels.numpy())
        (folder / "battery.toml").write_text(
            f'schema = 1\nname = "short"\nversion = "1"\nabout = "One attack."\n[[attack]]\nuse = "{name}"\n{setting}\n'
        )
        command = [sys.executable, "-m", "robustframe", "evaluate", "--model", "file:net.py:build"]
        command += ["--data", "file:data.npz", "--threat", threat, "--battery", "battery.toml", "--no-diagnose"]
        command += ["--batch-size", str(BATCH)]
        said = subprocess.run([*command, "--dry-run", "--json"], cwd=folder, check=True, capture_output=True, text=True)
        # The largest of the children of a process of its own: of this one they are all that ever were.
        whole = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        whole += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        taken = subprocess.run(
            [sys.executable, "-c", whole, *command], cwd=folder, check=True, capture_output=True, text=True
        )
        return float(json.loads(said.stdout)["memory"]), 1024 * float(taken.stdout)


def short(kind: type[Attack]) -> Attack:
    """Make an attack that takes few steps."""
    return kind(**{each.name: FEW[each.name] for each in fields(kind) if each.name in FEW})  # type: ignore[arg-type]


def held_by(attack: Attack, norm: Norm, *, examples: int, batch: int, shape: tuple[int, ...]) -> float:
    """Return how many images an attack holds at most, beside what a gradient of one batch takes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((examples, *shape), generator=generator) * 0.5 + 0.25
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(model[1].weight.shape, generator=generator) / x[0].numel() ** 0.5)
        y = model(x).argmax(1)
    gradient = Allocated(x, y, *model.parameters())
    with gradient:
        leaf = x[:batch].clone().requires_grad_()
        torch.autograd.grad(model(leaf).sum(), leaf)
    own = gradient.most - leaf.nbytes
    held = Allocated(x, y, *model.parameters())
    threat = ThreatModel(norm=norm, eps=EPS[norm])
    with held:
        attack.run(model, x, y, threat, Draws(("memory",), examples), batch_size=batch, known_correct=True)
    return (held.most - own) / x[0].nbytes


class Allocated(TorchDispatchMode):
    """How many bytes tensors take that were made inside: now, and at most.

    Args:
        given: tensors that are not counted.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, object] = {}
        for tensor in given:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = storage

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._enter(tensor.untyped_storage())
        return found

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            self._known.pop(key, None)
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


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
