"""The attacks, and the table that names them."""

from robustframe.attacks.adapters import TorchAttack
from robustframe.attacks.apgd import APGD, APGDT
from robustframe.attacks.base import Attack, AttackResult, GradientAttack
from robustframe.attacks.cw import CW
from robustframe.attacks.ddn import DDN
from robustframe.attacks.deepfool import DeepFool
from robustframe.attacks.direct import Attacked, attack
from robustframe.attacks.fab import FAB, FABT
from robustframe.attacks.fgsm import FGSM
from robustframe.attacks.fmn import FMN
from robustframe.attacks.grid_search import GridSearch
from robustframe.attacks.hopskipjump import HopSkipJump
from robustframe.attacks.momentum import MIFGSM
from robustframe.attacks.pgd import PGD
from robustframe.attacks.random_search import RandomSearch
from robustframe.attacks.registry import ATTACKS, make_attack
from robustframe.attacks.sigma_zero import SigmaZero
from robustframe.attacks.spsa import SPSA
from robustframe.attacks.square import Square
from robustframe.attacks.transfer import TransferAttack
from robustframe.attacks.universal import Universal

__all__ = [
    "APGD",
    "APGDT",
    "ATTACKS",
    "CW",
    "DDN",
    "FAB",
    "FABT",
    "FGSM",
    "FMN",
    "MIFGSM",
    "PGD",
    "SPSA",
    "Attack",
    "AttackResult",
    "Attacked",
    "DeepFool",
    "GradientAttack",
    "GridSearch",
    "HopSkipJump",
    "RandomSearch",
    "SigmaZero",
    "Square",
    "TorchAttack",
    "TransferAttack",
    "Universal",
    "attack",
    "make_attack",
]
