"""The nets of a study as they were trained and measured, and the statistics that studies share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from published import Basis
from study import GRID, RESULTS, Net, Results, grid_hash, read

from robustframe.errors import InputError
from robustframe.statistics import Mean, least_squares, mean_of_few
from robustframe.train import TrainingRecipe, read_training_recipes
from robustframe.train.spec import PairSpec


@dataclass(frozen=True)
class Trained:
    """One net of a study: how it was trained, and what was measured of it."""

    recipe: TrainingRecipe
    net: Net

    @property
    def pair(self) -> PairSpec:
        """Its structure and layers."""
        if self.recipe.pair is None:
            raise InputError(f"{self.recipe.name} begins from a network; a study is of pairs")
        return self.recipe.pair

    @property
    def architecture(self) -> str:
        """Such as ``chain 3 x 64``, three layers of 64 atoms."""
        atoms = [layer["atoms"] for layer in self.pair.layers]
        layers = f"{len(atoms)} x {atoms[0]}" if len(set(atoms)) == 1 else "-".join(map(str, atoms))
        return f"{self.pair.structure} {layers}"

    @property
    def way(self) -> str:
        """How it was trained."""
        schedule = self.recipe.schedule
        return "with the penalty" if schedule.potential else "rescaled" if schedule.rescale else "plainly"

    @property
    def dose(self) -> float:
        """The weight of its coherence penalty."""
        return self.recipe.schedule.coherence

    def error(self, twin: str = "feedforward") -> float:
        """Its test error."""
        return 1 - self.net.test_accuracy[twin]

    def gap(self, twin: str = "feedforward") -> float:
        """Its generalisation gap."""
        return self.net.training_accuracy[twin] - self.net.test_accuracy[twin]

    def robust(self, twin: str, threats: Sequence[str] = ()) -> float:
        """Its robust accuracy, averaged over the threats: all of them without any given."""
        return float(
            np.mean([self.net.robust_accuracy[threat][twin] for threat in threats or self.net.robust_accuracy])
        )


Outcome = Callable[[Trained], float]


def read_study(folder: Path) -> list[Trained]:
    """Read what came of a study, with the recipe of each net.

    Args:
        folder: of the study, in ``evaluations/``.

    Raises:
        InputError: when the results are not there, or of another grid than the one beside them.
    """
    recipes, results = read_training_recipes(folder / GRID), read(folder / RESULTS, Results)
    if results.grid != grid_hash(recipes):
        raise InputError(f"{folder / RESULTS} is of another grid than {GRID} beside it: run `make studies`")
    return [Trained(recipe, net) for recipe, net in zip(recipes, results.nets, strict=True)]


def by_architecture(nets: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Put together what differs by no more than training and seed."""
    found: dict[str, list[Trained]] = {}
    for each in nets:
        found.setdefault(each.architecture, []).append(each)
    return found


def averaged(nets: Sequence[Trained], outcome: Outcome) -> list[float]:
    """The mean outcome of each architecture over its nets."""
    return [float(np.mean([outcome(each) for each in own])) for own in by_architecture(nets).values()]


def basis_of(nets: Sequence[Trained]) -> Basis:
    """Count nets, architectures and the seeds of the one that has the fewest."""
    seeds = {name: len({each.recipe.seed for each in own}) for name, own in by_architecture(nets).items()}
    return Basis(len(nets), len(seeds), min(seeds.values()))


def slopes(nets: Sequence[Trained], outcome: Outcome) -> dict[str, list[float]]:
    """Fit a line to an outcome over the steps of the dose, for each architecture and seed.

    Returns:
        By architecture the slope of each seed, in units of the outcome per step.
    """
    steps = {dose: step for step, dose in enumerate(sorted({each.dose for each in nets}))}
    found: dict[str, list[float]] = {}
    for name, own in by_architecture(nets).items():
        for seed in dict.fromkeys(each.recipe.seed for each in own):
            ladder = [each for each in own if each.recipe.seed == seed]
            line = least_squares([steps[each.dose] for each in ladder], [outcome(each) for each in ladder])
            if line is not None:
                found.setdefault(name, []).append(line.slope)
    return found


def response(found: Mapping[str, Sequence[float]]) -> Mean:
    """Enclose the mean slope over architectures; seeds are averaged first, so each architecture counts once."""
    return mean_of_few(np.array([np.mean(each) for each in found.values()]))
