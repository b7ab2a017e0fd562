"""Time, memory and size of a leaderboard site of 60 pairs on 10,000 examples; writes benchmarks/results/leaderboard.md.

The runs are made up, of the size and form of real ones: random verdicts that lie together as those of real models do,
every check, pairs with frames of their own, and the images of the first chunks, which are the only ones a site reads.
The site is built in a process of its own.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save

from robustframe.data import Dataset, load
from robustframe.diagnose.table import QUESTIONS
from robustframe.frames import build_frame, mutual_coherence
from robustframe.pairs import Pair
from robustframe.runs.manifest import bound_files, file_sha256, manifest
from robustframe.runs.record import EVIDENCE, VERDICTS, Record, write_aside, write_record
from robustframe.runs.units import RunFiles, parquet
from robustframe.zoo import Card
from robustframe.zoo import save as save_pair

RESULTS = Path(__file__).parent / "results" / "leaderboard.md"
MODELS, EXAMPLES, CHUNK, STORED = 60, 10_000, 250, 12
THREATS = ("linf:0.1",)
ATTACKS = ("apgd", "apgd-t", "square")
LIMITS = {"processor seconds": 15.0, "peak MB": 700.0, "site MB": 3.0, "seconds until the board is interactive": 1.0}


def make_pairs(folder: Path, models: int) -> list[tuple[str, Card]]:
    """Make pairs of random weights, of the zoo's size and in three structures; return how a recipe names them."""
    made = []
    for number in range(models):
        structure = ("chain", "residual", "dense")[number % 3]
        layers = [{"filters": 16, "kernel": 5, "stride": 2, "padding": 2}]
        layers += [{"filters": 16 if structure == "residual" else 32, "kernel": 3, "padding": 1}] * 2
        torch.manual_seed(number)
        frame = build_frame((1, 28, 28), layers, structure)
        adversary = {"threat": "linf:0.1", "steps": 3, "step_size": 0.5} if number % 2 else None
        pair = Pair(frame, classes=10, sweeps=4)
        card = Card(
            name=f"made-up-{structure}-{number:02d}", about="Random weights, for the benchmark of the site.",
            licence="MIT", structure=structure, in_shape=[1, 28, 28], layers=layers, classes=10, sweeps=4,
            parameters=sum(each.numel() for each in pair.parameters()),
            mutual_coherence=round(mutual_coherence(frame), 6),
            clean_accuracy={"use": "fashion-mnist", "split": "test", "count": 1, "by_sweeps": {"1": 0.9, "4": 0.9}},
            trained_on={"use": "fashion-mnist", "split": "train", "count": 1, "sha256": "0" * 64},
            recipe={"adversary": adversary} if adversary else {}, seed=number, made_with={}, weights="", sha256="",
        )  # fmt: skip
        path = save_pair(pair, folder, card)
        made.append((f"card:{path}", Card.model_validate_json(path.read_bytes())))
    return made


def make_run(folder: Path, data: Dataset, pairs: list[tuple[str, Card]], threats: tuple[str, ...]) -> Path:
    """Write a run of both twins of each pair, as an evaluation leaves it."""
    rng = np.random.default_rng(0)
    hardness = rng.random(len(data))
    classifiers, results, tables = [], [], []
    for use, card in pairs:
        skill = 0.2 + 0.6 * rng.random()
        for twin in ("feedforward", "recurrent"):
            name = f"{card.name}/{twin}"
            classifiers.append(
                {
                    "name": name, "model": card.name, "twin": twin, "use": use, "sha256": card.sha256,
                    "parameters": card.parameters, "sweeps": 1 if twin == "feedforward" else 4,
                    "mutual_coherence": card.mutual_coherence, "weights_sha256": None, "code": {}, "unread": [],
                }
            )  # fmt: skip
            clean = hardness + 0.1 * rng.standard_normal(len(data)) < 0.88
            for threat in threats:
                robust = clean & (hardness + 0.1 * rng.standard_normal(len(data)) < skill)
                table = _table(name, threat, data, clean, robust, rng)
                tables.append(table)
                results.append(_result(name, threat, table))
                files = RunFiles(folder, tuple(each["name"] for each in classifiers))
                _images(files, len(classifiers) - 1, threat, data, table)
    verdicts = write_aside(folder / VERDICTS, parquet(pl.concat(tables)))
    hashes = {name: file_sha256(folder / name) for name in bound_files(folder)}
    evidence = write_aside(folder / EVIDENCE, manifest(hashes))
    recipe = {
        "schema": 1, "name": folder.name, "about": "", "seed": 0, "chunk": CHUNK, "threats": list(threats),
        "battery": ["made-up@1"], "data": {"use": data.name, "split": data.split, "count": len(data)},
        "model": [{"use": use, "name": None, "twins": ["feedforward", "recurrent"]} for use, _ in pairs],
    }  # fmt: skip
    record = {
        "schema": 2, "status": "complete", "name": folder.name, "hash": verdicts,
        "recipe": recipe, "batteries": [{"schema": 1, "name": "made-up", "version": "1", "about": "",
        "attack": [{"use": attack} for attack in ATTACKS]}],
        "data": {"use": data.name, "split": data.split, "count": len(data), "sha256": data.sha256,
        "classes": list(data.classes)}, "classifiers": classifiers,
        "environment": {"robustframe": "0", "python": "3", "torch": "2", "torchattacks": None, "numpy": "2",
        "platform": "Linux", "device": "cpu (x86_64)", "threads": 1},
        "answers": {}, "results": results, "verdicts_sha256": verdicts, "evidence_sha256": evidence, "flags": [],
    }  # fmt: skip
    write_record(folder, Record.model_validate(record))
    return folder


