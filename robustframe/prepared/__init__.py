"""Copies of models that are searched in their place: the same answers in less time, checked before they are used."""

from robustframe.prepared.copies import Preparation, Searched, choose, searched

__all__ = ["Preparation", "Searched", "choose", "searched"]
