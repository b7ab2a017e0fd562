"""Networks read as frames: the first sweep is the network, coherence is that of the explicit matrix."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from networks import LARGE, SMALL, Basic, drawn, exactly, images, tail
from torch import Tensor, nn

import robustframe
from robustframe.errors import InputError
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branched_blocks import branch_weights, unit_atoms
from robustframe.frames.coherence import babel, coherence, filter_gram, own_coherence
from robustframe.frames.objective import objective
from robustframe.pairs import Reframed, reframe
from robustframe.solvers import ADMM, AcceleratedPursuit, DeepPursuit, Implicit, iterate, optimality, solve


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
