"""The progress bar of whatever takes long."""

import sys
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What is said now and then of something that takes long."""

    @property
    def shown(self) -> tuple[int, int, str, str]:
        """What a bar shows: what is done, of how many, of what, and what else there is to say."""


class Bar:
    """A progress bar on stderr; in a notebook under the cell, and quiet where stderr is neither.

    Args:
        unit: what is counted.
        name: what stands in front.
    """

    def __init__(self, unit: str, name: str) -> None:
        from tqdm import tqdm

        make: Callable[..., Any] = tqdm
        # In a notebook stderr shows a bar although it is no terminal.
        quiet = False if "ipykernel" in sys.modules else None
        self.bar = make(
            desc=name, unit=f" {unit}", file=sys.stderr, disable=quiet, dynamic_ncols=True, smoothing=0.05
        )  # fmt: skip

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.close()

    def show(self, now: Progress) -> None:
        """Show how far it is; what is done may fall, as a new epoch begins, or rise by more than one."""
        done, total, what, said = now.shown
        if done < self.bar.n:
            self.bar.reset(total=total)
        self.bar.total = total
        self.bar.set_description_str(what, refresh=False)
        self.bar.set_postfix_str(said, refresh=False)
        self.bar.update(done - self.bar.n)
