"""What each layer and function of PyTorch does to an affine value, or why it is part of no frame."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from robustframe.frames.affine import Reader, Term, Unreadable, Value, merged
from robustframe.frames.maps import Map, Pick, Sides, average, scaled

SKIPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _no_frame(kind: type) -> str:
    reasons = {
        "MultiheadAttention": "attention multiplies codes with one another, where a frame is linear in each",
        "LayerNorm": "it divides by a norm of the values themselves, which is not linear",
        "GroupNorm": "it divides by a norm of the values themselves, which is not linear",
        "InstanceNorm2d": "it divides by a norm of the values themselves, which is not linear",
        "MaxPool2d": "it chooses among values that are no codes",
    }
    smooth = "it is no proximal step of a penalty on nonnegative codes, as ReLU is"
    other = smooth if kind.__module__ == "torch.nn.modules.activation" else "nothing that is read computes the same"
    return f"{kind.__name__}: {reasons.get(kind.__name__, other)}"


def _pair(given: Any) -> Sides:
    return (int(given), int(given)) if isinstance(given, int) else (int(given[0]), int(given[1]))


# Layers ---------------------------------------------------------------------------------------------------------------


def _conv(reader: Reader, node: fx.Node, layer: nn.Conv2d, given: Value) -> Value:
    if layer.padding_mode != "zeros" and layer.padding not in (0, (0, 0), "valid"):
        raise Unreadable(f"Conv2d pads with {layer.padding_mode}; frames have zeros around images")
    weight = layer.weight.detach()
    if (dilation := _pair(layer.dilation)) != (1, 1):
        sides = [dilation[at] * (weight.shape[2 + at] - 1) + 1 for at in (0, 1)]
        wide = weight.new_zeros(*weight.shape[:2], *sides)
        wide[:, :, :: dilation[0], :: dilation[1]] = weight
        weight = wide
    padding = layer.padding
    if padding == "same":
        if weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
            raise Unreadable("Conv2d pads an even kernel on one side more than on the other")
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    elif padding == "valid":
        padding = (0, 0)
    then = Map(weight, _pair(layer.stride), _pair(padding), layer.groups)
    return reader.through(given, then, layer.bias)


def _linear(reader: Reader, node: fx.Node, layer: nn.Linear, given: Value) -> Value:
    if not given.flat:
        raise Unreadable("Linear works on the last side of an image; flatten it first")
    weight = layer.weight.detach()
    then = Map(weight.view(len(weight), *given.shape))
    if given.shape[1:] == (1, 1):
        then = Map(weight.view(len(weight), -1, 1, 1))
    return reader.through(given, then, layer.bias, flat=True)


def _norm(reader: Reader, node: fx.Node, layer: nn.BatchNorm1d | nn.BatchNorm2d, given: Value) -> Value:
    if layer.running_mean is None or layer.running_var is None:
        raise Unreadable("batch norm without running statistics depends on the other images of the batch")
    if given.flat and given.shape[1:] != (1, 1):
        raise Unreadable("batch norm on a flattened image")
    factors = (layer.running_var.double() + layer.eps).rsqrt()
    if layer.weight is not None:
        factors = factors * layer.weight.detach()
    shift = -layer.running_mean.double() * factors
    if layer.bias is not None:
        shift = shift + layer.bias.detach()
    return _scale(reader, given, factors, shift)


def _scale(reader: Reader, given: Value, factors: Tensor, shift: Tensor | None, *, keep: bool = False) -> Value:
    """Multiply a value channel by channel, and add."""
    branch = reader.branch()
    terms = [
        replace(
            term,
            map=scaled(term.map, factors[term.first : term.first + term.map.weight.shape[0]]),
            branch=term.branch if keep else branch,
        )
        for term in given.terms
    ]
    constant = given.constant * factors.view(-1, 1, 1)
    if shift is not None:
        constant = constant + shift.view(-1, 1, 1)
    return replace(given, terms=tuple(terms), constant=constant, positive=False)


def _relu(reader: Reader, node: fx.Node, layer: nn.Module | None, given: Value) -> Value:
    return reader.new_code(node, given)


def _avg(reader: Reader, node: fx.Node, layer: nn.AvgPool2d, given: Value) -> Value:
    kernel = _pair(layer.kernel_size)
    if layer.divisor_override is not None:
        raise Unreadable("average pooling divides by another number than that of its pixels")
    return _averaged(reader, given, kernel, _pair(layer.stride or kernel), _pair(layer.padding), layer.ceil_mode)


def _averaged(reader: Reader, given: Value, kernel: Sides, stride: Sides, padding: Sides, ceil: bool = False) -> Value:
    if padding != (0, 0) or (ceil and any((given.shape[1 + at] - kernel[at]) % stride[at] for at in (0, 1))):
        raise Unreadable("average pooling over the border divides by fewer pixels there")
    made = reader.through(given, average(given.shape[0], kernel, stride, given.constant))
    return replace(made, positive=given.positive)


def _adaptive(reader: Reader, node: fx.Node, layer: nn.AdaptiveAvgPool2d, given: Value) -> Value:
    wanted = layer.output_size
    sides = (wanted, wanted) if not isinstance(wanted, (tuple, list)) else tuple(wanted)
    return _adapted(reader, given, tuple(side or given.shape[1 + at] for at, side in enumerate(sides)))


def _adapted(reader: Reader, given: Value, sides: Sequence[Any]) -> Value:
    size = (given.shape[1], given.shape[2])
    wanted = (int(sides[0]), int(sides[1]))
    if wanted == size:
        return given
    if any(have % want for have, want in zip(size, wanted)):
        if size == (1, 1) and all(_pointless(term) for term in given.terms):
            return _spread(given, wanted)
        raise Unreadable(f"averages of {size} to {wanted} pixels overlap unevenly")
    kernel = (size[0] // wanted[0], size[1] // wanted[1])
    return _averaged(reader, given, kernel, kernel, (0, 0))


def _pointless(term: Term) -> bool:
    return term.map.is_pointwise


def _spread(given: Value, sides: Sides) -> Value:
    """One pixel repeated: a convolution with a kernel of ones, whose padding reaches over the pixel."""
    terms = []
    for term in given.terms:
        kernel = term.map.weight.expand(-1, -1, *sides)
        terms.append(replace(term, map=Map(kernel, (1, 1), (sides[0] - 1, sides[1] - 1), term.map.groups)))
    return replace(given, shape=(given.shape[0], *sides), terms=tuple(terms))


def _max(reader: Reader, node: fx.Node, layer: nn.MaxPool2d, given: Value) -> Value:
    kernel = _pair(layer.kernel_size)
    stride, padding, dilation = _pair(layer.stride or kernel), _pair(layer.padding), _pair(layer.dilation)
    return _picked(reader, node, given, Pick(kernel, stride, padding, dilation, bool(layer.ceil_mode)))


def _picked(reader: Reader, node: fx.Node, given: Value, pick: Pick) -> Value:
    size = (given.shape[1], given.shape[2])
    if not given.positive and _only_relus_read(node):
        # The largest of ReLUs is the ReLU of the largest.
        given = reader.new_code(node, given)
    plain = [term.pick is None and term.source > 0 and _is_identity(term.map) for term in given.terms]
    if not all(plain) or not _apart(given) or bool(given.constant.any()):
        raise Unreadable("MaxPool2d: it chooses among values that are no codes")
    sides = pick.sides(size)
    terms = tuple(replace(term, pick=pick) for term in given.terms)
    return replace(given, shape=(given.shape[0], *sides), terms=terms)


def _is_identity(each: Map) -> bool:
    channels = each.weight.shape[0]
    return (
        each.is_pointwise and each.groups == channels and each.weight.shape[1] == 1 and bool((each.weight == 1).all())
    )


def _apart(given: Value) -> bool:
    """Whether no channel takes from two terms."""
    ends = sorted((term.first, term.first + term.map.weight.shape[0]) for term in given.terms)
    return all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


def _only_relus_read(node: fx.Node) -> bool:
    readers: list[fx.Node] = list(node.users)
    owner = cast(nn.Module, node.graph.owning_module)
    while readers:
        each = readers.pop()
        if each.op == "call_module":
            module = owner.get_submodule(str(each.target))
            if isinstance(module, nn.ReLU):
                continue
            if isinstance(module, SKIPPED):
                readers.extend(each.users)
                continue
            return False
        name = each.target if isinstance(each.target, str) else getattr(each.target, "__name__", "")
        if str(name).rstrip("_") == "relu":
            continue
        if name == "dropout":
            readers.extend(each.users)
            continue
        return False
    return True


def _flatten(reader: Reader, node: fx.Node, layer: nn.Flatten, given: Value) -> Value:
    if (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 3)):
        raise Unreadable(f"Flatten from {layer.start_dim} to {layer.end_dim} keeps no batch of vectors")
    return replace(given, flat=True)


_MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    nn.Conv2d: _conv, nn.Linear: _linear, nn.BatchNorm1d: _norm, nn.BatchNorm2d: _norm, nn.ReLU: _relu,
    nn.AvgPool2d: _avg, nn.AdaptiveAvgPool2d: _adaptive, nn.MaxPool2d: _max, nn.Flatten: _flatten,
}  # fmt: skip


# Functions ------------------------------------------------------------------------------------------------------------


def _argument(node: fx.Node, at: int, name: str, default: Any = None) -> Any:
    if len(node.args) > at:
        return node.args[at]
    return node.kwargs.get(name, default)


def first(node: fx.Node) -> Any:
    """Return what a step works on, whether it is given by place or by name."""
    return node.args[0] if node.args else next(iter(node.kwargs.values()), None)


def _call_relu(reader: Reader, node: fx.Node) -> Value:
    return reader.new_code(node, reader.given(node, first(node)))


def _call_same(reader: Reader, node: fx.Node) -> Value:
    if _argument(node, 2, "training", False) and getattr(node.target, "__name__", "").startswith("dropout"):
        raise Unreadable("dropout is left on, so that each call is another network")
    return reader.given(node, first(node))


def _two(reader: Reader, node: fx.Node) -> tuple[Any, Any]:
    """The two sides of an operation, numbers and constants as they are."""
    sides = (first(node), _argument(node, 1, "other"))
    found = [reader.values.get(each) if isinstance(each, fx.Node) else each for each in sides]
    if _argument(node, 2, "alpha", 1) != 1 or node.kwargs.get("rounding_mode") is not None:
        raise Unreadable(f"{node.name} has a factor alpha or rounds")
    if any(each is None for each in found):
        raise Unreadable(f"{node.name} works on something else than images, vectors and numbers")
    return found[0], found[1]


def _call_add(reader: Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a + b
    if isinstance(a, Value) and isinstance(b, Value):
        if a.shape != b.shape or a.flat != b.flat:
            raise Unreadable("a sum of values of two shapes")
        terms = tuple(merged([*a.terms, *b.terms]))
        return replace(a, terms=terms, constant=a.constant + b.constant, positive=a.positive and b.positive)
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return replace(value, constant=value.constant + _factor(value, number).view(-1, 1, 1), positive=False)


def _call_sub(reader: Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a - b
    if isinstance(a, Value) and not isinstance(b, Value):
        return replace(a, constant=a.constant - _factor(a, b).view(-1, 1, 1), positive=False)
    raise Unreadable("a value is subtracted, where branches are added")


def _call_mul(reader: Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a * b
    if isinstance(a, Value) and isinstance(b, Value):
        raise Unreadable("a product of two values is not linear")
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return _scale(reader, value, _factor(value, number), None, keep=True)


def _call_div(reader: Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a / b
    if isinstance(a, Value) and not isinstance(b, Value):
        return _scale(reader, a, 1 / _factor(a, b), None, keep=True)
    raise Unreadable("a quotient of two values is not linear")


def _factor(value: Value, number: Any) -> Tensor:
    """A constant as one number a channel."""
    given = torch.as_tensor(number, dtype=torch.float64)
    lead = value.shape[:1] if value.flat else value.shape
    try:
        wide = given.expand(1, *lead) if given.dim() <= 1 + len(lead) else None
    except RuntimeError:
        wide = None
    if wide is None:
        raise Unreadable(f"a constant of shape {tuple(given.shape)} with values of shape {value.shape}")
    per = wide.reshape(value.shape[0], -1)
    if not bool((per == per[:, :1]).all()):
        raise Unreadable("a constant that differs from pixel to pixel")
    return per[:, 0]


def _call_cat(reader: Reader, node: fx.Node) -> Value:
    parts = [reader.given(node, each) for each in cast(Sequence[Any], first(node))]
    if _argument(node, 1, "dim", 0) not in (1, -3 if not parts[0].flat else -1):
        raise Unreadable("values are joined along a side that is not their channels")
    if any(part.flat and part.shape[1:] != (1, 1) for part in parts):
        raise Unreadable("flattened images are joined")
    terms, channels, constants, branch = [], 0, [], reader.branch()
    for part in parts:
        terms += [replace(term, first=term.first + channels, branch=branch) for term in part.terms]
        constants.append(part.constant)
        channels += part.shape[0]
    if any(each.shape[1:] != (1, 1) for each in constants):
        constants = [each.expand(part.shape) for each, part in zip(constants, parts)]
    positive = all(part.positive for part in parts)
    return Value((channels, *parts[0].shape[1:]), tuple(terms), torch.cat(constants), parts[0].flat, positive)


def _call_flatten(reader: Reader, node: fx.Node) -> Value:
    if _argument(node, 1, "start_dim", 0) != 1 or _argument(node, 2, "end_dim", -1) not in (-1, 3):
        raise Unreadable("flatten keeps no batch of vectors; start at 1")
    return replace(reader.given(node, first(node)), flat=True)


def _call_view(reader: Reader, node: fx.Node) -> Value:
    given = reader.given(node, first(node))
    sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (tuple, list)) else node.args[1:]
    if len(cast(Sequence[Any], sizes)) == 2:
        last = cast(Sequence[Any], sizes)[1]
        last = reader.values.get(last, last) if isinstance(last, fx.Node) else last
        if last in (-1, math.prod(given.shape)):
            return replace(given, flat=True)
    raise Unreadable("view changes the shape to something else than vectors")


def _call_mean(reader: Reader, node: fx.Node) -> Value:
    given = reader.given(node, first(node))
    sides = _argument(node, 1, "dim")
    if given.flat or not isinstance(sides, (tuple, list)) or sorted(side % 4 for side in sides) != [2, 3]:
        raise Unreadable("a mean over something else than the pixels of an image")
    made = _adapted(reader, given, (1, 1))
    return replace(made, flat=not _argument(node, 2, "keepdim", False))


def _call_avg(reader: Reader, node: fx.Node) -> Value:
    kernel = _pair(_argument(node, 1, "kernel_size"))
    stride, padding = _argument(node, 2, "stride") or kernel, _argument(node, 3, "padding", 0)
    if _argument(node, 6, "divisor_override") is not None:
        raise Unreadable("average pooling divides by another number than that of its pixels")
    given = reader.given(node, first(node))
    return _averaged(reader, given, kernel, _pair(stride), _pair(padding), bool(_argument(node, 4, "ceil_mode", False)))


def _call_adaptive(reader: Reader, node: fx.Node) -> Value:
    wanted = _argument(node, 1, "output_size")
    return _adapted(reader, reader.given(node, first(node)), _pair(wanted))


def _call_max(reader: Reader, node: fx.Node) -> Value:
    kernel = _pair(_argument(node, 1, "kernel_size"))
    stride, padding = _argument(node, 2, "stride") or kernel, _argument(node, 3, "padding", 0)
    dilation, ceil = _argument(node, 4, "dilation", 1), bool(_argument(node, 5, "ceil_mode", False))
    pick = Pick(kernel, _pair(stride), _pair(padding), _pair(dilation), ceil)
    return _picked(reader, node, reader.given(node, first(node)), pick)


def _call_getattr(reader: Reader, node: fx.Node) -> Any:
    given = reader.values.get(cast(fx.Node, node.args[0]))
    if isinstance(given, Value) and node.args[1] == "shape":
        return _shape(given)
    raise Unreadable(f"the attribute {node.args[1]} of a value")


def _call_size(reader: Reader, node: fx.Node) -> Any:
    shape = _shape(reader.given(node, first(node)))
    at = _argument(node, 1, "dim")
    return shape if at is None else shape[at]


def _call_getitem(reader: Reader, node: fx.Node) -> Any:
    given = reader.values.get(cast(fx.Node, node.args[0]))
    if isinstance(given, tuple):
        return given[cast(int, node.args[1])]
    raise Unreadable("a part of a value is taken")


def _shape(given: Value) -> tuple[int, ...]:
    # One image stands for any batch; nobody may ask how many there are but to keep them apart.
    return (1, math.prod(given.shape)) if given.flat else (1, *given.shape)


_FUNCTIONS: dict[str, Callable[[Reader, fx.Node], Any]] = {
    "relu": _call_relu, "dropout": _call_same, "dropout1d": _call_same, "dropout2d": _call_same,
    "contiguous": _call_same, "clone": _call_same, "add": _call_add, "iadd": _call_add, "sub": _call_sub,
    "isub": _call_sub, "mul": _call_mul, "imul": _call_mul, "truediv": _call_div, "div": _call_div,
    "itruediv": _call_div, "cat": _call_cat, "concat": _call_cat, "flatten": _call_flatten, "view": _call_view,
    "reshape": _call_view, "mean": _call_mean, "avg_pool2d": _call_avg, "adaptive_avg_pool2d": _call_adaptive,
    "max_pool2d": _call_max, "boolean_dispatch": _call_max, "getattr": _call_getattr, "size": _call_size,
    "getitem": _call_getitem,
}  # fmt: skip
_LAYERS_AS_FUNCTIONS = ("conv2d", "linear", "batch_norm", "conv1d", "conv3d")


def module_rule(module: nn.Module) -> Callable[..., Value] | None:
    """Return what a layer does to a value, ``None`` where that is nothing; called with reader, node, layer and value.

    Raises:
        Unreadable: for a layer that is part of no frame.
    """
    if isinstance(module, SKIPPED):
        return None
    for kind, rule in _MODULES.items():
        # Of a subclass, such as one with parametrised weights, if it computes the same.
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule
    raise Unreadable(_no_frame(type(module)))


def function_rule(target: Any) -> Callable[[Reader, fx.Node], Any]:
    """Return what a function or a method of tensors makes; called with reader and node.

    Raises:
        Unreadable: for one that is part of no frame.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    rule = _FUNCTIONS.get(name.strip("_"))
    if rule is not None:
        return rule
    if name in _LAYERS_AS_FUNCTIONS:
        raise Unreadable(f"{name} is called as a function, with weights that no layer holds; use the layer")
    raise Unreadable(f"{name} is no linear map, ReLU or sum of branches")
