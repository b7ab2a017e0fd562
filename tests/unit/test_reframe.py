"""Networks read as frames: the first sweep is the network, coherence is that of the explicit matrix, misuse is said."""

import copy
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune
from typer.testing import CliRunner

import robustframe
from robustframe.certify import lipschitz_radius
from robustframe.cli import app
from robustframe.cli.shared import json_text
from robustframe.data import load as load_data
from robustframe.errors import InputError, IntegrityError
from robustframe.frames.architectures import architecture
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import branch_weights, unit_atoms
from robustframe.frames.coherence import babel, coherence, filter_gram, own_coherence
from robustframe.frames.least import as_branched, least_potential
from robustframe.frames.objective import objective
from robustframe.frames.potential import closed_form_minimum, minimum_potential
from robustframe.frames.reframe import frame_of, head_of, structure_of
from robustframe.frames.trace import trace
from robustframe.models.framed import with_frames
from robustframe.models.given import classify_given
from robustframe.pairs import Reframed, ReframedPair, reframe
from robustframe.report.cards import card_text
from robustframe.solvers import ADMM, AcceleratedPursuit, DeepPursuit, Implicit, iterate, optimality, solve
from robustframe.train import find_training_recipe, new_pair, train
from robustframe.zoo import load_card

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


@pytest.mark.parametrize("name", [*SMALL, *[pytest.param(name, marks=pytest.mark.slow) for name in LARGE]])
def test_the_first_sweep_is_the_network(name: str) -> None:
    build, shape = {**SMALL, **LARGE}[name]
    model = drawn(build)
    before = copy.deepcopy(model.state_dict())
    frame, head = exactly(model, shape)
    x = images(shape).double()
    with torch.no_grad():
        wanted = copy.deepcopy(model).double()(x)
        found = head(solve(DeepPursuit(sweeps=1), frame, x).codes[-1])
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-8
        pair = reframe(model, shape).pair
        single, float32 = model(x.float()), pair.feedforward(x.float())
        assert float((float32 - single).abs().max() / single.abs().max()) < 1e-4
        assert pair.recurrent(x.float()).isfinite().all()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_sweeps_descend_the_objective_and_every_atom_has_unit_norm(name: str) -> None:
    build, shape = SMALL[name]
    frame, _ = exactly(drawn(build), shape)
    x = images(shape).double()
    with torch.no_grad():
        values = [objective(frame, x, codes) for codes in iterate(DeepPursuit(sweeps=30), frame, x)]
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-9 * before.abs()).all()
    for j in range(1, len(frame.layers) + 1):
        squares = torch.zeros(frame.code_shapes[j - 1][0], dtype=torch.float64)
        for part in frame.branches(j):
            full = part.spec.map(part.weight.detach()).full()
            squares[part.spec.first : part.spec.end] += float(part.ratio) * full.square().flatten(1).sum(1)
        assert torch.allclose(squares, torch.ones_like(squares))


def matrix(frame: BranchedFrame, x: Tensor) -> Tensor:
    """The global matrix, column by column, with atoms of unit norm in every branch."""
    frame = copy.deepcopy(frame).double()
    with torch.no_grad():
        for (j, b), weight in unit_atoms(frame, branch_weights(frame)).items():
            frame.branches(j)[b].weight.copy_(weight)
            frame.branches(j)[b].ratio.fill_(1)
    frame = frame.select(x)
    sizes = [int(torch.Size(shape).numel()) for shape in frame.code_shapes]
    columns = []
    for unit in torch.eye(sum(sizes), dtype=torch.float64):
        codes = [part.view(1, *shape) for part, shape in zip(unit.split(sizes), frame.code_shapes)]
        w = [torch.zeros(1, *frame.in_shape, dtype=torch.float64), *codes]
        columns.append(torch.cat([part.flatten() for j in range(1, len(w)) for part in frame.residual(j, w)]))
    return torch.stack(columns, 1)


