"""Studies: a grid is trained, measured and continued, statistics find what was put in, what is committed is current."""

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from findings import STUDIES, study_claims
from pictures import PICTURES
from readme import fill
from studied import basis_of, by_architecture, read_study, response, slopes
from study import BATTERY, GRID, RESULTS, Net, Results, grid_hash, main, read, run_study

import robustframe
from robustframe.errors import InputError
from robustframe.report.figures import svg
from robustframe.train import TrainingRecipe, read_training_recipes

ROOT = Path(robustframe.__file__).parents[1]

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
    grid = tmp_path / "tiny" / GRID
    grid.parent.mkdir()
    grid.write_text(_TINY)
    main(["tiny"])
    results = read(tmp_path / "tiny" / RESULTS, Results)
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


def _made_up(root: Path, name: str, net: Callable[[TrainingRecipe], Net]) -> Path:
    """Results of the grid of a study, of nets that nobody trained."""
    folder = root / name
    (folder / "results").mkdir(parents=True)
    shutil.copy(ROOT / "evaluations" / name / GRID, folder)
    recipes = read_training_recipes(folder / GRID)
    results = Results(grid=grid_hash(recipes), battery=BATTERY, made_with={}, nets=[net(each) for each in recipes])
    (folder / RESULTS).write_text(results.model_dump_json())
    return folder


def _responding(recipe: TrainingRecipe, *, residual: float = 0.02) -> Net:
    """Two points more robust for each step of the dose, which lowers the coherence; seeds differ by a point."""
    assert recipe.pair is not None
    step = [0.0, 0.004, 0.02, 0.1, 0.5].index(recipe.schedule.coherence)
    gain = residual if recipe.pair.structure == "residual" else 0.02
    robust = 0.5 + gain * step + 0.01 * recipe.seed
    return Net(
        name=recipe.name, parameters=1000, mutual_coherence=0.7 - 0.1 * step, potential=0.2 - 0.01 * step,
        least_potential=None, training_accuracy={"feedforward": 1.0, "recurrent": 1.0},
        test_accuracy={"feedforward": 0.97, "recurrent": 0.975 - 0.001 * recipe.seed},
        robust_accuracy={t: {"feedforward": robust, "recurrent": 0.5} for t in recipe.data.robust},
        doubted=False, seconds=1.0,
    )  # fmt: skip


def test_the_response_is_the_slope_that_was_put_in(tmp_path: Path) -> None:
    folder = _made_up(tmp_path, "doses", _responding)
    nets = read_study(folder)
    found = slopes(nets, lambda each: each.robust("feedforward"))
    assert {name: len(own) for name, own in found.items()} == {
        "chain 3 x 64": 3, "residual 3 x 64": 3, "dense 3 x 64": 3
    }  # fmt: skip
    assert response(found).value == pytest.approx(0.02)
    claims = {claim.text: claim for claim in study_claims(folder)}
    stronger = "A stronger coherence penalty makes nets more robust (dose and response, {} twins)"
    assert claims[stronger.format("feed-forward")].found == "**supported**"
    assert "robust +2.0 [+2.0, +2.0] points per step" in claims[stronger.format("feed-forward")].figures
    # Nothing happens to the other twin: a slope that is known to be 0 is no support.
    assert claims[stronger.format("recurrent")].found == "**not supported**"
    lower = "Nets of one architecture whose frames have a lower mutual coherence are more robust ({} twins)"
    assert claims[lower.format("feed-forward")].found == "**supported**"
    assert "says nothing" in claims[lower.format("recurrent")].figures


def test_a_response_of_other_signs_is_said(tmp_path: Path) -> None:
    folder = _made_up(tmp_path, "doses", lambda recipe: _responding(recipe, residual=-0.01))
    (claim,) = (each for each in study_claims(folder) if "feed-forward" in each.text and "dose" in each.text)
    assert claim.found == "**undecided**, and not of one sign in all architectures"
    assert "residual 3 x 64 -1.0 [-1.0, -1.0]" in claim.figures


