"""Speed and strength of our attacks side by side with every peer: same model, same examples, same run.

    python benchmarks/attacks.py [--only ROW] [--examples N] [--repetitions N] [--device cuda] [--quick] [--out PAGE]

writes benchmarks/results/attacks.md and, beside it, what was measured as JSON after every repetition: a run that was
killed goes on from there when it is started again with the same settings; one that is complete is measured anew.
"""

import argparse
import gc
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import attacks_page
import peers
import torch
from attacks_page import Row, Target

import robustframe
from robustframe import data, zoo
from robustframe.calls import forked_random
from robustframe.devices import pick_device
from robustframe.runs.record import write_aside
from robustframe.threat import ThreatModel

PAGE = Path(__file__).parent / "results" / "attacks.md"
QUICK_PAGE = Path("runs") / "attacks-quick.md"
THREAT = "linf:0.1"
QUICK_EXAMPLES = 4


def _whole(name: str, pair: str, twin: str, examples: int, repetitions: int) -> Row:
    ours = {"standard@1": peers.battery("standard@1"), "swift@1": peers.battery("swift@1")}
    limit = 0.6 if twin == "feedforward" else 0.4
    targets = {"standard@1": Target(limit, "pyautoattack", as_strong=True), "swift@1": Target(0.1, "pyautoattack")}
    return Row(name, pair, twin, examples, repetitions, ours, [peers.STANDARD_PEER], targets)


def _one(
    name: str, pair: str, counts: tuple[int, int], ours: tuple[str, peers.Contestant], *against: peers.Peer,
    target: Target | None = None,
) -> Row:  # fmt: skip
    targets = {} if target is None else {ours[0]: target}
    return Row(name, pair, "feedforward", *counts, dict([ours]), against, targets)


TRAINED, NORMAL = "fmnist-chain3-linf", "fmnist-chain3"
APGD_CE, PGD = ("APGD-CE", peers.OUR_APGD_CE), ("PGD-40", peers.OUR_PGD)
ROWS = (
    _one("pgd-broken", NORMAL, (500, 3), PGD, *peers.PGD_PEERS, target=Target(0.8)),
    _one("pgd-robust", TRAINED, (500, 3), PGD, *peers.PGD_PEERS, target=Target(0.8)),
    _one("apgd-ce-broken", NORMAL, (500, 3), APGD_CE, *peers.APGD_PEERS, target=Target(0.3, "pyautoattack")),
    _one("apgd-ce-robust", TRAINED, (500, 3), APGD_CE, *peers.APGD_PEERS),
    _whole("standard-broken-feedforward", NORMAL, "feedforward", 250, 2),
    _whole("standard-broken-recurrent", NORMAL, "recurrent", 250, 2),
    _one("apgd-t", TRAINED, (128, 3), ("APGD-T", peers.OUR_APGD_T), peers.APGD_T_PEER),
    _one("fab-t", TRAINED, (128, 2), ("FAB-T", peers.OUR_FAB_T), peers.FAB_T_PEER),
    _one("square", TRAINED, (128, 2), ("Square", peers.OUR_SQUARE), peers.SQUARE_PEER),
    _whole("standard-robust-feedforward", TRAINED, "feedforward", 128, 2),
    _whole("standard-robust-recurrent", TRAINED, "recurrent", 32, 2),
)
"""The short ones first."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet and write the page."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    versions, missing = peers.load_peers()
    rows = [_fitted(row, options, versions) for row in ROWS]
    rows_asked = [row for row in rows if not options.only or row.name in options.only]
    state = _State(options.out.with_suffix(".json"), settings(device, versions, missing, options))
    if all(state.complete(row) for row in rows_asked):
        state.forget(rows_asked)
    for row in rows_asked:
        if not state.complete(row):
            measure(row, device, state, peers.LITTLE if options.quick else peers.FULL)
            found = {each.name: state.repetitions(each) for each in rows}
            write_aside(options.out, attacks_page.page(rows, state.settings, found).encode())
    print(options.out.read_text(encoding="utf-8"))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one of {', '.join(names)}")
    parser.add_argument("--examples", type=int, help="examples of every row; each has its own number by itself")
    parser.add_argument("--repetitions", type=int, help="repetitions of every row")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, auto")
    parser.add_argument("--threads", type=int, help="of torch; all there are by itself")
    parser.add_argument("--quick", action="store_true", help="a trial of this script: few examples, few steps")
    parser.add_argument("--out", type=Path, help=f"the page; {PAGE.name} in results, or {QUICK_PAGE} when quick")
    options = parser.parse_args(arguments)
    if options.out is None:
        options.out = QUICK_PAGE if options.quick else PAGE
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return options


def _fitted(row: Row, options: argparse.Namespace, versions: dict[str, str]) -> Row:
    """A row as it can be run here: the peers that import, the numbers that were asked for."""
    return replace(
        row,
        examples=options.examples or (QUICK_EXAMPLES if options.quick else row.examples),
        repetitions=options.repetitions or (1 if options.quick else row.repetitions),
        against=[peer for peer in row.against if peer.package in versions],
    )


def settings(
    device: torch.device, versions: dict[str, str], missing: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """What all stored measurements have in common."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "peers": versions,
        "missing": missing,
        "trial": bool(options.quick or options.examples or options.repetitions),
        "quick": options.quick,
        "threat": THREAT,
        "code": _code(),
    }


