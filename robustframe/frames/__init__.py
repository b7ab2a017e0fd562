"""Structured overcomplete frames: operators, structures, objective, coherence."""

from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.build import build_frame
from robustframe.frames.coherence import (
    Coherence,
    babel,
    coherence_loss,
    column_norms,
    convolutional_bound,
    mutual_coherence,
    welch_bound,
)
from robustframe.frames.frame import Blocks, Frame, Layer
from robustframe.frames.objective import misfit, objective
from robustframe.frames.operators import Conv, Dense, Operator, PooledConv, squared_norm
from robustframe.frames.potential import (
    MinimumPotential,
    closed_form_minimum,
    deep_frame_potential,
    minimum_potential,
    structural_nonzeros,
)
from robustframe.frames.structure import STRUCTURES, Row, Shortcut, Structure

__all__ = [
    "STRUCTURES",
    "Blocks",
    "Coherence",
    "Conv",
    "Dense",
    "Frame",
    "Layer",
    "MinimumPotential",
    "Operator",
    "PooledConv",
    "Row",
    "Shortcut",
    "Structure",
    "architecture",
    "architectures",
    "babel",
    "build_frame",
    "closed_form_minimum",
    "coherence_loss",
    "column_norms",
    "convolutional_bound",
    "deep_frame_potential",
    "minimum_potential",
    "misfit",
    "mutual_coherence",
    "objective",
    "squared_norm",
    "structural_nonzeros",
    "welch_bound",
]
