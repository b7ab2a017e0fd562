"""The command `robustframe`, and ``python -m robustframe``: what a stop means, before anything else is imported."""

import contextlib
import signal
import sys
from types import FrameType

from robustframe.errors import Interrupted


def main() -> None:
    """Run the command line; a stop is a sentence and status 3, whenever it comes."""
    Interrupted.asked = False
    stops = [getattr(signal, name) for name in Interrupted.signals if hasattr(signal, name)]
    for number in stops:
        # nohup has a process outlive its terminal.
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        # Here and not above: it takes a while, in which someone may have thought better of it.
        from robustframe.cli import main as command_line

        if Interrupted.asked:
            raise Interrupted
        command_line()
    except Interrupted:
        for number in stops:
            signal.signal(number, signal.SIG_IGN)
        # A terminal that was closed takes no words.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("stopped; the same command continues\n")
            sys.stderr.flush()
        sys.exit(3)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # An exception of our own: the command-line library turns KeyboardInterrupt into status 1.
    Interrupted.asked = True
    raise Interrupted


if __name__ == "__main__":
    main()
