"""Which gradients are called masked, what finding out costs, and what Square makes of it."""

import pytest
import torch
from torch import Tensor, nn

from robustframe.attacks import Square
from robustframe.draws import Draws
from robustframe.gradients import Gradients
from robustframe.probe import Probe
from robustframe.slopes import masked
from robustframe.threat import ThreatModel

COUNT = 24
THREAT = ThreatModel(norm="linf", eps=0.1)


class Net(nn.Module):
    """Two layers; a subclass says what its gradient is of."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(1, 8, 8, 32, generator=generator).flatten(0, 2) / 8
        self.last = torch.randn(32, 4, generator=generator) / 4

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).to(self.first) @ self.first).relu() @ self.last


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach()) + 0 * x.sum()


class Other(Net):
    def forward(self, x: Tensor) -> Tensor:
        said, shown = super().forward(x), super().forward(x.flip(-1))
        return shown + (said - shown).detach()


class Flat(Net):
    """Its answer moves by whole numbers, and its gradient is none."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x)).round()


class Rounded(Net):
    """The image has 256 levels, and an honest straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + ((255 * x).round() / 255 - x).detach())


class Half(Net):
    """Only images with a dark corner have a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        dark = x[:, :, :1, :1] < 0.5
        return super().forward(torch.where(dark, x, x.detach()))


def images() -> Tensor:
    x = 0.2 + 0.6 * torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    # Far from the middle, where `Half` changes its mind.
    x[:, :, 0, 0] = 0.3 + 0.4 * (torch.arange(COUNT) % 3 > 0).unsqueeze(1)
    return x


def probe(model: nn.Module, rows: slice = slice(None)) -> Probe:
    x = images()[rows]
    with torch.no_grad():
        y = model(x).argmax(1)
    return Probe(model, x, y, THREAT, gradients=Gradients(), closest=True)


@pytest.mark.parametrize(
    ("model", "share"), [(Net(), 0.0), (Rounded(), 0.0), (Detached(), 1.0), (Other(), 1.0), (Flat(), 1.0)]
)
def test_a_gradient_is_masked_where_slopes_are_others(model: nn.Module, share: float) -> None:
    looked = probe(model)
    found = masked(looked, Draws((0,), COUNT))
    assert float(found.float().mean()) == pytest.approx(share, abs=0.1)
    spent = looked.forwards + looked.backwards
    assert int(spent.max()) <= 80
    if type(model) is Net:
        assert spent.unique().tolist() == [44]


def test_each_example_is_judged_by_itself() -> None:
    dark = images()[:, 0, 0, 0] < 0.5
    whole = masked(probe(Half()), Draws((0,), COUNT))
    assert torch.equal(whole, ~dark)
    some = slice(5, 14)
    assert torch.equal(masked(probe(Half(), some), Draws((0,), COUNT).of(some)), whole[some])


def test_square_searches_where_it_is_needed() -> None:
    def go(model: nn.Module, where: str) -> tuple[Tensor, Tensor]:
        x = images()
        with torch.no_grad():
            y = model(x).argmax(1)
        attack = Square(queries=300, where=where)  # type: ignore[arg-type]
        result = attack.run(model, x, y, ThreatModel(norm="linf", eps=0.02), Draws((0,), COUNT))
        return result.success, result.forwards + result.backwards

    broken, spent = go(Net(), "masked")
    assert int(spent.max()) <= 81
    everywhere = go(Detached(), "all")[0]
    assert everywhere.any()
    assert not everywhere.all()
    broken, spent = go(Detached(), "masked")
    assert torch.equal(broken, everywhere)
    assert int(spent[~broken].min()) > 300
