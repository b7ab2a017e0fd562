"""From a training recipe to a pair with its card: what `robustframe train` does."""

from collections.abc import Callable
from pathlib import Path

import torch

from robustframe.data import Dataset, load
from robustframe.errors import InputError
from robustframe.frames import build_frame
from robustframe.pairs import Adversary, Epoch, Pair, TrainingProgress, Untied, train_pair
from robustframe.threat import ThreatModel
from robustframe.train.measure import make_card
from robustframe.train.spec import TrainingRecipe
from robustframe.zoo import save


def train(
    recipe: TrainingRecipe,
    folder: Path,
    *,
    device: torch.device,
    data_root: Path | None = None,
    download: bool = False,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Path:
    """Train a pair, or continue its training; write weights and card.

    Args:
        recipe: the training.
        folder: where checkpoint, weights and card go.
        device: where to train.
        data_root: where the data lies.
        download: allow the data to be downloaded.
        report: called after every batch.

    Returns:
        The path of the card; evaluate it as ``card:PATH``.

    Raises:
        InputError: for data that cannot be had or a pair that does not fit it.
        IntegrityError: for a checkpoint of another training.
    """
    # First, as hours of training are no time to find that it is not here.
    test = load(recipe.data.use, "test", data_root=data_root, download=download)
    pair, curve, data = train_only(recipe, folder, device=device, data_root=data_root, download=download, report=report)
    return save(pair, folder, make_card(recipe, pair, (data, test), curve))


def train_only(
    recipe: TrainingRecipe,
    folder: Path,
    *,
    device: torch.device,
    data_root: Path | None = None,
    download: bool = False,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> tuple[Pair | Untied, list[Epoch], Dataset]:
    """Train a pair, or continue its training, as far as its checkpoint; `train` makes a card of that, anywhere.

    Returns:
        The pair, its learning curve, and what it was trained on. Arguments and errors are those of `train`.
    """
    data = load(recipe.data.use, "train", data_root=data_root, download=download)
    if recipe.data.count is not None:
        data = data.first(recipe.data.count)
    pair = new_pair(recipe, data).to(device)
    spec = recipe.adversary
    adversary = (
        None
        if spec is None
        else Adversary(threat=ThreatModel.parse(spec.threat), steps=spec.steps, step_size=spec.step_size)
    )
    curve = train_pair(
        pair,
        data.images,
        data.labels,
        recipe.schedule,
        seed=recipe.seed,
        adversary=adversary,
        checkpoint=folder / f"{recipe.name}.checkpoint",
        report=report,
    )
    return pair, curve, data


def new_pair(recipe: TrainingRecipe, data: Dataset) -> Pair | Untied:
    """Build the untrained pair of a recipe, or its untied control; its weights come from the recipe's seed."""
    spec, classes = recipe.pair, int(data.labels.max()) + 1
    shape = tuple(data.images.shape[1:])
    if spec.untied and spec.pursuit != "deep":
        raise InputError("an untied net makes sweeps of deep pursuit; leave out pursuit or untied")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if spec.untied:
            frames = [build_frame(shape, spec.layers, spec.structure) for _ in range(spec.sweeps)]
            return Untied(frames, classes=classes)
        frame = build_frame(shape, spec.layers, spec.structure)
        return Pair(frame, classes=classes, sweeps=spec.sweeps, pursuit=spec.pursuit)
