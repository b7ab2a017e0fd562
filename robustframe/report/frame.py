"""The report on one frame: what it is built of, how coherent it is, and how its solver converges."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from robustframe.data import load as load_data
from robustframe.errors import InputError, unknown
from robustframe.frames import Conv, Dense, Frame, Layer, PooledConv, objective
from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.coherence import Coherence, babel, coherence, convolutional_bound, filter_gram, welch_bound
from robustframe.frames.potential import MinimumPotential, closed_form_minimum, minimum_potential
from robustframe.pairs import Pair
from robustframe.solvers import DeepPursuit, iterate
from robustframe.zoo import Card, load_named, names

_BABEL = 8
# Above this many parameters the Babel function takes longer than a report should.
_BABEL_PARAMETERS = 150_000


@dataclass(frozen=True)
class LayerReport:
    """One layer of a frame."""

    number: int
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
    """Largest normalised inner product between two atoms of this layer, as columns of the whole frame."""
    bound: float
    """Smallest coherence that unit atoms of this shape can have among themselves (Welch, or convolutional)."""


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
    images: str | None
    """The test images that the solver ran on."""
    sweeps: tuple[SweepReport, ...]
    """Empty without images."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        return asdict(self)


def find_frame(name: str) -> tuple[Frame, Pair | None, Card | None]:
    """Find a frame by what a user typed.

    Args:
        name: ``zoo:NAME``, ``card:PATH``, ``hf:OWNER/REPO`` (from the hub's cache), the name of an
            architecture, or that of a zoo pair without its prefix.

    Returns:
        The frame, and the pair and card that it belongs to, if any.

    Raises:
        InputError: for an unknown name, with the nearest one.
        IntegrityError: for a pair whose files are not what its card says.
    """
    kind, colon, _ = name.partition(":")
    if colon and kind not in ("zoo", "card", "hf"):
        raise unknown("kind of model", kind, ["zoo", "card", "hf"])
    if not colon and name not in names():
        try:
            return architecture(name), None, None
        except InputError as error:
            if name in architectures() or name.startswith("fc-"):
                raise
            known = [*architectures(), *(f"zoo:{pair}" for pair in names()), "card:PATH", "hf:OWNER/REPO"]
            raise unknown("model or architecture", name, known) from error
    pair, card = load_named(name if colon else f"zoo:{name}")
    if not isinstance(pair, Pair):
        raise InputError(f"{card.name} has a frame of its own in every sweep, so there is no one frame to report on")
    return pair.frame, pair, card


def frame_report(name: str, *, minimum: bool = False, images: int = 16, seed: int = 0) -> FrameReport:
    """Find a frame by name and measure it; see `find_frame` and `measure_frame`."""
    return measure_frame(name, *find_frame(name), minimum=minimum, images=images, seed=seed)


@torch.no_grad()
def measure_frame(
    name: str,
    frame: Frame,
    pair: Pair | None,
    card: Card | None,
    *,
    minimum: bool = False,
    images: int = 16,
    overlaps: bool = True,
    seed: int = 0,
) -> FrameReport:
    """Measure a frame.

    Args:
        name: what the report calls it where there is no card.
        frame: the frame.
        pair: the pair it belongs to, whose solver runs on the images.
        card: the pair's card.
        minimum: optimise the smallest deep frame potential of the architecture where no formula gives it (minutes for
            large ones); otherwise a chain of padded convolutions gets the formula for periodic borders.
        images: test images for the solver, used when the pair's data set is on this machine; none are loaded for 0.
        overlaps: also the Babel function of a small frame, which takes longer than all else.
        seed: of the optimisation.

    Raises:
        InputError: for a frame with zero atoms.
    """
    used: str | None = None
    sweeps: tuple[SweepReport, ...] = ()
    if pair is not None and card is not None and images > 0:
        used, sweeps = _solver(pair, card, images)
    parameters = sum(parameter.numel() for parameter in frame.parameters())
    measured = coherence(frame)
    small = overlaps and parameters <= _BABEL_PARAMETERS and measured.atoms > _BABEL
    return FrameReport(
        name=card.name if card is not None else name,
        about=card.about if card is not None else architectures().get(name, "fully connected chain"),
        structure=frame.structure,
        in_shape=frame.in_shape,
        parameters=parameters,
        layers=_layers(frame),
        coherence=measured,
        babel=tuple(babel(frame, _BABEL).tolist()) if small else None,
        minimum=_minimum(frame, optimise=minimum, seed=seed),
        images=used,
        sweeps=sweeps,
    )


