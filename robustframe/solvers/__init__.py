"""The one loop, the algorithms that plug into it, and how their gradients are taken."""

from robustframe.solvers.accelerated import AcceleratedPursuit
from robustframe.solvers.adjoints import Implicit, OneStep, Truncated
from robustframe.solvers.admm import ADMM
from robustframe.solvers.layered import LayeredPursuit
from robustframe.solvers.loop import Adjoint, GradientReport, Solution, Solver, Unrolled, iterate, solve
from robustframe.solvers.multilayer import MultilayerPursuit
from robustframe.solvers.penalties import (
    NonnegativeL1,
    Penalty,
    SignedL1,
    optimality,
    penalised_objective,
    smooth_gradient,
)
from robustframe.solvers.proximal import check_step_sizes
from robustframe.solvers.pursuit import DeepPursuit

__all__ = [
    "ADMM",
    "AcceleratedPursuit",
    "Adjoint",
    "DeepPursuit",
    "GradientReport",
    "Implicit",
    "LayeredPursuit",
    "MultilayerPursuit",
    "NonnegativeL1",
    "OneStep",
    "Penalty",
    "SignedL1",
    "Solution",
    "Solver",
    "Truncated",
    "Unrolled",
    "check_step_sizes",
    "iterate",
    "optimality",
    "penalised_objective",
    "smooth_gradient",
    "solve",
]
