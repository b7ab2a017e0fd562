"""The first sweep of every structure is the ordinary torch network with the same weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.frames import Frame, architecture
from robustframe.pairs import Pair
from robustframe.solvers import DeepPursuit, solve


def prepared(name: str, seed: int = 0) -> tuple[Frame, Tensor]:
    frame = architecture(name, seed=seed).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, *frame.in_shape, generator=generator, dtype=torch.float64)
    w = [x]
    with torch.no_grad():
        for j, layer in enumerate(frame.blocks, start=1):
            # Codes shrink with every step size, so thresholds are a fraction of what each layer gets to see.
            found = frame.correlate(j, frame.target(j, w))
            draws = torch.rand(layer.threshold.shape, generator=generator, dtype=torch.float64)
            layer.threshold.copy_(0.2 * found.square().mean().sqrt() * draws)
            w.append(layer.step_size * (found - layer.threshold).relu())
    return frame, x


def conv_of(frame: Frame, j: int, *, stride: int = 1, kernel: int = 3, padding: int = 1) -> nn.Conv2d:
    """Layer j as an ordinary convolution: weights and thresholds times its step size."""
    layer = frame.blocks[j - 1]
    filters, channels = layer.operator.weight.shape[:2]
    conv = nn.Conv2d(channels, filters, kernel, stride, padding, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(layer.step_size * layer.operator.weight)
        assert conv.bias is not None
        conv.bias.copy_(-layer.step_size * layer.threshold.flatten())
    return conv


def assert_equal_nets(frame: Frame, x: Tensor, expected: Tensor) -> None:
    found = solve(DeepPursuit(sweeps=1), frame, x).codes[-1]
    assert (expected > 0).any()
    # Relative to the largest: deep codes are small, and rounding adds up over the layers.
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-10


class Residual(nn.Module):
    """A basic block as in the CIFAR ResNets: two convolutions, and a skip scaled by the second's step size."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, scale: float) -> None:
        super().__init__()
        self.first, self.second, self.scale = first, second, scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if y.shape != x.shape:
            pad = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(y + self.scale * x)


@torch.no_grad()
def test_the_first_sweep_of_a_chain_is_the_ordinary_network() -> None:
    frame, x = prepared("chain3-28")
    network = nn.Sequential(
        conv_of(frame, 1, stride=2, kernel=5, padding=2),
        nn.ReLU(),
        conv_of(frame, 2, stride=2, kernel=4),
        nn.ReLU(),
        conv_of(frame, 3, stride=2),
        nn.ReLU(),
    )
    assert_equal_nets(frame, x, network(x))


@torch.no_grad()
def test_the_first_sweep_of_a_fully_connected_chain_is_the_ordinary_network() -> None:
    frame, x = prepared("fc-40-30-20")
    value = x.flatten(1)
    for layer in frame.blocks:
        weight = layer.step_size * layer.operator.weight
        value = F.relu(F.linear(value, weight, -layer.step_size * layer.threshold))
    assert_equal_nets(frame, x, value)


@torch.no_grad()
def test_the_first_sweep_of_resnet20_is_the_ordinary_residual_network() -> None:
    frame, x = prepared("resnet20")
    blocks: list[nn.Module] = [conv_of(frame, 1), nn.ReLU()]
    for number in range(9):
        j = 2 + 2 * number
        stride = 2 if number in (3, 6) else 1
        second = conv_of(frame, j + 1)
        blocks.append(Residual(conv_of(frame, j, stride=stride), second, float(frame.blocks[j].step_size)))
    assert_equal_nets(frame, x[:2], nn.Sequential(*blocks)(x[:2]))


@torch.no_grad()
def test_the_first_sweep_of_a_densenet_is_the_ordinary_dense_network() -> None:
    frame, x = prepared("densenet10-28")
    value, j = F.relu(conv_of(frame, 1)(x)), 2
    for block in range(3):
        for _ in range(2):
            new = F.relu(conv_of(frame, j)(value))
            value, j = torch.cat([value, new], 1), j + 1
        if block < 2:
            # The transition: 1 x 1 convolution, 2 x 2 average pool; pooling is scaled to keep atoms of unit norm.
            layer = frame.blocks[j - 1]
            mixed = F.avg_pool2d(F.conv2d(value, 2 * layer.step_size * layer.operator.weight), 2)
            value, j = F.relu(mixed - layer.step_size * layer.threshold), j + 1
    assert_equal_nets(frame, x, new)


@torch.no_grad()
def test_a_residual_pair_classifies_with_the_codes_of_its_own_structure() -> None:
    frame, x = prepared("resnet8-8")
    pair = Pair(frame, classes=10, sweeps=3).double()
    first, last = pair.feedforward(x), pair.recurrent(x)
    torch.testing.assert_close(last, pair.classify(solve(DeepPursuit(sweeps=3), frame, x).codes[-1]))
    # Alone or in a batch, an example gets the same answer.
    torch.testing.assert_close(pair.recurrent(x[1:2]), last[1:2], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(first, last, rtol=1e-3, atol=0)