def _code() -> str:
    """A hash of everything whose change makes old measurements worthless."""
    package = Path(robustframe.__file__).parent
    files = [*package.rglob("*.py"), *(package.parent / "attacks").glob("*.toml"), Path(peers.__file__)]
    sha = hashlib.sha256()
    for file in sorted(files):
        sha.update(file.read_bytes())
    return sha.hexdigest()


class _State:
    """The measurements so far, kept in a file."""

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        self.path, self.settings = path, asked
        self.rows: dict[str, Any] = {}
        if path.is_file():
            stored = json.loads(path.read_bytes())
            changed = sorted(key for key in asked if stored["settings"].get(key) != asked[key])
            if changed:
                _say(f"{path} was made with other settings ({', '.join(changed)}): beginning anew")
            else:
                self.rows = stored["rows"]

    def complete(self, row: Row) -> bool:
        return len(self.repetitions(row)) == row.repetitions

    def repetitions(self, row: Row) -> list[dict[str, Any]]:
        """The finished repetitions of a row; none when they were asked for otherwise."""
        stored = self.rows.get(row.name)
        if stored is None or stored["asked"] != row.asked():
            return []
        found: list[dict[str, Any]] = stored["repetitions"]
        return found

    def add(self, row: Row, repetition: dict[str, Any]) -> None:
        self.rows[row.name] = {"asked": row.asked(), "repetitions": [*self.repetitions(row), repetition]}
        text = json.dumps({"settings": self.settings, "rows": self.rows}, indent=1)
        write_aside(self.path, (text + "\n").encode())

    def forget(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.rows.pop(row.name, None)


def measure(row: Row, device: torch.device, state: _State, effort: peers.Effort) -> None:
    """Run the repetitions of a row that are missing."""
    pair, _ = zoo.load(row.pair)
    pair = pair.to(device)
    model = (pair.feedforward if row.twin == "feedforward" else pair.recurrent).eval()
    examples = data.load("fashion-mnist", "test").first(row.examples)
    x, y = examples.images.to(device), examples.labels.to(device)
    whole = peers.Problem(model, x, y, ThreatModel.parse(THREAT), 0, effort)
    contestants = {**row.ours, **{peer.label: peer.run for peer in row.against}}
    for contestant in contestants.values() if effort == peers.FULL else ():
        # So that nobody's first measured run pays for what is made once.
        timed(contestant, replace(whole, x=x[:QUICK_EXAMPLES], y=y[:QUICK_EXAMPLES], effort=peers.LITTLE))
    for number in range(len(state.repetitions(row)), row.repetitions):
        problem, found = replace(whole, seed=number), {}
        # Everybody in turn, and every other time the other way round: a drift of the machine meets all alike.
        for label in list(contestants)[:: -1 if number % 2 else 1]:
            found[label] = timed(contestants[label], problem)
            _say(f"{row.name} {number + 1}/{row.repetitions} {label}: {found[label]['wall']:.2f} s")
        state.add(row, found)


def timed(contestant: peers.Contestant, problem: peers.Problem) -> dict[str, float | int]:
    """Wall and processor seconds of one run, and what its images are worth."""
    problem.model.eval()
    for parameter in problem.model.parameters():
        parameter.grad = None
    gc.collect()
    # Most peers draw from the global generators.
    with forked_random(problem.seed):
        _finish(problem.x)
        wall, processor = time.perf_counter(), time.process_time()
        adversarial = contestant(problem)
        _finish(problem.x)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    robust, outside = peers.count_robust(problem, adversarial)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    return {"wall": wall, "processor": processor, "robust": robust, "outside": outside, "load": load}


def _finish(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
