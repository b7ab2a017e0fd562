"""The report on one frame: what it is built of, how coherent it is, and how its solver converges."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustframe.data import Dataset
from robustframe.data import load as load_data
from robustframe.errors import InputError, unknown
from robustframe.frames import Conv, Dense, Frame, Layer, PooledConv, objective
from robustframe.frames.affine import Unread
from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branches import Branch, Branches
from robustframe.frames.coherence import (
    Coherence,
    babel,
    coherence,
    convolutional_bound,
    own_coherence,
    welch_bound,
)
from robustframe.frames.least import least_potential
from robustframe.frames.potential import MinimumPotential, closed_form_minimum, minimum_potential
from robustframe.models.sources import SOURCES, find_model
from robustframe.pairs import Pair, Reframed, reframe
from robustframe.plugins import find_plugin, plugins
from robustframe.recipe import ModelSpec, Normalise, typed
from robustframe.solvers import DeepPursuit, iterate
from robustframe.zoo import Card, load_named, names

_BABEL = 8
# Above this many parameters the Babel function takes longer than a report should.
_BABEL_PARAMETERS = 150_000


@dataclass(frozen=True)
class LayerReport:
    """One layer of a frame."""

    number: int
    name: str
    """What the network calls the layers that make it; empty for frames that were built as such."""
    operator: str
    reads: str
    code_shape: tuple[int, ...]
    parameters: int
    norm: float
    """Spectral norm of B_j, from the step size that the frame carries."""
    threshold: tuple[float, float, float]
    """Smallest, mean and largest."""
    step_size: float
    coherence: float
    """Largest inner product of two of the layer's own atoms, away from borders, or of one with its shifted copies."""
    bound: float | None
    """Smallest value that it can have for unit atoms of this shape (Welch, or convolutional); None where branches or
    groups leave no such bound."""


@dataclass(frozen=True)
class SweepReport:
    """The solver after one sweep, mean over the images."""

    sweep: int
    objective: float
    change: float | None
    """Largest relative change of a layer's code; None after the first sweep."""
    active: tuple[float, ...]
    """Share of codes that are not zero, by layer."""


@dataclass(frozen=True)
class FrameReport:
    """Everything `robustframe frame` says."""

    name: str
    about: str
    structure: str
    in_shape: tuple[int, ...]
    parameters: int
    """Of the frame: weights and thresholds, without a head."""
    layers: tuple[LayerReport, ...]
    coherence: Coherence
    babel: tuple[float, ...] | None
    """mu_1(1..8); None for large frames, and where it was not asked for."""
    minimum: MinimumPotential | None
    """None where no formula gives it and it was not asked for."""
    unread: tuple[Unread, ...]
    """Layers of a network that are part of no frame."""
    why_no_pair: str | None
    """Of a network: why it has no recurrent twin; None where it has one, or for anything else."""
    images: str | None
    """The test images that the solver ran on."""
    sweeps: tuple[SweepReport, ...]
    """Empty without images."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Found:
    """A frame, and what it belongs to."""

    name: str
    about: str
    frame: Frame
    pair: Pair | None = None
    card: Card | None = None
    reframed: Reframed | None = None
    """Of a network that was read as a frame."""
    drawn: bool = False
    """Whether its weights are random."""


def find_frame(
    given: str,
    *,
    weights: str | None = None,
    classes: int | None = None,
    channels: int | None = None,
    normalise: Normalise | None = None,
    shape: tuple[int, ...] | None = None,
    folder: Path = Path(),
    download: bool = False,
) -> Found:
    """Find a frame by what a user typed.

    Args:
        given: ``zoo:NAME``, ``card:PATH``, ``hf:OWNER/REPO``, the name of an architecture of ours, that of a zoo pair
            without its prefix, or any network that an evaluation takes, such as ``file:net.py:build`` or
            ``torchvision:resnet18``, which is read as a frame.
        weights: of a network: its checkpoint.
        classes: of a network by name: how many logits.
        channels: of a network for colour on grey images.
        normalise: of a network: preprocessing in front of it.
        shape: of a network: that of one image; 3 x 224 x 224 for those by name when left out.
        folder: what paths are relative to.
        download: whether what is not here may be fetched.

    Raises:
        InputError: for an unknown name, with the nearest one, or a network that is no frame.
        IntegrityError: for a pair whose files are not what its card says.
    """
    kind, colon, _ = given.partition(":")
    paired = kind in ("zoo", "card", "hf") if colon else given in names()
    settings = {"weights": weights, "classes": classes, "channels": channels, "normalise": normalise, "shape": shape}
    if paired or not colon:
        said = [f"--{key}" for key, value in settings.items() if value is not None]
        if said:
            raise InputError(f"{', '.join(said)} is for networks; {given} states its own")
    if paired:
        pair, card = load_named(given if colon else f"zoo:{given}", folder=folder, download=download)
        if not isinstance(pair, Pair):
            raise InputError(f"{card.name} has a frame of its own in every sweep, so there is no one frame to report")
        return Found(card.name, card.about, pair.frame, pair, card)
    if colon:
        return _network(given, shape, typed(ModelSpec, {
            "use": given, "weights": weights, "classes": classes, "channels": channels, "normalise": normalise
        }), folder, download)  # fmt: skip
    try:
        about = architectures().get(given, "fully connected chain")
        return Found(given, about, architecture(given), drawn=True)
    except InputError as error:
        if given in architectures() or given.startswith("fc-"):
            raise
        known = [*architectures(), *(f"zoo:{pair}" for pair in names()), *(form for form, _, _ in SOURCES.values())]
        raise unknown("model or architecture", given, known) from error


_BY_NAME = (3, 224, 224)


def _network(given: str, shape: tuple[int, ...] | None, spec: ModelSpec, folder: Path, download: bool) -> Found:
    kind, _, _ = given.partition(":")
    shape = image_shape(given, shape)
    found = find_model(spec, folder=folder, download=download)
    if isinstance(found.module, Pair):
        return Found(found.name, "a pair", found.module.frame, found.module)
    reframed = reframe(found.module.eval(), shape)
    pair = None if reframed.why_no_pair else reframed.pair
    drawn = found.weights_sha256 is None and kind != "file"
    about = f"{type(found.module).__name__}, read as a frame{', weights drawn at random' * drawn}"
    return Found(found.name, about, reframed.frame, pair, None, reframed, drawn)


def image_shape(given: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one image for a network: what is said, or for those by name what they are made for.

    Raises:
        InputError: for an unknown source, or a network of the user's of which nobody says it.
    """
    kind, _, _ = given.partition(":")
    if kind not in SOURCES and find_plugin("models", kind) is None:
        raise unknown("kind of model", kind, [*SOURCES, *plugins("models")])
    if shape is None and kind not in ("torchvision", "timm"):
        raise InputError(f"a network does not say what images it takes; give --shape 1x28x28, or --data, for {given}")
    return shape or _BY_NAME


