"""Networks read as frames: the first sweep is the network, coherence is that of the explicit matrix, misuse is said."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import robustframe
from robustframe.errors import InputError
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import branch_weights, unit_atoms
from robustframe.frames.coherence import babel, coherence, filter_gram, own_coherence
from robustframe.frames.objective import objective
from robustframe.frames.reframe import frame_of, head_of
from robustframe.frames.trace import trace
from robustframe.pairs import Reframed, reframe
from robustframe.solvers import ADMM, AcceleratedPursuit, DeepPursuit, Implicit, iterate, optimality, solve

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
}  # fmt: skip
LARGE: dict[str, tuple[Build, tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision.models.resnet18(weights=None, num_classes=10), (3, 32, 32)),
    "resnet50": (lambda: torchvision.models.resnet50(weights=None, num_classes=10), (3, 33, 31)),
    "wide_resnet50_2": (lambda: torchvision.models.wide_resnet50_2(weights=None, num_classes=10), (3, 32, 32)),
    "vgg11": (lambda: torchvision.models.vgg11(weights=None, num_classes=10), (3, 32, 32)),
    "vgg11_bn": (lambda: torchvision.models.vgg11_bn(weights=None, num_classes=10), (3, 64, 64)),
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
    factors = torch.tensor([0.1, 3.0, 20.0])
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
    solver = DeepPursuit(sweeps=2000)
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


def test_functions_with_weights_and_products_are_named() -> None:
    for model, sentence in ((Function(), "linear is called as a function"), (Both(), "a product of two values")):
        found = reframe(model.eval(), (4,)) if isinstance(model, Both) else None
        if found is not None:
            assert sentence in found.unread[0].why
        else:
            assert sentence in str(reframe(model.eval(), (4,)).why_no_pair)


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
