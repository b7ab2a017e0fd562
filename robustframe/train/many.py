"""Many trainings side by side, each a process of its own with one thread and low priority, continued anywhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic

from safetensors import SafetensorError, safe_open

from robustframe.errors import InputError, IntegrityError
from robustframe.train.spec import TrainingRecipe
from robustframe.zoo import read_card

_NICE = 19
_OFTEN = 1.0
"""Seconds between looks at a training."""


@dataclass(frozen=True)
class Left:
    """How far a training is."""

    name: str
    epochs: int
    done: int
    """Epochs in its checkpoint; all of them when its card is there."""
    seconds: float
    """What these took."""
    card: bool


def _has_card(name: str, folder: Path) -> bool:
    try:
        return read_card(folder / f"{name}.json").name == name
    except IntegrityError:
        return False


def left(recipe: TrainingRecipe, folder: Path) -> Left:
    """Say how far the training of a recipe in a folder is."""
    epochs = recipe.schedule.epochs
    if _has_card(recipe.name, folder):
        return Left(recipe.name, epochs, epochs, 0.0, True)
    curve: list[dict[str, float]] = []
    checkpoint = folder / f"{recipe.name}.checkpoint"
    if checkpoint.is_file():
        try:
            with safe_open(checkpoint, "pt") as file:
                curve = json.loads((file.metadata() or {}).get("epochs", "[]"))
        except (SafetensorError, OSError):
            # Its training says what is wrong with it.
            curve = []
    return Left(recipe.name, epochs, len(curve), sum((epoch["seconds"] for epoch in curve), 0.0), False)


def train_many(
    recipes: Sequence[TrainingRecipe],
    folder: Path,
    *,
    jobs: int,
    seconds: float | None = None,
    device: str = "cpu",
    card: bool = True,
    report: Callable[[str, int], None] = lambda name, status: None,
) -> list[str]:
    """Train every recipe that has no card yet, so many at a time.

    Args:
        recipes: of the zoo, by name.
        folder: where checkpoints, logs, weights and cards go; a checkpoint goes when its card is there.
        jobs: processes at a time.
        seconds: after which no more is begun and what is under way stops, to be continued by the same call.
        device: where to train, ``"cpu"`` or ``"cuda"``.
        card: measure the cards; else the checkpoints are the end, and a later call goes on from them.
        report: called with name and exit status whenever one ends.

    Returns:
        The names of those that failed; what they said is in ``NAME.log``.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; checkpoints and cards go into a folder")
    folder.mkdir(parents=True, exist_ok=True)
    ends = None if seconds is None else monotonic() + seconds
    far = [left(recipe, folder) for recipe in recipes]
    waiting = [each.name for each in far if not each.card and (card or each.done < each.epochs)]
    options = ["--out", str(folder), "--device", device, "--card" if card else "--no-card"]
    failed, stop = [], Event()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_train, name, options, folder, ends, stop): name for name in waiting}
        try:
            for future in as_completed(running):
                status, name = future.result(), running[future]
                if status is None:
                    continue
                if status:
                    failed.append(name)
                report(name, status)
        finally:
            # Whatever comes: no process is left behind.
            stop.set()
    return failed


def _train(name: str, options: list[str], folder: Path, ends: float | None, stop: Event) -> int | None:
    """Train one in a process of its own; return its status, ``None`` when it was to stop."""

    def over() -> bool:
        return stop.is_set() or (ends is not None and monotonic() > ends)

    if over():
        return None
    command = [sys.executable, "-m", "robustframe", "train", name, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("a") as log:
        # In a session of its own: Linux shares the processor out among sessions first, and priorities hold inside one.
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        with suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(_NICE))
        try:
            while True:
                try:
                    status = process.wait(_OFTEN)
                    break
                except subprocess.TimeoutExpired:
                    if over():
                        return None
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if status == 0 and "--card" in options:
        (folder / f"{name}.checkpoint").unlink(missing_ok=True)
        (folder / f"{name}.log").unlink(missing_ok=True)
    return status
