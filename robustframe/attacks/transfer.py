"""An attack with the gradients of another model: what it finds is shown to the target once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from robustframe.attacks.base import Attack
from robustframe.attacks.momentum import MIFGSM
from robustframe.calls import borrowed
from robustframe.draws import Draws
from robustframe.probe import Probe, SearchOver
from robustframe.threat import ThreatModel
from robustframe.types import Images, Norm


@dataclass(frozen=True, kw_only=True)
class TransferAttack(MIFGSM):
    """`MIFGSM` with the gradients of another classifier of the recipe, shown to the target at the end.

    The search goes all its steps, whatever the source says of its points. On the source itself, and where no source is
    named, it is `MIFGSM` as it stands.
    """

    source: str = ""
    """The classifier whose gradients are taken, as the record names it, such as ``"mine"`` or ``"pair/recurrent"``."""

    def on(self, model: nn.Module) -> "OnSource":
        """Return the attack with the gradients of a model."""
        return OnSource(attack=self, model=model)


@dataclass(frozen=True, kw_only=True, eq=False)
class OnSource(Attack):
    """A `TransferAttack` whose source is loaded; the target's forwards alone are counted."""

    norms: ClassVar[tuple[Norm, ...]] = MIFGSM.norms
    held: ClassVar[Mapping[Norm, int]] = {norm: 2 * images for norm, images in MIFGSM.held.items()}

    attack: TransferAttack
    model: nn.Module

    def perturb(self, probe: Probe, x: Images, threat: ThreatModel, draws: Draws) -> Images:
        # Looking for the closest success, the probe ends no search at the first one.
        source = Probe(
            self.model, probe.clean, probe.y, probe.asked,
            batch_size=probe.batch_size, gradients=self.attack.gradients(), closest=True, targets=probe.targets,
        )  # fmt: skip
        with borrowed(self.model, seed=draws.child("source").seed), source.looking():
            try:
                return self.attack.perturb(source, x, threat, draws)
            except SearchOver:
                return source.best
