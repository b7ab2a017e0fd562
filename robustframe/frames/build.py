"""Frames from descriptions, such as the layers of a card."""

import math
from collections.abc import Mapping, Sequence

from robustframe.errors import InputError, unknown
from robustframe.frames.frame import Frame
from robustframe.frames.operators import Conv, Dense, Operator, PooledConv
from robustframe.frames.structure import STRUCTURES, Row, Shape, Shortcut, join_shapes

_CONV = {"filters", "kernel", "stride", "padding"}
_LAYERS, _WEIGHTS, _CODES = 1_000, 2**28, 2**26
"""Most layers, weights of one layer and numbers of one code: far above any real frame, and what a machine can hold."""


def build_frame(in_shape: Sequence[int], layers: Sequence[Mapping[str, int]], structure: str = "chain") -> Frame:
    """Build a frame from a description, such as the ``layers`` of a card.

    * ``chain``: each layer reads the one below it.
    * ``residual``: so too, and layers 3, 5, 7, ... add the code two layers below (a stem, then basic blocks of two
      layers) wherever a skip can lead from one shape to the other; ``"skip": n`` in a layer adds the code n layers
      below instead, ``"skip": 0`` none. Where map size or channels change, the skip subsamples and pads with zero
      channels.
    * ``dense``: each layer from the second on reads all codes since the last one that changed the map size,
      concatenated; layer 1 is the stem. A layer with a stride or a pool is a transition and begins a new block.

    Args:
        in_shape: shape of one input, such as (1, 28, 28) or (64,).
        layers: one mapping per layer: ``{"filters": 32, "kernel": 6, "stride": 2, "padding": 2}`` for a
            convolutional layer, ``{"filters": 32, "pool": 2}`` for a 1 x 1 convolution with average pooling,
            ``{"atoms": 200}`` for a dense one.
        structure: ``"chain"``, ``"residual"`` or ``"dense"``.

    Returns:
        A frame with random unit atoms, thresholds 0 and the step sizes that belong to them.

    Raises:
        InputError: when a layer is described wrongly or the shapes do not fit.
    """
    frame = assemble(in_shape, layers, structure)
    frame.project_()
    frame.update_step_sizes_()
    return frame


def assemble(in_shape: Sequence[int], layers: Sequence[Mapping[str, int]], structure: str) -> Frame:
    """Build a frame as `build_frame` does, without projecting its atoms or setting step sizes."""
    if structure not in STRUCTURES:
        raise unknown("structure", structure, STRUCTURES)
    if len(layers) > _LAYERS:
        raise InputError(f"a frame of {len(layers):,} layers is too deep; at most {_LAYERS:,} are allowed")
    if not in_shape or min(in_shape) < 1:
        raise InputError(f"in_shape {list(in_shape)} must have sizes of at least 1")
    _check_size(math.prod(in_shape), _CODES, "the input")
    shapes: list[Shape] = [tuple(in_shape)]
    operators: list[Operator] = []
    rows: list[Row] = []
    for j, layer in enumerate(layers, start=1):
        if "skip" in layer and structure != "residual":
            raise InputError(f"layer {j}: a skip needs structure 'residual', not {structure!r}")
        sources = _block(shapes) if structure == "dense" else (j - 1,)
        shape = join_shapes([shapes[k] for k in sources], f"layer {j}")
        operators.append(_operator(shape, layer, f"layer {j}"))
        _check_size(math.prod(operators[-1].code_shape), _CODES, f"the code of layer {j}")
        shapes.append(operators[-1].code_shape)
        rows.append(Row(sources, _skip(j, layer, shapes) if structure == "residual" else None))
    if structure == "residual" and all(row.skip is None for row in rows):
        raise InputError(
            "no layer of this residual frame has a skip: give three layers or more whose channels do not shrink, "
            "a \"skip\" to a layer, or structure 'chain'"
        )
    return Frame(operators, rows)


def _block(shapes: Sequence[Shape]) -> tuple[int, ...]:
    """The codes since the last change of map size, never the input once there is a code."""
    first = last = len(shapes) - 1
    while first > 1 and shapes[first - 1][1:] == shapes[last][1:]:
        first -= 1
    return tuple(range(first, last + 1))


def _skip(j: int, layer: Mapping[str, int], shapes: Sequence[Shape]) -> int | None:
    """The layer that layer j adds; ``shapes`` ends with that of layer j."""
    if "skip" in layer:
        back = layer["skip"]
        if back != 0 and not 2 <= back <= j:
            raise InputError(f"layer {j}: skip must be 0 (none) or from 2 to {j} layers back, not {back}")
        return j - back if back else None
    if j < 3 or j % 2 == 0:
        return None
    try:
        Shortcut.between(shapes[j - 2], shapes[j], f"layer {j}")
    except InputError:
        return None
    return j - 2


def _operator(shape: Shape, layer: Mapping[str, int], where: str) -> Operator:
    given = {key: value for key, value in layer.items() if key != "skip"}
    if set(given) == {"atoms"}:
        _check_size(math.prod(shape) * given["atoms"], _WEIGHTS, f"the matrix of {where}")
        return Dense(shape, given["atoms"])
    convolutional = {"filters", "kernel"} <= set(given) <= _CONV
    if not convolutional and set(given) != {"filters", "pool"}:
        raise InputError(
            f"{where}: give either atoms, or filters and kernel (stride, padding), or filters and pool; "
            f"found {sorted(given)}"
        )
    if len(shape) != 3:
        raise InputError(f"{where} is convolutional but its input has shape {shape}")
    image = (shape[0], shape[1], shape[2])
    _check_size(shape[0] * given["filters"] * given.get("kernel", 1) ** 2, _WEIGHTS, f"the filters of {where}")
    return Conv(image, **given) if convolutional else PooledConv(image, **given)


def _check_size(numbers: int, most: int, what: str) -> None:
    if numbers > most:
        raise InputError(f"{what} would hold more than {most:,} numbers; give smaller sizes")
