"""What is attacked beside the references."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 10


@pytest.fixture(scope="session")
def trained():
    """A small convolutional model on ten noisy patterns, and examples that it gets right."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand((CLASSES, 3, 10, 10), generator=generator)

    def sample(count):
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        noise = 0.25 * torch.randn((count, 3, 10, 10), generator=generator)
        return (0.5 + 0.35 * (centres[labels] - 0.5) + noise).clamp(0, 1), labels

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(200, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        x, y = sample(128)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.requires_grad_(False)
    x, y = sample(400)
    right = model(x).argmax(1) == y
    assert right.float().mean() > 0.9
    return model, x[right], y[right]
