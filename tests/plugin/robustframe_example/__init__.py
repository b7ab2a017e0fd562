"""What a package adds to robustframe: an attack, models by name, data, and a battery."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from robustframe.attacks import Attack
from robustframe.losses import margin

BATTERY = Path(__file__).with_name("lab.toml")


@dataclass(frozen=True, kw_only=True)
class Straight(Attack):
    """Steps straight up the gradient at the clean image."""

    norms = ("linf", "l2")
    steps: int = 10

    def perturb(self, probe, x, threat, draws):
        step = threat.eps * threat.steepest_ascent(probe.gradient(x, margin).gradient)
        for part in range(1, self.steps):
            probe.logits(threat.project(x, x + part / self.steps * step))
        return x + step


def net(name: str) -> nn.Module:
    """Build a network by name: ``linear`` or ``deep``."""
    hidden = {"linear": [], "deep": [nn.Linear(64, 64), nn.ReLU()]}[name]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 2))


def stripes(split: str, data_root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes that lie or stand."""
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    labels = torch.arange(60) % 2
    lying = (torch.arange(8) % 2).float().view(1, 1, 8, 1).expand(60, 1, 8, 8)
    images = torch.where(labels.view(-1, 1, 1, 1) == 0, lying, lying.transpose(2, 3))
    return (images * 0.5 + 0.25 + 0.1 * torch.rand((60, 1, 8, 8), generator=generator)), labels