def frame_report(
    given: str, *, minimum: bool = False, images: int = 16, seed: int = 0, data: Dataset | None = None, **settings: Any
) -> FrameReport:
    """Find a frame by name and measure it; see `find_frame`, whose settings it takes, and `measure_frame`."""
    return measure_frame(find_frame(given, **settings), minimum=minimum, images=images, seed=seed, data=data)


@torch.no_grad()
def measure_frame(
    found: Found,
    *,
    minimum: bool = False,
    images: int = 16,
    overlaps: bool = True,
    seed: int = 0,
    data: Dataset | None = None,
) -> FrameReport:
    """Measure a frame.

    Args:
        found: the frame, and what it belongs to.
        minimum: optimise the smallest deep frame potential of the architecture where no formula gives it (minutes for
            large ones); otherwise a chain of padded convolutions gets the formula for periodic borders.
        images: images for the solver, used where there are data; none are used for 0.
        overlaps: also the Babel function of a small frame, which takes longer than all else.
        seed: of the optimisation.
        data: where the images are from; of a pair with a card when left out its test data, if on this machine.

    Raises:
        InputError: for a frame with zero atoms, or data of another shape.
    """
    frame = found.frame
    used: str | None = None
    sweeps: tuple[SweepReport, ...] = ()
    if found.pair is not None and images > 0:
        used, sweeps = _solver(found.pair, found.card, data, images)
    parameters = sum(parameter.numel() for parameter in frame.parameters())
    measured = coherence(frame)
    small = overlaps and parameters <= _BABEL_PARAMETERS and measured.atoms > _BABEL
    reframed = found.reframed
    return FrameReport(
        name=found.name,
        about=found.about,
        structure=frame.structure,
        in_shape=frame.in_shape,
        parameters=parameters,
        layers=_layers(frame, () if reframed is None else reframed.names),
        coherence=measured,
        babel=tuple(babel(frame, _BABEL).tolist()) if small else None,
        minimum=_minimum(frame, optimise=minimum, seed=seed),
        unread=() if reframed is None else reframed.unread,
        why_no_pair=None if reframed is None else reframed.why_no_pair,
        images=used,
        sweeps=sweeps,
    )


def _minimum(frame: Frame, *, optimise: bool, seed: int) -> MinimumPotential | None:
    if isinstance(frame, BranchedFrame) and not optimise:
        least = least_potential(frame)
        return MinimumPotential(
            least.value, "closed form" if least.exact else "lower bound", "periodic", (least.value,), True, 0.0, 0,
            least.nonzeros,
        )  # fmt: skip
    if optimise or closed_form_minimum(frame) is not None:
        with torch.enable_grad():
            return minimum_potential(frame, seed=seed)
    try:
        periodic = closed_form_minimum(frame, borders="periodic")
    except InputError:
        # The image does not close around these strides, so there is no periodic frame to speak of.
        return None
    return None if periodic is None else minimum_potential(frame, borders="periodic")


