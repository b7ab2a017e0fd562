"""Ordinary networks to be read as frames, and a user's own one with what it takes to train it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from robustframe.data import load as load_data
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.reframe import frame_of, head_of
from robustframe.frames.trace import trace

Build = Callable[[], nn.Module]


class Basic(nn.Module):
    """The basic block of a ResNet, with a bias where batch norm would do."""

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, filters, 3, stride, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and channels == filters
        self.short = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, filters, 1, stride), nn.BatchNorm2d(filters))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU of branch plus skip."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.short(x)
        return self.relu(y)


class Dense(nn.Module):
    """A layer of a DenseNet, norm first."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and what is new beside it."""
        return torch.cat([x, F.dropout(self.conv(F.relu(self.norm(x))), training=self.training)], 1)


class Before(nn.Module):
    """A residual block with its norms and ReLUs in front (He et al., 2016, arXiv:1603.05027)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus its branch."""
        return x + self.conv(torch.relu(self.bn(x)))


class Swapped(nn.Module):
    """PyTorch's own first example: the pool before the ReLU, and functions in place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(1, 3, 5), nn.Conv2d(3, 4, 3), nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(36, 7), nn.Linear(7, 3)
        self.register_buffer("mean", torch.tensor([0.3]).view(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = (x - self.mean) / 0.5
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(self.drop(self.conv2(x)))
        x = x.view(x.size(0), -1)
        return self.fc2(F.relu(self.fc1(x)))


def tail(channels: int, classes: int = 3) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


SMALL: dict[str, tuple[Build, tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)
        ),
        (1, 6, 6),
    ),
    "vector": (lambda: nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4)), (9,)),
    "vgg": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(),
            nn.Linear(5, 3),
        ),
        (1, 8, 8),
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ReLU(), Basic(3, 3), Basic(3, 4, 2), *tail(4)
        ),
        (2, 6, 6),
    ),
    "norm first": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, 1, 1), Before(3), Before(3), nn.BatchNorm2d(3), nn.ReLU(), *tail(3)),
        (1, 5, 5),
    ),
    "dense": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, 1, 1), Dense(3, 2), Dense(5, 2), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 4, 1),
            nn.AvgPool2d(2), Dense(4, 2), nn.BatchNorm2d(6), nn.ReLU(), *tail(6),
        ),
        (1, 6, 6),
    ),
    "odd": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 2, groups=2), nn.ReLU(),
            nn.Conv2d(4, 3, 2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 6), nn.ReLU(), nn.Linear(6, 3),
        ),
        (2, 11, 9),
    ),
    "averages": (
        lambda: nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(),
            nn.AvgPool2d(2, 2), nn.Conv2d(4, 3, 3, 1, 1), nn.ReLU(), nn.AvgPool2d(3, 1), nn.Flatten(), nn.Linear(3, 4),
        ),
        (1, 12, 12),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 1), nn.ReLU(), *tail(6),
        ),
        (2, 8, 8),
    ),
    "border": (
        # The shift of the first norm is missing in the zeros around it, so biases differ from pixel to pixel.
        lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, 1, 1), nn.ReLU(), *tail(3)),
        (2, 5, 5),
    ),
    "swapped": (Swapped, (1, 14, 14)),
    "pixels": (
        # Kernels that reach over the border of one pixel, of which all but the middle is cut off.
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 3, 1, 1),
            nn.ReLU(), *tail(4),
        ),
        (2, 4, 4),
    ),
    "flat": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2)
        ),
        (1, 6, 6),
    ),
    "late": (
        lambda: nn.Sequential(nn.Conv2d(2, 5, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.ReLU(), *tail(5)), (2, 4, 4)
    ),
}  # fmt: skip
LARGE: dict[str, tuple[Build, tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision.models.resnet18(weights=None, num_classes=10), (3, 32, 32)),
    "resnet50": (lambda: torchvision.models.resnet50(weights=None, num_classes=10), (3, 33, 31)),
    "wide_resnet50_2": (lambda: torchvision.models.wide_resnet50_2(weights=None, num_classes=10), (3, 32, 32)),
    "vgg11": (lambda: torchvision.models.vgg11(weights=None, num_classes=10), (3, 32, 32)),
    "vgg11_bn": (lambda: torchvision.models.vgg11_bn(weights=None, num_classes=10), (3, 32, 32)),
    "densenet121": (lambda: torchvision.models.densenet121(weights=None, num_classes=10), (3, 32, 32)),
    "resnet20": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Basic(16, 16), Basic(16, 16),
            Basic(16, 16), Basic(16, 32, 2), Basic(32, 32), Basic(32, 32), Basic(32, 64, 2), Basic(64, 64),
            Basic(64, 64), *tail(64),
        ),
        (3, 32, 32),
    ),
    "densenet40": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1), *[Dense(16 + 12 * at, 12) for at in range(12)],
            nn.BatchNorm2d(160), nn.ReLU(), nn.Conv2d(160, 80, 1), nn.AvgPool2d(2),
            *[Dense(80 + 12 * at, 12) for at in range(12)],
            nn.BatchNorm2d(224), nn.ReLU(), nn.Conv2d(224, 112, 1), nn.AvgPool2d(2),
            *[Dense(112 + 12 * at, 12) for at in range(12)], nn.BatchNorm2d(256), nn.ReLU(), *tail(256),
        ),
        (3, 16, 16),
    ),
}  # fmt: skip


def drawn(build: Build, seed: int = 0) -> nn.Module:
    """A network with random weights and random statistics, in evaluation mode."""
    torch.manual_seed(seed)
    model = build()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            each.running_mean.normal_(0, 0.3)  # type: ignore[union-attr, operator]
            each.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias, 0, 0.3)
    return model.eval()


def exactly(model: nn.Module, shape: tuple[int, ...]) -> tuple[BranchedFrame, nn.Module]:
    traced = trace(model, shape)
    frame, factors = frame_of(traced)
    return frame, head_of(traced, factors)


def images(shape: tuple[int, ...], count: int = 2) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(F.relu(self.one(x)))))  # type: ignore[no-any-return]


class Chance(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x) + torch.randn(4)))  # type: ignore[no-any-return]


NET = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 12),
        nn.ReLU(), nn.Linear(12, 10),
    )
"""
SETTLE = """
schema = 1
name = "settled"
about = "A small network, trained at its solution"
seed = 0
[data]
use = "digits"
[start]
from = "file:net.py:build"
weights = "net.safetensors"
sweeps = 6
[schedule]
epochs = 2
batch = 128
learning_rate = 2e-3
sweeps = [2, 4, 6]
last = 2
settle = 0.1
coherence = 0.01
"""


def make_own(folder: Path) -> Path:
    """Leave a user's network, trained a little by plain PyTorch, and a recipe that starts from it, in a folder."""
    (folder / "net.py").write_text(NET)
    (folder / "settle.toml").write_text(SETTLE)
    space: dict[str, Any] = {}
    exec(NET, space)
    torch.manual_seed(0)
    net, train = space["build"](), load_data("digits", "train")
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for rows in torch.randperm(len(train)).repeat(6).split(100):
        optimizer.zero_grad()
        F.cross_entropy(net(train.images[rows]), train.labels[rows]).backward()
        optimizer.step()
    save_file(net.state_dict(), folder / "net.safetensors")
    return folder