@torch.no_grad()
@pytest.mark.parametrize("name", SMALL)
def test_coherence_is_that_of_the_explicit_matrix(name: str) -> None:
    build, shape = SMALL[name]
    frame, _ = exactly(drawn(build), shape)
    found = coherence(frame)
    whole = matrix(frame, images(shape, 1).double())
    whole = whole / torch.linalg.vector_norm(whole, dim=0)
    gram = (whole.T @ whole).fill_diagonal_(0).abs()
    assert whole.shape == (found.numbers, found.atoms)
    assert found.nonzeros == int((gram > 1e-12).sum())
    # Max pooling chooses different pixels of a window, whose atoms a border may cut off.
    close = 2e-3 if frame.selects else 1e-9
    assert found.mutual == pytest.approx(float(gram.max()), rel=close)
    assert found.frame_potential == pytest.approx(float(gram.square().sum()) + found.atoms, rel=close)
    nearest = gram.topk(3, 0).values.cumsum(0).amax(1)
    assert babel(frame, 3).tolist() == pytest.approx(nearest.tolist(), rel=5e-2 if frame.selects else 1e-9)
    tiles = filter_gram(frame)
    assert max(float(tile.max()) for tile in tiles.values()) == pytest.approx(found.mutual)
    assert all(
        tile.shape == (frame.code_shapes[i - 1][0], frame.code_shapes[j - 1][0]) for (i, j), tile in tiles.items()
    )


def test_a_chain_is_the_frame_that_its_layers_build() -> None:
    torch.manual_seed(0)
    plain = robustframe.frames.build_frame((1, 9, 9), [{"filters": 4, "kernel": 3, "padding": 1}, {"atoms": 5}])
    first, second = plain.blocks
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(324, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    with torch.no_grad():
        for layer, block in ((model[0], first), (model[3], second)):
            layer.weight.copy_(block.step_size * block.operator.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    found = reframe(model.eval(), (1, 9, 9)).frame
    assert coherence(found).mutual == pytest.approx(coherence(plain).mutual, rel=1e-5)
    assert coherence(found).deep_frame_potential == pytest.approx(coherence(plain).deep_frame_potential, rel=1e-5)
    assert [own_coherence(found, j) for j in (1, 2)] == pytest.approx(
        [own_coherence(plain, j) for j in (1, 2)], rel=1e-4
    )
    x = images((1, 9, 9))
    for many in (1, 5):
        ours = solve(DeepPursuit(sweeps=many), plain, x).codes[0]
        theirs = solve(DeepPursuit(sweeps=many), found, x).codes[0]
        # Both differ by the factors of the channels alone.
        factors = ours.sum((0, 2, 3)) / theirs.sum((0, 2, 3))
        assert torch.allclose(ours, theirs * factors.view(-1, 1, 1), rtol=1e-2, atol=1e-5)


def test_rescaled_channels_leave_the_frame_as_it_is() -> None:
    model = drawn(SMALL["vgg"][0])
    other = copy.deepcopy(model)
    factors = torch.tensor([1e-15, 3.0, 1e5])
    with torch.no_grad():
        for layer in (other[0], other[1]):
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.mul_(factors)
                layer.bias.mul_(factors)
        other[4].weight.div_(factors.view(1, -1, 1, 1))  # type: ignore[union-attr, arg-type, operator]
    one, two = (coherence(reframe(each, (1, 8, 8)).frame) for each in (model, other))
    assert one.mutual == pytest.approx(two.mutual, rel=1e-5)
    assert one.deep_frame_potential == pytest.approx(two.deep_frame_potential, rel=1e-5)


def test_deep_nets_whose_scales_no_number_holds() -> None:
    torch.manual_seed(0)
    blocks = [Basic(4, 4) for _ in range(60)]
    model = drawn(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), *blocks, *tail(4)))
    found = reframe(model, (1, 6, 6))
    assert float(found.frame.log_scales[-1]) < -100
    x = images((1, 6, 6))
    with torch.no_grad():
        wanted = model(x)
        assert float((found.pair.feedforward(x) - wanted).abs().max() / wanted.abs().max()) < 1e-4
        assert found.pair.recurrent(x).isfinite().all()
    assert 0 < coherence(found.frame).mutual <= 1


