"""The defence: adversarial training with one step (Wong, Rice and Kolter, 2020, arXiv:2001.03994).

The training split does not ship, so this trains on test images that the recipe does not evaluate: all but the first
1,000. For real work take `load("fashion-mnist", "train")`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from model import build
from safetensors.torch import save_file

from robustframe.data import load

EPS, EPOCHS, BATCH = 0.1, 8, 64


def main() -> None:
    data = load("fashion-mnist", "test")
    images, labels = data.images[1000:], data.labels[1000:]
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.Adam(model.parameters())
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            x, y = images[rows], labels[rows]
            delta = torch.empty_like(x).uniform_(-EPS, EPS).requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(model(x + delta), y), delta)
            attacked = (x + (delta + 1.25 * EPS * slope.sign()).clamp(-EPS, EPS)).clamp(0, 1).detach()
            optimizer.zero_grad()
            F.cross_entropy(model(attacked), y).backward()
            optimizer.step()
            schedule.step()
    save_file(model.state_dict(), Path(__file__).parent / "weights.safetensors")


if __name__ == "__main__":
    main()
