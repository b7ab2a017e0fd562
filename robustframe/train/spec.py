"""Training recipes: one training completely stated, or a grid of them in one file."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, RootModel, model_serializer, model_validator

from robustframe.errors import InputError, shown, unknown
from robustframe.frames import Structure
from robustframe.pairs import Pursuit, TrainingPlan
from robustframe.pairs.reframed import SWEEPS as REFRAMED
from robustframe.recipe import Normalise, Strict, read_toml
from robustframe.zoo import SWEEPS, ZOO

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class PairSpec(Strict):
    """The pair to train."""

    layers: list[dict[str, int]] = Field(min_length=1)
    """As `robustframe.frames.build_frame` takes them."""
    sweeps: int = Field(ge=2, le=SWEEPS)
    structure: Structure = "chain"
    pursuit: Pursuit = "deep"
    untied: bool = False
    """A control without sharing: a frame of its own in every sweep."""


class StartSpec(Strict):
    """A network that the pair begins as; see `robustframe.reframe`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)

    use: str = Field(alias="from")
    """A model as an evaluation names it, such as ``file:net.py:build``."""
    weights: str | None = None
    """Its checkpoint."""
    classes: int | None = Field(default=None, ge=2)
    channels: int | None = Field(default=None, ge=2)
    normalise: Normalise | None = None
    sweeps: int = Field(default=REFRAMED, ge=2, le=SWEEPS)
    """Sweeps of the recurrent twin."""


class AdversarySpec(Strict):
    """See `robustframe.pairs.Adversary`."""

    threat: str
    steps: int = 3
    step_size: float = 0.5


class DataUse(Strict):
    """What to train on; clean accuracies are measured on its test split."""

    use: str
    count: int | None = Field(default=None, ge=1)
    """Examples from the beginning of the training split; all when left out."""
    robust: list[str] = Field(default_factory=list)
    """Threats under which the card states robust accuracies, such as ``["linf:0.1"]``."""


class TrainingRecipe(Strict):
    """One training, completely stated."""

    format: int = Field(alias="schema", ge=1, le=1)
    name: str = Field(pattern=_NAME)
    about: str
    licence: str = "MIT"
    seed: int = Field(ge=0, lt=2**63)
    data: DataUse
    pair: PairSpec | None = None
    start: StartSpec | None = None
    """A trained network to begin with, in place of a pair."""
    schedule: TrainingPlan
    adversary: AdversarySpec | None = None

    @model_validator(mode="after")
    def _one_beginning(self) -> "TrainingRecipe":
        if (self.pair is None) == (self.start is None):
            raise ValueError("give either a [pair], which begins at random, or a [start] with a network to begin with")
        return self

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["TrainingRecipe"], dict[str, Any]]) -> dict[str, Any]:
        # A recipe says one of both, and cards state it as it is.
        return {key: value for key, value in write(self).items() if key not in ("pair", "start") or value is not None}


class ArmSpec(Strict):
    """How the pairs of a grid are trained: what a recipe says beside its pair and its seed."""

    about: str
    schedule: TrainingPlan
    adversary: AdversarySpec | None = None


class GridPart(Strict):
    """A part of a grid: every one of its pairs, by every one of its arms, from every one of its seeds."""

    pairs: list[str] = Field(min_length=1)
    arms: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)


