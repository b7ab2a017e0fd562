"""What a hostile file meets: one target a kind of file, each of which may only succeed or raise an `InputError`.

A case runs in a child process with a limit on its time and on its memory, in a folder of its own, and must leave
nothing beside it.
"""

import collections
import gzip
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import robustframe
from robustframe.children import Child, ChildEnded
from robustframe.cli.shared import plain
from robustframe.data import load as load_data
from robustframe.data.idx import parse_idx
from robustframe.data.own import from_file, from_folder
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.files import IDX_BYTES, gunzip
from robustframe.models.weights import load_weights
from robustframe.recipe import Recipe, load_battery, parse_threats, read_toml
from robustframe.recipe.stages import check_stages, make_stages
from robustframe.report.attack_text import attack_tables
from robustframe.report.cards import card_text, cards_table
from robustframe.report.curve_text import curves_text
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
from robustframe.runs import open_run
from robustframe.runs.manifest import read_manifest
from robustframe.runs.units import ATTACK_SCHEMA
from robustframe.runs.verdicts import read_table
from robustframe.train import TrainingRecipe, new_pair, read_training_recipes, train
from robustframe.verification.compare import compare_runs
from robustframe.verification.compare_text import render_comparison
from robustframe.zoo import load_card, read_card

SECONDS = 20
"""Processor time of one case; most take milliseconds. A case that sleeps gets thirty times as long, whatever else the
machine has to do."""
BYTES = 2**30
"""Memory that one case may map beside what the process has."""

PAIR: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "about": "For the tests.",
    "seed": 0,
    "data": {"use": "digits", "count": 600},
    "pair": {"layers": [{"atoms": 12}, {"atoms": 10}], "sweeps": 2},
    "schedule": {"epochs": 3, "batch": 64, "learning_rate": 0.02},
}
RECIPE: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "seed": 3,
    "chunk": 12,
    "threats": ["linf:0.3", "l2:1.5"],
    "battery": ["small.toml"],
    "diagnose": False,
    "data": {"use": "digits", "split": "test", "count": 12},
    "model": [{"use": "card:small.json"}],
}
BATTERY: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "version": "0.1",
    "attack": [{"use": "pgd", "steps": 1}, {"use": "apgd", "steps": 2, "loss": "margin", "norms": ["linf", "l2"]}],
}


class Failed(BaseException):
    """What no case may do; no handler of ordinary errors catches it."""


def make_valid(folder: Path) -> Path:
    """Write a pair, a recipe and its battery, and an honest run of them in ``run/``; return the folder."""
    train(TrainingRecipe.model_validate(PAIR), folder, device=torch.device("cpu"))
    (folder / "small.checkpoint").unlink()
    (folder / "small.toml").write_bytes(to_toml(BATTERY))
    (folder / "recipe.toml").write_bytes(to_toml(RECIPE))
    (folder / "training.toml").write_bytes(to_toml(PAIR))
    evaluate_recipe(folder / "recipe.toml", out=folder / "run", device="cpu")
    shutil.copytree(folder / "run", folder / "other")
    _make_own(folder)
    return folder


def to_toml(content: Any) -> bytes:
    """Write tables of plain values as TOML; every table inside another stands in braces."""
    return "".join(f"{_text(key)} = {_toml(value)}\n" for key, value in content.items()).encode(errors="surrogatepass")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value) if value >= 0 else f"-{abs(value) % 10**300}"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("null", '"null"')


def _text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


