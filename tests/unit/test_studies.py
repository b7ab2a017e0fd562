"""Studies: a grid of nets is trained, measured and continued, and what is committed belongs to its grid."""

import shutil
from pathlib import Path

import pytest
from study import Net, Results, grid_hash, main, read, run_study

from robustframe.errors import InputError
from robustframe.train import read_training_recipes

_TINY = """
schema = 1
name = "tiny"

[data]
use = "digits"
count = 256
robust = ["linf:0.3"]

[pairs]
one = { layers = [{ atoms = 8 }], sweeps = 2 }

[arms.joint]
about = "trained jointly"
schedule = { epochs = 2, batch = 64 }

[arms.alone]
about = "trained alone"
schedule = { epochs = 2, batch = 64, arm = "feedforward" }

[[grid]]
pairs = ["one"]
arms = ["joint", "alone"]
"""


def test_a_study_trains_measures_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = tmp_path / "tiny.toml"
    grid.write_text(_TINY)
    main(["tiny.toml"])
    results = read(tmp_path / "tiny.json", Results)
    assert results.grid == grid_hash(read_training_recipes(grid))
    joint, alone = results.nets
    assert (joint.name, alone.name) == ("tiny-one-joint", "tiny-one-alone")
    assert joint.parameters == 8 * 64 + 8 + 8 * 10 + 10
    assert joint.least_potential == 0.0
    assert joint.potential <= joint.mutual_coherence
    # An arm is measured by what it was trained for.
    assert list(joint.test_accuracy) == ["feedforward", "recurrent"]
    assert list(alone.test_accuracy) == list(alone.robust_accuracy["linf:0.3"]) == ["feedforward"]
    assert joint.robust_accuracy["linf:0.3"]["recurrent"] <= joint.test_accuracy["recurrent"]
    assert capsys.readouterr().out.count(" of 2: ") == 2
    # The second net is lost: it alone is made anew, and comes out the same.
    folder = tmp_path / "runs" / "studies" / "tiny"
    (lost,) = folder.glob("tiny-one-alone-*")
    shutil.rmtree(lost)
    again = run_study(grid, folder)
    assert capsys.readouterr().out.startswith("2 of 2: tiny-one-alone")
    assert again.nets[0] == joint
    assert again.nets[1].model_dump(exclude={"seconds"}) == alone.model_dump(exclude={"seconds"})
    # A net that is trained otherwise is another one; those that stay as they were are taken up.
    grid.write_text(_TINY.replace("batch = 64, arm", "batch = 128, arm"))
    changed = run_study(grid, folder)
    assert changed.nets[0] == joint
    assert changed.nets[1].potential != alone.potential


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make studies"):
        read(tmp_path / "none.json", Net)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a file of a study"):
        read(tmp_path / "bad.json", Results)
