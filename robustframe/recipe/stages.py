"""The attacks of an evaluation in order, each ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from robustframe.attacks import Attack
from robustframe.attacks.registry import settings_of
from robustframe.errors import InputError
from robustframe.recipe import AttackSpec, Battery, digest, make_attacks
from robustframe.threat import ThreatModel


@dataclass(frozen=True)
class Stage:
    """One attack of one battery."""

    battery: Battery
    position: int
    """Place in its battery, from 1."""
    spec: AttackSpec
    attack: Attack
    key: str
    """What its random numbers are derived from: the attack with its settings, and how many equal ones came before. So
    an attack meets an example with the same numbers in whichever battery it stands."""

    @property
    def label(self) -> str:
        """How verdicts name it, such as ``standard@1/03-fab-t``."""
        return f"{self.battery.cited}/{self.position:02d}-{self.spec.name or self.spec.use}"

    def runs_for(self, threat: ThreatModel) -> bool:
        """Say whether the battery has this attack for threats of this norm."""
        return self.spec.norms is None or threat.norm in self.spec.norms

    def why_not(self, model: nn.Module) -> str | None:
        """Say why it is left out for a model; ``None`` when it is run."""
        return self.attack.why_not(model)


def make_stages(batteries: Sequence[Battery], folder: Path) -> list[Stage]:
    """Build every attack of some batteries, in order."""
    stages: list[Stage] = []
    for battery in batteries:
        for position, (spec, attack) in enumerate(zip(battery.attack, make_attacks(battery, folder=folder)), start=1):
            identity = digest({"use": spec.use, "settings": settings_of(attack, defaults=False)})
            before = sum(stage.key.startswith(identity) for stage in stages)
            stages.append(Stage(battery, position, spec, attack, f"{identity}-{before}"))
    return stages


def check_stages(stages: Sequence[Stage], threats: Sequence[ThreatModel]) -> None:
    """Find out before anything runs that an attack is not defined for a threat.

    Raises:
        InputError: with the attack, the threat and what it is defined for.
    """
    for threat in threats:
        chosen = [stage for stage in stages if stage.runs_for(threat)]
        if not chosen:
            raise InputError(f"no attack of {', '.join(_cited(stages))} is run for {threat.label}; add another battery")
        for stage in chosen:
            if threat.norm not in stage.attack.norms:
                raise InputError(
                    f"{stage.battery.cited}: {stage.spec.use} is not defined for {threat.label}; it takes "
                    f"{', '.join(stage.attack.norms)}; choose another battery for this threat"
                )
            reason = stage.attack.why_not_against(threat)
            if reason is not None:
                raise InputError(f"{stage.battery.cited}: {reason}")
            if threat.targets == "least-likely" and stage.battery.votes > 1:
                raise InputError(
                    f"{stage.battery.cited} is for models that draw random numbers, whose least likely class is "
                    "another one each time; aim at 'next' or 'random'"
                )


def _cited(stages: Sequence[Stage]) -> list[str]:
    return list(dict.fromkeys(stage.battery.cited for stage in stages))