def _table(
    name: str, threat: str, data: Dataset, clean: np.ndarray, robust: np.ndarray, rng: np.random.Generator
) -> pl.DataFrame:
    labels, broken = data.labels.numpy(), clean & ~robust
    by = rng.integers(len(ATTACKS), size=len(data))
    eps = float(threat.partition(":")[2])
    other = (labels + 1 + rng.integers(9, size=len(data))) % 10
    return pl.DataFrame(
        {
            "classifier": name, "threat": threat, "index": np.arange(len(data)), "label": labels,
            "clean_prediction": np.where(clean, labels, other), "clean_correct": clean, "robust": robust,
            "broken_by": [_label(at) if each else None for at, each in zip(by, broken)],
            "adversarial_prediction": [int(at) if each else None for at, each in zip(other, broken)],
            "distance": [eps * at if each else None for at, each in zip(rng.random(len(data)), broken)],
            "forwards": np.full(len(data), 200), "backwards": np.full(len(data), 100),
        },
        schema_overrides={"broken_by": pl.String, "adversarial_prediction": pl.Int64, "distance": pl.Float64},
    )  # fmt: skip


def _label(at: int) -> str:
    return f"made-up@1/{at + 1:02d}-{ATTACKS[at]}"


def _result(name: str, threat: str, table: pl.DataFrame) -> dict[str, Any]:
    right = int(table["clean_correct"].sum())
    attacks = []
    for at, use in enumerate(ATTACKS):
        broke = int((table["broken_by"] == _label(at)).sum())
        attacks.append(
            {
                "battery": "made-up@1", "position": at + 1, "use": use, "settings": {"steps": 100}, "entered": right,
                "broken": broke, "unverified": 0, "forwards": 100 * right, "backwards": 100 * right, "blind": 0,
                "nonfinite": 0, "name": None, "skipped": None,
            }
        )  # fmt: skip
    sentence = "0 of 64 survivors fall to one of 20 random images in the ball, which is as it should be."
    checks = [
        {"name": each.name, "figure": 0.0, "threshold": each.threshold, "passed": True, "examples": 64,
         "sentence": sentence, "broken": []}
        for each in QUESTIONS
    ]  # fmt: skip
    return {
        "classifier": name, "threat": threat, "examples": len(table), "clean_correct": right,
        "robust_correct": int(table["robust"].sum()), "certified_correct": 0, "attacks": attacks,
        "diagnosis": {"verdict": "sound", "examples": 64, "forwards": 1, "backwards": 1, "checks": checks},
    }  # fmt: skip


def _images(files: RunFiles, classifier: int, threat: str, data: Dataset, table: pl.DataFrame) -> None:
    """Store what broke the examples of the first chunks: the image with noise."""
    for chunk in range(STORED):
        rows = table.slice(chunk * CHUNK, CHUNK).filter(pl.col("broken_by").is_not_null())
        for (attack,), part in rows.group_by("broken_by"):
            index = torch.from_numpy(part["index"].to_numpy().copy())
            images = data.images[index]
            noise = (torch.rand_like(images) - 0.5).sign() * 0.1
            tensors = {"adversarial": (images + noise).clamp(0, 1), "index": index}
            write_aside(files.attack(classifier, threat, str(attack), chunk).images, save(tensors))


def measure(folder: Path, models: int) -> dict[str, float]:
    """Build the site by its command; return what it cost."""
    data = load("fashion-mnist").first(EXAMPLES)
    run = make_run_folder(folder)
    make_run(run, data, make_pairs(folder / "pairs", models), THREATS)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = peak_mb(f"build_site([{str(run)!r}], Path({str(folder / 'site')!r}))")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "processor seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak MB": peak,
        "site MB": sum(path.stat().st_size for path in _files(folder / "site")) / 1e6,
        "seconds until the board is interactive": interactive(folder / "site" / "index.html"),
    }


def interactive(page: Path) -> float:
    """Open a page in chromium; return the seconds until its scripts have run, the middle of five times."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        times = []
        for _ in range(5):
            shown = browser.new_page()
            shown.goto(page.as_uri())
            timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
            times.append(float(shown.evaluate(timing)) / 1000)
            shown.close()
        browser.close()
    return sorted(times)[2]


def peak_mb(does: str) -> float:
    """Return the most MB that a process of its own holds which imports what builds a site, and does something with it.

    The kernel's count of a finished child would begin with what its parent held.
    """
    code = f"from pathlib import Path; from robustframe.report.site import build_site; {does}"
    code += "; print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def make_run_folder(folder: Path) -> Path:
    """Make the folder of the run; return it."""
    run = folder / "made-up"
    run.mkdir()
    return run


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and write the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), MODELS)
    libraries = peak_mb("pass")
    lines = [
        "# The leaderboard site",
        "",
        f"`build_site` on a made-up run of {MODELS} pairs (both twins, one threat) with {EXAMPLES:,} examples,",
        "frames and adversarial images included. Processor time of the whole process, so that other work on the",
        f"machine does not count; one thread. {platform.machine()}, torch {torch.__version__}; made by `make bench`.",
        "",
        "| | measured | asked for | met |",
        "|---|--:|--:|---|",
        *(
            f"| {name} | {value:.2f} | {LIMITS[name]:g} | {'yes' if value <= LIMITS[name] else 'NO'} |"
            for name, value in found.items()
        ),
    ]
    lines += ["", f"Of the memory {libraries:.0f} MB are PyTorch and the other libraries, before anything is read."]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
