"""Architectures ranked by the least deep frame potential that their structure allows: model selection without data."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.least import as_branched, least_potential
from robustframe.frames.potential import closed_form_minimum, minimum_potential
from robustframe.frames.reframe import structure_of
from robustframe.frames.trace import trace
from robustframe.models.sources import find_model
from robustframe.recipe import ModelSpec, typed
from robustframe.report.frame import find_frame, image_shape
from robustframe.report.layout import grid
from robustframe.report.tables import render


@dataclass(frozen=True)
class RankedArchitecture:
    """An architecture and its score."""

    name: str
    structure: str
    """``"chain"``, ``"residual"``, ``"dense"``, or ``"branched"`` for networks with skips or concatenations."""
    layers: int
    parameters: int
    """Of a network all of its own; of a frame without a network weights and thresholds, without a head."""
    least: float
    """The least deep frame potential F, a root mean square in [0, 1]."""
    method: str
    """``"closed form"``, ``"lower bound"``, or ``"optimised"``."""
    converged: bool = True
    """Whether an optimisation came to its end."""
    gradient: float = 0.0
    """Relative gradient where it ended."""

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def rank_architectures(
    given: Sequence[str],
    *,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    optimise: bool = False,
    folder: Path = Path(),
    report: Callable[[int, str], None] = lambda at, name: None,
) -> list[RankedArchitecture]:
    """Rank architectures by the least deep frame potential over all of their weights; no data and no training.

    Args:
        given: names as `robustframe.report.frame.find_frame` takes them.
        shape: that of one image, for networks.
        classes: of networks by name.
        optimise: minimise numerically, borders exact, in place of the closed form or bound for images that wrap around.
        folder: what paths are relative to.
        report: called before each with how many are done and the name of the next.

    Returns:
        The least first.

    Raises:
        InputError: for an unknown name, one that is given twice, or a network that is no frame.

    Source: Murdock and Lucey, 2020, arXiv:2003.13866: a lower minimum potential goes with a lower
    validation error.
    """
    twice = [name for at, name in enumerate(given) if name in given[:at]]
    if twice:
        raise InputError(f"{twice[0]} is given twice")
    found = []
    for at, name in enumerate(given):
        report(at, name)
        network = ":" in name and name.partition(":")[0] not in ("zoo", "card", "hf")
        if network:
            found.append(_ranked(*_structure(name, shape, classes, folder), name, optimise=optimise))
        else:
            ours = name in architectures() or name.startswith("fc-")
            frame = architecture(name, step_sizes=False) if ours else find_frame(name, folder=folder).frame
            found.append(_ranked(frame, _count(frame), name, optimise=optimise))
    return sorted(found, key=lambda each: (each.least, each.name))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _structure(
    name: str, shape: tuple[int, ...] | None, classes: int | None, folder: Path
) -> tuple[BranchedFrame, int]:
    """Read a network's rows, which need no weights, and count its parameters."""
    found = find_model(typed(ModelSpec, {"use": name, "classes": classes}), folder=folder)
    return structure_of(trace(found.module.eval(), image_shape(name, shape))), _count(found.module)


def _ranked(frame: Frame, parameters: int, name: str, *, optimise: bool) -> RankedArchitecture:
    plain = isinstance(frame, BranchedFrame) and all(
        [spec.reads for spec in specs] == [j] for j, specs in enumerate(frame.specs)
    )
    facts: dict[str, Any] = {
        "name": name,
        "structure": "chain" if plain else frame.structure,
        "layers": len(frame.blocks),
        "parameters": parameters,
    }
    if optimise:
        best = minimum_potential(frame, restarts=1, optimise=True)
        return RankedArchitecture(
            **facts, least=best.value**0.5, method="optimised", converged=best.converged, gradient=best.gradient
        )
    exact = None if isinstance(frame, BranchedFrame) else closed_form_minimum(frame)
    if exact is not None:
        return RankedArchitecture(**facts, least=exact**0.5, method="closed form")
    score = least_potential(frame if isinstance(frame, BranchedFrame) else as_branched(frame))
    return RankedArchitecture(**facts, least=score.value**0.5, method="closed form" if score.exact else "lower bound")


def render_ranks(ranks: Sequence[RankedArchitecture]) -> str:
    """Write a ranking out for people."""
    rows = [
        (str(at), each.name, each.structure, str(each.layers), f"{each.parameters:,}", f"{each.least:.5f}",
         each.method if each.converged else f"{each.method}, NOT converged ({each.gradient:.0e})")
        for at, each in enumerate(ranks, start=1)
    ]  # fmt: skip
    head = ("Rank", "architecture", "structure", "layers", "parameters", "least F", "found by")
    caption = (
        "Least F: least deep frame potential over all weights with unit atoms, the root of a mean square; "
        "--optimise finds it for zero-padded borders, formulas are for images that wrap around."
    )
    return render(grid("Architectures", head, rows, caption, left=(1, 2, 6)), "terminal")