class TrainingGrid(Strict):
    """Many trainings in one file."""

    format: int = Field(alias="schema", ge=1, le=1)
    name: str = Field(pattern=_NAME)
    """Of the data in the names of the pairs: ``fmnist`` in ``fmnist-chain3-16-joint``."""
    licence: str = "MIT"
    data: DataUse
    pairs: dict[str, PairSpec]
    arms: dict[str, ArmSpec]
    grid: list[GridPart] = Field(min_length=1)

    def recipes(self, where: str) -> Iterator[TrainingRecipe]:
        """Yield the recipes of the grid, in its order.

        Args:
            where: the file it stands in, for errors.

        Raises:
            InputError: for a pair or an arm that is not described, and for two trainings of one name.
        """
        names: set[str] = set()
        for cell in self.grid:
            for pair, arm, seed in product(cell.pairs, cell.arms, cell.seeds):
                if pair not in self.pairs:
                    raise unknown("pair", pair, self.pairs, where=f"{where}: grid")
                if arm not in self.arms:
                    raise unknown("arm", arm, self.arms, where=f"{where}: grid")
                recipe = self._recipe(pair, arm, seed)
                if recipe.name in names:
                    raise InputError(f"{where}: the grid has {recipe.name} twice; take it out of one of its parts")
                names.add(recipe.name)
                yield recipe

    def _recipe(self, pair: str, arm: str, seed: int) -> TrainingRecipe:
        how = self.arms[arm]
        return TrainingRecipe(
            schema=1,
            name=f"{self.name}-{pair}-{arm}{f'-s{seed}' if seed else ''}",
            about=f"{_described(self.pairs[pair])}, {how.about}",
            licence=self.licence,
            seed=seed,
            data=self.data,
            pair=self.pairs[pair],
            schedule=how.schedule,
            adversary=how.adversary,
        )


def _described(pair: PairSpec) -> str:
    count = len(pair.layers)
    layers = f"{count} {'fully connected' if 'atoms' in pair.layers[0] else 'convolutional'} layer{'s' * (count > 1)}"
    return f"{layers[0].upper()}{layers[1:]}" + ("" if pair.structure == "chain" else f", {pair.structure}")


class _Table(RootModel[dict[str, Any]]):
    """Any TOML file, to see what it is."""


def read_training_recipes(path: Path) -> list[TrainingRecipe]:
    """Read the recipes of a file: one, or those of its grid.

    Raises:
        InputError: of one line per mistake, with file and key.
    """
    if "grid" in read_toml(path, _Table).root:
        return list(read_toml(path, TrainingGrid).recipes(str(path)))
    return [read_toml(path, TrainingRecipe)]


@cache
def training_recipes(*, own_data: bool = True) -> Mapping[str, TrainingRecipe]:
    """Return the training recipes of the zoo by name.

    Args:
        own_data: those in ``own-data/`` too, of which no pair ships.

    Raises:
        InputError: when two files have a recipe of one name.
    """
    found: dict[str, TrainingRecipe] = {}
    folder = ZOO.parent / "recipes"
    for path in sorted(folder.rglob("*.toml") if own_data else folder.glob("*.toml")):
        for recipe in read_training_recipes(path):
            if recipe.name in found:
                raise InputError(f"{path}: another file has the training recipe {recipe.name} too")
            found[recipe.name] = recipe
    return found


def folder_of(given: str) -> Path:
    """Return the folder that paths in a training recipe, given as `find_training_recipe` takes it, are relative to."""
    place, _, name = given.partition(".toml:")
    return Path(f"{place}.toml" if name else given).parent


def find_training_recipe(given: str) -> TrainingRecipe:
    """Return a training recipe given as a file, as ``FILE.toml:NAME`` of a grid, or as the name of a zoo pair.

    Raises:
        InputError: when there is none, with the nearest name; for the file of a grid without a name.
    """
    place, _, name = given.partition(".toml:")
    path = Path(f"{place}.toml" if name else given)
    # Unlike the methods of a path, these take a name of any length.
    if path.suffix == ".toml" or os.path.isfile(path):
        if not os.path.isfile(path):
            raise InputError(f"there is no training recipe {shown(str(path))}")
        recipes = {recipe.name: recipe for recipe in read_training_recipes(path)}
        if not name and len(recipes) > 1:
            first = next(iter(recipes))
            raise InputError(f"{path} is a grid of {len(recipes)} trainings; name one, such as {path}:{first}")
        if name and name not in recipes:
            raise unknown("training recipe", name, recipes, where=str(path))
        return recipes[name] if name else next(iter(recipes.values()))
    known = training_recipes()
    if given not in known:
        raise unknown("training recipe", given, known)
    return known[given]
