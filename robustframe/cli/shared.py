"""What several commands share: options, messages, the progress bar."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from robustframe.evaluation import Moment
    from robustframe.pairs import TrainingProgress
    from robustframe.verification import VerificationProgress

DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of data sets that do not ship.")]
Download = Annotated[bool, typer.Option("--download", help="Allow data and models of the hub to be downloaded.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def plain(text: str) -> str:
    """Spell out control characters: names in files of others must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


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
