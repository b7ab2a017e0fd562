"""The page on extending shows a tracker; it is fed for real."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import robustframe

PAGE = Path(robustframe.__file__).parents[1] / "docs" / "extending.md"


def test_tensorboard_holds_what_the_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(
        r"```python\n(import torch, robustframe\nfrom torch.utils.tensorboard.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert code is not None
    names: dict[str, object] = {}
    exec(compile(code[1], "extending.md", "exec"), names)
    run = names["run"]
    assert isinstance(run, robustframe.Run)
    held = EventAccumulator("tracked").Reload()
    final = held.Scalars("final/model/linf:0.05")[0].value
    assert final == pytest.approx(run.results[0].robust_correct / 40)
    steps = [each.step for each in held.Scalars("robust/model/linf:0.05")]
    assert steps == sorted(set(steps))
    assert held.Scalars("robust/model/linf:0.05")[-1].value == pytest.approx(final)
