"""Operators and skips: adjoints to rounding, atoms of the norm they claim, for every kernel, stride and padding."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustframe.errors import InputError
from robustframe.frames import Conv, Dense, Operator, PooledConv, Shortcut


@torch.no_grad()
def gap(operator: Operator, seed: int) -> float:
    """Relative difference of <B w, x> and <w, B^T x>."""
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(3, *operator.code_shape, generator=generator, dtype=torch.float64)
    signal = torch.randn(3, *operator.in_shape, generator=generator, dtype=torch.float64)
    made, found = operator.synthesis(code), operator.analysis(signal)
    assert made.shape == signal.shape
    assert found.shape == code.shape
    left, right = (made * signal).flatten(1).sum(1), (code * found).flatten(1).sum(1)
    return float((left - right).abs().max() / (made.norm() * signal.norm()))


@torch.no_grad()
def columns(operator: Operator) -> torch.Tensor:
    atoms = int(torch.Size(operator.code_shape).numel())
    return operator.synthesis(torch.eye(atoms, dtype=torch.float64).view(-1, *operator.code_shape)).flatten(1)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from([1, 2, 9]),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
)
def test_convolutions_have_exact_adjoints_and_norms(
    channels: int, size: tuple[int, int], kernel: int, stride: int, padding: int
) -> None:
    try:
        conv = Conv((channels, *size), 3, kernel, stride=stride, padding=padding).double()
    except InputError:
        assume(False)
        return
    assert gap(conv, kernel) < 1e-14
    norms = torch.linalg.vector_norm(columns(conv), dim=1)
    torch.testing.assert_close(conv.atom_norms().flatten(), norms, rtol=1e-10, atol=1e-12)
    signal = torch.randn(2, *conv.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    plain = torch.nn.functional.conv2d(signal, conv.weight, stride=stride, padding=padding)
    torch.testing.assert_close(conv.analysis(signal, scale=0.3, bias=bias), 0.3 * plain + bias.view(-1, 1, 1))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(channels=st.integers(1, 5), rows=st.integers(1, 4), columns_=st.integers(1, 4), pool=st.integers(1, 3))
def test_pooled_convolutions_are_average_pooling_with_unit_atoms(
    channels: int, rows: int, columns_: int, pool: int
) -> None:
    operator = PooledConv((channels, rows * pool, columns_ * pool), 3, pool).double()
    operator.normalize_()
    assert gap(operator, pool) < 1e-14
    torch.testing.assert_close(operator.atom_norms(), torch.ones(operator.code_shape, dtype=torch.float64))
    signal = torch.randn(2, *operator.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(torch.nn.functional.conv2d(signal, operator.weight), pool) * pool
    torch.testing.assert_close(operator.analysis(signal), expected)
    as_conv = torch.nn.functional.conv2d(signal, operator.filters, stride=pool)
    torch.testing.assert_close(operator.analysis(signal), as_conv)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), atoms=st.integers(1, 6))
def test_matrices_have_exact_adjoints_and_norms(shape: list[int], atoms: int) -> None:
    operator = Dense(tuple(shape), atoms).double()
    assert gap(operator, atoms) < 1e-14
    torch.testing.assert_close(operator.atom_norms(), torch.linalg.vector_norm(columns(operator), dim=1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    extra=st.integers(0, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.integers(1, 3),
)
def test_skips_subsample_and_pad_exactly(channels: int, extra: int, size: tuple[int, int], stride: int) -> None:
    out = (channels + extra, *(-(-side // stride) for side in size))
    skip = Shortcut.between((channels, *size), out, "layer 3")
    generator = torch.Generator().manual_seed(stride)
    below = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)
    above = torch.randn(2, *out, generator=generator, dtype=torch.float64)
    applied = skip.apply(below)
    expected = torch.zeros_like(above)
    before = extra // 2
    expected[:, before : before + channels] = below[:, :, :: skip.stride, :: skip.stride]
    assert torch.equal(applied, expected)
    left, right = (applied * above).sum(), (below * skip.adjoint(above)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert skip.adjoint(above).shape == below.shape


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from([1, 9]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_frozen_filters_give_the_same_gradient_and_keep_no_image(
    channels: int, kernel: int, stride: int, padding: int
) -> None:
    try:
        conv = Conv((channels, 6, 7), 4, kernel, stride=stride, padding=padding)
    except InputError:
        assume(False)
        return
    generator = torch.Generator().manual_seed(kernel)
    for apply, shape in ((conv.analysis, conv.in_shape), (conv.synthesis, conv.code_shape)):
        point = torch.randn(2, *shape, generator=generator)
        found = []
        for frozen in (False, True):
            conv.requires_grad_(not frozen)
            leaf, saved = point.clone().requires_grad_(), []

            def keep(tensor: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
                saved.append(tensor)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                value = apply(leaf)
            (slope,) = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)
            (again,) = torch.autograd.grad(slope.square().sum(), leaf)
            found.append((value.detach(), slope.detach(), again))
            assert frozen != any(len(tensor) == len(point) for tensor in saved)
        for trained, left in zip(*found):
            assert torch.equal(trained, left)
