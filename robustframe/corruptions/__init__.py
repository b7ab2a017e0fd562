"""Common corruptions: images changed by noise, blur, weather and compression, not by an attack."""

from robustframe.corruptions.kinds import CITED, KINDS, SEVERITIES, corrupt
from robustframe.corruptions.sources import Corruptions, load_corruptions

__all__ = ["CITED", "KINDS", "SEVERITIES", "Corruptions", "corrupt", "load_corruptions"]