def _layers(frame: Frame, called: tuple[str, ...]) -> tuple[LayerReport, ...]:
    reports = []
    for j, layer in enumerate(frame.blocks, start=1):
        threshold, step_size = layer.threshold.double(), float(layer.step_size)
        reports.append(
            LayerReport(
                number=j,
                name=called[j - 1] if called else "",
                operator=_operator(layer),
                reads=_reads(layer, j),
                code_shape=layer.operator.code_shape,
                parameters=sum(parameter.numel() for parameter in layer.parameters()),
                norm=max(0.0, 1 / step_size - frame.pull(j)) ** 0.5,
                threshold=(float(threshold.min()), float(threshold.mean()), float(threshold.max())),
                step_size=step_size,
                coherence=own_coherence(frame, j),
                bound=_bound(layer),
            )
        )
    return tuple(reports)


def _operator(layer: Layer) -> str:
    operator = layer.operator
    if isinstance(operator, Branches):
        return " + ".join(dict.fromkeys(_branch(part) for part in operator.parts))
    if isinstance(operator, PooledConv):
        return f"1x1 conv, pool {operator.kernel}"
    if isinstance(operator, Conv):
        stride = f", stride {operator.stride}" if operator.stride > 1 else ""
        return f"{operator.kernel}x{operator.kernel} conv{stride}"
    return "dense"


def _branch(part: Branch) -> str:
    spec = part.spec
    if spec.is_factor and spec.pick is None:
        return "identity"
    said = "factors" if spec.is_factor else "dense" if part.is_matrix else f"{spec.weight[2]}x{spec.weight[3]} conv"
    said += f" in {spec.groups} groups" if spec.groups > 1 and not spec.is_factor else ""
    if spec.box != (1, 1):
        return f"{said}, pool {spec.box[0]}"
    if max(spec.stride) > 1:
        said += f", stride {spec.stride[0]}"
    return said if spec.pick is None else f"{said} after max pool {spec.pick.kernel[0]}"


def _reads(layer: Layer, j: int) -> str:
    operator = layer.operator
    if isinstance(operator, Branches):
        read = [part.spec.reads for part in operator.parts]
        if len(read) > _MANY:
            return f"{len(read)} of w{min(read)}..w{max(read)}"
        return " + ".join("x" if k == 0 else "?" if k < 0 else f"w{k}" for k in read)
    first, last = layer.sources[0], layer.sources[-1]
    text = "x" if layer.sources == (0,) else f"w{first}" if first == last else f"w{first}..w{last}"
    return text if layer.skip is None else f"{text} + {'x' if layer.skip == 0 else f'w{layer.skip}'}"


_MANY = 3
"""So many sources of a row are named."""


def _bound(layer: Layer) -> float | None:
    operator = layer.operator
    if isinstance(operator, Branches):
        made = [part for part in operator.parts if not part.spec.is_factor]
        if len(made) != 1 or made[0].spec.groups > 1 or made[0].spec.weight[0] != operator.code_shape[0]:
            return None
        spec = made[0].spec
        if made[0].is_matrix:
            return welch_bound(spec.weight[0], math.prod(spec.weight[1:]))
        if spec.box != (1, 1) or spec.weight[2] != spec.weight[3] or spec.stride[0] != spec.stride[1]:
            return None
        return convolutional_bound(spec.weight[0], spec.weight[1], spec.weight[2], spec.stride[0])
    if isinstance(operator, Dense):
        return welch_bound(operator.code_shape[0], int(torch.Size(operator.in_shape).numel()))
    if isinstance(operator, Conv):
        return convolutional_bound(operator.code_shape[0], operator.in_shape[0], operator.kernel, operator.stride)
    return None


def _solver(
    pair: Pair, card: Card | None, data: Dataset | None, images: int
) -> tuple[str | None, tuple[SweepReport, ...]]:
    if pair.pursuit != "deep" or (card is None and data is None):
        return None, ()
    if data is None and card is not None:
        try:
            data = load_data(card.trained_on.use, "test")
        except InputError:
            return None, ()
    if data is None:
        return None, ()
    x = data.images[:images]
    if tuple(x.shape[1:]) != pair.frame.in_shape:
        raise InputError(f"{data.name} has images of shape {tuple(x.shape[1:])}, the frame {pair.frame.in_shape}")
    solved = list(iterate(DeepPursuit(sweeps=max(10, 2 * pair.sweeps)), pair.frame, x))
    reports = [
        SweepReport(
            sweep=sweep,
            objective=float(objective(pair.frame, x, codes).mean()),
            change=_change(solved[sweep - 2], codes) if sweep > 1 else None,
            active=tuple(float((code != 0).double().mean()) for code in codes),
        )
        for sweep, codes in enumerate(solved, start=1)
    ]
    return f"{len(x)} test images of {data.name}", tuple(reports)


def _change(previous: tuple[Tensor, ...], codes: tuple[Tensor, ...]) -> float:
    changes = []
    for old, new in zip(previous, codes):
        size = torch.linalg.vector_norm(new.flatten(1), dim=1).clamp_min(torch.finfo(new.dtype).tiny)
        changes.append(torch.linalg.vector_norm((new - old).flatten(1), dim=1) / size)
    return float(torch.stack(changes).amax(0).mean())
