"""Straight-through lies: a nonlinearity whose backward pass is another one's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exhibits.backward import bend, borrow
from exhibits.nets import Around, dense, fit, net, trained
from exhibits.pieces import MASKED, WRONG, broken

BENGIO = "straight-through estimators (Bengio et al., 2013, arXiv:1308.3432)"


def relus(way: type[nn.Module]) -> nn.Module:
    """Put another ReLU into the net."""

    def run(body: nn.Module, x: Tensor) -> Tensor:
        for layer in body.children():
            x = way()(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x

    return Around(net(), run)


class Open(nn.Module):
    """A ReLU that lets every gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return borrow(x.relu(), x)


class Guided(nn.Module):
    """A ReLU that lets positive gradients through only."""

    def forward(self, x: Tensor) -> Tensor:
        return bend(x.relu(), lambda slope: slope.relu())


class Reversed(nn.Module):
    """A ReLU that lets the gradient through where it is closed."""

    def forward(self, x: Tensor) -> Tensor:
        return borrow(x.relu(), -(-x).relu())


@broken(about="ReLUs let the gradient through everywhere, as if they were the identity.", source=BENGIO, checks=WRONG)
def open_relu() -> nn.Module:
    return relus(Open)


@broken(
    about="ReLUs let positive gradients through only.",
    source="guided backpropagation (Springenberg et al., 2015, arXiv:1412.6806)",
    checks=WRONG,
)
def guided_relu() -> nn.Module:
    return relus(Guided)


@broken(about="ReLUs let the gradient through where they are closed.", source=BENGIO, checks=WRONG)
def reversed_relu() -> nn.Module:
    return relus(Reversed)


class Pooled(nn.Module):
    """Maxima of 4 x 4 pixels and a dense net; on the way back they can be means."""

    def __init__(self, lie: bool = False) -> None:
        super().__init__()
        self.body, self.lie = nn.Sequential(nn.Flatten(), nn.Linear(169, 64), nn.ReLU(), nn.Linear(64, 10)), lie

    def forward(self, x: Tensor) -> Tensor:
        most = F.max_pool2d(x, 4, stride=2)
        return self.body(borrow(most, F.avg_pool2d(x, 4, stride=2)) if self.lie else most)


@trained
def pooled() -> nn.Module:
    return fit(Pooled, epochs=4)


@broken(about="Max pooling has the backward pass of average pooling.", source=BENGIO, checks=WRONG, undefended=pooled)
def mean_for_max() -> nn.Module:
    lie = Pooled(lie=True)
    lie.load_state_dict(pooled().state_dict())
    return lie.eval().requires_grad_(False)


class Sign(nn.Module):
    """The sign, with the gradient of a clipped identity whose window is far narrower than its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        window = 1.0 if self.training else 0.01
        return borrow(x.sign(), x.clamp(-window, window))


@broken(
    about="Hidden units are signs, trained with a wide straight-through window and attacked through a narrow one.",
    source="binarised networks (Galloway et al., 2018, arXiv:1711.00449)",
    checks=MASKED,
    answers="other",
    gradient="wrong",
)
@trained
def binary_units() -> nn.Module:
    return fit(lambda: dense(128, activation=Sign), epochs=4)


@broken(
    about="The image is rounded to two levels, and the straight-through gradient is divided by the pixel.",
    source="input binarisation (Xu et al., 2018, arXiv:1704.01155)",
    checks=WRONG,
    answers="other",
)
def binarised_input() -> nn.Module:
    def binarise(body: nn.Module, x: Tensor) -> Tensor:
        return body(borrow((x > 0.4).to(x) * 0.8, torch.log(x + 0.01)))

    return Around(net(), binarise)
