"""Coherence from filter correlations equals that of the explicit global matrix, for every structure."""

import itertools

import pytest
import torch
from torch import Tensor

from robustframe.frames import Frame, build_frame, column_norms, mutual_coherence
from robustframe.frames.blocks import global_blocks
from robustframe.frames.coherence import babel, coherence
from robustframe.frames.gram import Gram

FRAMES = {
    "one dense layer": ((7,), "chain", [{"atoms": 12}]),
    "dense chain": ((6,), "chain", [{"atoms": 9}, {"atoms": 5}, {"atoms": 8}]),
    "one conv, no padding": ((3, 7, 6), "chain", [{"filters": 4, "kernel": 3}]),
    "conv chain, stride 1": (
        (2, 6, 6),
        "chain",
        [{"filters": 4, "kernel": 3, "padding": 1}, {"filters": 3, "kernel": 3, "padding": 1}],
    ),
    "conv chain, stride 2, kernels not multiples": (
        (2, 9, 8),
        "chain",
        [
            {"filters": 3, "kernel": 3, "stride": 2, "padding": 1},
            {"filters": 5, "kernel": 3, "stride": 2, "padding": 1},
            {"atoms": 6},
        ],
    ),
    "conv chain, wide padding and leftover pixels": (
        (1, 10, 9),
        "chain",
        [{"filters": 4, "kernel": 5, "stride": 3, "padding": 2}, {"filters": 3, "kernel": 2, "padding": 1}],
    ),
    "conv, then dense twice": (
        (2, 6, 6),
        "chain",
        [{"filters": 3, "kernel": 4, "stride": 2}, {"atoms": 7}, {"atoms": 4}],
    ),
    "dense residual": ((6,), "residual", [{"atoms": 8}, {"atoms": 7}, {"atoms": 8}, {"atoms": 5}, {"atoms": 9}]),
    "conv residual with strided skips": (
        (2, 8, 8),
        "residual",
        [
            {"filters": 3, "kernel": 3, "padding": 1},
            {"filters": 3, "kernel": 3, "padding": 1},
            {"filters": 3, "kernel": 3, "padding": 1},
            {"filters": 5, "kernel": 3, "stride": 2, "padding": 1},
            {"filters": 5, "kernel": 3, "padding": 1},
            {"atoms": 6},
        ],
    ),
    "residual that skips to the input": (
        (3, 5, 5),
        "residual",
        [{"filters": 2, "kernel": 3, "padding": 1}, {"filters": 4, "kernel": 3, "padding": 1, "skip": 2}],
    ),
    "densely connected": (
        (1, 8, 8),
        "dense",
        [
            {"filters": 4, "kernel": 3, "padding": 1},
            {"filters": 2, "kernel": 3, "padding": 1},
            {"filters": 2, "kernel": 3, "padding": 1},
            {"filters": 4, "pool": 2},
            {"filters": 3, "kernel": 3, "padding": 1},
            {"atoms": 5},
        ],
    ),
    "densely connected with a strided transition": (
        (2, 7, 7),
        "dense",
        [
            {"filters": 3, "kernel": 3, "padding": 1},
            {"filters": 2, "kernel": 3, "padding": 1},
            {"filters": 4, "kernel": 3, "stride": 2, "padding": 1},
            {"filters": 3, "kernel": 3, "padding": 1},
        ],
    ),
    "dense matrices densely connected": ((5,), "dense", [{"atoms": 4}, {"atoms": 6}, {"atoms": 3}]),
}


def make(name: str) -> Frame:
    shape, structure, layers = FRAMES[name]
    torch.manual_seed(len(name))
    frame = build_frame(shape, layers, structure).double()
    with torch.no_grad():
        for number, layer in enumerate(frame.blocks):
            # Atoms of different sizes: normalisation must come from the columns, not from the projection.
            weight = layer.operator.weight
            sizes = 0.5 + 0.3 * number + torch.rand(len(weight))
            weight.mul_(sizes.view(-1, *[1] * (weight.dim() - 1)))
    return frame


@torch.no_grad()
def explicit(frame: Frame) -> Tensor:
    """The global matrix, one column an atom, from the frame's own synthesis of unit codes."""
    sizes = [int(torch.Size(shape).numel()) for shape in frame.code_shapes]
    identity = torch.eye(sum(sizes), dtype=torch.float64)
    codes = [part.view(-1, *shape) for part, shape in zip(identity.split(sizes, 1), frame.code_shapes)]
    return torch.cat([part.flatten(1) for row in frame.synthesis(codes) for part in row], 1).T


def explicit_gram(frame: Frame) -> Tensor:
    matrix = explicit(frame)
    unit = matrix / torch.linalg.vector_norm(matrix, dim=0)
    return unit.T @ unit


@pytest.mark.parametrize("name", FRAMES)
def test_measures_equal_the_explicit_matrix(name: str) -> None:
    frame = make(name)
    matrix, gram = explicit(frame), explicit_gram(frame)
    off = (gram - torch.diag(gram.diagonal())).abs()
    found = coherence(frame)
    nonzeros = int((off > 1e-12).sum())
    assert found.mutual == pytest.approx(float(off.max()), abs=1e-6)
    assert mutual_coherence(frame) == pytest.approx(float(off.max()), abs=1e-6)
    assert found.frame_potential == pytest.approx(float(gram.square().sum()), rel=1e-10)
    assert found.nonzeros == nonzeros
    assert found.deep_frame_potential == pytest.approx(float(off.square().sum()) / nonzeros, abs=1e-10)
    assert (found.numbers, found.atoms) == tuple(matrix.shape)
    assert found.mutual >= found.deep_frame_potential**0.5
    assert found.mutual >= found.welch
    norms = torch.cat([norm.flatten() for norm in column_norms(frame)])
    torch.testing.assert_close(norms, torch.linalg.vector_norm(matrix, dim=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FRAMES)
def test_the_babel_function_equals_that_of_the_explicit_matrix(name: str) -> None:
    frame = make(name)
    gram = explicit_gram(frame)
    off = (gram - torch.diag(gram.diagonal())).abs()
    size = min(len(gram) - 1, 40)
    expected = off.topk(size, dim=1).values.cumsum(1).amax(0)
    torch.testing.assert_close(babel(frame, size), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FRAMES)
def test_every_entry_occurs_as_often_as_in_the_explicit_matrix(name: str) -> None:
    frame = make(name)
    expected = explicit_gram(frame)
    gram = Gram(global_blocks(frame))
    sizes = [int(torch.Size(shape).numel()) for shape in frame.code_shapes]
    tiles = [rows.split(sizes, 1) for rows in expected.split(sizes, 0)]
    for i, j in itertools.product(gram.columns, gram.columns):
        tile = tiles[i - 1][j - 1].flatten()
        portions = list(gram.portions(i, j)) if j in gram.neighbours(i) else []
        entries = [
            value.flatten().repeat(int(count))
            for portion in portions
            for value, count in zip(portion.values, portion.counts)
        ]
        found = torch.cat([torch.zeros(0, dtype=torch.float64), *entries]).sort().values
        filled = torch.cat([found, found.new_zeros(len(tile) - len(found))]).sort().values
        torch.testing.assert_close(filled, tile.sort().values, rtol=1e-9, atol=1e-9)
