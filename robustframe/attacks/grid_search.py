"""Every one of a grid of rotations and translations."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch

from robustframe.attacks.base import Attack
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.probe import Probe
from robustframe.spaces import Motion
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class GridSearch(Attack):
    """Each rotation with each translation of an even grid, from the smallest up (Engstrom et al., 2019,
    arXiv:1712.02779, section 4: 31 angles and 5 x 5 translations), each for one forward.

    Where few numbers say all of a change, trying them all is harder to fool than gradients are.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    positive: ClassVar[tuple[str, ...]] = ("angles", "shifts")

    angles: int = 31
    """Angles from the largest to one side to the largest to the other."""
    shifts: int = 5
    """Places along each axis."""

    def why_not_against(self, threat: ThreatModel) -> str | None:
        if isinstance(threat.space, Motion):
            return None
        return f"grid tries rotations and translations, of which {threat.label} has none; add 'on rotation:30,shift:3'"

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> None:
        if not isinstance(probe.space, Motion):
            raise InputError(str(self.why_not_against(threat)))
        counts = [self.angles] * (probe.space.rotation > 0) + [self.shifts] * 2 * (probe.space.shift > 0)
        lines = [torch.linspace(-threat.eps, threat.eps, count).tolist() if count > 1 else [0.0] for count in counts]
        for point in sorted(product(*lines), key=lambda each: (max(map(abs, each)), each)):
            probe.logits(x.new_tensor(point).expand_as(x).contiguous())
