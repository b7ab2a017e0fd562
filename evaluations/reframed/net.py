"""A small ResNet with batch norm, as anybody would write it: nothing in it knows of frames."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """The basic block of He et al. (2016, arXiv:1512.03385)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or channels != filters:
            self.skip = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU of the branch plus the skip."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    """A stem, three blocks, averages, and a matrix; for 28 x 28 images in grey."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, 10) of images (b, 1, 28, 28)."""
        logits: Tensor = self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return logits


def build() -> nn.Module:
    """Return the network, as yet untrained."""
    return ResNet()
