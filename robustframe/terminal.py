"""The reader's terminal: how wide it is, whether it shows colours, and text that fits it."""

import os
import re
import shutil
import sys
import textwrap
import unicodedata
from typing import Any

WITHOUT = 100
"""Columns where nobody is looking: in a file or a pipe, unless COLUMNS says otherwise."""
_WIDE, _NARROW = 100, 40
"""Columns of running text: at most, and at least."""
_COLOURS = {"good": "32", "doubtful": "33", "bad": "31", "faint": "2"}


def columns(stream: Any = None) -> int:
    """Return how many columns a line may take: what COLUMNS says, else what the terminal has, at least 40."""
    if stream is None:
        return max(_NARROW, shutil.get_terminal_size((WITHOUT, 24)).columns)
    try:
        found = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns
    # A stream may be anything that can be written to, and COLUMNS anything at all.
    except (OSError, ValueError, AttributeError):
        found = WITHOUT
    return max(_NARROW, found or WITHOUT)


def is_terminal(stream: Any) -> bool:
    """Say whether someone looks at a stream."""
    try:
        return stream is not None and bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def in_notebook() -> bool:
    """Say whether this is the kernel of a notebook; a program that merely starts kernels has their modules too."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def painted(text: str, tone: str) -> str:
    """Colour a text for stdout: ``good``, ``doubtful``, ``bad`` or ``faint``; as it is where colours are not wanted."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not is_terminal(sys.stdout)
    return text if plain or not text or tone not in _COLOURS else f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m"


def text_width(text: str) -> int:
    """Return the columns that a text takes: two for a wide character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def fitted(text: str) -> str:
    """Break the lines of a list so that they fit, each going on below the last of its columns.

    Args:
        text: lines whose columns have two spaces or more between them.
    """
    width = columns()
    found = []
    for line in text.split("\n"):
        gap = [match.end() for match in re.finditer(r"  +", line) if match.end() < width // 2]
        after = " " * max([2 * bool(line), *gap])
        found += (
            textwrap.wrap(line, width, subsequent_indent=after, drop_whitespace=True, break_on_hyphens=False)
            if text_width(line) > width
            else [line]
        )
    return "\n".join(found)


def wrapped(text: str, *, first: str = "", after: str = "") -> list[str]:
    """Break running text into lines that fit.

    Args:
        text: the text.
        first: what stands in front of its first line.
        after: what stands in front of the others.
    """
    width = min(_WIDE, columns())
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=after, break_on_hyphens=False)
