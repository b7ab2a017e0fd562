"""The structured overcomplete frame of a network: one block row a layer."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robustframe.errors import InputError
from robustframe.frames.operators import Operator, rough_squared_norm, squared_norm
from robustframe.frames.structure import Row, Shortcut, Structure, check_rows, join_shapes

Blocks = tuple[Tensor, ...]
"""A vector in the space of one row: its signal, and where the row has a skip the skipped part behind it."""


class Layer(nn.Module):
    """One block row: a synthesis operator B_j, its thresholds b_j, its step size 1 / L_j, and what the row reads.

    Args:
        operator: the operator B_j.
        row: the earlier codes that the row reconstructs.
        shortcut: the map of the skipped code, where there is one.
    """

    step_size: Tensor

    def __init__(self, operator: Operator, row: Row = Row((0,)), shortcut: Shortcut | None = None) -> None:  # noqa: B008
        super().__init__()
        self.operator = operator
        self.sources = row.sources
        self.skip = row.skip
        self.shortcut = shortcut
        channels = operator.code_shape[0]
        self.threshold = nn.Parameter(torch.zeros(channels, *[1] * (len(operator.code_shape) - 1)))
        """One threshold an atom or filter, at least 0: the weight of its nonnegative l1 penalty."""
        self.register_buffer("step_size", torch.ones(()))


class Frame(nn.Module):
    """A block lower triangular frame: B_j on the diagonal, below it minus the selections of what each row reads.

    Its codes w_1..w_l minimise ``sum_j 1/2 ||t_j - D_j w_j||^2 + b_j . w_j`` over w_j >= 0 with w_0 = x, where

    * chain: the target t_j is w_{j-1} and the diagonal block D_j is B_j;
    * dense: t_j is the concatenation of the codes in ``sources``, D_j is B_j;
    * residual: t_j is [w_{j-1}; S w_skip] and D_j is [B_j; I], so that a first sweep from zero is the residual unit
      w_j = ReLU(s_j (B_j^T w_{j-1} + S w_skip - b_j)) with step size s_j.

    Layers are numbered from 1, as in the mathematics; ``w`` in the methods is the list [x, w_1, ..., w_l], of which
    each method needs what it reads.

    Args:
        operators: B_1..B_l.
        rows: what each row reads; a chain when left out.

    Raises:
        InputError: when the shapes do not fit.

    Source: Murdock, Cazenavette and Lucey, 2021, arXiv:2103.05804; the residual layout is ours (`docs/frames.md`).
    """

    def __init__(self, operators: Sequence[Operator], rows: Sequence[Row] | None = None) -> None:
        super().__init__()
        if not operators:
            raise InputError("a frame needs at least one layer")
        if rows is None:
            rows = [Row((j,)) for j in range(len(operators))]
        if len(rows) != len(operators):
            raise InputError(f"{len(operators)} operators were given and {len(rows)} rows: give one row per layer")
        check_rows(rows)
        shapes = [operators[0].in_shape, *(operator.code_shape for operator in operators)]
        self._signal_readers: list[list[tuple[int, int]]] = [[] for _ in shapes]
        self._skip_readers: list[list[int]] = [[] for _ in shapes]
        layers = []
        for j, (operator, row) in enumerate(zip(operators, rows), start=1):
            self._connect(j, operator, row, shapes)
            shortcut = row.skip if row.skip is None else Shortcut.between(shapes[row.skip], shapes[j], f"layer {j}")
            layers.append(Layer(operator, row, shortcut))
        self.layers = nn.ModuleList(layers)

    def _connect(self, j: int, operator: Operator, row: Row, shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that row j fits together and note who reads which code at which channel."""
        joined = join_shapes([shapes[k] for k in row.sources], f"layer {j}")
        if joined != operator.in_shape:
            below = f"layer {row.sources[0]} makes" if row.sources == (j - 1,) else f"layers {row.sources} make"
            raise InputError(
                f"{below} codes of shape {joined}, but layer {j} takes signals of shape {operator.in_shape}"
            )
        start = 0
        for k in row.sources:
            self._signal_readers[k].append((j, start))
            start += shapes[k][0]
        if row.skip is not None:
            self._skip_readers[row.skip].append(j)

    @property
    def blocks(self) -> list[Layer]:
        """The layers in order, lowest first."""
        return [cast(Layer, layer) for layer in self.layers]

    @property
    def rows(self) -> list[Row]:
        """What each row reads."""
        return [Row(layer.sources, layer.skip) for layer in self.blocks]

    @property
    def structure(self) -> Structure:
        """``"residual"`` with any skip, else ``"dense"`` with any concatenation, else ``"chain"``."""
        if any(row.skip is not None for row in self.rows):
            return "residual"
        plain = all(row.sources == (j,) for j, row in enumerate(self.rows))
        return "chain" if plain else "dense"

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.blocks[0].operator.in_shape

    @property
    def code_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's code."""
        return [layer.operator.code_shape for layer in self.blocks]

    def signal_readers(self, k: int) -> list[tuple[int, int]]:
        """Return the rows whose signal holds code k, each with the channel at which it begins there.

        Args:
            k: a layer from 1, or 0 for the input.

        Returns:
            Pairs (row, first channel).
        """
        return self._signal_readers[k]

    def skip_readers(self, k: int) -> list[int]:
        """Return the rows that code k is added to as a skip (k from 1, or 0 for the input)."""
        return self._skip_readers[k]

    def select(self, images: Tensor) -> "Frame":
        """Return the frame in which these images (b, *in_shape) are solved: this one, but with max pooling.

        There it is one that has chosen pixels as the first sweep finds them, and keeps to the choice.
        """
        return self

    def part_weights(self, j: int) -> tuple[float, ...]:
        """Return the weight of each part of row j in the objective: the squared scale of the code that it reconstructs.

        It is 1 but in frames that keep codes at another size than that of the frame (`BranchedFrame`).
        """
        return (1.0, 1.0)

    def code_weight(self, j: int) -> float:
        """Return the weight of the penalty on code j, likewise."""
        return 1.0

    def pull(self, j: int) -> int:
        """Return how many identities stand beside B_j^T B_j in the Hessian of block j: L_j = ||B_j||^2 + pull(j).

        One for each row that reads code j, and one when row j has a skip. A skip that subsamples counts as a whole
        identity, which makes L_j an upper bound there.
        """
        own = self.blocks[j - 1].skip is not None
        return len(self._signal_readers[j]) + len(self._skip_readers[j]) + own

    def target(self, j: int, w: Sequence[Tensor]) -> Blocks:
        """Return the target t_j of row j: its sources concatenated, and the skipped code where there is one.

        Args:
            j: the row, from 1.
            w: [x, w_1, ...], at least up to w_{j-1}; each of shape (b, *code_shape).

        Returns:
            The signal (b, *operator.in_shape), and with a skip also (b, *code_shape).
        """
        layer = cast(Layer, self.layers[j - 1])
        signal = w[layer.sources[0]] if len(layer.sources) == 1 else torch.cat([w[k] for k in layer.sources], dim=1)
        if layer.shortcut is None or layer.skip is None:
            return (signal,)
        return signal, layer.shortcut.apply(w[layer.skip])

    def reconstruct(self, j: int, code: Tensor) -> Blocks:
        """Apply the diagonal block: D_j w_j, that is (B_j w_j,) or with a skip (B_j w_j, w_j).

        Args:
            j: the row, from 1.
            code: shape (b, *code_shape).
        """
        layer = cast(Layer, self.layers[j - 1])
        made = layer.operator.synthesis(code)
        return (made,) if layer.skip is None else (made, code)

    def correlate(self, j: int, blocks: Blocks) -> Tensor:
        """Apply the adjoint of the diagonal block: D_j^T r = B_j^T r_signal (+ r_skip).

        Args:
            j: the row, from 1.
            blocks: a vector of row j, such as `target` gives.

        Returns:
            Shape (b, *code_shape).
        """
        made = cast(Layer, self.layers[j - 1]).operator.analysis(blocks[0])
        return made if len(blocks) == 1 else made + blocks[1]

    def residual(self, j: int, w: Sequence[Tensor]) -> Blocks:
        """Return t_j - D_j w_j, in the space of row j."""
        return tuple(t - made for t, made in zip(self.target(j, w), self.reconstruct(j, w[j])))

    def feedback(self, k: int, residuals: Sequence[Blocks]) -> Tensor | None:
        """Return what the rows that read code k pull it with: the sum of their residuals' parts that it feeds.

        It is the gradient with respect to w_k of the terms of all rows above k (k = 0: with respect to the input).

        Args:
            k: a layer from 1, or 0 for the input.
            residuals: residual of every row, row 1 first.

        Returns:
            Shape (b, *code_shape); None when no row reads code k.
        """
        size = self.in_shape[0] if k == 0 else cast(Layer, self.layers[k - 1]).operator.code_shape[0]
        parts = [residuals[j - 1][0].narrow(1, start, size) for j, start in self._signal_readers[k]]
        for j in self._skip_readers[k]:
            shortcut = cast(Layer, self.layers[j - 1]).shortcut
            if shortcut is not None:
                parts.append(shortcut.adjoint(residuals[j - 1][1]))
        return torch.stack(parts).sum(0) if parts else None

    def gradient(self, j: int, w: Sequence[Tensor]) -> Tensor:
        """Return the gradient of ``sum_j' 1/2 ||t_j' - D_j' w_j'||^2`` with respect to w_j.

        Args:
            j: the layer, from 1.
            w: [x, w_1, ..., w_l].

        Returns:
            Shape (b, *code_shape).
        """
        residuals = [self.residual(row, w) if self._touches(row, j) else () for row in range(1, len(w))]
        own = -self.correlate(j, residuals[j - 1])
        above = self.feedback(j, residuals)
        return own if above is None else own + above

    def _touches(self, row: int, j: int) -> bool:
        layer = cast(Layer, self.layers[row - 1])
        return row == j or j in layer.sources or j == layer.skip

    def synthesis(self, codes: Sequence[Tensor]) -> list[Blocks]:
        """Apply the whole frame B: row j of the result is D_j w_j minus its target for a zero input.

        Args:
            codes: w_1..w_l, each of shape (b, *code_shape).

        Returns:
            One vector per row.
        """
        w = [codes[0].new_zeros(len(codes[0]), *self.in_shape), *codes]
        return [tuple(-part for part in self.residual(j, w)) for j in range(1, len(w))]

    def analysis(self, vectors: Sequence[Blocks]) -> list[Tensor]:
        """Apply the adjoint B^T of the whole frame to one vector per row; returns one tensor of code shape a layer."""
        codes = []
        for j in range(1, len(self.layers) + 1):
            above = self.feedback(j, vectors)
            own = self.correlate(j, vectors[j - 1])
            codes.append(own if above is None else own - above)
        return codes

    @torch.no_grad()
    def check(self) -> None:
        """Check that the parameters make a frame.

        Raises:
            InputError: for weights or thresholds that are not finite, an atom of zeros or a negative threshold.
        """
        for j, layer in enumerate(self.blocks, start=1):
            weight = layer.operator.weight
            if not weight.isfinite().all() or not layer.threshold.isfinite().all():
                raise InputError(f"layer {j} has weights or thresholds that are not finite; get or train them again")
            zero = (weight.flatten(1) == 0).all(1).nonzero().flatten().tolist()
            if zero:
                raise InputError(f"atom {zero[0]} of layer {j} is zero ({len(zero)} in all); a frame has no zero atoms")
            if (layer.threshold < 0).any():
                raise InputError(f"layer {j} has a negative threshold; they are weights of a penalty, at least 0")

    @torch.no_grad()
    def project_(self) -> None:
        """Bring the parameters back to where they belong: unit atoms, thresholds of at least 0; in place."""
        for layer in self.blocks:
            layer.operator.normalize_()
            layer.threshold.clamp_(min=0)

    @torch.no_grad()
    def update_step_sizes_(self, *, steps: int = 200, quick: bool = False) -> None:
        """Set every step size to 1 / L_j, with the block Lipschitz constant L_j = ||B_j||^2 + pull(j).

        Args:
            steps: iterations of the power method at most.
            quick: estimate the norms by `rough_squared_norm` instead, for large frames.

        Raises:
            InputError: for weights that are not finite, or an atom of zeros (`check`).
        """
        self.check()
        for j, layer in enumerate(self.blocks, start=1):
            norm = rough_squared_norm(layer.operator) if quick else squared_norm(layer.operator, steps=steps)
            layer.step_size.fill_(1 / (norm + self.pull(j)))