@pytest.mark.parametrize("name", ["residual", "vgg", "dense"])
def test_solvers_and_adjoints_take_such_frames(name: str) -> None:
    build, shape = SMALL[name]
    frame, _ = exactly(drawn(build), shape)
    x = images(shape).double()
    with torch.no_grad():
        far, near = (solve(DeepPursuit(sweeps=many), frame, x).codes for many in (2, 400))
        assert (optimality(frame, x, near) < 0.1 * optimality(frame, x, far)).all()
        quick = solve(AcceleratedPursuit(sweeps=100), frame, x).codes
        assert (objective(frame, x, quick) <= objective(frame, x, far)).all()
        split = solve(ADMM(sweeps=50), frame, x).codes
        assert all(code.isfinite().all() for code in split)


def test_the_gradient_of_a_solution_is_that_of_its_sweeps() -> None:
    build, shape = SMALL["mlp"]
    frame, _ = exactly(drawn(build), shape)
    x = images(shape).double().requires_grad_()
    solver = DeepPursuit(sweeps=1000)
    plain, implicit = solve(solver, frame, x), solve(solver, frame, x, Implicit(tolerance=1e-10))
    one, two = (torch.autograd.grad(each.codes[-1].sum(), x)[0] for each in (plain, implicit))
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)


def test_gradients_of_the_first_sweep_are_those_of_the_network() -> None:
    for name in ("residual", "dense", "swapped"):
        build, shape = SMALL[name]
        model = drawn(build)
        x = images(shape).requires_grad_()
        pair = reframe(model, shape).pair
        wanted, found = (torch.autograd.grad(each(x).square().sum(), x)[0] for each in (model, pair.feedforward))
        assert torch.allclose(wanted, found, rtol=1e-3, atol=1e-5)


def test_it_says_which_layer_is_which_row() -> None:
    found = reframe(drawn(SMALL["residual"][0]), (2, 6, 6))
    assert isinstance(found, Reframed)
    assert found.names == ("0", "3.conv1", "3.conv2", "4.conv1", "4.conv2 + short.0")
    assert found.layers["4.short.1"] == found.layers["4.bn2"] == 5
    assert found.layers["7"] == 6
    assert found.unread == ()
    assert found.why_no_pair is None
    assert [row.sources for row in found.frame.rows] == [(0,), (1,), (2, 1), (3,), (4, 3)]


def test_what_is_no_frame_is_named_and_the_rest_is_measured() -> None:
    smooth = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    found = reframe(smooth.eval(), (1, 8, 8))
    assert [each.name for each in found.unread] == ["1"]
    assert found.why_no_pair is not None
    assert "1: GELU: it is no proximal step" in found.why_no_pair
    assert len(found.frame.layers) == 1
    assert 0 < coherence(found.frame).mutual <= 1
    with pytest.raises(InputError, match="so it has no recurrent twin: 1: GELU"):
        _ = found.pair
    padded = nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 3, 3, 1, 1), nn.ReLU(), *tail(3)).eval()
    assert "its padding stands between two linear maps" in reframe(padded, (1, 8, 8)).unread[0].why
    maximum = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 4, 3), nn.ReLU(), *tail(4)).eval()
    assert "chooses among values that are no codes" in reframe(maximum, (1, 8, 8)).unread[0].why


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(F.relu(self.one(x)))))  # type: ignore[no-any-return]


class Branching(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x)) if x.sum() > 0 else x)  # type: ignore[no-any-return]


class Function(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(F.linear(x, self.one.weight)))  # type: ignore[no-any-return]