@contextmanager
def guarded(seconds: int = SECONDS) -> Iterator[None]:
    """Limit the time and the memory of a case. What does not listen to Python ends with its process."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Failed("it takes too long")

    kinds = (signal.SIGPROF, signal.SIGALRM)
    before = [signal.signal(kind, late) for kind in kinds]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    processor = resource.getrlimit(resource.RLIMIT_CPU)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(30 * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 2, processor[1]))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES, limits[1]))
    try:
        yield
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):
            raise Failed("it takes too much memory") from error
        sentence = str(error)
        if not sentence or "Error(" in sentence or len(sentence) > 20_000:
            raise Failed(f"this is no sentence: {sentence[:300]}") from error
        plain(sentence).encode()
    except MemoryError as error:
        raise Failed("it takes too much memory") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        resource.setrlimit(resource.RLIMIT_CPU, processor)


def _put(path: Path, content: bytes) -> None:
    # The files of a case are links to the valid ones.
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def card(place: Path, content: bytes) -> None:
    """A card beside weights that are what it says, if it says where they are."""
    _put(place / "small.json", content)
    read = read_card(place / "small.json")
    cards_table([read])
    card_text(read).encode()
    load_card(place / "small.json")


def weights(place: Path, content: bytes) -> None:
    """Weights whose hash the card has."""
    _put(place / "small.safetensors", content)
    read = json.loads((place / "small.json").read_text())
    read["sha256"] = hashlib.sha256(content).hexdigest()
    _put(place / "small.json", json.dumps(read).encode())
    load_card(place / "small.json")


def recipe(place: Path, content: bytes) -> None:
    """A recipe, as far as it is checked before its models and data are loaded."""
    _put(place / "recipe.toml", content)
    read = read_toml(place / "recipe.toml", Recipe)
    batteries = [load_battery(each, folder=place, where="recipe.toml: battery") for each in read.battery]
    check_stages(make_stages(batteries, place), parse_threats(read.threats, where="recipe.toml: threats"))
    if read.data.use == "digits":
        load_data(read.data.use, read.data.split).first(read.data.count or 1)


def battery(place: Path, content: bytes) -> None:
    """A battery with its attacks."""
    _put(place / "small.toml", content)
    make_stages([load_battery("small.toml", folder=place)], place)


def training(place: Path, content: bytes) -> None:
    """A training recipe, up to the pair that it would train."""
    _put(place / "training.toml", content)
    (read,) = read_training_recipes(place / "training.toml")
    new_pair(read, load_data("digits").first(10))


def record(place: Path, content: bytes) -> None:
    """A record of a run, shown, compared and verified."""
    _put(place / "run" / "record.json", content)
    _seal(place / "run")
    _shown(place / "run")
    _verified(place)


def verdicts(place: Path, content: bytes) -> None:
    """The verdicts of a run, whose hash the record has."""
    _put(place / "run" / "verdicts.parquet", content)
    read = json.loads((place / "run" / "record.json").read_text())
    read["verdicts_sha256"] = hashlib.sha256(content).hexdigest()
    _put(place / "run" / "record.json", json.dumps(read).encode())
    _seal(place / "run")
    _shown(place / "run")


def unit(place: Path, content: bytes) -> None:
    """A table of a unit, read by verify and by an evaluation that continues."""
    file = _unit(place, ".parquet")
    _put(file, content)
    read_table(file, ATTACK_SCHEMA)
    _verified(place)


def images(place: Path, content: bytes) -> None:
    """The stored images of a unit."""
    _put(_unit(place, ".safetensors"), content)
    _verified(place)


def manifest(place: Path, content: bytes) -> None:
    """The hashes of the files of a run."""
    _put(place / "run" / "evidence.sha256", content)
    read_manifest(place / "run")
    _verified(place)


def npz(place: Path, content: bytes) -> None:
    """Arrays of the user's."""
    _put(place / "data.npz", content)
    from_file(place / "data.npz", name="data")


def arrays(place: Path, content: bytes) -> None:
    """The same as safetensors."""
    _put(place / "data.safetensors", content)
    from_file(place / "data.safetensors", name="data")


def image(place: Path, content: bytes) -> None:
    """An image in the folder of its class, under every ending."""
    (place / "images" / "a").mkdir(parents=True)
    for ending in (".png", ".tif"):
        (place / "images" / "a" / f"0{ending}").write_bytes(content)
    from_folder(place / "images", name="images", resize=8, crop=4)


def idx(place: Path, content: bytes) -> None:
    """A packed file of MNIST's kind."""
    _put(place / "data.gz", content)
    parse_idx(gunzip(content, place / "data.gz", limit=IDX_BYTES), 3, where="data.gz")


def checkpoint(place: Path, content: bytes) -> None:
    """Weights of a model of the user's, as torch saves them."""
    _put(place / "weights.pth", content)
    load_weights(linear(), place / "weights.pth")


def tensors(place: Path, content: bytes) -> None:
    """The same as safetensors."""
    _put(place / "weights.safetensors", content)
    load_weights(linear(), place / "weights.safetensors")


def linear() -> torch.nn.Module:
    """The model of the user's."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 3))


def _make_own(folder: Path) -> None:
    """Write data and weights of a user's."""
    images, labels = np.random.default_rng(0).random((6, 1, 3, 3), "f4"), np.arange(6) % 3
    np.savez_compressed(folder / "data.npz", images=images, labels=labels)
    save_file({"images": torch.tensor(images), "labels": torch.tensor(labels)}, folder / "data.safetensors")
    shades = (images[0, 0] * 255).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    for ending in ("png", "tiff", "jpg", "webp", "bmp"):
        Image.fromarray(shades).save(folder / f"image.{ending}")
    head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (6, 3, 3))
    (folder / "data.gz").write_bytes(gzip.compress(head + (images * 255).astype(np.uint8).tobytes(), mtime=0))
    torch.manual_seed(0)
    torch.save(linear().state_dict(), folder / "weights.pth")
    save_file(linear().state_dict(), folder / "weights.safetensors")


def _seal(run: Path) -> None:
    """Seal the record as it stands, so that what is wrong with it is met by what reads it."""
    sha256 = hashlib.sha256((run / "record.json").read_bytes()).hexdigest()
    _put(run / "seal.sha256", f"{sha256}  record.json\n".encode())


