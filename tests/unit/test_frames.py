"""Frames of every structure: what they know of themselves, how they are built, and what they refuse."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import (
    Conv,
    Dense,
    Frame,
    PooledConv,
    Row,
    architecture,
    architectures,
    build_frame,
    misfit,
    objective,
    squared_norm,
)
from robustframe.solvers import DeepPursuit, iterate

CONV: dict[str, int] = {"filters": 4, "kernel": 3, "padding": 1}
WIDE: dict[str, int] = {"filters": 6, "kernel": 3, "padding": 1}
FRAMES: dict[str, tuple[tuple[int, ...], list[dict[str, int]], str]] = {
    "chain": ((2, 8, 8), [CONV, {"filters": 5, "kernel": 4, "stride": 2, "padding": 1}, {"atoms": 7}], "chain"),
    "dense chain": ((9,), [{"atoms": 12}, {"atoms": 6}], "chain"),
    "residual": ((1, 8, 8), [CONV, CONV, CONV, {**WIDE, "stride": 2}, WIDE, WIDE, WIDE], "residual"),
    "skip to the input": ((1, 6, 6), [CONV, {**CONV, "skip": 2}], "residual"),
    "dense residual": ((9,), [{"atoms": 8}, {"atoms": 5}, {"atoms": 10}], "residual"),
    "dense": ((1, 8, 8), [CONV, CONV, CONV, {"filters": 9, "pool": 2}, CONV, {**CONV, "stride": 2}, WIDE], "dense"),
    "densely connected matrices": ((9,), [{"atoms": 8}, {"atoms": 5}, {"atoms": 4}, {"atoms": 6}], "dense"),
}


def frame_of(name: str) -> Frame:
    torch.manual_seed(0)
    frame = build_frame(*FRAMES[name]).double()
    with torch.no_grad():
        for layer in frame.blocks:
            layer.threshold.uniform_(0.01, 0.05)
    return frame


def codes_of(frame: Frame, count: int = 2) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shapes = [frame.in_shape, *frame.code_shapes]
    x, *codes = (torch.rand(count, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return x, codes


@torch.no_grad()
def matrix_of(frame: Frame) -> Tensor:
    """The frame as a dense matrix, column by column."""
    sizes = [int(torch.Size(shape).numel()) for shape in frame.code_shapes]
    portions = torch.eye(sum(sizes), dtype=torch.float64).split(sizes, dim=1)
    codes = [part.reshape(-1, *shape) for part, shape in zip(portions, frame.code_shapes)]
    return torch.cat([part.flatten(1) for row in frame.synthesis(codes) for part in row], dim=1).T


@pytest.mark.parametrize("name", FRAMES)
def test_the_gradient_of_every_block_is_that_of_finite_differences(name: str) -> None:
    frame = frame_of(name)
    x, codes = codes_of(frame)
    generator = torch.Generator().manual_seed(2)
    for j, code in enumerate(codes, start=1):
        direction = torch.randn(code.shape, generator=generator, dtype=torch.float64)
        ends = [[*codes[: j - 1], code + sign * 1e-3 * direction, *codes[j:]] for sign in (1, -1)]
        # Central differences of a quadratic are exact but for rounding.
        expected = (misfit(frame, x, ends[0]) - misfit(frame, x, ends[1])) / 2e-3
        found = (frame.gradient(j, [x, *codes]) * direction).flatten(1).sum(1)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", FRAMES)
def test_the_objective_never_rises_and_its_misfit_is_that_of_the_matrix(name: str) -> None:
    frame = frame_of(name)
    x, codes = codes_of(frame)
    values = torch.stack([objective(frame, x, found) for found in iterate(DeepPursuit(sweeps=12), frame, x)])
    assert (values.diff(dim=0) <= 1e-12).all()
    assert (values[-1] < 0.999 * values[0]).all()
    padded = torch.zeros(len(x), len(matrix_of(frame)), dtype=torch.float64)
    start = 0
    zero = [torch.zeros_like(code) for code in codes]
    for j in range(1, len(codes) + 1):
        for part in frame.target(j, [x, *zero]):
            padded[:, start : start + part[0].numel()] = part.flatten(1)
            start += part[0].numel()
    flat = torch.cat([code.flatten(1) for code in codes], dim=1)
    expected = (padded - flat @ matrix_of(frame).T).square().sum(1) / 2
    torch.testing.assert_close(misfit(frame, x, codes), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FRAMES)
def test_step_sizes_are_those_of_the_block_hessians(name: str) -> None:
    frame = frame_of(name)
    matrix, start = matrix_of(frame), 0
    for j, layer in enumerate(frame.blocks, start=1):
        size = int(torch.Size(layer.operator.code_shape).numel())
        block = matrix[:, start : start + size]
        start += size
        largest = float(torch.linalg.matrix_norm(block, ord=2) ** 2)
        subsampled = any(not frame.blocks[row - 1].shortcut.is_identity for row in frame.skip_readers(j))  # type: ignore[union-attr]
        found = 1 / float(layer.step_size)
        assert found >= largest * (1 - 1e-3)
        # A skip that subsamples counts as a whole identity: at most 1 too much.
        assert found <= largest * (1 + 1e-5) + subsampled


@pytest.mark.parametrize("name", FRAMES)
def test_a_sweep_is_one_proximal_gradient_step_of_each_block_in_turn(name: str) -> None:
    frame = frame_of(name)
    x, codes = codes_of(frame)
    w = [x, *codes]
    for j, layer in enumerate(frame.blocks, start=1):
        w[j] = (w[j] - layer.step_size * (frame.gradient(j, w) + layer.threshold)).relu()
    found = DeepPursuit(sweeps=2).refine(frame, x, tuple(codes))
    for code, expected in zip(found, w[1:], strict=True):
        torch.testing.assert_close(code, expected, rtol=1e-7, atol=1e-7)


def test_the_objective_is_infinite_for_negative_codes_and_counts_thresholds() -> None:
    frame = frame_of("chain")
    x, codes = codes_of(frame)
    penalty = sum((layer.threshold * code).flatten(1).sum(1) for layer, code in zip(frame.blocks, codes))
    torch.testing.assert_close(objective(frame, x, codes), misfit(frame, x, codes) + penalty)
    codes[1][1, 0, 0, 0] = -1e-9
    found = objective(frame, x, codes)
    assert found.isfinite().tolist() == [True, False]


def test_structures_follow_their_rules() -> None:
    assert frame_of("chain").rows == [Row((0,)), Row((1,)), Row((2,))]
    assert [row.skip for row in frame_of("residual").rows] == [None, None, 1, None, 3, None, 5]
    assert [row.sources for row in frame_of("dense").rows] == [
        (0,),
        (1,),
        (1, 2),
        (1, 2, 3),
        (4,),
        (4, 5),
        (6,),
    ]
    for name in FRAMES:
        assert frame_of(name).structure == FRAMES[name][2]
    frame = frame_of("dense")
    assert frame.signal_readers(2) == [(3, 4), (4, 4)]
    assert [frame.pull(j) for j in range(1, 8)] == [3, 2, 1, 2, 1, 1, 0]


def test_keys_of_a_chain_stay_what_stored_weights_have() -> None:
    keys = set(frame_of("chain").state_dict())
    per_layer = ("operator.weight", "threshold", "step_size")
    assert keys == {f"layers.{at}.{name}" for at in range(3) for name in per_layer}
    assert set(frame_of("residual").state_dict()) == {f"layers.{at}.{name}" for at in range(7) for name in per_layer}


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Frame([]), "at least one layer"),
        (lambda: Frame([Dense((4,), 5), Dense((6,), 3)]), r"makes codes of shape \(5,\), but layer 2 takes .*\(6,\)"),
        (lambda: Frame([Dense((4,), 5)], [Row((0,)), Row((1,))]), "1 operators were given and 2 rows"),
        (lambda: Frame([Dense((4,), 5)], [Row((1,))]), "layers below it"),
        (lambda: Frame([Dense((4,), 5)], [Row(())]), "reads no code"),
        (lambda: Frame([Dense((4,), 5), Dense((10,), 3)], [Row((0,)), Row((1, 1))]), "reads a code twice"),
        (lambda: Frame([Dense((4,), 5), Dense((5,), 3)], [Row((0,)), Row((1,), skip=0)]), "skip cannot add"),
        (
            lambda: build_frame((1, 8, 8), [CONV, CONV, {"filters": 2, "kernel": 3, "skip": 2}], "residual"),
            "cannot add",
        ),
        (lambda: build_frame((9,), [{"atoms": 4}, {"atoms": 4}], "residual"), "no layer of this residual frame"),
        (lambda: build_frame((9,), [{"atoms": 4}, {"atoms": 4, "skip": 1}], "residual"), "from 2 to 2"),
        (lambda: build_frame((9,), [{"atoms": 4, "skip": 2}], "chain"), "needs structure 'residual'"),
        (lambda: build_frame((9,), [{"atoms": 4}], "residal"), "did you mean 'residual'"),
        (lambda: build_frame((9,), [{"atom": 4}]), r"found \['atom'\]"),
        (lambda: build_frame((9,), [CONV]), r"layer 1 is convolutional but its input has shape \(9,\)"),
        (lambda: Conv((1, 8, 8), 4, 3, stride=4), "uncovered"),
        (lambda: Conv((1, 8, 8), 4, 4, stride=4), "without overlap"),
        (lambda: Conv((1, 8, 8), 4, 3, stride=2), "1 rows or columns of 8 x 8 uncovered at the far edge"),
        (lambda: Conv((1, 4, 4), 4, 7, padding=1), "does not fit"),
        (lambda: Conv((1, 4, 4), 0, 3), "positive"),
        (lambda: PooledConv((1, 7, 7), 4, 2), "does not divide an image of 7 x 7"),
        (lambda: Dense((4,), 0), "at least one"),
        (lambda: architecture("resnet57"), "did you mean 'resnet5?6'"),
        (lambda: architecture("densenet10-28", in_shape=(1, 30, 30)), "does not fit inputs of shape"),
    ],
)
def test_wrong_frames_get_a_sentence(build: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda layer: layer.operator.weight[0].fill_(torch.nan), "layer 2 has weights or thresholds that are not fin"),
        (lambda layer: layer.operator.weight[3].zero_(), "atom 3 of layer 2 is zero"),
        (lambda layer: layer.threshold.fill_(-1), "negative threshold"),
    ],
)
def test_parameters_that_make_no_frame_get_a_sentence(spoil: Any, says: str) -> None:
    frame = frame_of("chain")
    frame.check()
    with torch.no_grad():
        spoil(frame.blocks[1])
    with pytest.raises(InputError, match=says):
        frame.update_step_sizes_()


@pytest.mark.parametrize(
    ("name", "layers", "last", "parameters"),
    [
        # Weights of the convolutions alone, counted by hand from the papers' tables; plus one threshold a filter.
        (
            "resnet20",
            19,
            (64, 8, 8),
            9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2) + 7 * 16 + 6 * 96,
        ),
        ("resnet56", 55, (64, 8, 8), None),
        ("densenet40-12", 39, (12, 8, 8), None),
        ("densenet10-28", 9, (12, 7, 7), None),
        ("resnet8-28", 7, (64, 7, 7), None),
        ("fc-30-20", 2, (20,), 784 * 30 + 30 * 20 + 50),
    ],
)
def test_architectures_have_the_layers_of_their_papers(
    name: str, layers: int, last: tuple[int, ...], parameters: int | None
) -> None:
    frame = architecture(name)
    assert (len(frame.blocks), frame.code_shapes[-1]) == (layers, last)
    if parameters is not None:
        assert sum(p.numel() for p in frame.parameters()) == parameters
    assert name in architectures() or name.startswith("fc-")


def test_an_architecture_is_quick_repeatable_and_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    began = time.thread_time()
    first = architecture("resnet56", seed=3)
    assert time.thread_time() - began < 2
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = architecture("resnet56", seed=3), architecture("resnet56", seed=4)
    assert torch.equal(first.blocks[7].operator.weight, again.blocks[7].operator.weight)
    assert not torch.equal(first.blocks[7].operator.weight, other.blocks[7].operator.weight)


def test_quick_step_sizes_are_near_the_right_ones() -> None:
    frame = architecture("resnet8-28")
    for j, layer in enumerate(frame.blocks, start=1):
        right = squared_norm(layer.operator, steps=60) + frame.pull(j)
        assert 0.9 < float(layer.step_size) * right < 1.1