class Both(Twice):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        return self.head(F.relu(y - 1) * y)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (Twice().eval(), (4,), "layer 'one' is called more than once"),
        (Branching().eval(), (4,), "cannot be traced by torch.fx, because what it does depends on its input"),
        (Twice().train(), (4,), r"the model is in training mode; call model.eval\(\) first"),
        (drawn(SMALL["vgg"][0]), (3, 8, 8), r"does not take inputs of shape \(3, 8, 8\)"),
        (drawn(SMALL["vgg"][0]), (1, 8), "must be"),
        (drawn(SMALL["vgg"][0]), "1x8x8", "it must be the shape of one image"),
        (drawn(SMALL["vgg"][0]), (1, 8, True), "must be a whole number of at least 1"),
        (nn.Linear(4, 2).eval(), (4,), "no layer with a ReLU behind it"),
        (nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)).eval(), (4,), "1: GELU"),
        ("a model", (4,), "reframe reads a torch.nn.Module"),
    ],
)
def test_bad_input_gets_a_sentence(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        reframe(model, shape)


class Optional(Twice):
    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        y = F.relu(self.one(x))
        return y if features else self.head(y)  # type: ignore[no-any-return]


def test_arguments_with_defaults_and_parametrised_weights_are_read() -> None:
    x = images((4,))
    normed = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 2))
    for model in (Optional().eval(), normed.eval()):
        with torch.no_grad():
            assert torch.allclose(reframe(model, (4,)).pair.feedforward(x), model(x), atol=1e-5)


def test_functions_with_weights_and_products_are_named() -> None:
    for model, sentence in ((Function(), "linear is called as a function"), (Both(), "a product of two values")):
        found = reframe(model.eval(), (4,)) if isinstance(model, Both) else None
        if found is not None:
            assert sentence in found.unread[0].why
        else:
            assert sentence in str(reframe(model.eval(), (4,)).why_no_pair)


def hooked(change: Callable[[Tensor], Tensor | None]) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    model[2].register_forward_hook(lambda layer, given, made: change(made))
    return model


class Changed(Twice):
    """Changes a value in place of which it has another name."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        z = y
        z += 1
        return self.head(F.relu(y + z))  # type: ignore[no-any-return]


class Chance(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x) + torch.randn(4)))  # type: ignore[no-any-return]


class Counting(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.one(x)) * x.shape[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (hooked(lambda made: made + 0.1), r"layer 2 \(2\)"),
        (nn.Sequential(hooked(lambda made: 2 * made), nn.Tanh()).eval(), r"layer 2 \(0.2\)"),
        (Changed().eval(), "the model"),
        (Chance().eval(), "the model"),
        (Counting().eval(), "the model"),
    ],
)
def test_what_layers_do_not_say_is_refused(model: nn.Module, name: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=f"{name} is not what the model's layers say"):
        trace(model, (4,))
    assert torch.equal(before, torch.get_rng_state())


def test_a_hook_that_only_looks_is_no_reason_to_refuse() -> None:
    assert reframe(hooked(lambda made: None), (4,)).why_no_pair is None


class InPlace(Twice):
    """Changes values in place, with the result thrown away or read under both names."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y.mul_(2)
        F.relu(y, inplace=True)
        z = self.two(y)
        y = self.relu(z)
        return self.head(F.relu(y + z))  # type: ignore[no-any-return]


