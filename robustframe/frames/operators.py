"""Synthesis operators B of one layer and their adjoints, dense and convolutional."""

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.errors import InputError

_FEW_CHANNELS = 8


class Operator(nn.Module, ABC):
    """A linear map B from codes to signals whose columns are the atoms.

    ``in_shape`` is the shape of one signal, ``code_shape`` that of one code; the weight is a parameter.
    """

    weight: nn.Parameter
    in_shape: tuple[int, ...]
    code_shape: tuple[int, ...]

    @abstractmethod
    def analysis(self, signal: Tensor, *, scale: float | Tensor = 1.0, bias: Tensor | None = None) -> Tensor:
        """Apply the adjoint: inner products of signals with every atom.

        Args:
            signal: shape (b, *in_shape).
            scale: factor on the inner products, a number or shape (), fused into the weight.
            bias: one number an atom or filter to add, fused into the kernel; shape (code_shape[0],).

        Returns:
            Shape (b, *code_shape).
        """

    @abstractmethod
    def synthesis(self, code: Tensor) -> Tensor:
        """Apply B: combine atoms with codes (b, *code_shape) into signals of shape (b, *in_shape)."""

    @abstractmethod
    def atom_norms(self) -> Tensor:
        """Return the l2 norm of every atom as it stands in the signal, shape ``code_shape``."""

    @abstractmethod
    def correlations(self) -> Tensor:
        """Return the inner products of every atom with every different atom, away from borders, differentiable.

        One row an atom (or filter), one entry for each atom it overlaps with; the product with itself is 0.
        """

    @abstractmethod
    def normalize_(self) -> None:
        """Scale every atom (every filter, where there are filters) to unit norm, in place."""

    def forward(self, signal: Tensor) -> Tensor:
        """Apply `analysis`."""
        return self.analysis(signal)


class Dense(Operator):
    """A matrix of atoms on signals of any shape, taken flat.

    Args:
        in_shape: shape of a signal.
        atoms: number of atoms.
    """

    def __init__(self, in_shape: tuple[int, ...], atoms: int) -> None:
        super().__init__()
        numbers = math.prod(in_shape)
        if numbers < 1 or atoms < 1:
            raise InputError(f"a dense layer needs at least one input and one atom, not {in_shape} and {atoms}")
        self.in_shape, self.code_shape = in_shape, (atoms,)
        self.weight = nn.Parameter(_drawn(atoms, numbers))

    def analysis(self, signal: Tensor, *, scale: float | Tensor = 1.0, bias: Tensor | None = None) -> Tensor:
        return F.linear(signal.flatten(1), _scaled(self.weight, scale), bias)

    def synthesis(self, code: Tensor) -> Tensor:
        return torch.matmul(code, self.weight).view(-1, *self.in_shape)

    def atom_norms(self) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self.weight, dim=1)
        return norms

    def correlations(self) -> Tensor:
        gram = self.weight @ self.weight.T
        return gram - torch.diag(gram.diagonal())

    @torch.no_grad()
    def normalize_(self) -> None:
        self.weight.div_(self.atom_norms().clamp_min(torch.finfo(self.weight.dtype).tiny).unsqueeze(1))


