"""Structured overcomplete frames: operators, structures, coherence."""

from robustframe.frames.coherence import coherence_loss, column_norms, mutual_coherence
from robustframe.frames.frame import ChainFrame, Layer, build_frame
from robustframe.frames.operators import Conv, Dense, Operator, squared_norm

__all__ = [
    "ChainFrame",
    "Conv",
    "Dense",
    "Layer",
    "Operator",
    "build_frame",
    "coherence_loss",
    "column_norms",
    "mutual_coherence",
    "squared_norm",
]
