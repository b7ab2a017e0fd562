"""Studies: many small nets of one grid, trained and measured one after the other, and the file that comes of them."""

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from robustframe import evaluate, silent
from robustframe.data import Dataset, load
from robustframe.devices import device_name
from robustframe.errors import InputError
from robustframe.frames import closed_form_minimum
from robustframe.frames.coherence import coherence
from robustframe.pairs import Pair
from robustframe.recipe import Strict
from robustframe.runs.record import write_aside
from robustframe.train import TrainingRecipe, clean_accuracy, read_training_recipes, train_only

GRID = "grid.toml"
RESULTS = "results/nets.json"
BATTERY = "swift@1"
Content = TypeVar("Content", bound=Strict)
_CPU = torch.device("cpu")


class Net(Strict):
    """What was measured of one net. Accuracies are in [0, 1], by twin: those that the net was trained for."""

    name: str
    parameters: int
    mutual_coherence: float
    potential: float
    """F of the trained weights: the root of the deep frame potential."""
    least_potential: float | None
    """F that the architecture could have; null where no formula gives it."""
    training_accuracy: dict[str, float]
    """On the images that it was trained on."""
    test_accuracy: dict[str, float]
    robust_accuracy: dict[str, dict[str, float]]
    """By threat, then by twin, on all test images."""
    doubted: bool
    """Whether a check doubts one of the robust accuracies or could not be finished."""
    seconds: float
    """Training and evaluation."""


class Results(Strict):
    """What came of a study."""

    grid: str
    """SHA-256 of the training recipes of its grid, as `grid_hash` gives it."""
    battery: str
    made_with: dict[str, str]
    nets: list[Net]
    """In the order of the grid."""


def grid_hash(recipes: Sequence[TrainingRecipe]) -> str:
    """Return the SHA-256 of everything that recipes state."""
    content = [recipe.model_dump(mode="json", by_alias=True) for recipe in recipes]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_study(grid: Path, folder: Path) -> Results:
    """Train and measure every net of a grid that has not been yet.

    Args:
        grid: a grid of training recipes; ``robust`` in its ``[data]`` names the threats.
        folder: where checkpoints, runs and the figures of each net go; a call that was stopped is continued from there.

    Returns:
        The figures of all nets.

    Raises:
        InputError: for a grid with mistakes.
    """
    recipes = read_training_recipes(grid)
    nets = []
    for at, recipe in enumerate(recipes, start=1):
        # A grid that grows or changes takes up those of its nets that stay as they were.
        own = folder / f"{recipe.name}-{grid_hash([recipe])[:8]}"
        place = own / "net.json"
        if place.is_file():
            nets.append(read(place, Net))
            continue
        nets.append(_measured(recipe, own))
        write_aside(place, nets[-1].model_dump_json().encode())
        print(f"{at} of {len(recipes)}: {recipe.name}, {nets[-1].seconds:.0f} s", flush=True)
    made_with = {
        "robustframe": version("robustframe"),
        "torch": torch.__version__,
        "device": device_name(_CPU),
        "threads": str(torch.get_num_threads()),
    }
    return Results(grid=grid_hash(recipes), battery=BATTERY, made_with=made_with, nets=nets)


def _measured(recipe: TrainingRecipe, folder: Path) -> Net:
    began = perf_counter()
    pair, _, train = train_only(recipe, folder, device=_CPU)
    if not isinstance(pair, Pair):
        raise InputError(f"{recipe.name} is an untied net, which has no twins; a study is of pairs")
    test = load(recipe.data.use, "test")
    arm = recipe.schedule.arm
    twins: dict[str, nn.Module] = {"feedforward": pair.feedforward, "recurrent": pair.recurrent}
    twins = {name: twin for name, twin in twins.items() if arm in ("joint", name)}
    facts, least = coherence(pair.frame), closed_form_minimum(pair.frame)
    robust, doubted = _robust(recipe, pair, list(twins), test, folder)
    net = Net(
        name=recipe.name,
        parameters=sum(parameter.numel() for parameter in pair.parameters()),
        mutual_coherence=round(facts.mutual, 6),
        potential=round(facts.deep_frame_potential**0.5, 6),
        least_potential=None if least is None else round(least**0.5, 6),
        training_accuracy={name: round(clean_accuracy(twin, train), 6) for name, twin in twins.items()},
        test_accuracy={name: round(clean_accuracy(twin, test), 6) for name, twin in twins.items()},
        robust_accuracy=robust,
        doubted=doubted,
        seconds=round(perf_counter() - began, 1),
    )
    (folder / f"{recipe.name}.checkpoint").unlink()
    return net


def _robust(
    recipe: TrainingRecipe, pair: Pair, twins: Sequence[str], test: Dataset, folder: Path
) -> tuple[dict[str, dict[str, float]], bool]:
    """Attack both twins of a pair under the threats of its recipe."""
    if not recipe.data.robust:
        return {}, False
    run = evaluate(
        pair,
        test,
        threat=recipe.data.robust,
        battery=BATTERY,
        name=recipe.name,
        chunk=len(test),
        out=folder / "run",
        report=silent,
    )
    found: dict[str, dict[str, float]] = {threat: {} for threat in recipe.data.robust}
    doubted = False
    for result in run.results:
        twin = result.classifier.rpartition("/")[2]
        if twin in twins:
            found[result.threat][twin] = result.robust_correct / result.examples
            doubted |= result.diagnosis is None or result.diagnosis.verdict != "sound"
    return found, doubted


def read(path: Path, kind: type[Content]) -> Content:
    """Read the figures of a net or of a whole study.

    Raises:
        InputError: when the file is not there or is none.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; `make studies` writes it")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is not a file of a study: {error.errors()[0]['msg']}; delete it") from error


def main(folders: Sequence[str]) -> None:
    """Run the studies of some folders of ``evaluations/``; each keeps its nets in ``runs/studies/NAME``."""
    torch.set_num_threads(1)
    for folder in map(Path, folders):
        results = run_study(folder / GRID, Path("runs") / "studies" / folder.name)
        (folder / RESULTS).parent.mkdir(exist_ok=True)
        write_aside(folder / RESULTS, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
