"""Evidence: a run replayed and derived anew, and everything in it that differs from its record."""

from robustframe.verification.findings import Check, Finding, Verification
from robustframe.verification.verify import Progress, verify

__all__ = ["Check", "Finding", "Progress", "Verification", "verify"]
