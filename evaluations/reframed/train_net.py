"""Train the ResNet of this folder by plain PyTorch: five minutes of one core. Writes net.safetensors beside it."""

from pathlib import Path

import torch
import torch.nn.functional as F
from net import build
from safetensors.torch import save_file

from robustframe.data import load

EPOCHS, BATCH, RATE = 8, 128, 4e-3


def main() -> None:
    """Train, print the test accuracy, save."""
    torch.manual_seed(0)
    train, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    net = build()
    steps = EPOCHS * (len(train) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        net.train()
        for rows in torch.split(torch.randperm(len(train))[: len(train) // BATCH * BATCH], BATCH):
            images = train.images[rows]
            images = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images.flip(3), images)
            loss = F.cross_entropy(net(images), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            batches = zip(torch.split(test.images, 1000), torch.split(test.labels, 1000))
            right = sum(int((net(x).argmax(1) == y).sum().item()) for x, y in batches)
        print(f"epoch {epoch + 1}: {100 * right / len(test):.2f} % of {len(test):,} test images", flush=True)
    save_file(net.state_dict(), Path(__file__).parent / "net.safetensors")


if __name__ == "__main__":
    main()
