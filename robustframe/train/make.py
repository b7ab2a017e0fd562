"""From a training recipe to a pair with its card: what `robustframe train` does."""

from collections.abc import Callable
from pathlib import Path

import torch

from robustframe.data import Dataset, load
from robustframe.errors import InputError
from robustframe.frames import build_frame
from robustframe.models.sources import find_model
from robustframe.pairs import Adversary, Epoch, Pair, TrainingProgress, Untied, reframe, train_pair
from robustframe.recipe import ModelSpec
from robustframe.threat import ThreatModel
from robustframe.train.measure import make_card
from robustframe.train.spec import TrainingRecipe
from robustframe.zoo import save


def train(
    recipe: TrainingRecipe,
    folder: Path,
    *,
    device: torch.device,
    source: Path = Path(),
    data_root: Path | None = None,
    download: bool = False,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Path:
    """Train a pair, or continue its training; write weights and card.

    Args:
        recipe: the training.
        folder: where checkpoint, weights and card go.
        device: where to train.
        source: the folder that the paths of a network to start from are relative to.
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
    pair, curve, data = train_only(
        recipe, folder, device=device, source=source, data_root=data_root, download=download, report=report
    )
    return save(pair, folder, make_card(recipe, pair, (data, test), curve))


def train_only(
    recipe: TrainingRecipe,
    folder: Path,
    *,
    device: torch.device,
    source: Path = Path(),
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
    pair = new_pair(recipe, data, source).to(device)
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


def new_pair(recipe: TrainingRecipe, data: Dataset, folder: Path = Path()) -> Pair | Untied:
    """Build the pair of a recipe as it is before training, or its untied control.

    Weights come from the recipe's seed, or are those of the network that it starts from; ``folder`` is what the path
    of that is relative to.
    """
    spec, classes = recipe.pair, int(data.labels.max()) + 1
    shape = tuple(data.images.shape[1:])
    if spec is None:
        return _started(recipe, shape, classes, folder)
    if spec.untied and spec.pursuit != "deep":
        raise InputError("an untied net makes sweeps of deep pursuit; leave out pursuit or untied")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if spec.untied:
            frames = [build_frame(shape, spec.layers, spec.structure) for _ in range(spec.sweeps)]
            return Untied(frames, classes=classes)
        frame = build_frame(shape, spec.layers, spec.structure)
        return Pair(frame, classes=classes, sweeps=spec.sweeps, pursuit=spec.pursuit)


def _started(recipe: TrainingRecipe, shape: tuple[int, ...], classes: int, folder: Path) -> Pair:
    start = recipe.start
    if start is None:
        raise InputError(f"{recipe.name} has neither a pair nor a start")
    spec = ModelSpec(
        use=start.use, weights=start.weights, classes=start.classes, channels=start.channels, normalise=start.normalise
    )
    found = find_model(spec, folder=folder)
    if isinstance(found.module, Pair | Untied):
        raise InputError(f"{start.use} is a pair of the zoo already; [start] is for networks")
    pair = reframe(found.module.eval(), shape, sweeps=start.sweeps).pair
    if pair.head.out_features < classes:
        raise InputError(
            f"{start.use} has {pair.head.out_features} logits, but {recipe.data.use} has {classes} classes"
        )
    return pair
