"""What several commands share: options, messages, the progress bar."""

import codecs
import io
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from robustframe.evaluation import Moment
    from robustframe.pairs import TrainingProgress
    from robustframe.verification import VerificationProgress

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
    return json.dumps(content, indent=2).replace("\x7f", "\\u007f")


_NEAR = {"─": "-", "–": "-", "—": "-", "−": "-", "≤": "<=", "≥": ">=", "ρ": "rho", "ε": "eps", "μ": "mu", "σ": "sigma"}


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


def say(text: str) -> None:
    """Say something on stderr."""
    typer.echo(plain(text), err=True)


class Bar:
    """A progress bar on stderr, quiet when that is no terminal."""

    def __init__(self, unit: str, name: str) -> None:
        from tqdm import tqdm

        make: Callable[..., Any] = tqdm
        self.bar = make(desc=name, unit=f" {unit}", file=sys.stderr, disable=None, dynamic_ncols=True, smoothing=0.05)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.close()

    def moment(self, now: "Moment") -> None:
        self.bar.total = now.units
        self.bar.set_description_str(f"{now.classifier} {now.threat} {now.attack}", refresh=False)
        spent = f"{now.passes / 1e6:.2f} M passes so far"
        share = f"robust {100 * now.robust_accuracy:.1f} %"
        self.bar.set_postfix_str(f"{now.survivors} survivors, {share}, {spent}", refresh=False)
        # Units of rows that are given up are not made, so the count may rise by more than one, or the total fall.
        self.bar.update(now.done - self.bar.n)

    def verified(self, now: "VerificationProgress") -> None:
        self.bar.total = now.parts
        self.bar.set_description_str(now.what, refresh=False)
        self.bar.update(1)

    def progress(self, now: "TrainingProgress") -> None:
        self.bar.total = now.batches
        if now.batch == 1:
            self.bar.reset(total=now.batches)
        self.bar.set_description_str(f"epoch {now.epoch}", refresh=False)
        self.bar.set_postfix_str(f"loss {now.loss:.3f}, accuracy {100 * now.accuracy:.1f} %", refresh=False)
        self.bar.update(1)
