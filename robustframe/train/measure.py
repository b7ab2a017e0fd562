"""What a card states of a trained pair, and whether a shipped pair still is what its card states."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustframe.calls import borrowed, call_in_batches
from robustframe.data import Dataset, load
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.frames import (
    Frame,
    closed_form_minimum,
    deep_frame_potential,
    minimum_potential,
    mutual_coherence,
)
from robustframe.frames.branched import BranchedFrame
from robustframe.lending import kept
from robustframe.pairs import Epoch, Pair, ReframedPair, Twin, Untied
from robustframe.recipe import load_battery
from robustframe.recipe.stages import make_stages
from robustframe.solvers import check_step_sizes, optimality, solve
from robustframe.threat import ThreatModel
from robustframe.train.spec import TrainingRecipe
from robustframe.zoo import Accuracy, Card, LearningCurve, LeastPotential, TrainingData, load_named
from robustframe.zoo.card import LayerFacts, RobustAccuracy, Settling
from robustframe.zoo.store import described


def clean_accuracy(model: nn.Module, data: Dataset, *, batch_size: int = 500) -> float:
    """Return the accuracy of a classifier on clean images, in [0, 1]."""
    device = next(model.parameters()).device
    with borrowed(model) as classifier, torch.no_grad():
        logits = call_in_batches(classifier, data.images.to(device), batch_size)
    return float((logits.argmax(1).cpu() == data.labels).float().mean())


def classifiers(pair: Pair | Untied, sweeps: Sequence[int] = ()) -> dict[str, nn.Module]:
    """Return classifiers by their number of sweeps; without any given those that a card states clean accuracies of. An
    untied net has one number of them."""
    if isinstance(pair, Untied):
        return {str(pair.sweeps): pair}
    return {str(each): Twin(pair, each) for each in sorted(sweeps or {1, 2, pair.sweeps, 2 * pair.sweeps})}


_LOOKED_AT = 500
"""Test images on which a card states what takes many sweeps, and robust accuracies."""
_LONGEST = 128
"""Sweeps after which a card looks last."""


def settling(pair: Pair, data: Dataset) -> Settling:
    """Measure how accuracy and the optimality conditions go with the number of sweeps."""
    data = data.first(min(_LOOKED_AT, len(data)))
    found, device = {}, next(pair.parameters()).device
    for sweeps in sorted({1, pair.sweeps, 2 * pair.sweeps, 8 * pair.sweeps, _LONGEST}):
        worst, right = [], []
        for images, labels in zip(torch.split(data.images, 100), torch.split(data.labels, 100)):
            x = images.to(device)
            with torch.no_grad():
                codes = solve(pair.solver(sweeps), pair.frame, x).codes
                worst.append(optimality(pair.frame, x, codes).cpu())
                right.append((pair.classify(codes[-1]).argmax(1).cpu() == labels).float())
        found[str(sweeps)] = float(torch.cat(worst).median()), float(torch.cat(right).mean())
    return Settling(
        count=len(data),
        violation={sweeps: float(f"{each[0]:.3g}") for sweeps, each in found.items()},
        accuracy={sweeps: round(each[1], 4) for sweeps, each in found.items()},
    )


@torch.no_grad()
def layer_facts(pair: Pair, data: Dataset) -> list[LayerFacts]:
    """Measure thresholds, share of active codes and coherence of each layer."""
    x = data.images[:_LOOKED_AT].to(next(pair.parameters()).device)
    codes = solve(pair.solver(pair.sweeps), pair.frame, x).codes
    return [
        LayerFacts(
            threshold=float(f"{float(layer.threshold.median()):.3g}"),
            active=round(float((code > 0).float().mean()), 4),
            coherence=round(min(1.0, float(layer.operator.correlations().abs().max())), 4),
        )
        for layer, code in zip(pair.frame.blocks, codes)
    ]


def robust_accuracy(pair: Pair | Untied, data: Dataset, threat: ThreatModel, battery: str) -> RobustAccuracy:
    """Measure robust accuracies under a battery on the first test images, without keeping anything of it."""
    data = data.first(min(_LOOKED_AT, len(data)))
    device = next(pair.parameters()).device
    by_sweeps = {}
    for sweeps, model in classifiers(pair, sorted({1, pair.sweeps})).items():
        with borrowed(model), torch.no_grad():
            right = call_in_batches(model, data.images.to(device), 250).argmax(1).cpu() == data.labels
        alive = right.nonzero().flatten()
        for stage in make_stages([load_battery(battery)], Path()):
            if not len(alive) or not stage.runs_for(threat) or stage.why_not(model) is not None:
                continue
            draws = Draws((0, "card", stage.label), len(data), rows=alive, device=device)
            x, y = data.images[alive].to(device), data.labels[alive].to(device)
            found = stage.attack.run(model, x, y, threat, draws, known_correct=True)
            alive = alive[~found.success.cpu()]
        by_sweeps[sweeps] = round(len(alive) / len(data), 4)
    return RobustAccuracy(threat=threat.label, battery=battery, count=len(data), by_sweeps=by_sweeps)


_KNOWN_BY = 10_000
"""Training images, from the beginning, on which a card states accuracies: enough for the generalisation gap."""


@kept()
def make_card(recipe: TrainingRecipe, pair: Pair | Untied, data: tuple[Dataset, Dataset], curve: list[Epoch]) -> Card:
    train, test = data
    known = train.first(min(_KNOWN_BY, len(train)))

    def accuracy(on: Dataset) -> Accuracy:
        by_sweeps = {n: round(clean_accuracy(model, on), 6) for n, model in classifiers(pair).items()}
        return Accuracy(use=on.name, split=on.split, count=len(on), by_sweeps=by_sweeps)

    content: dict[str, Any] = recipe.model_dump(by_alias=True, exclude_none=True)
    frame = pair.frames[0]
    plain = [] if recipe.pair is None else recipe.pair.layers
    branched, head = described(pair) if isinstance(pair, ReframedPair) else (None, None)
    return Card(
        name=recipe.name,
        about=recipe.about,
        licence=recipe.licence,
        structure=frame.structure,
        in_shape=list(frame.in_shape),
        layers=branched or plain,
        head=head,
        classes=pair.head.out_features,
        sweeps=pair.sweeps,
        pursuit=pair.pursuit if isinstance(pair, Pair) else "deep",
        untied=isinstance(pair, Untied),
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
            validation=None
            if any(epoch.validation is None for epoch in curve)
            else [round(epoch.validation or 0.0, 5) for epoch in curve],
        ),
        settling=settling(pair, test) if isinstance(pair, Pair) else None,
        measured=layer_facts(pair, test) if isinstance(pair, Pair) else None,
        robust_accuracy=[
            robust_accuracy(pair, test, ThreatModel.parse(threat), "swift@1") for threat in recipe.data.robust
        ],
        recipe=content,
        seed=recipe.seed,
        made_with={
            "robustframe": version("robustframe"),
            "torch": torch.__version__,
            "device": ", ".join(dict.fromkeys(epoch.device for epoch in curve)),
            "threads": str(torch.get_num_threads()),
        },
        weights=f"{recipe.name}.safetensors",
        sha256="",
    )


_SMALL = 250_000
"""Parameters of a frame up to which its least potential is optimised: seconds there, hours for a ResNet."""


def _least_potential(frame: Frame) -> LeastPotential | None:
    if isinstance(frame, BranchedFrame):
        return None
    if closed_form_minimum(frame) is None and sum(each.numel() for each in frame.parameters()) > _SMALL:
        return None
    found = minimum_potential(frame, restarts=1, steps=300, tolerance=1e-3)
    return LeastPotential(
        value=round(found.value**0.5, 8),
        method="closed form" if found.method == "closed form" else "optimised",
        gradient=float(f"{found.gradient:.2g}"),
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
