"""The attacks, by the name a battery gives them."""

from robustframe.attacks.base import Attack, AttackResult
from robustframe.attacks.fgsm import FGSM

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
}

__all__ = ["ATTACKS", "FGSM", "Attack", "AttackResult"]
