"""Is this number believable: checks on what a battery found for one classifier under one threat."""

from robustframe.diagnose.check import Check, Diagnosis

__all__ = ["Check", "Diagnosis"]
