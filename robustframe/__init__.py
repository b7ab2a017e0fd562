"""Adversarial robustness evaluation for models that solve.

``evaluate(model, x, y, threat="linf:8/255", battery="quick")`` is the way in; ``attack(model, x, y, "apgd-ce")``
attacks a batch and keeps nothing. Everything is imported on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustframe.attacks import attack as attack
    from robustframe.evaluation import evaluate as evaluate
    from robustframe.evaluation import evaluate_recipe as evaluate_recipe
    from robustframe.evaluation import silent as silent
    from robustframe.models.adapters import adapt as adapt
    from robustframe.pairs import Pair as Pair
    from robustframe.pairs import reframe as reframe
    from robustframe.runs import Run as Run
    from robustframe.runs import open_run as open_run
    from robustframe.runs.record import Record as Record
    from robustframe.threat import ThreatModel as ThreatModel
    from robustframe.verification import verify as verify

_HOMES = {
    "Pair": "robustframe.pairs",
    "Record": "robustframe.runs.record",
    "Run": "robustframe.runs",
    "ThreatModel": "robustframe.threat",
    "adapt": "robustframe.models.adapters",
    "attack": "robustframe.attacks",
    "evaluate": "robustframe.evaluation",
    "evaluate_recipe": "robustframe.evaluation",
    "open_run": "robustframe.runs",
    "reframe": "robustframe.pairs",
    "silent": "robustframe.evaluation",
    "verify": "robustframe.verification",
}

__all__ = [
    "Pair",
    "Record",
    "Run",
    "ThreatModel",
    "adapt",
    "attack",
    "evaluate",
    "evaluate_recipe",
    "open_run",
    "reframe",
    "silent",
    "verify",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'robustframe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
