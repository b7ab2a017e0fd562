"""Structured overcomplete frames: operators, structures, objective, coherence."""

from robustframe.frames.architectures import architecture, architectures
from robustframe.frames.build import build_frame
from robustframe.frames.coherence import coherence_loss, column_norms, mutual_coherence
from robustframe.frames.frame import Blocks, ChainFrame, Frame, Layer
from robustframe.frames.objective import misfit, objective
from robustframe.frames.operators import Conv, Dense, Operator, PooledConv, squared_norm
from robustframe.frames.structure import STRUCTURES, Row, Shortcut, Structure

__all__ = [
    "STRUCTURES",
    "Blocks",
    "ChainFrame",
    "Conv",
    "Dense",
    "Frame",
    "Layer",
    "Operator",
    "PooledConv",
    "Row",
    "Shortcut",
    "Structure",
    "architecture",
    "architectures",
    "build_frame",
    "coherence_loss",
    "column_norms",
    "misfit",
    "mutual_coherence",
    "objective",
    "squared_norm",
]