class Conv(Operator):
    """Atoms that are shifted copies of filters, with zero padding.

    With few input channels and a stride, both directions are computed on the signal split into its stride x stride
    phases, where a strided convolution and its transpose are plain convolutions: there the stock transposed
    convolution (which is also the stock gradient) costs several times the convolution.

    Args:
        in_shape: channels, height, width of a signal.
        filters: number of filters.
        kernel: side of the square filters, in pixels.
        stride: distance between neighbouring atoms, in pixels.
        padding: zeros around the signal, in pixels.
    """

    def __init__(
        self, in_shape: tuple[int, int, int], filters: int, kernel: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = in_shape
        if min(channels, filters, kernel, stride) < 1 or padding < 0:
            raise InputError("a convolutional layer needs positive channels, filters, kernel and stride")
        if kernel > min(height, width) + 2 * padding:
            raise InputError(f"a {kernel} x {kernel} kernel does not fit {height} x {width} with padding {padding}")
        if stride > kernel:
            raise InputError(
                f"stride {stride} leaves pixels between {kernel} x {kernel} atoms uncovered; "
                f"give a stride below {kernel}"
            )
        if stride == kernel > 1:
            raise InputError(
                f"stride {stride} leaves {kernel} x {kernel} atoms without overlap; "
                f"give a stride below {kernel}, or a pool"
            )
        self.in_shape = in_shape
        self.kernel, self.stride, self.padding = kernel, stride, padding
        rows = (height + 2 * padding - kernel) // stride + 1
        columns = (width + 2 * padding - kernel) // stride + 1
        self.code_shape = (filters, rows, columns)
        weight = _drawn(filters, channels, kernel, kernel)
        # Codes take the memory format of the weight, and CPU convolutions are fastest channels last.
        weight = weight.contiguous(memory_format=torch.channels_last)
        if channels == 1 and stride == 1:
            # With one channel the two formats look the same; only these strides say channels last.
            weight = torch.empty_strided(weight.shape, (kernel**2, 1, kernel, 1)).copy_(weight)
        self.weight = nn.Parameter(weight)
        # Side of a filter in phases, and the padding that makes the phase image exactly the size it needs.
        self._taps = -(-kernel // stride)
        self._phased = channels < _FEW_CHANNELS and stride > 1
        # Rows and columns at the far edge that no atom reaches, because the stride does not divide the size.
        self._leftover = tuple(
            size + 2 * padding - kernel - stride * (codes - 1) for size, codes in ((height, rows), (width, columns))
        )
        if max(self._leftover) > padding:
            raise InputError(
                f"{kernel} x {kernel} atoms at stride {stride} with padding {padding} leave "
                f"{max(self._leftover) - padding} rows or columns of {height} x {width} uncovered at the far edge; "
                "give more padding or another kernel"
            )
        self._frame = tuple(
            (padding, stride * (codes - 1 + self._taps) - size - padding)
            for size, codes in ((height, rows), (width, columns))
        )

    @property
    def filters(self) -> Tensor:
        """The filters as they stand in the signal, shape (filters, channels, kernel, kernel)."""
        return self.weight

    def analysis(self, signal: Tensor, *, scale: float | Tensor = 1.0, bias: Tensor | None = None) -> Tensor:
        weight = _scaled(self.weight, scale)
        if not self._phased:
            return _conv2d(signal, weight, bias, self.stride, self.padding)
        (top, bottom), (left, right) = self._frame
        phases = F.pixel_unshuffle(F.pad(signal, (left, right, top, bottom)), self.stride)
        return _conv2d(phases, self._phases(weight), bias)

    def synthesis(self, code: Tensor) -> Tensor:
        (top, bottom), (left, right) = self._frame
        if not self._phased:
            return _conv2d(code, self.weight, None, self.stride, self.padding, self._leftover)
        turned = self._phases(self.weight).transpose(0, 1).flip(2, 3)
        phases = _conv2d(code, turned, None, 1, self._taps - 1)
        return F.pad(F.pixel_shuffle(phases, self.stride), (-left, -right, -top, -bottom))

    def atom_norms(self) -> Tensor:
        ones = torch.ones(1, *self.in_shape, dtype=self.weight.dtype, device=self.weight.device)
        squares = F.conv2d(ones, self.filters**2, stride=self.stride, padding=self.padding)
        return squares.squeeze(0).sqrt()

    def correlations(self) -> Tensor:
        # Cross-correlations of the filters at every lag; atoms sit at multiples of the stride.
        reach = self.kernel - 1
        filters = self.filters
        lags = F.conv2d(filters, filters, padding=reach)
        first = reach % self.stride
        lags = lags[:, :, first :: self.stride, first :: self.stride]
        centre = reach // self.stride
        own = torch.zeros_like(lags)
        own[:, :, centre, centre] = torch.eye(len(lags), dtype=lags.dtype, device=lags.device)
        return (lags * (1 - own)).flatten(1)

    @torch.no_grad()
    def normalize_(self) -> None:
        norms = torch.linalg.vector_norm(self.weight.flatten(1), dim=1)
        self.weight.div_(norms.clamp_min(torch.finfo(self.weight.dtype).tiny).view(-1, 1, 1, 1))

    def _phases(self, weight: Tensor) -> Tensor:
        extra = self._taps * self.stride - self.kernel
        return F.pixel_unshuffle(F.pad(weight, (0, extra, 0, extra)), self.stride)


class PooledConv(Conv):
    """A 1 x 1 convolution followed by average pooling over pool x pool pixels: the transition of a DenseNet.

    As a frame it is a convolution whose atoms are constant over their pool x pool pixels. Pooling is scaled by pool,
    so that filters of unit norm are atoms of unit norm; ``weight`` has shape (filters, channels, 1, 1).

    Args:
        in_shape: channels, height, width of a signal.
        filters: number of filters.
        pool: side of the square of pixels that is averaged; it must divide height and width.
    """

    def __init__(self, in_shape: tuple[int, int, int], filters: int, pool: int) -> None:
        channels, height, width = in_shape
        if min(channels, filters, pool) < 1 or height % pool or width % pool:
            raise InputError(
                f"a pool of {pool} does not divide an image of {height} x {width}; give one that does, "
                f"and at least one filter (not {filters})"
            )
        super().__init__((channels, height, width), filters, 1)
        self.code_shape = (filters, height // pool, width // pool)
        self.kernel = self.stride = self.pool = pool

    @property
    def filters(self) -> Tensor:
        return self.weight.expand(-1, -1, self.pool, self.pool) / self.pool

    def analysis(self, signal: Tensor, *, scale: float | Tensor = 1.0, bias: Tensor | None = None) -> Tensor:
        pooled = F.avg_pool2d(signal, self.pool)
        return _conv2d(pooled, _scaled(self.weight, scale * self.pool), bias)

    def synthesis(self, code: Tensor) -> Tensor:
        mixed = _conv2d(code, (self.weight / self.pool).transpose(0, 1))
        return mixed.repeat_interleave(self.pool, 2).repeat_interleave(self.pool, 3)


def _conv2d(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    leftover: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolve, or with a ``leftover`` (the output padding) apply the transpose of a convolution.

    Frozen filters, as every attack has them, keep no image for the way back: only a gradient of filters needs it.
    """
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    differentiated = image.requires_grad and torch.is_grad_enabled()
    if frozen and differentiated and not torch.is_autocast_enabled(image.device.type):
        convolved: Tensor = _Frozen.apply(image, weight, bias, stride, padding, leftover)
        return convolved
    return _stock_conv2d(image, weight, bias, stride, padding, leftover)


def _stock_conv2d(
    image: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, leftover: tuple[int, ...] | None
) -> Tensor:
    if leftover is None:
        return F.conv2d(image, weight, bias, stride=stride, padding=padding)
    return F.conv_transpose2d(image, weight, bias, stride=stride, padding=padding, output_padding=leftover)


class _Frozen(torch.autograd.Function):
    """A convolution with frozen filters: the stock one, which also keeps the image for a gradient nobody asks for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, *arguments: Any) -> Tensor:
        return _stock_conv2d(image, *arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, weight, _, ctx.stride, ctx.padding, ctx.leftover = inputs
        ctx.save_for_backward(weight)
        ctx.layout = image.shape, image.stride()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        # Its numbers are not read, only its shape and how it lies in memory.
        image = slope.new_empty_strided(*ctx.layout)
        sides = [ctx.stride] * 2, [ctx.padding] * 2, [1, 1]
        found = torch.ops.aten.convolution_backward(
            slope, image, weight, None, *sides, ctx.leftover is not None, ctx.leftover or [0, 0], 1,
            (True, False, False),
        )  # fmt: skip
        return (found[0], *[None] * 5)


def _scaled(weight: Tensor, scale: float | Tensor) -> Tensor:
    return weight if not isinstance(scale, Tensor) and scale == 1 else weight * scale


def squared_norm(operator: Operator, *, steps: int = 200, tolerance: float = 1e-6) -> float:
    """Estimate the squared spectral norm of B by power iteration in float64.

    Args:
        operator: the layer's operator.
        steps: iterations at most.
        tolerance: relative change at which to stop.

    Returns:
        The largest eigenvalue of B^T B, from below.
    """
    double = _double(operator)
    code = torch.randn(1, *double.code_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = 0.0
    with torch.no_grad():
        for _ in range(steps):
            image = double.analysis(double.synthesis(code / torch.linalg.vector_norm(code)))
            previous, value = value, float(torch.linalg.vector_norm(image))
            code = image
            if value == 0 or abs(value - previous) <= tolerance * value:
                break
    return value


def _drawn(*shape: int) -> Tensor:
    """Draw normal weights, atoms of about unit norm; on the meta device, where a frame is but a plan, there are none.

    Args:
        shape: atoms, then the shape of each.
    """
    weight = torch.empty(shape)
    # To draw or divide there, PyTorch loads its compiler: a second, and 160 MB of memory.
    return weight if weight.is_meta else weight.normal_() / math.sqrt(math.prod(shape[1:]))


@torch.no_grad()
def lanczos_squared_norm(operator: Operator, *, steps: int = 24) -> float:
    """Estimate the squared spectral norm of an operator by Lanczos' method in float32, for large ones.

    Args:
        operator: the layer's operator.
        steps: products with B^T B; 24 give about four digits, where the power method needs hundreds.

    Returns:
        The largest eigenvalue of B^T B, from below.

    Source: Golub and Van Loan, 2013, section 10.1, without reorthogonalisation, which the largest one does not need.
    """
    each = copy.deepcopy(operator).cpu().float()
    code = torch.randn(1, *each.code_shape, generator=torch.Generator().manual_seed(0))
    code = code / torch.linalg.vector_norm(code)
    before, beta = torch.zeros_like(code), 0.0
    matrix = torch.zeros(steps, steps, dtype=torch.float64)
    for at in range(steps):
        image = each.analysis(each.synthesis(code)) - beta * before
        matrix[at, at] = (image * code).sum()
        image = image - float(matrix[at, at]) * code
        beta = float(torch.linalg.vector_norm(image))
        if at + 1 == steps or beta <= 1e-6 * float(matrix.abs().max()):
            break
        matrix[at, at + 1] = matrix[at + 1, at] = beta
        before, code = code, image / beta
    return float(torch.linalg.eigvalsh(matrix)[-1])


@torch.no_grad()
def rough_squared_norm(operator: Operator, *, steps: int = 10, positions: int = 8, margin: float = 1.1) -> float:
    """Estimate the squared spectral norm of B quickly: a short power iteration in float32, times a margin.

    A convolution is taken on a patch of at most positions x positions atoms that no border cuts off: the norm grows
    with the patch only towards that of the endless image, and the patch's corners cost less than the margin. Proximal
    steps descend for any step size below 2 / L, so that even an estimate of half the norm would do no harm.

    Args:
        operator: the layer's operator.
        steps: iterations.
        positions: side of the patch, in atoms.
        margin: factor on the estimate.

    Returns:
        About the largest eigenvalue of B^T B.
    """
    shape = [operator.code_shape[0], *(min(size, positions) for size in operator.code_shape[1:])]
    code = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(operator.weight)
    value = 0.0
    for _ in range(steps):
        code = code / torch.linalg.vector_norm(code).clamp_min(torch.finfo(code.dtype).tiny)
        if isinstance(operator, Conv):
            signal = F.conv_transpose2d(code, operator.filters, stride=operator.stride)
            code = F.conv2d(signal, operator.filters, stride=operator.stride)
        else:
            code = operator.analysis(operator.synthesis(code))
        value = float(torch.linalg.vector_norm(code))
    return margin * value


def _double(operator: Operator) -> Operator:
    return copy.deepcopy(operator).cpu().double()