class ByName(Twice):
    """Calls functions with arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.div(F.relu(input=self.conv(input=x)), other=2)
        y = torch.mean(torch.cat(tensors=[y, y], dim=1), dim=(2, 3))
        return self.head(F.relu(self.one(torch.flatten(input=y, start_dim=1))))  # type: ignore[no-any-return]


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), torch.nn.utils.spectral_norm(nn.Linear(5, 2)))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


@pytest.mark.parametrize(("build", "shape"), [(InPlace, (4,)), (ByName, (1, 5, 5)), (pruned, (4,))])
def test_ways_of_writing_a_network_make_no_difference(build: Build, shape: tuple[int, ...]) -> None:
    model, x = drawn(build), images(shape)
    with torch.no_grad():
        assert torch.allclose(reframe(model, shape).pair.feedforward(x), model(x), atol=1e-5)


class Applied(nn.Module):
    """A convolution with a ReLU, some function, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(1, 2, 3, padding=1), nn.LazyLinear(2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(F.relu(self.conv(x))).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (nn.AvgPool2d(2, divisor_override=3), "divides by another number than that of its pixels"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "divides by another number than that of its pixels"),
        (lambda x: torch.sub(x, 0.5, alpha=2), "sub has a factor alpha or rounds"),
        (lambda x: torch.div(x, 0.5, rounding_mode="floor"), "div has a factor alpha or rounds"),
        (lambda x: x.mean(1), "a mean over something else than the pixels"),
        (lambda x: 1 - x, "a value is subtracted"),
        (nn.Upsample(scale_factor=2), "Upsample: nothing that is read computes the same"),
    ],
)
def test_functions_that_are_no_frame_are_named(function: Callable[[Tensor], Tensor], sentence: str) -> None:
    model = Applied(function).eval()
    model(images((1, 4, 4)))
    assert sentence in str(reframe(model, (1, 4, 4)).why_no_pair)


def test_networks_that_cannot_be_copied_or_have_no_numbers_are_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    locked, broken = copy.deepcopy(plain), copy.deepcopy(plain)
    locked.lock = threading.Lock()  # type: ignore[assignment]
    broken[2].bias.data[0] = float("nan")  # type: ignore[union-attr, operator]
    for model, sentence in (
        (plain.to("meta"), "Sequential cannot be copied to be read"),
        (locked, "Sequential cannot be copied to be read"),
        (broken, r"the model is not finite for images in \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=sentence):
            reframe(model, (4,))


def test_a_channel_without_weights_keeps_its_bias() -> None:
    model = drawn(SMALL["mlp"][0])
    with torch.no_grad():
        model[1].weight[2] = 0  # type: ignore[union-attr, operator]
    x = images((1, 6, 6))
    with torch.no_grad():
        assert torch.allclose(reframe(model, (1, 6, 6)).pair.feedforward(x), model(x), atol=1e-5)
    with torch.no_grad():
        model[1].weight.zero_()  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"layer 1 \(1\) has no weights but zeros"):
        reframe(model, (1, 6, 6))


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


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of a user's, trained a little by plain PyTorch, and a recipe that starts from it."""
    folder = tmp_path_factory.mktemp("own")
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


@pytest.fixture(scope="module")
def settled(own: Path) -> Path:
    """The card of the pair that the network of the folder has become."""
    recipe = find_training_recipe(str(own / "settle.toml"))
    return train(recipe, own / "out", device=torch.device("cpu"), source=own)


def test_training_starts_from_a_network_and_its_card_needs_no_code(own: Path, settled: Path) -> None:
    begun = new_pair(find_training_recipe(str(own / "settle.toml")), load_data("digits", "train"), own)
    test = load_data("digits", "test")
    pair, card = load_card(settled)
    assert isinstance(begun, ReframedPair)
    assert isinstance(pair, ReframedPair)
    assert card.structure == "branched"
    assert card.sweeps == pair.sweeps == 6
    assert card.recipe["start"]["from"] == "file:net.py:build"
    assert "pair" not in card.recipe

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(test.images).argmax(1) == test.labels).float().mean())

    # The feed-forward twin stays about what it was, and the recurrent one learns to agree with it.
    assert right(pair.feedforward) > right(begun.feedforward) - 0.05
    assert right(pair.recurrent) > max(right(begun.recurrent), 0.8)
    assert card.clean_accuracy.by_sweeps["1"] == pytest.approx(right(pair.feedforward), abs=1e-6)
    assert "branched" in card_text(card)


