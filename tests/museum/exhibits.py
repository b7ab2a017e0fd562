"""A museum of broken defences, a few lines each, and honest models beside them, on small data."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.data import Dataset, load
from robustframe.pairs import Pair, Twin
from robustframe.solvers import DeepPursuit, solve
from robustframe.train import TrainingRecipe, train
from robustframe.zoo import load as load_pair
from robustframe.zoo import load_card

HERE = Path(__file__).parent
COUNT = 200
"""Test images of an evaluation."""


@dataclass(frozen=True)
class Exhibit:
    """A defence that does not defend, and what must be said about it."""

    name: str
    build: Callable[[], nn.Module]
    checks: tuple[str, ...]
    """The right reasons: each of these checks must fail."""
    cure: str
    """The battery that breaks it."""
    battery: str = "quick@1"
    """A battery that is taken in by it, or that is not made for it."""
    threat: str = "linf:0.15"


@dataclass(frozen=True)
class Honest:
    """A model that hides nothing."""

    name: str
    build: Callable[[], nn.Module]
    data: str = "digits"
    threat: str = "linf:0.05"
    battery: str = "quick@1"


def digits() -> Dataset:
    return load("digits").first(COUNT)


class Net(nn.Sequential):
    """Two hidden layers on the digits."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU, width: int = 64) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, width),
            activation(),
            nn.Linear(width, width),
            activation(),
            nn.Linear(width, 10),
        )


def fit(model: nn.Module, *, epochs: int = 15, temperature: float = 1.0, eps: float = 0.0) -> nn.Module:
    """Train on the digits; with an eps adversarially (Madry et al., 2018, arXiv:1706.06083)."""
    data = load("digits", "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(data)), 64):
                x, y = data.images[rows], data.labels[rows]
                x = climb(model, x, y, eps) if eps else x
                optimiser.zero_grad()
                F.cross_entropy(model(x) / temperature, y).backward()
                optimiser.step()
    return model.eval()


def climb(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    z = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(5):
        z.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(z), y), z)
        z = torch.minimum(torch.maximum(z.detach() + 0.4 * eps * slope.sign(), x - eps), x + eps).clamp(0, 1)
    return z


@cache
def net() -> nn.Module:
    return fit(Net())


class Front(nn.Module):
    """A step in front of a net."""

    def __init__(self, step: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.step, self.body = step, body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.step(x))


class Rounding(nn.Module):
    """Input quantisation: its gradient is zero almost everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return (16 * x).round() / 16


class Detached(nn.Module):
    """A step through other numbers than tensors, as in compression defences."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().clone()


class Jitter(nn.Module):
    """Each image is shifted by up to a pixel and made noisy, anew each time."""

    def forward(self, x: Tensor) -> Tensor:
        down, across = (int(shift) for shift in torch.randint(-1, 2, (2,)))
        noisy = x + 0.1 * torch.randn_like(x)
        return F.pad(noisy, (1, 1, 1, 1))[..., 1 + down : 9 + down, 1 + across : 9 + across]


class WinnersTakeAll(nn.Module):
    """Keeps the largest entries only (Xiao et al., 2020, arXiv:1905.10510)."""

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        kept = x.topk(max(int(self.share * x.shape[1]), 1), dim=1).indices
        return x * torch.zeros_like(x).scatter(1, kept, 1.0)


class Scaled(nn.Module):
    """Logits of a net times a number: distilled at a temperature, used without it (Papernot et al., 2016)."""

    def __init__(self, body: nn.Module, by: float) -> None:
        super().__init__()
        self.body, self.by = body, by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * self.body(x)


class NoisyLogits(nn.Module):
    """Logits with noise on them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits + 0.5 * logits.detach().std() * torch.randn_like(logits)


@cache
def pair(layers: tuple[int, ...] = (96, 48), sweeps: int = 6) -> Pair:
    """Train a pair of the kind that the zoo holds, on the digits."""
    recipe = TrainingRecipe.model_validate(
        {
            "schema": 1,
            "name": "small",
            "about": "A few dense layers on digits, for the museum.",
            "seed": 0,
            "data": {"use": "digits"},
            "pair": {"layers": [{"atoms": atoms} for atoms in layers], "sweeps": sweeps},
            "schedule": {"epochs": 10, "batch": 64, "learning_rate": 0.03},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return load_card(train(recipe, Path(folder), device=torch.device("cpu")))[0]


class BlackBox(Twin):
    """Solves outside of autograd, as implicit models do, and forgets to say how to differentiate."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            solution = solve(self.solver, self.pair.frame, images)
        return self.pair.classify(solution.codes[-1])


class GivesUp(BlackBox):
    """Stops an image once its codes move by less than a tenth: how long it computes depends on the image."""

    def __init__(self) -> None:
        super().__init__(pair(), 1, solver=DeepPursuit(sweeps=12, tolerance=0.1))


class TooEarly(BlackBox):
    """Stops on its way to somewhere else: twice the sweeps would give other answers."""

    def __init__(self) -> None:
        super().__init__(pair((96, 48, 48, 32), 2), 8)


class StopsAnywhere(Twin):
    """Makes a random number of sweeps."""

    def __init__(self) -> None:
        super().__init__(pair(), pair().sweeps)

    def forward(self, images: Tensor) -> Tensor:
        sweeps = int(torch.randint(1, 2 * pair().sweeps, ()))
        return Twin(self.pair, sweeps)(images)


class Watchful(Twin):
    """Solves something else while gradients are asked for."""

    def __init__(self) -> None:
        super().__init__(pair(), pair().sweeps)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(images.flip(-1)) * 1e-3 + super().forward(images).detach()
        return super().forward(images)


def _front(step: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Front(step, net())


BROKEN = (
    Exhibit("rounding", _front(Rounding()), ("unavailable-gradients",), "bpda.toml"),
    Exhibit("detached", _front(Detached()), ("unavailable-gradients",), "bpda.toml"),
    Exhibit("temperature", lambda: Scaled(net(), 1000.0), ("not-logits",), "swift@1", battery="ce.toml"),
    Exhibit(
        "winners-take-all",
        lambda: fit(Net(lambda: WinnersTakeAll(0.05), width=256), epochs=25),
        ("black-box-beats-gradients",),
        "winners.toml",
        battery="usual.toml",
    ),
    Exhibit("random-input", lambda: fit(Front(Jitter(), Net())), ("randomised",), "eot.toml"),
    Exhibit("noisy-logits", lambda: NoisyLogits(net()), ("randomised",), "eot.toml"),
    Exhibit("early-stop", GivesUp, ("input-dependent-computation",), "fixed.toml", threat="linf:0.2"),
    Exhibit("too-early", TooEarly, ("solver-not-converged",), "fixed.toml", threat="linf:0.2"),
    Exhibit("random-stop", StopsAnywhere, ("randomised",), "eot.toml", threat="linf:0.2"),
    Exhibit("watchful-solver", Watchful, ("differs-under-gradients",), "fixed.toml", threat="linf:0.2"),
)

HONEST = (
    Honest("linear", lambda: fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))),
    Honest("net", net),
    Honest("adversarially-trained", lambda: fit(Net(), epochs=25, eps=0.15), threat="linf:0.1"),
    Honest("pair", pair),
    *(
        Honest(f"zoo:{name}", lambda name=name: load_pair(name)[0], "fashion-mnist", threat)
        for name, threat in (("fmnist-chain3", "linf:0.01"), ("fmnist-chain3-linf", "linf:0.05"))
    ),
)
