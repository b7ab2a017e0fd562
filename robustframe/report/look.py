"""The look that the board and the figures share: what a twin looks like, on paper and in the dark."""

from collections.abc import Mapping
from dataclasses import dataclass

TWINS = ("feed-forward", "recurrent", "single")
"""Every classifier is one of these; "single" has no twin."""
TWIN_SHAPES = ("square", "circle", "triangle-up")
TWIN_DASHES = ([5, 2], [1, 0], [2, 2])


@dataclass(frozen=True)
class Theme:
    """The colours of a ground; the style sheet of the board has the same, which a test holds."""

    background: str
    ink: str
    faint: str
    """Of axes and notes."""
    grid: str
    twins: tuple[str, str, str]
    """Of `TWINS`: from Okabe and Ito (2008), whom colour-blind readers tell apart, with enough contrast for text."""


THEMES: Mapping[str, Theme] = {
    "light": Theme("#ffffff", "#1b2024", "#5b646c", "#e4e1da", ("#b84a00", "#0b6bb0", "#00785a")),
    "dark": Theme("#14171c", "#e8e6e1", "#a0a9b1", "#2d333b", ("#ff9a5c", "#6fb7f2", "#4fcfa8")),
}
