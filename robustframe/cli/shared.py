"""What several commands share: options and messages."""

import codecs
import io
import json
import math
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from robustframe.errors import InputError, unknown

if TYPE_CHECKING:
    from robustframe.report.arrange import TableStyle
    from robustframe.report.layout import Grid, Table

DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of data sets that do not ship.")]
Download = Annotated[bool, typer.Option("--download", help="Allow data and models of the hub to be downloaded.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Grouped(TyperCommand):
    """A command whose help has a heading for each group of options, by their ``rich_help_panel``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, group by group, in the order in which they are declared."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None:
                group = getattr(parameter, "rich_help_panel", None) or f"{parameter.param_type_name}s".capitalize()
                groups.setdefault(group, []).append(line)
        # What every command has comes last.
        groups["Options"] = groups.pop("Options", [])
        for group, lines in groups.items():
            with formatter.section(group):
                formatter.write_dl(lines)


def plain(text: str) -> str:
    """Spell out control characters: names in files of others must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def json_text(content: object) -> str:
    """Write what a machine reads, in the letters that every terminal and pipe has."""
    return json.dumps(_finite(content), indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def check_output(format: str, plot: Path | None) -> None:
    """Refuse a table format or a figure's file that is none, before anything takes long."""
    from robustframe.report.tables import FORMATS

    if format not in FORMATS:
        raise unknown("table format", format, FORMATS)
    if plot is not None:
        from robustframe.report.figures import check_path

        check_path(plot)


def print_tables(tables: "Iterable[Grid | Table]", format: str, style: "TableStyle | None" = None) -> None:
    """Print tables to stdout, an empty line between two."""
    from robustframe.report.tables import render

    texts = [render(table, format, style) for table in tables]
    typer.echo("\n".join(text.rstrip("\n") + "\n" for text in texts), nl=False)


def _finite(content: Any) -> Any:
    """Put null in the place of infinity and of what is no number, which JSON has no words for."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


_NEAR = {
    "─": "-",
    "━": "=",
    "–": "-",
    "—": "-",
    "−": "-",
    "≤": "<=",
    "≥": ">=",
    "ρ": "rho",
    "ε": "eps",
    "μ": "mu",
    "σ": "sigma",
}


def _near(error: UnicodeError) -> tuple[str, int]:
    """Write the letters that an encoding lacks with those that it has: like ones, or their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = ""
    for letter in error.object[error.start : error.end]:
        plainer = _NEAR.get(letter) or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        found += plainer or letter.encode("ascii", "backslashreplace").decode()
    return found, error.end


def write_anywhere() -> None:
    """Let what is written to stdout and stderr end in some letters, whatever the encoding of the terminal or pipe."""
    codecs.register_error("robustframe", _near)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="robustframe")


def parsed_normalise(given: str) -> dict[str, list[float]]:
    """Read ``MEAN/STD``, numbers with commas between, one a channel."""
    try:
        mean, std = ([float(each) for each in part.split(",")] for part in given.split("/"))
    except ValueError:
        raise InputError(
            f"--normalise {given} must read MEAN/STD, with a number per channel, such as 0.5,0.5,0.5/0.25,0.25,0.25"
        ) from None
    return {"mean": mean, "std": std}


def parsed_shape(given: str | None) -> tuple[int, ...] | None:
    """Read the shape of one image, such as ``1x28x28``."""
    if given is None:
        return None
    sides = given.split("x")
    if len(sides) not in (1, 3) or not all(side.isdecimal() and 0 < int(side) < _LONGEST for side in sides):
        raise InputError(f"--shape {given} must read CHANNELSxHEIGHTxWIDTH, such as 1x28x28, or one number")
    return tuple(int(side) for side in sides)


_LONGEST = 10_000


def say(text: str) -> None:
    """Say something on stderr."""
    typer.echo(plain(text), err=True)
