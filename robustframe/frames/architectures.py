"""Standard networks as frames, by name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from robustframe.errors import InputError, unknown
from robustframe.frames.build import assemble
from robustframe.frames.frame import Frame
from robustframe.frames.structure import Shape, Structure

Layers = list[dict[str, int]]


@dataclass(frozen=True)
class _Named:
    about: str
    in_shape: Shape
    structure: Structure
    layers: Callable[[], Layers]


def _conv(filters: int, *, stride: int = 1) -> dict[str, int]:
    return {"filters": filters, "kernel": 3, "stride": stride, "padding": 1}


def _resnet(blocks: int) -> Layers:
    """Three stages of basic blocks: 6 blocks + 1 convolutions, skips over every two."""
    layers = [_conv(16)]
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers += [_conv(width, stride=2 if stage and block == 0 else 1), _conv(width)]
    return layers


def _densenet(count: int, growth: int, stem: int = 16) -> Layers:
    """Three dense blocks of ``count`` layers with transitions that keep the channels."""
    layers, channels = [_conv(stem)], stem
    for block in range(3):
        layers += [_conv(growth)] * count
        channels += growth * count
        if block < 2:
            layers.append({"filters": channels, "pool": 2})
    return layers


def _vgg(*stages: tuple[int, int]) -> Layers:
    """Stages of (width, convolutions), each ending with a stride of 2 in place of max pooling."""
    return [_conv(width, stride=2 if at == count - 1 else 1) for width, count in stages for at in range(count)]


def _table() -> dict[str, _Named]:
    table = {
        "chain3-28": _Named(
            "three convolutions with stride 2, that of the zoo's chain pairs",
            (1, 28, 28),
            "chain",
            lambda: [
                {"filters": 16, "kernel": 5, "stride": 2, "padding": 2},
                {"filters": 48, "kernel": 4, "stride": 2, "padding": 1},
                {"filters": 96, "kernel": 3, "stride": 2, "padding": 1},
            ],
        ),
        "chain2-8": _Named(
            "two convolutions for 8 x 8 digits", (1, 8, 8), "chain", lambda: [_conv(16), _conv(32, stride=2)]
        ),
        "vgg11": _Named(
            "the convolutions of VGG-11 on 32 x 32, stride 2 in place of max pooling",
            (3, 32, 32),
            "chain",
            lambda: _vgg((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)),
        ),
        "vgg16": _Named(
            "the convolutions of VGG-16 on 32 x 32, stride 2 in place of max pooling",
            (3, 32, 32),
            "chain",
            lambda: _vgg((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
        ),
    }
    for depth in (20, 32, 44, 56):
        table[f"resnet{depth}"] = _residual(depth, 32, 3)
    for depth, growth in ((40, 12), (100, 12)):
        table[f"densenet{depth}-{growth}"] = _dense(depth, growth, 32, 3)
    for side in (28, 8):
        table[f"resnet8-{side}"] = _residual(8, side, 1)
        table[f"densenet10-{side}"] = _dense(10, 12, side, 1)
    return table


def _residual(depth: int, side: int, channels: int) -> _Named:
    about = f"ResNet-{depth} on {side} x {side}: skips without parameters (option A), no batch norm"
    return _Named(about, (channels, side, side), "residual", lambda: _resnet((depth - 2) // 6))


def _dense(depth: int, growth: int, side: int, channels: int) -> _Named:
    about = f"DenseNet-{depth} on {side} x {side}, growth {growth}: no bottlenecks, no batch norm"
    return _Named(about, (channels, side, side), "dense", lambda: _densenet((depth - 4) // 3, growth))


_FULLY_CONNECTED = re.compile(r"fc(-[1-9][0-9]*)+")


def architectures() -> dict[str, str]:
    """Return what each named architecture is, by name; ``"fc-W1-W2-..."`` stands for fully connected chains."""
    named = {name: entry.about for name, entry in _table().items()}
    return named | {"fc-W1-W2-...": "fully connected chain with so many atoms a layer, such as fc-200-100"}


def architecture(name: str, *, in_shape: Sequence[int] | None = None, seed: int = 0, step_sizes: bool = True) -> Frame:
    """Build the frame of a standard network.

    A frame holds the linear layers, the skips and the concatenations. Left out: batch norm (an affine map that a
    trained network folds into weights and thresholds), bottlenecks, the order norm-ReLU-convolution of DenseNet
    (here it is convolution-ReLU), max pooling (a stride instead), and global pooling and classifier (the head).

    Args:
        name: one of `architectures`, such as ``"resnet56"`` or ``"fc-200-100"``.
        in_shape: shape of one input; what the architecture is made for when left out, (1, 28, 28) for ``fc``.
        seed: seed of the random unit atoms.
        step_sizes: find those that a solver needs; most of the time goes into them.

    Returns:
        A frame with random unit atoms, thresholds 0, and step sizes from a short power iteration
        (`Frame.update_step_sizes_` with ``quick``).

    Raises:
        InputError: for an unknown name, with the nearest one, or an input that the architecture does not fit.

    Source: He et al., 2016, arXiv:1512.03385, section 4.2; Huang et al., 2017, arXiv:1608.06993, section 3;
    Simonyan and Zisserman, 2015, arXiv:1409.1556.
    """
    if _FULLY_CONNECTED.fullmatch(name):
        layers: Layers = [{"atoms": int(width)} for width in name.split("-")[1:]]
        entry = _Named("", (1, 28, 28), "chain", lambda: layers)
    else:
        table = _table()
        if name not in table:
            raise unknown("architecture", name, [*table, "fc-W1-W2-..."])
        entry = table[name]
    shape = entry.in_shape if in_shape is None else tuple(in_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            frame = assemble(shape, entry.layers(), entry.structure)
        except InputError as error:
            raise InputError(f"architecture {name} does not fit inputs of shape {shape}: {error}") from error
    frame.project_()
    if step_sizes:
        frame.update_step_sizes_(quick=True)
    return frame
