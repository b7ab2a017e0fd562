"""A recipe of two small models, one of which gets into the trouble that a file beside it names."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustframe.evaluation import evaluate_recipe
from robustframe.runs.run import Run

MODELS = '''
import os
import time
from pathlib import Path

import torch

from robustframe.data import load

HERE = Path(__file__).parent


class Centres(torch.nn.Module):
    """The nearest class mean, which is a linear classifier."""

    def __init__(self, count):
        super().__init__()
        data = load("digits").first(count)
        flat = data.images.flatten(1)
        means = torch.stack([flat[data.labels == each].mean(0) for each in range(10)])
        self.weight, self.bias = torch.nn.Parameter(means), torch.nn.Parameter(-means.square().sum(1) / 2)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.bias


class Troubled(Centres):
    calls = 0
    leaked = []

    def forward(self, images):
        Troubled.calls += 1
        kind = (HERE / "trouble").read_text() if (HERE / "trouble").exists() else ""
        # A process that is new after a death has made few calls when its first unit comes.
        if kind and self.calls > (4 if kind == "dies" else 25):
            return self.trouble(kind, images)
        return super().forward(images)

    def trouble(self, kind, images):
        answer = super().forward(images)
        if kind == "raises":
            raise ZeroDivisionError("a bug of the model's")
        if kind == "hangs":
            (HERE / "hanging").write_text(str(os.getpid()))
            while (HERE / "trouble").exists():
                time.sleep(0.01)
        if kind in ("leaks", "leaks fast"):
            # No tensor, as a check of what the model computes would rightly see it.
            self.leaked.append(b"x" * 2 ** (24 if kind == "leaks" else 28))
        if kind == "dies":
            os.kill(os.getpid(), 9)
        if kind == "dies once" and not (HERE / "died").exists():
            (HERE / "died").touch()
            os.kill(os.getpid(), 9)
        if kind == "nan" and self.calls % 7 == 0:
            answer = answer * torch.nan
        if kind == "memory" and len(images) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return answer


def good():
    return Centres(500)


def troubled():
    return Troubled(300)
'''
RECIPE = """
schema = 1
name = "faults"
about = "For the tests."
seed = 3
chunk = 20
threats = ["linf:0.1", "l2:0.5"]
battery = ["small.toml"]
diagnose = {diagnose}

[data]
use = "digits"
count = 60

[[model]]
use = "file:models.py:troubled"
name = "troubled"

[[model]]
use = "file:models.py:good"
name = "good"
"""
BATTERY = """
schema = 1
name = "small"
version = "0.1"

[[attack]]
use = "pgd"
steps = 5

[[attack]]
use = "square"
queries = 20
"""


def lay_out(folder: Path, *, diagnose: bool = False) -> Path:
    """Write recipe, battery and models into a folder; return the recipe."""
    folder.mkdir(exist_ok=True)
    (folder / "models.py").write_text(MODELS)
    (folder / "small.toml").write_text(BATTERY)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(diagnose=str(diagnose).lower()))
    return recipe


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run with the hash of its bytes; tables are made of these."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stem != "table"
    }


def evaluate(recipe: Path, out: str = "run", **settings: object) -> Run:
    """Evaluate in this process."""
    return evaluate_recipe(recipe, out=recipe.parent / out, device="cpu", **settings)  # type: ignore[arg-type]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "robustframe", "evaluate", "recipe.toml", *map(str, words)]


def environment() -> dict[str, str]:
    """One thread, as in the process of the tests, so that records are equal."""
    import torch

    root = str(Path(__file__).parents[2])
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": root}


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Evaluate by the command line."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=900
    )


@contextmanager
def started(*words: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start an evaluation by the command line; whatever is left of it is killed in the end."""
    with subprocess.Popen(
        command(*words), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Mount a file system of some size on a folder; say whether that is allowed here."""
    folder.mkdir()
    mount = shutil.which("mount")
    given = [mount or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if mount is None or subprocess.run(given, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