def test_a_damaged_card_of_branches_is_refused(settled: Path, tmp_path: Path) -> None:
    card_file = tmp_path / settled.name
    (tmp_path / "settled.safetensors").write_bytes(settled.with_suffix(".safetensors").read_bytes())
    good = json.loads(settled.read_text())

    def refused(change: Callable[[dict[str, Any]], Any], sentence: str) -> None:
        content = copy.deepcopy(good)
        change(content)
        card_file.write_text(json.dumps(content))
        with pytest.raises(IntegrityError, match=sentence):
            load_card(card_file)

    refused(lambda card: card["layers"][1]["branches"][0].update(reads=2), "layer 2 can read the input")
    refused(lambda card: card["layers"][1]["branches"][0].update(reads=-1), "greater than or equal to 0")
    refused(lambda card: card["layers"][0].update(code=[6, 9, 8]), "does not make codes of shape")
    refused(lambda card: card["layers"][0]["branches"][0].update(weight=[6, 1, 3]), "weight")
    refused(lambda card: card["layers"][0]["branches"][0].update(stride=[0, 1]), "stride|describes no pair")
    refused(lambda card: card["layers"][1]["branches"][0].update(weight=[10**6, 10**5, 4, 4]), "would hold more than")
    refused(lambda card: card.update(head=None), "a frame with branches has layers with branches, and a head")
    refused(lambda card: card.update(structure="chain"), "describes no pair")
    refused(lambda card: card["head"].update(padding=[1, 0]), "a head that makes .* makes no 10 logits")
    refused(lambda card: card["head"].update(box=[2, 2]), "do not fit codes of shape")
    refused(lambda card: card["layers"].clear(), "describes no pair|layers")


