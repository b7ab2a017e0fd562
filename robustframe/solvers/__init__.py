"""The one loop, and the algorithms that plug into it."""

from robustframe.solvers.loop import Solution, Solver, iterate, solve
from robustframe.solvers.pursuit import DeepPursuit

__all__ = ["DeepPursuit", "Solution", "Solver", "iterate", "solve"]
