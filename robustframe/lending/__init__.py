"""What belongs to the process is lent to code of the user's and taken back: settings, streams, signals, its end."""

from robustframe.lending.notes import note, noting
from robustframe.lending.process import contained, lent
from robustframe.lending.settings import kept

__all__ = ["contained", "kept", "lent", "note", "noting"]
