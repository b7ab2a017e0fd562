"""Runs made up of verdicts, for tests of what is read off them: record and verdicts as an evaluation leaves them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from robustframe.data import Dataset
from robustframe.diagnose import Check, Diagnosis
from robustframe.runs.units import parquet

LABEL = 3
ATTACK = "quick@1/01-apgd"


def classifier(name: str, coherence: float | None = None) -> dict[str, Any]:
    model, _, twin = name.partition("/")
    return {
        "name": name, "model": model, "twin": twin or None, "use": f"zoo:{model}", "sha256": "0" * 64,
        "parameters": 10, "sweeps": None, "mutual_coherence": coherence, "weights_sha256": None,
        "code": {}, "unread": [],
    }  # fmt: skip


def make_run(
    folder: Path,
    verdicts: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]],
    *,
    coherence: Mapping[str, float] | None = None,
    data: str = "1" * 64,
) -> Path:
    """Write a run of given verdicts: (classifier, threat) to clean and robust, bool of shape (n,)."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(next(iter(verdicts.values()))[0])
    tables = [_table(name, threat, *each) for (name, threat), each in verdicts.items()]
    content = parquet(pl.concat(tables))
    (folder / "verdicts.parquet").write_bytes(content)
    names = list(dict.fromkeys(name for name, _ in verdicts))
    threats = list(dict.fromkeys(threat for _, threat in verdicts))
    record = {
        "schema": 2, "status": "complete", "name": folder.name, "hash": "ab" * 32,
        "recipe": {"threats": threats, "battery": ["quick@1"], "seed": 0, "chunk": 250}, "batteries": [BATTERY],
        "data": {"use": "digits", "split": "test", "count": count, "sha256": data, "classes": []},
        "classifiers": [classifier(name, (coherence or {}).get(name)) for name in names],
        "environment": ENVIRONMENT, "answers": {},
        "results": [_result(name, threat, *each) for (name, threat), each in verdicts.items()],
        "verdicts_sha256": hashlib.sha256(content).hexdigest(), "evidence_sha256": "0" * 64, "flags": [],
    }  # fmt: skip
    text = json.dumps(record)
    (folder / "record.json").write_text(text)
    (folder / "seal.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  record.json\n")
    return folder


def diagnose_row(folder: Path, *, passed: bool | None, decides: bool = True, row: int = 0) -> None:
    """Give a row of a made-up run one check with an answer, and the verdict that follows; seal it anew."""
    check = Check(
        name="some-check", figure=0.0, threshold=0.0, passed=passed, examples=1, sentence="Seen.", decides=decides
    )
    record = json.loads((folder / "record.json").read_text())
    said = Diagnosis.of([check], examples=1, forwards=1, backwards=0)
    record["results"][row]["diagnosis"] = json.loads(said.model_dump_json())
    text = json.dumps(record)
    (folder / "record.json").write_text(text)
    (folder / "seal.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  record.json\n")


ENVIRONMENT: dict[str, object] = {
    **dict.fromkeys(("robustframe", "python", "torch", "torchattacks", "numpy", "platform", "device"), ""),
    "threads": 1,
}
BATTERY = {"schema": 1, "name": "quick", "version": "1", "about": "", "attack": [{"use": "apgd"}]}


def _table(name: str, threat: str, clean: np.ndarray, robust: np.ndarray) -> pl.DataFrame:
    broken = clean & ~robust
    return pl.DataFrame(
        {
            "classifier": name,
            "threat": threat,
            "index": np.arange(len(clean)),
            "label": np.full(len(clean), LABEL),
            "clean_prediction": np.where(clean, LABEL, 0),
            "clean_correct": clean,
            "robust": robust,
            "broken_by": [ATTACK if each else None for each in broken],
            "adversarial_prediction": [1 if each else None for each in broken],
            "distance": [0.1 if each else None for each in broken],
            "forwards": np.full(len(clean), 2),
            "backwards": np.full(len(clean), 1),
        },
        schema_overrides={"broken_by": pl.String, "adversarial_prediction": pl.Int64, "distance": pl.Float64},
    )


def _result(name: str, threat: str, clean: np.ndarray, robust: np.ndarray) -> dict[str, Any]:
    attack = {
        "battery": "quick@1", "position": 1, "use": "apgd", "settings": {}, "entered": int(clean.sum()),
        "broken": int((clean & ~robust).sum()), "unverified": 0, "forwards": 1, "backwards": 1,
        "name": None, "skipped": None, "blind": 0, "nonfinite": 0,
    }  # fmt: skip
    return {
        "classifier": name, "threat": threat, "examples": len(clean), "clean_correct": int(clean.sum()),
        "robust_correct": int(robust.sum()), "attacks": [attack], "certified_correct": None, "diagnosis": None,
    }  # fmt: skip


def fitted(data: Dataset) -> nn.Module:
    """A linear classifier fitted to some digits, right on most of them."""
    net = nn.Sequential(nn.Flatten(), linear := nn.Linear(64, 10))
    flat, hot = data.images.flatten(1), torch.eye(10)[data.labels]
    with torch.no_grad():
        linear.weight.copy_(torch.linalg.solve(flat.T @ flat + torch.eye(64), flat.T @ hot).T)
        linear.bias.zero_()
    return net
