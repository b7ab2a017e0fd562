"""Evidence: a run replayed and derived anew, and everything in it that differs from its record."""

from robustframe.evidence.findings import Check, Finding, Verification
from robustframe.evidence.verify import Progress, verify

__all__ = ["Check", "Finding", "Progress", "Verification", "verify"]