def _unit(place: Path, kind: str) -> Path:
    return next(path.with_suffix(kind) for path in sorted((place / "run").glob("units/*/*/*/*.safetensors")))


def _shown(run: Path) -> None:
    """Everything that is shown of a run without its models."""
    failures = []
    for show in (_table, _curve, _ranked, _compared):
        try:
            show(run)
        except InputError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _table(run: Path) -> None:
    table = robustness_table(open_run(run))
    for format in ("terminal", "md", "tex", "csv"):
        render(table, format).encode()


def _ranked(run: Path) -> None:
    for table in attack_tables(open_run(run).rank_attacks()):
        render(table, "csv").encode()


def _curve(run: Path) -> None:
    curves_text(open_run(run).curves()).encode()


def _compared(run: Path) -> None:
    render_comparison(compare_runs(run.parent / "other", run, transfer=False), "md").encode()


def _verified(place: Path) -> None:
    found = robustframe.verify(place / "run", device="cpu", folder=place)
    json.dumps(found.to_json())
    str(found).encode()


TARGETS: dict[str, tuple[str, Callable[[Path, bytes], None]]] = {
    "card": ("small.json", card),
    "weights": ("small.safetensors", weights),
    "recipe": ("recipe.toml", recipe),
    "battery": ("small.toml", battery),
    "training": ("training.toml", training),
    "record": ("run/record.json", record),
    "verdicts": ("run/verdicts.parquet", verdicts),
    "unit": ("", unit),
    "images": ("", images),
    "manifest": ("run/evidence.sha256", manifest),
    "npz": ("data.npz", npz),
    "arrays": ("data.safetensors", arrays),
    **{f"image-{ending}": (f"image.{ending}", image) for ending in ("png", "tiff", "jpg", "webp", "bmp")},
    "idx": ("data.gz", idx),
    "checkpoint": ("weights.pth", checkpoint),
    "tensors": ("weights.safetensors", tensors),
}
"""Each kind of file: where a valid one lies in the folder of `make_valid`, and what reads it."""


def seed(valid: Path, target: str) -> bytes:
    """Return the valid file of a kind."""
    place = TARGETS[target][0]
    if place:
        return (valid / place).read_bytes()
    return _unit(valid, ".parquet" if target == "unit" else ".safetensors").read_bytes()


def lay_out(valid: Path, target: str, parent: Path) -> Path:
    """Make the folder of a case, with the runs only where they are read."""
    runs = target in ("record", "verdicts", "unit", "images", "manifest")
    place = shutil.copytree(
        valid, parent / "place", copy_function=os.link, ignore=None if runs else shutil.ignore_patterns("run", "other")
    )
    return Path(place)


def attempt(valid: Path, target: str, content: bytes) -> None:
    """Give a hostile file to everything that reads its kind.

    Raises:
        Failed: when it takes too long or too much memory, or leaves a file beside its folder.
        Exception: anything but an `InputError` that it raises.
    """
    with tempfile.TemporaryDirectory() as parent:
        place = lay_out(valid, target, Path(parent))
        with guarded():
            TARGETS[target][1](place, content)
        beside = [path.name for path in Path(parent).iterdir() if path.name != "place"]
        if beside:
            raise Failed(f"it left {beside}")


class Reader:
    """Tries cases, in a process of its own."""

    def __init__(self, valid: Path) -> None:
        self.valid = valid
        # A child leaves it to its parent, which cannot reckon how much of the processor it had.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGXCPU})

    def attempt(self, target: str, content: bytes) -> str:
        """Make an attempt; return what went wrong, or nothing."""
        try:
            attempt(self.valid, target, content)
        except BaseException:  # noqa: BLE001  the parent raises it
            return traceback.format_exc()
        return ""

    def spin(self, seconds: int) -> str:
        """Work outside of Python for ever."""
        with guarded(seconds):
            collections.deque(itertools.repeat(None), maxlen=0)
        return ""


class Readers:
    """A `Reader` in a child process, and another one when it ends.

    Args:
        valid: the folder of `make_valid`.
    """

    def __init__(self, valid: Path) -> None:
        self.valid = valid
        self._child: Child | None = None

    def call(self, method: str, *given: Any) -> None:
        """Call a method of the reader.

        Raises:
            Failed: for what went wrong, or when the process ends or does not answer.
        """
        if self._child is None:
            self._child = Child(Reader, self.valid)
        try:
            said = self._child.call(method, *given, seconds=40 * SECONDS)
        except (ChildEnded, TimeoutError) as error:
            self.close()
            raise Failed(f"its process {str(error) or 'does not answer'}") from error
        if said:
            raise Failed(said)

    def close(self) -> None:
        """Let the process go."""
        if self._child is not None:
            self._child.close()
            self._child = None
