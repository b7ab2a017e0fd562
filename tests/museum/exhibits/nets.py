"""The images of the museum, and the nets that most of its pieces are made of: small, and trained in a second or two."""

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.data import Dataset, load
from robustframe.pairs import Pair
from robustframe.zoo import load as load_pair

Build = Callable[[], nn.Module]
HELD_OUT = 2000
"""The first test images of Fashion-MNIST are there to be attacked; nets are trained on those after them."""
PRACTICE = 8000
"""How many of those."""
KEPT: dict[tuple[str, str], nn.Module] = {}
"""What was trained in this process, by module and name of the function that trains it."""
FEATURES = 16 * 7 * 7


def trained(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Train a net when it is first asked for, and keep it for the rest of the process."""

    @wraps(make)
    def kept() -> nn.Module:
        key = (make.__module__, make.__qualname__)
        if key not in KEPT:
            KEPT[key] = make()
        return KEPT[key]

    return kept


@cache
def shown(data: str = "fashion-mnist", count: int = 100) -> Dataset:
    """Images to attack, of classes 0 and 1 only where the data set is called ``two-classes``."""
    if data != "two-classes":
        return load(data).first(count)
    whole = load("fashion-mnist").first(HELD_OUT)
    rows = (whole.labels < 2).nonzero().squeeze(1)[:count]
    return Dataset("two-classes", "test", whole.images[rows], whole.labels[rows], whole.classes[:2], "")


@cache
def _whole() -> Dataset:
    return load("fashion-mnist")


def practice(classes: int = 10) -> tuple[Tensor, Tensor]:
    """Images and labels to train on: none of those that are attacked."""
    whole, rows = _whole(), slice(HELD_OUT, HELD_OUT + PRACTICE)
    images, labels = whole.images[rows], whole.labels[rows]
    return images[labels < classes], labels[labels < classes]


def fit(
    make: Callable[[], nn.Module],
    *,
    epochs: int = 2,
    eps: float = 0.0,
    noise: float = 0.0,
    classes: int = 10,
    seed: int = 0,
    rate: float = 3e-3,
    frozen: Iterable[str] = (),
) -> nn.Module:
    """Make a net and train it.

    Args:
        make: the net, before training.
        epochs: passes through the images.
        eps: above 0, adversarially in linf (Madry et al., 2018, arXiv:1706.06083), by one step from a random start
            (Wong et al., 2020, arXiv:2001.03994).
        noise: standard deviation of noise on the images.
        classes: how many of the classes.
        seed: of weights, order, starts and noise.
        rate: the highest learning rate.
        frozen: parameters that stay as they are, by name.
    """
    images, labels = practice(classes)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = make().train()
        trained = [weight for name, weight in model.named_parameters() if name not in set(frozen)]
        steps = epochs * -(-len(images) // 128)
        optimiser = torch.optim.Adam(trained, lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(images)), 128):
                x, y = images[rows], labels[rows]
                if noise:
                    x = x + noise * torch.randn_like(x)
                if eps:
                    x = climb(model, x, y, eps)
                optimiser.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimiser.step()
                schedule.step()
    return model.eval().requires_grad_(False)


def climb(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Take one step of 1.25 eps from a random start in the ball."""
    z = (x + eps * (2 * torch.rand_like(x) - 1)).requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(z), y), z)
    z = z.detach() + 1.25 * eps * slope.sign()
    return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)


def convolutions(
    activation: Callable[[], nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None, channels: int = 1
) -> nn.Sequential:
    """Two strided convolutions and a linear layer."""

    def layer(into: int, out: int) -> list[nn.Module]:
        return [
            nn.Conv2d(into, out, 5, stride=2, padding=2), *([] if norm is None else [norm(out)]), activation(),
        ]  # fmt: skip

    return nn.Sequential(*layer(channels, 8), *layer(8, 16), nn.Flatten(), nn.Linear(FEATURES, 10))


def dense(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers between which there is an activation."""
    layers: list[nn.Module] = [nn.Flatten()]
    for into, out in zip((784, *widths), (*widths, 10), strict=True):
        layers += [nn.Linear(into, out), activation()]
    return nn.Sequential(*layers[:-1])


@trained
def net() -> nn.Module:
    """The undefended net that most exhibits wrap: cheap, as everything is evaluated many times."""
    return fit(lambda: dense(64, 64), epochs=4)


@trained
def linear() -> nn.Module:
    """A linear model."""
    return fit(dense)


@trained
def other() -> nn.Module:
    """A net of another architecture and another seed."""
    return fit(convolutions, seed=1)


@trained
def sibling() -> nn.Module:
    """A net like `net` of another seed."""
    return fit(lambda: dense(64, 64), epochs=4, seed=2)


@cache
def pair(name: str = "fmnist-chain3-6") -> Pair:
    """A pair of the zoo."""
    return load_pair(name)[0]


class Front(nn.Module):
    """A step in front of a net."""

    def __init__(self, step: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.step, self.body = step, body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.step(x))


class Step(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Around(nn.Module):
    """A function of nets and of images that gives the logits."""

    def __init__(self, *bodies_and_function: Any) -> None:
        super().__init__()
        *bodies, self.function = bodies_and_function
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(*self.bodies, x)
