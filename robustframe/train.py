"""From a training recipe to a pair with its card: what `robustframe train` does."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from robustframe.calls import borrowed, call_in_batches
from robustframe.data import Dataset, load
from robustframe.errors import InputError, shown, unknown
from robustframe.frames import (
    Frame,
    Structure,
    build_frame,
    closed_form_minimum,
    deep_frame_potential,
    minimum_potential,
    mutual_coherence,
)
from robustframe.pairs import (
    Adversary,
    Epoch,
    Pair,
    Precision,
    Pursuit,
    TrainedFor,
    TrainingPlan,
    TrainingProgress,
    Twin,
    Untied,
    train_pair,
)
from robustframe.recipe import Strict, read_toml
from robustframe.solvers import check_step_sizes
from robustframe.threat import ThreatModel
from robustframe.zoo import SWEEPS, ZOO, Accuracy, Card, LearningCurve, LeastPotential, TrainingData, load_named, save


class PairSpec(Strict):
    """The pair to train."""

    layers: list[dict[str, int]] = Field(min_length=1)
    """As `robustframe.frames.build_frame` takes them."""
    sweeps: int = Field(ge=2, le=SWEEPS)
    structure: Structure = "chain"
    pursuit: Pursuit = "deep"
    untied: bool = False
    """A control without sharing: a frame of its own in every sweep."""


class ScheduleSpec(Strict):
    """See `robustframe.pairs.TrainingPlan`."""

    epochs: int
    batch: int = 256
    learning_rate: float = 2e-3
    coherence: float = 0.0
    flip: bool = False
    trained_for: TrainedFor = "joint"
    rescale: bool = False
    precision: Precision = "float32"


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


class TrainingRecipe(Strict):
    """One training, completely stated."""

    format: int = Field(alias="schema", ge=1, le=1)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str
    licence: str = "MIT"
    seed: int = Field(ge=0, lt=2**63)
    data: DataUse
    pair: PairSpec
    schedule: ScheduleSpec
    adversary: AdversarySpec | None = None


def training_recipes() -> dict[str, Path]:
    """Return the training recipes of the zoo by name; those in ``own-data/`` are for data that does not ship."""
    return {path.stem: path for path in sorted((ZOO.parent / "recipes").rglob("*.toml"))}


def find_training_recipe(given: str) -> Path:
    """Return the file of a training recipe given as a path or as the name of a zoo pair.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    path = Path(given)
    # Unlike the methods of a path, these take a name of any length.
    if path.suffix == ".toml" or os.path.isfile(path):
        if not os.path.isfile(path):
            raise InputError(f"there is no training recipe {shown(given)}")
        return path
    known = training_recipes()
    if given not in known:
        raise unknown("training recipe", given, known)
    return known[given]


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
    data = load(recipe.data.use, "train", data_root=data_root, download=download)
    if recipe.data.count is not None:
        data = data.first(recipe.data.count)
    test = load(recipe.data.use, "test", data_root=data_root, download=download)
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
        TrainingPlan(seed=recipe.seed, **recipe.schedule.model_dump()),
        adversary=adversary,
        checkpoint=folder / f"{recipe.name}.checkpoint",
        report=report,
    )
    return save(pair, folder, _card(recipe, pair, (data, test), curve, device))


def read_training_recipe(path: Path) -> TrainingRecipe:
    """Read a training recipe from its file."""
    return read_toml(path, TrainingRecipe)


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


def clean_accuracy(model: nn.Module, data: Dataset, *, batch_size: int = 500) -> float:
    """Return the accuracy of a classifier on clean images, in [0, 1]."""
    device = next(model.parameters()).device
    with borrowed(model) as classifier, torch.no_grad():
        logits = call_in_batches(classifier, data.images.to(device), batch_size)
    return float((logits.argmax(1).cpu() == data.labels).float().mean())


def classifiers(pair: Pair | Untied) -> dict[str, nn.Module]:
    """Return what a card states accuracies of, by its number of sweeps: an untied net has one number of them."""
    if isinstance(pair, Untied):
        return {str(pair.sweeps): pair}
    return {str(sweeps): Twin(pair, sweeps) for sweeps in sorted({1, 2, pair.sweeps, 2 * pair.sweeps})}


_KNOWN_BY = 10_000
"""Training images, from the beginning, on which a card states accuracies: enough for the generalisation error."""


