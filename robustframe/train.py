"""From a training recipe to a pair with its card: what `robustframe train` does."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from robustframe.calls import borrowed, call_in_batches
from robustframe.data import Dataset, load
from robustframe.errors import InputError, unknown
from robustframe.frames import Structure, build_frame, mutual_coherence
from robustframe.pairs import Adversary, Pair, Progress, Schedule, Twin, train_pair
from robustframe.recipe import Strict, read_toml
from robustframe.solvers import check_step_sizes
from robustframe.threat import ThreatModel
from robustframe.zoo import ZOO, Accuracy, Card, TrainingData, load_named, save


class PairSpec(Strict):
    """The pair to train."""

    layers: list[dict[str, int]] = Field(min_length=1)
    """As `robustframe.frames.build_frame` takes them."""
    sweeps: int = Field(ge=2)
    structure: Structure = "chain"


class ScheduleSpec(Strict):
    """See `robustframe.pairs.Schedule`."""

    epochs: int
    batch: int = 256
    learning_rate: float = 2e-3
    coherence: float = 0.0
    flip: bool = False


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
    seed: int = Field(ge=0)
    data: DataUse
    pair: PairSpec
    schedule: ScheduleSpec
    adversary: AdversarySpec | None = None


def training_recipes() -> dict[str, Path]:
    """Return the training recipes of the zoo by name."""
    return {path.stem: path for path in sorted((ZOO.parent / "recipes").glob("*.toml"))}


def find_training_recipe(given: str) -> Path:
    """Return the file of a training recipe given as a path or as the name of a zoo pair.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    path = Path(given)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise InputError(f"there is no training recipe {given}")
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
    root: Path | None = None,
    download: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a pair, or continue its training; write weights and card.

    Args:
        recipe: the training.
        folder: where checkpoint, weights and card go.
        device: where to train.
        root: where the data lies.
        download: allow the data to be downloaded.
        report: called after every batch.

    Returns:
        The path of the card; evaluate it as ``card:PATH``.

    Raises:
        InputError: for data that cannot be had or a pair that does not fit it.
        IntegrityError: for a checkpoint of another training.
    """
    data = load(recipe.data.use, "train", root=root, download=download)
    if recipe.data.count is not None:
        data = data.first(recipe.data.count)
    test = load(recipe.data.use, "test", root=root, download=download)
    pair = new_pair(recipe, data).to(device)
    spec = recipe.adversary
    adversary = (
        None
        if spec is None
        else Adversary(threat=ThreatModel.parse(spec.threat), steps=spec.steps, step_size=spec.step_size)
    )
    train_pair(
        pair,
        data.images,
        data.labels,
        Schedule(seed=recipe.seed, **recipe.schedule.model_dump()),
        adversary=adversary,
        checkpoint=folder / f"{recipe.name}.checkpoint",
        report=report,
    )
    return save(pair, folder, _card(recipe, pair, data, test, device))


def read_training_recipe(path: Path) -> TrainingRecipe:
    """Read a training recipe from its file."""
    return read_toml(path, TrainingRecipe)


def new_pair(recipe: TrainingRecipe, data: Dataset) -> Pair:
    """Build the untrained pair of a recipe; its weights come from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        frame = build_frame(tuple(data.images.shape[1:]), recipe.pair.layers, recipe.pair.structure)
        return Pair(frame, classes=int(data.labels.max()) + 1, sweeps=recipe.pair.sweeps)


def clean_accuracy(pair: Pair, data: Dataset, sweeps: int, *, batch_size: int = 500) -> float:
    """Return the accuracy on clean images of a pair run for a number of sweeps, in [0, 1]."""
    device = next(pair.parameters()).device
    with borrowed(Twin(pair, sweeps)) as model, torch.no_grad():
        logits = call_in_batches(model, data.images.to(device), batch_size)
    return float((logits.argmax(1).cpu() == data.labels).float().mean())


def _card(recipe: TrainingRecipe, pair: Pair, data: Dataset, test: Dataset, device: torch.device) -> Card:
    by_sweeps = {str(n): round(clean_accuracy(pair, test, n), 6) for n in sorted({1, 2, pair.sweeps, 2 * pair.sweeps})}
    content: dict[str, Any] = recipe.model_dump(by_alias=True, exclude_none=True)
    return Card(
        name=recipe.name,
        about=recipe.about,
        licence=recipe.licence,
        structure=recipe.pair.structure,
        in_shape=list(pair.frame.in_shape),
        layers=recipe.pair.layers,
        classes=pair.head.out_features,
        sweeps=pair.sweeps,
        parameters=sum(parameter.numel() for parameter in pair.parameters()),
        mutual_coherence=round(mutual_coherence(pair.frame), 6),
        clean_accuracy=Accuracy(use=test.name, split=test.split, count=len(test), by_sweeps=by_sweeps),
        trained_on=TrainingData(use=data.name, split=data.split, count=len(data), sha256=data.sha256),
        recipe=content,
        seed=recipe.seed,
        made_with={
            "robustframe": version("robustframe"),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        },
        weights=f"{recipe.name}.safetensors",
        sha256="",
    )


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
    check_step_sizes(pair.frame)
    stated = card.clean_accuracy
    data = load(stated.use, stated.split)
    data = data.first(min(count, len(data)))
    found = []
    for sweeps in (1, card.sweeps):
        if str(sweeps) not in stated.by_sweeps:
            raise InputError(f"its card says nothing of the clean accuracy at {sweeps} sweeps")
        expected = stated.by_sweeps[str(sweeps)]
        value = clean_accuracy(pair, data, sweeps)
        allowed = 4 * (expected * (1 - expected) / len(data)) ** 0.5 + 1 / len(data)
        if abs(value - expected) > allowed:
            raise InputError(
                f"{100 * value:.1f} % of {len(data)} images at {sweeps} sweeps; the card says {100 * expected:.1f} %"
            )
        found.append(f"{100 * value:.1f} % at {sweeps} sweep{'s' if sweeps > 1 else ''}")
    return f"{', '.join(found)} on {len(data)} images"
