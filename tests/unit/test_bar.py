"""What is shown of something that takes long: in a terminal of any width, and where nobody looks."""

import io
import logging
import re
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from robustframe import bar
from robustframe.bar import Bar, Progress, duration
from robustframe.evaluation.progress import Moment
from robustframe.terminal import in_notebook


class Screen(io.StringIO):
    """A terminal of one line of drawing after another."""

    def isatty(self) -> bool:
        return True

    def drawings(self) -> list[list[str]]:
        drawn = [part for part in re.split(r"\r\x1b\[J", self.getvalue()) if "\n" in part]
        return [part.removesuffix("\r\x1b[A").split("\n") for part in drawn]


@dataclass
class Step:
    done: int
    total: int
    said: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[int, int, str, tuple[str, ...]]:
        return self.done, self.total, "net\x1b[2J linf:0.1 apgd", self.said


MOMENT = Moment(50, 200, "fmnist-chain3/recurrent", "linf:0.1", "apgd-t", 124, 0.124, 2_500_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(bar, "monotonic", lambda: now[0])
    return now


def drawn(monkeypatch: pytest.MonkeyPatch, clock: list[float], width: int, *steps: Progress) -> list[str]:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    with Bar("units", "default") as shown:
        for step in steps:
            clock[0] += 10
            shown.show(step)
        found = screen.drawings()
    assert screen.getvalue().endswith("\r\x1b[J")
    return found[-1]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_accuracy_survivors_and_time_left_beside_a_bar_to_be_seen(
    width: int, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    head, gauge = drawn(monkeypatch, clock, width, Step(0, 200), MOMENT)
    assert head == "default: fmnist-chain3/recurrent linf:0.1 apgd-t"
    assert len(gauge) < width
    bar_itself = re.match("━*─*", gauge)
    assert bar_itself is not None
    assert len(bar_itself[0]) >= 12
    assert gauge.count("━") == len(bar_itself[0]) // 4
    for part in ("50 of 200 units", "robust accuracy 12.4 %", "30 s left") + ("124 survivors",) * (width > 80):
        assert part in gauge


def test_a_narrow_terminal_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    head, gauge = drawn(monkeypatch, clock, 40, Step(0, 200), MOMENT)
    assert len(head) < 40
    assert len(gauge) < 40
    assert gauge.endswith("50 of 200 units")


def test_names_steer_no_terminal(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    head, _ = drawn(monkeypatch, clock, 80, Step(1, 2))
    assert head == "default: net [2J linf:0.1 apgd"


def test_the_pace_begins_anew_where_what_is_done_falls(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    _, gauge = drawn(monkeypatch, clock, 80, Step(90, 100), Step(99, 100), Step(1, 100), Step(2, 100))
    assert "16 min left" in gauge


def test_without_a_terminal_it_says_what_it_loads_and_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bar, "EVERY", 0.01)
    with Bar("units", "default") as shown:
        shown.stage("loading ...")
        assert capsys.readouterr().err.startswith("default: loading ...\n")
        shown.show(MOMENT)
        found = ""
        while "50 of 200" not in found:
            found += capsys.readouterr().err
    wanted = "default: fmnist-chain3/recurrent linf:0.1 apgd-t, 50 of 200 units, robust accuracy 12.4 %, 124 survivors"
    assert wanted in found
    assert "\x1b" not in found
    assert "\r" not in found


def test_a_message_stands_where_the_bar_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    with Bar("units", "default") as shown:
        shown.show(Step(1, 2))
        logging.getLogger("robustframe").warning("a word")
        assert screen.getvalue().endswith("\r\x1b[J")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59.0, "59 s"), (60.0, "1 min"), (5700.0, "95 min"), (7800.0, "2 h 10 min")]
)
def test_times_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_program_that_starts_kernels_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    ipython = ModuleType("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    for shell, wanted in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=1), True)):
        ipython.get_ipython = lambda shell=shell: shell  # type: ignore[attr-defined]
        assert in_notebook() is wanted
