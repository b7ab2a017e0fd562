"""Architectures ranked by their least potential: bounds, optimisation, the command."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import Build, make_own
from torch import Tensor, nn
from typer.testing import CliRunner

from robustframe.cli import app
from robustframe.frames.architectures import architecture
from robustframe.frames.coherence import coherence
from robustframe.frames.least import as_branched, least_potential
from robustframe.frames.potential import closed_form_minimum, minimum_potential
from robustframe.frames.reframe import structure_of
from robustframe.frames.trace import trace
from robustframe.pairs import reframe


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_own`."""
    return make_own(tmp_path_factory.mktemp("own"))


def test_the_closed_form_is_the_least_potential() -> None:
    chain = nn.Sequential(
        nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 10),
        nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    score = least_potential(reframe(chain.eval(), (12,)).frame)
    # The value of a tight chain that was built number by number.
    assert (score.nonzeros, score.exact) == (6500, True)
    assert score.value * score.nonzeros == pytest.approx(61.25)
    for name in ("fc-20-10", "resnet8-8"):
        frame = architecture(name)
        plain = closed_form_minimum(frame)
        if plain is not None:
            assert least_potential(as_branched(frame)).value == pytest.approx(plain)


class Wide(nn.Module):
    """A residual block of matrices, and a sum of two."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 9), nn.Linear(9, 7), nn.Linear(7, 9), nn.Linear(9, 14)
        self.e, self.head, self.both = nn.Linear(9, 14), nn.Linear(14, 2), both

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.a(x))
        y = F.relu(self.c(F.relu(self.b(x))) + x)
        return self.head(F.relu(self.d(y) + self.e(x)) if self.both else F.relu(self.d(y)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("both", [False, True])
def test_minimising_ends_at_the_closed_form_and_never_below_the_bound(both: bool) -> None:
    torch.manual_seed(0)
    frame = reframe(Wide(both=both).eval(), (6,)).frame
    score = least_potential(frame)
    found = minimum_potential(frame, restarts=1)
    assert score.exact is not both
    assert found.converged
    assert found.nonzeros == score.nonzeros
    assert found.value >= score.value * (1 - 1e-6)
    if score.exact:
        assert found.value == pytest.approx(score.value, rel=1e-4)
    assert coherence(frame).deep_frame_potential > score.value


class Skips(nn.Module):
    """Blocks of one layer, whose branch reads the code that is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.a(x))
        return self.head(F.relu(self.b(x) + x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "shape", "exact"),
    [
        (Skips, (2,), False),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(),
                nn.Linear(6, 2)
            ),
            (1, 4, 4), True,
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), (1, 3, 3), False),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 2, 2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
            (1, 4, 4), False,
        ),
    ],
)  # fmt: skip
def test_a_structure_needs_no_weights_and_its_bound_holds(build: Build, shape: tuple[int, ...], exact: bool) -> None:
    frame = structure_of(trace(build().eval(), shape))
    score, found = least_potential(frame), minimum_potential(frame, restarts=1)
    assert score.exact is exact
    assert found.converged
    assert found.value * found.nonzeros >= score.value * score.nonzeros * (1 - 1e-6)
    assert found.value >= score.value * (1 - 1e-6)
    if exact:
        assert found.value == pytest.approx(score.value, rel=1e-4)


def test_rank_optimises_networks(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    (own / "small.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
    )
    said = CliRunner().invoke(app, ["rank", "file:small.py:build", "--shape", "1x2x2", "--optimise", "--json"])
    assert said.exit_code == 0, said.exception
    (found,) = json.loads(said.stdout)
    assert (found["method"], found["converged"]) == ("optimised", True)
    assert found["least"] ** 2 == pytest.approx((36 / 4 - 6) / 30, rel=1e-3)


def test_rank_lists_the_least_first(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    names = ["fc-200-100", "resnet8-8", "file:net.py:build"]
    words = ["rank", *names, "--shape", "1x8x8", "--json"]
    said = CliRunner().invoke(app, [*words, "--plot", str(tmp_path / "rank.svg")])
    assert said.exit_code == 0, said.output
    ranks = json.loads(said.stdout)
    assert {each["name"] for each in ranks} == set(names)
    assert [each["least"] for each in ranks] == sorted(each["least"] for each in ranks)
    net = next(each for each in ranks if each["name"] == "file:net.py:build")
    assert (net["structure"], net["method"]) == ("chain", "closed form")
    assert net["parameters"] == 60 + 12 + 97 * 12 + 13 * 10
    assert "file:net.py:build" in (tmp_path / "rank.svg").read_text()
    text = CliRunner().invoke(app, ["rank", "fc-200-100", "fc-20-10"]).stdout
    assert "closed form" in text
    assert max(map(len, text.splitlines())) <= 100
    failed = CliRunner().invoke(app, ["rank", "fc-20-10", "fc-20-10"])
    assert "fc-20-10 is given twice" in str(failed.exception)