def _card(
    recipe: TrainingRecipe, pair: Pair | Untied, data: tuple[Dataset, Dataset], curve: list[Epoch], device: torch.device
) -> Card:
    train, test = data
    known = train.first(min(_KNOWN_BY, len(train)))

    def accuracy(on: Dataset) -> Accuracy:
        by_sweeps = {n: round(clean_accuracy(model, on), 6) for n, model in classifiers(pair).items()}
        return Accuracy(use=on.name, split=on.split, count=len(on), by_sweeps=by_sweeps)

    content: dict[str, Any] = recipe.model_dump(by_alias=True, exclude_none=True)
    frame = pair.frames[0]
    return Card(
        name=recipe.name,
        about=recipe.about,
        licence=recipe.licence,
        structure=recipe.pair.structure,
        in_shape=list(frame.in_shape),
        layers=recipe.pair.layers,
        classes=pair.head.out_features,
        sweeps=pair.sweeps,
        pursuit=recipe.pair.pursuit,
        untied=recipe.pair.untied,
        parameters=sum(parameter.numel() for parameter in pair.parameters()),
        mutual_coherence=round(max(mutual_coherence(frame) for frame in pair.frames), 6),
        potential=round(max(_potential(frame) for frame in pair.frames), 8),
        least_potential=_least_potential(frame),
        clean_accuracy=accuracy(test),
        training_accuracy=accuracy(known),
        trained_on=TrainingData(use=train.name, split=train.split, count=len(train), sha256=train.sha256),
        learning_curve=LearningCurve(
            loss=[round(epoch.loss, 5) for epoch in curve],
            accuracy=[round(epoch.accuracy, 5) for epoch in curve],
            seconds=[round(epoch.seconds, 1) for epoch in curve],
        ),
        recipe=content,
        seed=recipe.seed,
        made_with={
            "robustframe": version("robustframe"),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "threads": str(torch.get_num_threads()),
        },
        weights=f"{recipe.name}.safetensors",
        sha256="",
    )


_SMALL = 250_000
"""Parameters of a frame up to which its least potential is optimised: seconds there, hours for a ResNet."""


def _least_potential(frame: Frame) -> LeastPotential | None:
    if closed_form_minimum(frame) is None and sum(each.numel() for each in frame.parameters()) > _SMALL:
        return None
    found = minimum_potential(frame, restarts=1, steps=300, tolerance=1e-3)
    return LeastPotential(
        value=round(found.value**0.5, 8), method=found.method, gradient=float(f"{found.gradient:.2g}")
    )


def _potential(frame: Frame) -> float:
    return float(deep_frame_potential(frame).detach().sqrt())


def check_pair(name: str, *, count: int = 1000, download: bool = False) -> str:
    """Load a pair and measure its clean accuracies anew.

    Args:
        name: name of a shipped pair, or what `robustframe.zoo.load_named` takes.
        count: test images to classify, from the beginning of the split its card names.
        download: whether a pair of the hub may be fetched.

    Returns:
        A line with the accuracies of both twins.

    Raises:
        InputError: when its files are damaged, its step sizes do not converge, or an accuracy differs from the card's
            by more than the number of images can explain (4 standard errors).
    """
    pair, card = load_named(name if ":" in name else f"zoo:{name}", download=download)
    for frame in pair.frames:
        check_step_sizes(frame)
    stated = card.clean_accuracy
    data = load(stated.use, stated.split)
    data = data.first(min(count, len(data)))
    found = []
    for sweeps, model in classifiers(pair).items():
        if sweeps not in ("1", str(card.sweeps)):
            continue
        if sweeps not in stated.by_sweeps:
            raise InputError(f"its card says nothing of the clean accuracy at {sweeps} sweeps")
        expected = stated.by_sweeps[sweeps]
        value = clean_accuracy(model, data)
        allowed = 4 * (expected * (1 - expected) / len(data)) ** 0.5 + 1 / len(data)
        if abs(value - expected) > allowed:
            raise InputError(
                f"{100 * value:.1f} % of {len(data)} images at {sweeps} sweeps; the card says {100 * expected:.1f} %"
            )
        found.append(f"{100 * value:.1f} % at {sweeps} sweep{'' if sweeps == '1' else 's'}")
    return f"{', '.join(found)} on {len(data)} images"