def _minimum(frame: Frame, *, optimise: bool, seed: int) -> MinimumPotential | None:
    if closed_form_minimum(frame) is not None or optimise:
        with torch.enable_grad():
            return minimum_potential(frame, seed=seed)
    try:
        periodic = closed_form_minimum(frame, borders="periodic")
    except InputError:
        # The image does not close around these strides, so there is no periodic frame to speak of.
        return None
    return None if periodic is None else minimum_potential(frame, borders="periodic")


def _layers(frame: Frame) -> tuple[LayerReport, ...]:
    tiles = filter_gram(frame)
    reports = []
    for j, layer in enumerate(frame.blocks, start=1):
        threshold, step_size = layer.threshold.double(), float(layer.step_size)
        reports.append(
            LayerReport(
                number=j,
                operator=_operator(layer),
                reads=_reads(layer, j),
                code_shape=layer.operator.code_shape,
                parameters=sum(parameter.numel() for parameter in layer.parameters()),
                norm=max(0.0, 1 / step_size - frame.pull(j)) ** 0.5,
                threshold=(float(threshold.min()), float(threshold.mean()), float(threshold.max())),
                step_size=step_size,
                coherence=min(1.0, float(tiles[j, j].max())),
                bound=_bound(layer),
            )
        )
    return tuple(reports)


def _operator(layer: Layer) -> str:
    operator = layer.operator
    if isinstance(operator, PooledConv):
        return f"1x1 conv, pool {operator.kernel}"
    if isinstance(operator, Conv):
        stride = f", stride {operator.stride}" if operator.stride > 1 else ""
        return f"{operator.kernel}x{operator.kernel} conv{stride}"
    return "dense"


def _reads(layer: Layer, j: int) -> str:
    first, last = layer.sources[0], layer.sources[-1]
    text = "x" if layer.sources == (0,) else f"w{first}" if first == last else f"w{first}..w{last}"
    return text if layer.skip is None else f"{text} + {'x' if layer.skip == 0 else f'w{layer.skip}'}"


def _bound(layer: Layer) -> float:
    operator = layer.operator
    if isinstance(operator, Dense):
        return welch_bound(operator.code_shape[0], int(torch.Size(operator.in_shape).numel()))
    if isinstance(operator, Conv):
        return convolutional_bound(operator.code_shape[0], operator.in_shape[0], operator.kernel, operator.stride)
    return 0.0


def _solver(pair: Pair, card: Card, images: int) -> tuple[str | None, tuple[SweepReport, ...]]:
    use = card.trained_on.use
    if card.pursuit != "deep":
        return None, ()
    try:
        data = load_data(use, "test")
    except InputError:
        return None, ()
    x = data.images[:images]
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
    return f"{len(x)} test images of {use}", tuple(reports)


def _change(previous: tuple[Tensor, ...], codes: tuple[Tensor, ...]) -> float:
    changes = []
    for old, new in zip(previous, codes):
        size = torch.linalg.vector_norm(new.flatten(1), dim=1).clamp_min(torch.finfo(new.dtype).tiny)
        changes.append(torch.linalg.vector_norm((new - old).flatten(1), dim=1) / size)
    return float(torch.stack(changes).amax(0).mean())
