"""Broken defences, a module a mechanism; importing them enters them into the list, in this order."""

from exhibits.broken import (  # noqa: I001
    wrong,
    detached,
    straight,
    noisy,
    rounding,
    filters,
    saturation,
    rugged,
    deciding,
    random,
    stateful,
    ensembles,
    solvers,
)

__all__ = [
    "deciding",
    "detached",
    "ensembles",
    "filters",
    "noisy",
    "random",
    "rounding",
    "rugged",
    "saturation",
    "solvers",
    "stateful",
    "straight",
    "wrong",
]
