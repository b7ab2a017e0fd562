"""Evidence: a run replayed and derived anew, and everything in it that differs from its record."""

from robustframe.verification.findings import Finding, Verification, VerifiedPart
from robustframe.verification.verify import VerificationProgress, verify

__all__ = ["Finding", "Verification", "VerificationProgress", "VerifiedPart", "verify"]
