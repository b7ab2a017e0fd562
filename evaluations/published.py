"""What the published evaluations and the cards of their pairs say: the quantities that claims are about."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.runs import Run, open_run
from robustframe.statistics import Mean, PairedDifference, crossed_mean
from robustframe.zoo import Card, load

SEEDS, ARCHITECTURES = 3, 3
"""With fewer of either a claim gets no verdict."""


@cache
def card_of(name: str) -> Card:
    """The card of a zoo pair."""
    return load(name)[1]


@dataclass(frozen=True)
class Basis:
    """How many models a number rests on."""

    models: int
    architectures: int
    """Pairs that differ in more than their seed: in architecture or recipe."""
    seeds: int
    """Of the architecture that has the fewest."""

    @classmethod
    def of(cls, names: Sequence[str]) -> "Basis":
        """Count seeds and architectures of zoo pairs."""
        seeds = Counter(architecture(name) for name in names)
        return cls(len(names), len(seeds), min(seeds.values()))

    @property
    def enough(self) -> bool:
        """Whether a verdict may stand on it."""
        return self.architectures >= ARCHITECTURES and self.seeds >= SEEDS

    def __str__(self) -> str:
        if self.models == 1:
            return "one pair"
        each = "one seed each" if self.seeds == 1 else f"{self.seeds} seeds each or more"
        return f"{self.architectures} pairs, {each}" if self.seeds == 1 else f"{self.architectures} nets, {each}"


def architecture(name: str) -> str:
    """Name what pairs have in common that differ by their seed only."""
    return json.dumps(
        {key: value for key, value in card_of(name).recipe.items() if key not in ("name", "about", "licence", "seed")},
        sort_keys=True,
    )


def recipe_of(name: str) -> str:
    """Name how a pair was trained, whatever its architecture and seed."""
    recipe = card_of(name).recipe
    pair = {key: recipe["pair"].get(key) for key in ("sweeps", "pursuit")}
    return json.dumps([pair, recipe["schedule"], recipe.get("adversary")], sort_keys=True)


def arm_of(name: str) -> str:
    """Which twins a pair was trained for: ``"joint"``, ``"feedforward"`` or ``"recurrent"``."""
    # Both, before there was a choice.
    return str(card_of(name).recipe["schedule"].get("arm", "joint"))


@dataclass(frozen=True)
class Published:
    """An evaluation that was published."""

    name: str
    run: Run

    @classmethod
    def read(cls, folder: Path) -> "Published":
        """Read the results of an evaluation.

        Raises:
            InputError: when they are missing, incomplete or altered.
        """
        return cls(folder.parent.name, open_run(folder))

    @property
    def data(self) -> str:
        """The images, as a sentence names them."""
        return "Fashion-MNIST" if self.run.record.data.use == "fashion-mnist" else "the digits"

    @property
    def threats(self) -> list[str]:
        """The threats, in the order of the recipe."""
        return [threat.label for threat in self.run.threats]

    def models(self, chosen: Callable[[Card], bool]) -> list[str]:
        """The names of the zoo pairs whose card is chosen, in the order of the recipe."""
        names = dict.fromkeys(entry.model for entry in self.run.record.classifiers if entry.use == f"zoo:{entry.model}")
        return [name for name in names if chosen(card_of(name))]

    def column(self, classifier: str, column: str, threat: str | None = None) -> NDArray[np.float64]:
        """One number per example: ``"robust"`` (under a threat, or averaged over all) or ``"clean_correct"``."""
        threats = self.threats if threat is None else [threat]
        rows = [self.run.rows(classifier, each) for each in threats]
        if not len(rows[0]):
            raise InputError(f"the evaluation {self.name} has no classifier {classifier!r}")
        columns: NDArray[np.float64] = np.stack([each[column].to_numpy().astype(np.float64) for each in rows])
        return np.asarray(columns.mean(0), dtype=np.float64)

    def share(self, classifier: str, column: str) -> float:
        """The mean of a column over examples and threats."""
        return float(self.column(classifier, column).mean())

    def gain(self, models: Sequence[str], column: str, threat: str | None = None) -> Mean:
        """How much more the recurrent twins get right than the feed-forward ones, over architectures and examples."""
        pairs = [(f"{name}/feedforward", f"{name}/recurrent") for name in models]
        return self.between(pairs, column, threat, groups=[architecture(name) for name in models])

    def between(
        self,
        pairs: Sequence[tuple[str, str]],
        column: str = "robust",
        threat: str | None = None,
        *,
        groups: Sequence[str] | None = None,
    ) -> Mean:
        """How much more of a column the second classifiers have than the first."""
        single = threat or (self.threats[0] if column == "clean_correct" or len(self.threats) == 1 else None)
        if len(pairs) == 1 and single is not None:
            # The number that tables print for the same statistic.
            found = PairedDifference.of(*(self.run.rows(each, single)[column].to_numpy() for each in pairs[0]))
            return Mean(1, found.value, found.interval())
        rows = [self.column(second, column, threat) - self.column(first, column, threat) for first, second in pairs]
        return crossed_mean(np.stack(rows), groups=groups)


def test_error(evaluation: Published, name: str, twin: str) -> float:
    """Share of the evaluation's test images that a twin gets wrong."""
    return 1 - float(evaluation.column(f"{name}/{twin}", "clean_correct").mean())


def generalisation_gap(evaluation: Published, name: str, twin: str) -> float:
    """Test error less training error, the latter on the first training images, which the card states."""
    card = card_of(name)
    if card.training_accuracy is None:
        raise InputError(f"the card of {name} states no training accuracy; train it again")
    trained = card.training_accuracy.by_sweeps[str(1 if twin == "feedforward" else card.sweeps)]
    return trained - 1 + test_error(evaluation, name, twin)


ERRORS: dict[str, Callable[[Published, str, str], float]] = {
    "test error": test_error,
    "generalisation gap": generalisation_gap,
}
"""The quantities that a paper may mean by an error, those that can be computed from what is published."""


def least_potential(name: str) -> float:
    """The least deep frame potential of a pair's architecture."""
    least = card_of(name).least_potential
    if least is None:
        raise InputError(f"the card of {name} states no least potential; train it again")
    return least.value