def _untrained(recipe: TrainingRecipe) -> Net:
    """Nets of 8 layers of 128 atoms fail without the penalty; errors follow the parameters and nothing else."""
    assert recipe.pair is not None
    widths = [layer["atoms"] for layer in recipe.pair.layers]
    parameters = 64 * widths[0] + sum(a * b for a, b in itertools.pairwise(widths))
    fails = len(widths) == 8 and widths[0] == 128 and not recipe.schedule.potential
    accuracy = 0.2 if fails else 0.9 + 0.5e-6 * parameters
    return Net(
        name=recipe.name, parameters=parameters, mutual_coherence=0.5, potential=2 / widths[0] ** 0.5,
        least_potential=1 / widths[0] ** 0.5, training_accuracy={"feedforward": accuracy + 0.06},
        test_accuracy={"feedforward": accuracy}, robust_accuracy={}, doubted=False, seconds=1.0,
    )  # fmt: skip


def test_nets_that_fail_are_counted_and_parameters_are_a_control(tmp_path: Path) -> None:
    claims = study_claims(_made_up(tmp_path, "regularised", _untrained))
    assert "3 of 12 plainly, 0 of 12 with the penalty, 3 of 12 rescaled" in claims[0].figures
    # One architecture of four: Student's interval over them holds 0.
    assert claims[0].found == "**undecided**"
    (error,) = (each for each in claims if "test error" in each.text and "with the penalty" in each.text)
    assert error.found.startswith("**supported**")
    assert "which given parameters and depth cannot be told" in error.found
    (trained,) = (each for each in claims if "The potential of" in each.text and "with the penalty" in each.text)
    assert trained.figures.endswith("2.0 times the least (median)")


def test_results_of_another_grid_are_refused(tmp_path: Path) -> None:
    folder = _made_up(tmp_path, "doses", _responding)
    grid = folder / GRID
    grid.write_text(grid.read_text().replace("epochs = 30", "epochs = 31"))
    with pytest.raises(InputError, match="of another grid"):
        read_study(folder)
    with pytest.raises(InputError, match="no study 'nothing'"):
        study_claims(folder.parent / "nothing")


@pytest.mark.parametrize(("name", "net"), [("doses", _responding), ("regularised", _untrained)])
def test_every_study_is_drawn(tmp_path: Path, name: str, net: Callable[[TrainingRecipe], Net]) -> None:
    drawn = svg(PICTURES[name](_made_up(tmp_path, name, net) / "results"))
    assert {"doses": "residual 3 x 64", "regularised": "trained with the penalty"}[name] in drawn


@pytest.mark.parametrize("name", STUDIES)
def test_published_nets_are_those_of_the_grid(name: str) -> None:
    nets = read_study(ROOT / "evaluations" / name)
    for each in nets:
        assert each.net.name == each.recipe.name
        assert each.net.potential <= each.net.mutual_coherence + 1e-6
        assert list(each.net.robust_accuracy) == each.recipe.data.robust
        for shares in each.net.robust_accuracy.values():
            assert all(shares[twin] <= clean for twin, clean in each.net.test_accuracy.items())
    # Those of one architecture are of one size and one least potential.
    for own in by_architecture(nets).values():
        assert len({(each.net.parameters, each.net.least_potential) for each in own}) == 1
    # A verdict needs them.
    assert basis_of(nets).enough


@pytest.mark.parametrize("name", STUDIES)
def test_pages_show_what_was_published_of_a_study(name: str) -> None:
    for page in (ROOT / "docs" / "claims.md", ROOT / "evaluations" / name / "README.md"):
        text = page.read_text(encoding="utf-8")
        regions = re.findall(rf"<!-- (?:study|nets): {name} -->\n.*?<!-- end of \w+ -->", text, re.DOTALL)
        assert regions, page
        assert all(fill(region, ROOT, page=page) == region for region in regions), "stale: run `make tables`"
    picture = ROOT / "evaluations" / name / "results" / "picture.svg"
    assert picture.read_text(encoding="utf-8") == svg(PICTURES[name](picture.parent)), "stale: run `make tables`"
