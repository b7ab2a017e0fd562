"""The calls of AutoAttack, torchattacks and RobustBench, on this engine: exchange the import line and keep the rest.

``from robustframe.compat import AutoAttack`` for ``from autoattack import AutoAttack``, ``import robustframe.compat as
torchattacks`` for ``import torchattacks``, ``from robustframe.compat import benchmark`` for RobustBench's. Everything
is imported on first use; what is not here says what to use instead.
"""

from typing import TYPE_CHECKING, Any

from robustframe.errors import InputError

if TYPE_CHECKING:
    from robustframe.compat.autoattack import AutoAttack as AutoAttack
    from robustframe.compat.robustbench import benchmark as benchmark
    from robustframe.compat.torchattacks import APGD as APGD
    from robustframe.compat.torchattacks import APGDT as APGDT
    from robustframe.compat.torchattacks import BIM as BIM
    from robustframe.compat.torchattacks import CW as CW
    from robustframe.compat.torchattacks import EOTPGD as EOTPGD
    from robustframe.compat.torchattacks import FAB as FAB
    from robustframe.compat.torchattacks import FGSM as FGSM
    from robustframe.compat.torchattacks import PGD as PGD
    from robustframe.compat.torchattacks import PGDL2 as PGDL2
    from robustframe.compat.torchattacks import SPSA as SPSA
    from robustframe.compat.torchattacks import DeepFool as DeepFool
    from robustframe.compat.torchattacks import MultiAttack as MultiAttack
    from robustframe.compat.torchattacks import Square as Square

__all__ = [
    "APGD", "APGDT", "BIM", "CW", "EOTPGD", "FAB", "FGSM", "PGD", "PGDL2", "SPSA",
    "AutoAttack", "DeepFool", "MultiAttack", "Square", "benchmark",
]  # fmt: skip
_HOMES = {"AutoAttack": "autoattack", "benchmark": "robustbench"}
"""The modules of names that are not torchattacks'."""
_ADAPTED = frozenset(
    [
        "DIFGSM", "EADEN", "EADL1", "FFGSM", "GN", "Jitter", "MIFGSM", "NIFGSM", "PGDRS", "PGDRSL2", "PIFGSM",
        "PIFGSMPP", "RFGSM", "SINIFGSM", "TIFGSM", "TPGD", "UPGD", "VANILA", "VMIFGSM", "VNIFGSM",
    ]
)  # fmt: skip
"""Classes of torchattacks that have no counterpart of ours, and are run behind our probe where it is installed."""
_PIXELS = frozenset({"JSMA", "OnePixel", "Pixle", "SparseFool"})


def __getattr__(name: str) -> Any:
    import importlib

    if name in _ADAPTED:
        raise InputError(
            f"torchattacks' {name} has no counterpart here; "
            f'robustframe.attack(model, images, labels, "torchattacks:{name}", "linf:8/255").images runs it'
        )
    if name in _PIXELS:
        raise InputError(
            f"torchattacks' {name}, which changes few pixels by any amount, is not here; "
            'robustframe.attack(model, images, labels, "sigma-zero", "l0:24").images does that'
        )
    if name not in __all__:
        raise AttributeError(f"module 'robustframe.compat' has no attribute {name!r}")
    home = importlib.import_module(f"robustframe.compat.{_HOMES.get(name, 'torchattacks')}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