@pytest.mark.slow
def test_both_twins_of_ones_own_network_are_evaluated(own: Path, tmp_path: Path) -> None:
    asked = [
        "evaluate", "--model", "reframe:file:net.py:build", "--weights", "net.safetensors", "--data", "digits",
        "--count", "20", "--threat", "linf:0.05", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    ran = subprocess.run([sys.executable, "-m", "robustframe", *asked], cwd=own, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stderr
    run = robustframe.open_run(tmp_path / "run")
    assert [entry.twin for entry in run.record.classifiers] == ["feedforward", "recurrent"]
    assert run.record.classifiers[0].mutual_coherence is not None
    assert run.recipe().model[0].shape == [1, 8, 8]
    assert all(result.certified_correct is None for result in run.results)
    again = subprocess.run(
        [
            sys.executable, "-m", "robustframe", "verify", str(tmp_path / "run"), "--folder", str(own),
            "--code", str(own / "net.py"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr


def test_tables_state_the_coherence_of_any_network_or_why_it_is_no_frame() -> None:
    data = load_data("digits").first(10)
    frame = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    none = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).eval()
    before = copy.deepcopy(frame.state_dict())
    run = robustframe.evaluate(
        {"a": frame, "b": none}, data.images, data.labels, threat="linf:0.05", battery="quick", diagnose=False
    )
    known = {entry.name: entry for entry in run.record.classifiers}
    assert known["a"].mutual_coherence == pytest.approx(coherence(reframe(frame, (1, 8, 8)).frame).mutual, abs=1e-4)
    assert known["a"].no_frame is None
    assert known["b"].mutual_coherence is None
    assert known["b"].no_frame is not None
    assert "because of 2 (Tanh: " in known["b"].no_frame
    table = " ".join(run.table().split())
    assert f"coherence {known['a'].mutual_coherence:.3f}" in table
    assert "b: no frame, because of 2 (Tanh: " in table
    assert all(torch.equal(before[key], value) for key, value in frame.state_dict().items())


class Addressed(Twice):
    """Cannot be traced, for a reason that holds an address."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch.fx.Proxy):
            raise TypeError(f"{object()} is in the way")
        return self.head(F.relu(self.one(x) + torch.randn(4)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [Addressed(), Chance()])
def test_why_there_is_no_frame_reads_the_same_each_time(model: nn.Module) -> None:
    first, second = (
        with_frames(classify_given(model.eval(), "a", images((4,)))[0], (4,))[0].entry.no_frame for _ in range(2)
    )
    assert first is not None
    assert first == second


def test_certificates_do_not_cover_thresholds_below_zero() -> None:
    pair = reframe(drawn(SMALL["mlp"][0]), (1, 6, 6)).pair
    with pytest.raises(InputError, match="the thresholds of a network that was read as a frame may be negative"):
        lipschitz_radius(pair.feedforward, images((1, 6, 6)), torch.tensor([0, 1]))


def test_frame_reports_on_networks(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    asked = ["frame", "file:net.py:build", "--weights", "net.safetensors", "--data", "digits"]
    said = CliRunner().invoke(app, [*asked, "--filters", str(tmp_path / "a.png"), "--plot", str(tmp_path / "g.png")])
    assert said.exit_code == 0, said.output
    assert "[  B1   . ]" in said.stdout
    assert "dense after max pool 2" in said.stdout
    assert "Some thresholds are negative" in said.stdout
    assert (tmp_path / "a.png").stat().st_size > 1000
    report = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert [layer["name"] for layer in report["layers"]] == ["0", "5"]
    assert len(report["sweeps"]) == 32
    assert report["coherence"]["between"] == sorted(report["coherence"]["between"])
    narrow = CliRunner().invoke(app, asked, env={"COLUMNS": "80"}).stdout
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_json_has_no_infinity() -> None:
    assert json_text({"a": [1.5, float("inf")], "b": (float("nan"), 2)}) == json.dumps(
        {"a": [1.5, None], "b": [None, 2]}, indent=2
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["file:net.py:build"], "a network does not say what images it takes; give --shape 1x28x28, or --data"),
        (["file:net.py:build", "--shape", "8x8"], "must read CHANNELSxHEIGHTxWIDTH"),
        (["file:net.py:build", "--shape", "3x8x8"], "does not take inputs of shape"),
        (["torchvision:resnet19"], "did you mean"),
        (["zoo:digits-fc2-8", "--weights", "x"], "--weights is for networks"),
        (["nothing:x"], "unknown kind of model"),
        (["file:net.py:build", "--shape", "1x8x8", "--classes", "-4"], "classes = -4: Input should be greater than"),
        (["file:net.py:build", "--shape", "1x8x8", "--normalise", "1/0"], r"std[1] = 0.0: Input should be greater"),
    ],
)
def test_frame_says_what_is_wrong(words: list[str], sentence: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    failed = CliRunner().invoke(app, ["frame", *words])
    assert isinstance(failed.exception, InputError)
    assert sentence in str(failed.exception)


def test_the_closed_form_is_the_least_potential() -> None:
    chain = nn.Sequential(
        nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 10),
        nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    score = least_potential(reframe(chain.eval(), (12,)).frame)
    # The value of a tight chain that was built number by number.
    assert (score.nonzeros, score.exact) == (6500, True)
    assert score.value * score.nonzeros == pytest.approx(61.25)
    for name in ("fc-20-10", "resnet8-8"):
        frame = architecture(name)
        plain = closed_form_minimum(frame)
        if plain is not None:
            assert least_potential(as_branched(frame)).value == pytest.approx(plain)


class Wide(nn.Module):
    """A residual block of matrices, and a sum of two."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 9), nn.Linear(9, 7), nn.Linear(7, 9), nn.Linear(9, 14)
        self.e, self.head, self.both = nn.Linear(9, 14), nn.Linear(14, 2), both

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.a(x))
        y = F.relu(self.c(F.relu(self.b(x))) + x)
        return self.head(F.relu(self.d(y) + self.e(x)) if self.both else F.relu(self.d(y)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("both", [False, True])
def test_minimising_ends_at_the_closed_form_and_never_below_the_bound(both: bool) -> None:
    torch.manual_seed(0)
    frame = reframe(Wide(both=both).eval(), (6,)).frame
    score = least_potential(frame)
    found = minimum_potential(frame, restarts=1)
    assert score.exact is not both
    assert found.converged
    assert found.nonzeros == score.nonzeros
    assert found.value >= score.value * (1 - 1e-6)
    if score.exact:
        assert found.value == pytest.approx(score.value, rel=1e-4)
    assert coherence(frame).deep_frame_potential > score.value


class Skips(nn.Module):
    """Blocks of one layer, whose branch reads the code that is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.a(x))
        return self.head(F.relu(self.b(x) + x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "shape", "exact"),
    [
        (Skips, (2,), False),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(),
                nn.Linear(6, 2)
            ),
            (1, 4, 4), True,
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), (1, 3, 3), False),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 2, 2, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
            (1, 4, 4), False,
        ),
    ],
)  # fmt: skip
def test_a_structure_needs_no_weights_and_its_bound_holds(build: Build, shape: tuple[int, ...], exact: bool) -> None:
    frame = structure_of(trace(build().eval(), shape))
    score, found = least_potential(frame), minimum_potential(frame, restarts=1)
    assert score.exact is exact
    assert found.converged
    assert found.value * found.nonzeros >= score.value * score.nonzeros * (1 - 1e-6)
    assert found.value >= score.value * (1 - 1e-6)
    if exact:
        assert found.value == pytest.approx(score.value, rel=1e-4)


def test_rank_optimises_networks(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    (own / "small.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
    )
    said = CliRunner().invoke(app, ["rank", "file:small.py:build", "--shape", "1x2x2", "--optimise", "--json"])
    assert said.exit_code == 0, said.exception
    (found,) = json.loads(said.stdout)
    assert (found["method"], found["converged"]) == ("optimised", True)
    assert found["least"] ** 2 == pytest.approx((36 / 4 - 6) / 30, rel=1e-3)


def test_rank_lists_the_least_first(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    names = ["fc-200-100", "resnet8-8", "file:net.py:build"]
    words = ["rank", *names, "--shape", "1x8x8", "--json"]
    said = CliRunner().invoke(app, [*words, "--plot", str(tmp_path / "rank.svg")])
    assert said.exit_code == 0, said.output
    ranks = json.loads(said.stdout)
    assert {each["name"] for each in ranks} == set(names)
    assert [each["least"] for each in ranks] == sorted(each["least"] for each in ranks)
    net = next(each for each in ranks if each["name"] == "file:net.py:build")
    assert (net["structure"], net["method"]) == ("chain", "closed form")
    assert net["parameters"] == 60 + 12 + 97 * 12 + 13 * 10
    assert "file:net.py:build" in (tmp_path / "rank.svg").read_text()
    text = CliRunner().invoke(app, ["rank", "fc-200-100", "fc-20-10"]).stdout
    assert "closed form" in text
    assert max(map(len, text.splitlines())) <= 100
    failed = CliRunner().invoke(app, ["rank", "fc-20-10", "fc-20-10"])
    assert "fc-20-10 is given twice" in str(failed.exception)


class Added(nn.Module):
    """A sum of two codes and of a convolution: three branches, of which two are identities."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(*sides, 3, 1, 1) for sides in ((1, 3), (3, 3), (3, 3)))
        self.head = nn.Linear(75, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.a(x))
        y = F.relu(self.b(x))
        return self.head(F.relu(self.c(y) + x + y + y).flatten(1))  # type: ignore[no-any-return]


def test_codes_that_are_added_are_branches_of_their_own() -> None:
    found = reframe(drawn(Added), (1, 5, 5))
    last = found.frame.specs[-1]
    assert [(spec.reads, spec.is_factor) for spec in last] == [(2, False), (1, True), (2, True)]
    assert len({spec.group for spec in last}) == 3
    # Code 2 is added twice, which is one branch of twice the weight; as a unit atom it is an identity again.
    unit = unit_atoms(found.frame, branch_weights(found.frame))
    assert all(torch.allclose(unit[3, b].abs(), torch.ones(3, 1, 1, 1).double()) for b in (1, 2))
