"""Linear maps between images that are convolutions, with one rule for what follows what."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Sides = tuple[int, int]


def sides_after(size: Sides, kernel: Sides, stride: Sides, padding: Sides) -> Sides:
    """Return the sides of what a convolution makes of images of some size."""
    y, x = ((size[at] + 2 * padding[at] - kernel[at]) // stride[at] + 1 for at in (0, 1))
    return y, x


@dataclass(frozen=True, eq=False)
class Map:
    """A convolution with zero padding; a matrix is one whose kernel is as large as the image.

    Vectors are images of one pixel.
    """

    weight: Tensor
    """Shape (filters, channels / groups, kernel y, kernel x)."""
    stride: Sides = (1, 1)
    padding: Sides = (0, 0)
    groups: int = 1
    box: Sides = (1, 1)
    """Sides of the box whose average is taken first; only with kernels of one pixel, strides then count from box to
    box. It is kept apart since a matrix on averages is far smaller than one on pixels."""

    @property
    def kernel(self) -> Sides:
        """Pixels that one output looks at."""
        if self.box != (1, 1):
            return self.box
        return self.weight.shape[2], self.weight.shape[3]

    def sides(self, size: Sides) -> Sides:
        """Return the sides of what it makes of images of some size."""
        return sides_after(size, self.kernel, self.stride, self.padding)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel depends on the input pixel at the same place alone."""
        return (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))

    def full(self) -> Tensor:
        """Return the kernel with all channels and boxes written out, shape (filters, channels, kernel y, kernel x)."""
        weight = self.weight
        if self.groups > 1:
            filters, channels = weight.shape[:2]
            wide = weight.new_zeros(filters, channels * self.groups, *weight.shape[2:])
            each = filters // self.groups
            for group in range(self.groups):
                rows = slice(group * each, (group + 1) * each)
                wide[rows, group * channels : (group + 1) * channels] = weight[rows]
            weight = wide
        return weight.expand(-1, -1, *self.box) / math.prod(self.box) if self.box != (1, 1) else weight

    def apply(self, image: Tensor) -> Tensor:
        """Apply to images (b, channels, y, x)."""
        if self.box != (1, 1):
            image = F.avg_pool2d(image, self.box, self.stride)
            return F.conv2d(image, self.weight, groups=self.groups)
        return F.conv2d(image, self.weight, stride=self.stride, padding=self.padding, groups=self.groups)


@dataclass(frozen=True)
class Pick:
    """Max pooling, read as a choice of pixels that the first sweep makes."""

    kernel: Sides
    stride: Sides
    padding: Sides
    dilation: Sides = (1, 1)
    ceil: bool = False

    def apply(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest numbers of images (b, channels, y, x), and where in each channel they stand."""
        return F.max_pool2d(
            image, self.kernel, self.stride, self.padding, self.dilation, self.ceil, return_indices=True
        )

    def sides(self, size: Sides) -> Sides:
        """Return the sides of the pooled image."""
        pooled = self.apply(torch.zeros(1, 1, *size))[0].shape
        return pooled[2], pooled[3]


def identity(channels: int, like: Tensor) -> Map:
    """Return the map that leaves images as they are."""
    return Map(like.new_ones(channels, 1, 1, 1), groups=channels)


def average(channels: int, box: Sides, stride: Sides, like: Tensor) -> Map:
    """Return average pooling."""
    if box == stride:
        return Map(like.new_ones(channels, 1, 1, 1), stride, groups=channels, box=box)
    return Map(like.new_full((channels, 1, *box), 1 / math.prod(box)), stride, groups=channels)


def scaled(each: Map, factors: Tensor) -> Map:
    """Multiply the outputs of a map channel by channel with factors (filters,)."""
    return replace(each, weight=each.weight * factors.view(-1, 1, 1, 1))


def chain(first: Map, then: Map, size: Sides) -> Map | None:
    """Return the one map that applies two, one after the other.

    Args:
        first: applied first.
        then: applied to its outputs.
        size: sides of the image that goes into the first.

    Returns:
        The map; ``None`` where padding between the two makes the border differ from that of any one convolution.
    """
    if size == (1, 1) and first.groups == first.weight.shape[0] and _single(first, then):
        # One pixel repeated and then summed up.
        shown = first.weight[:, 0].flip(1, 2)
        return Map(torch.einsum("omyx,myx->om", then.full(), shown)[:, :, None, None])
    if first.is_pointwise:
        return _after_pointwise(first, then)
    if then.is_pointwise:
        return _before_pointwise(first, then)
    if then.padding != (0, 0):
        # Zeros between both are zeros before both only where no window of the first reaches over its neighbour's edge.
        for side in (0, 1):
            reach = first.stride[side] * first.sides(size)[side]
            apart = first.kernel[side] <= first.stride[side] and reach >= size[side]
            if then.padding[side] and (first.padding[side] or not apart):
                return None
    a, b = first.full(), then.full()
    kernel = [first.stride[side] * (b.shape[2 + side] - 1) + a.shape[2 + side] for side in (0, 1)]
    made = b.new_zeros(b.shape[0], a.shape[1], *kernel)
    for y in range(b.shape[2]):
        for x in range(b.shape[3]):
            at_y, at_x = y * first.stride[0], x * first.stride[1]
            part = torch.einsum("om,mikl->oikl", b[:, :, y, x], a)
            made[:, :, at_y : at_y + a.shape[2], at_x : at_x + a.shape[3]] += part
    stride = [p * q for p, q in zip(first.stride, then.stride)]
    padding = [p + q * s for p, q, s in zip(first.padding, then.padding, first.stride)]
    return Map(made, (stride[0], stride[1]), (padding[0], padding[1]))


def _single(first: Map, then: Map) -> bool:
    """Whether the first spreads one pixel over just as many as the second takes into one."""
    spread = first.weight.shape[2:] == then.weight.shape[2:] and first.box == then.box == (1, 1)
    reach = tuple(side - 1 for side in first.weight.shape[2:])
    return spread and (first.padding, first.stride, then.padding) == (reach, (1, 1), (0, 0))


def _after_pointwise(first: Map, then: Map) -> Map:
    filters = first.weight.shape[0]
    if first.groups == filters and first.weight.shape[1] == 1:
        # A factor a channel.
        factors = first.weight.view(then.groups, 1, -1).expand(-1, then.weight.shape[0] // then.groups, -1)
        return replace(then, weight=then.weight * factors.reshape(then.weight.shape[0], -1, 1, 1))
    if then.box != (1, 1) and then.groups == then.weight.shape[0]:
        return replace(scaled(first, then.weight.flatten()), stride=then.stride, box=then.box)
    joined = torch.einsum("omyx,mi->oiyx", _whole(then), first.full()[:, :, 0, 0])
    return replace(then, weight=joined, groups=1)


def _before_pointwise(first: Map, then: Map) -> Map:
    filters = then.weight.shape[0]
    if then.groups == filters and then.weight.shape[1] == 1:
        return scaled(first, then.weight.flatten())
    joined = torch.einsum("om,miyx->oiyx", then.full()[:, :, 0, 0], _whole(first))
    return replace(first, weight=joined, groups=1)


def _whole(each: Map) -> Tensor:
    return replace(each, box=(1, 1)).full()
