"""Coherence: bounds, known frames, counts of structural entries, borders, and sentences for bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustframe.errors import InputError
from robustframe.frames import Frame, build_frame, coherence_loss, column_norms, mutual_coherence
from robustframe.frames.coherence import babel, coherence, convolutional_bound, welch_bound
from robustframe.frames.incidence import gather, links, spread
from robustframe.frames.potential import structural_nonzeros


def conv(shape: tuple[int, int, int], *layers: dict[str, int], structure: str = "chain") -> Frame:
    torch.manual_seed(0)
    return build_frame(shape, layers, structure)


@pytest.mark.parametrize(
    ("numbers", "nonzeros"),
    [((6, 2, 3, 1, 8), 57_216), ((12, 2, 3, 2, 8), 20_544), ((20, 3, 3, 1, 8), 638_720), ((16, 3, 4, 2, 12), 82_368)],
)
def test_structural_entries_of_periodic_convolutions(numbers: tuple[int, ...], nonzeros: int) -> None:
    filters, channels, kernel, stride, side = numbers
    layer = {"filters": filters, "kernel": kernel, "stride": stride, "padding": 1}
    frame = conv((channels, side, side), layer)
    assert structural_nonzeros(frame, borders="periodic") == nonzeros
    found = coherence(frame, borders="periodic")
    assert found.nonzeros == nonzeros
    bound = convolutional_bound(filters, channels, kernel, stride)
    assert found.mutual >= found.deep_frame_potential**0.5 >= bound > 0
    assert bound > welch_bound(found.atoms, found.numbers)


def test_the_mercedes_frame_meets_its_welch_bound() -> None:
    frame = build_frame((2,), [{"atoms": 3}])
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
    with torch.no_grad():
        frame.blocks[0].operator.weight.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    found = coherence(frame)
    assert found.mutual == pytest.approx(0.5, abs=1e-6)
    assert found.welch == pytest.approx(0.5)
    assert found.frame_potential == pytest.approx(9 / 2, abs=1e-6)
    assert found.deep_frame_potential == pytest.approx(1 / 4, abs=1e-6)
    torch.testing.assert_close(babel(frame, 2), torch.tensor([0.5, 1.0]).double(), rtol=0, atol=1e-6)


def test_an_orthonormal_single_layer_is_not_coherent_at_all() -> None:
    frame = build_frame((5,), [{"atoms": 5}])
    with torch.no_grad():
        frame.blocks[0].operator.weight.copy_(torch.eye(5))
    found = coherence(frame)
    assert (found.mutual, found.deep_frame_potential, found.welch) == (0, 0, 0)


def test_one_atom_alone() -> None:
    found = coherence(build_frame((3,), [{"atoms": 1}]))
    assert (found.mutual, found.deep_frame_potential, found.nonzeros, found.atoms) == (0, 0, 0, 1)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    filters=st.integers(2, 4),
    kernel=st.integers(1, 2),
    stride=st.integers(1, 3),
    positions=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_babel_grows_from_the_mutual_coherence_and_never_faster(
    filters: int, kernel: int, stride: int, positions: int, seed: int
) -> None:
    torch.manual_seed(seed)
    kernel = kernel + stride
    side = kernel + stride * positions
    layers = [{"filters": filters, "kernel": kernel, "stride": stride}, {"atoms": 4}]
    frame = build_frame((2, side, side), layers)
    mutual, function = mutual_coherence(frame), babel(frame, 6)
    assert float(function[0]) == pytest.approx(mutual, abs=1e-9)
    assert (function.diff() >= 0).all()
    assert (function <= mutual * torch.arange(1, 7, dtype=torch.float64) + 1e-9).all()
    found = coherence(frame)
    assert found.deep_frame_potential**0.5 <= found.mutual + 1e-12
    assert found.frame_potential >= max(found.atoms, found.atoms**2 / found.numbers) * (1 - 1e-12)


def test_the_scale_of_weights_counts_only_against_the_identities() -> None:
    single, deep = (
        conv((2, 6, 6), {"filters": 5, "kernel": 3}),
        conv((2, 6, 6), {"filters": 5, "kernel": 3}, {"filters": 4, "kernel": 3}),
    )
    before = mutual_coherence(single), mutual_coherence(deep)
    with torch.no_grad():
        for frame in (single, deep):
            frame.blocks[0].operator.weight.mul_(3)
    assert mutual_coherence(single) == pytest.approx(before[0], abs=1e-6)
    assert mutual_coherence(deep) != pytest.approx(before[1], abs=1e-3)


def test_borders_stop_mattering_in_large_images() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 2, 3, 3)
    gaps = []
    for side in (6, 12, 24):
        frame = conv((2, side, side), {"filters": 4, "kernel": 3, "padding": 1})
        with torch.no_grad():
            frame.blocks[0].operator.weight.copy_(weight)
            frame.project_()
        exact, periodic = coherence(frame), coherence(frame, borders="periodic")
        gaps.append(abs(exact.deep_frame_potential - periodic.deep_frame_potential))
    assert gaps[2] < gaps[1] < gaps[0]
    assert gaps[2] < 0.5 * gaps[1]


def test_measures_do_not_change_the_frame_and_the_loss_keeps_its_value() -> None:
    frame = conv((1, 6, 6), {"filters": 3, "kernel": 3, "padding": 1}, {"atoms": 4})
    before = {name: tensor.clone() for name, tensor in frame.state_dict().items()}
    coherence(frame)
    babel(frame, 3)
    for name, tensor in frame.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in frame.parameters())
    lags = [layer.operator.correlations() for layer in frame.blocks]
    expected = sum(float((lag.detach() ** 2).sum() / len(lag)) for lag in lags)
    loss = coherence_loss(frame)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert all((layer.operator.weight.grad != 0).any() for layer in frame.blocks)


def test_column_norms_have_the_shape_of_codes() -> None:
    frame = conv((1, 6, 6), {"filters": 3, "kernel": 3, "padding": 1}, {"atoms": 4})
    norms = column_norms(frame)
    assert [tuple(norm.shape) for norm in norms] == frame.code_shapes
    assert norms[0][:, 3, 3].tolist() == pytest.approx([2**0.5] * 3, rel=1e-6)
    assert (norms[0][:, 0, 0] < 2**0.5 - 1e-3).all()


def test_axes_of_synthesis_and_analysis_mirror_each_other() -> None:
    forth, back = spread(9, 5, 3, 2, 1), gather(5, 9, 3, 2, 1)
    there = {(tap, p, y) for tap, row in enumerate(forth.pixels) for p, y in enumerate(row) if y >= 0}
    again = {(tap, y, p) for tap, row in enumerate(back.pixels) for p, y in enumerate(row) if y >= 0}
    assert there == again
    assert spread(9, 5, 3, 2, 1) is forth
    assert forth.pixels == ((-1, 1, 3, 5, 7), (0, 2, 4, 6, 8), (1, 3, 5, 7, -1))


def test_positions_meet_where_their_taps_share_a_pixel() -> None:
    axis = spread(4, 4, 3, 1, 1)
    meetings = links(((axis, axis),))
    assert set(meetings.pairs) == {(p, q) for p in range(4) for q in range(4) if abs(p - q) <= 2}
    assert meetings.taps[meetings.pairs[0, 2]] == (((2, 0),),)
    assert meetings.taps[meetings.pairs[0, 0]] == (((1, 1), (2, 2)),)


@pytest.mark.parametrize(
    ("atoms", "numbers", "expected"), [(3, 2, 0.5), (4, 4, 0.0), (2, 9, 0.0), (1, 1, 0.0), (120, 100, 0.0409960)]
)
def test_welch_bound(atoms: int, numbers: int, expected: float) -> None:
    assert welch_bound(atoms, numbers) == pytest.approx(expected, abs=1e-6)


def test_convolutional_bound() -> None:
    assert convolutional_bound(6, 2, 3, 1) == pytest.approx((2 / 149) ** 0.5)
    assert convolutional_bound(2, 2, 3, 1) == 0
    assert convolutional_bound(4, 1, 3, 2) == 0


def test_bad_input_gets_a_sentence() -> None:
    frame = conv((2, 7, 7), {"filters": 3, "kernel": 3}, {"atoms": 4})
    with pytest.raises(InputError, match="periodic borders need as many pixels as positions times stride: 7 is not 5"):
        coherence(frame, borders="periodic")
    with pytest.raises(InputError, match="from 1 to 78, not at 79"):
        babel(frame, 79)
    with pytest.raises(InputError, match="at least 1 atom"):
        welch_bound(0, 3)
    with pytest.raises(InputError, match="at least 1"):
        convolutional_bound(3, 0, 1, 1)
    with torch.no_grad():
        frame.blocks[1].operator.weight[2] = 0
    with pytest.raises(InputError, match="layer 2: atom or filter 2 is zero"):
        mutual_coherence(frame)
    with torch.no_grad():
        frame.blocks[0].operator.weight[1] = torch.nan
    with pytest.raises(InputError, match="layer 1 holds weights that are not finite"):
        coherence(frame)
