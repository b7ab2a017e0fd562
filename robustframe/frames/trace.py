"""An ordinary network as what lies between its ReLUs: affine maps of the image and of the codes before."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from robustframe.errors import InputError, told
from robustframe.frames.maps import Map, Pick, Sides, average, chain, identity, scaled

IMAGE = 0


@dataclass(frozen=True, eq=False)
class Term:
    """What a value takes from one source."""

    source: int
    """0 the image, from 1 the codes, below 0 what is no frame."""
    map: Map
    first: int = 0
    """The value's channel at which the outputs of the map begin."""
    pick: Pick | None = None
    """The choice of pixels in front of the map."""
    branch: int = 0
    """Terms that one convolution made together, or that are added to one another at last: one number a branch."""


@dataclass(frozen=True, eq=False)
class Value:
    """An affine function of the image and of codes."""

    shape: tuple[int, int, int]
    terms: tuple[Term, ...]
    constant: Tensor
    """What is added, shape (channels, 1, 1), or (channels, y, x) where the border makes it differ."""
    flat: bool = False
    """Whether the network sees it as a vector."""
    positive: bool = False
    """Whether it is made of codes so that it is at least 0 whatever the weights, and a ReLU does nothing."""


@dataclass(frozen=True, eq=False)
class Code:
    """A ReLU and what goes into it."""

    name: str
    """What the network calls the layers that make it, such as ``"layer1.0.conv1"``."""
    value: Value


@dataclass(frozen=True)
class Unread:
    """A layer that is part of no frame."""

    name: str
    why: str


@dataclass(eq=False)
class Traced:
    """A network in terms of its codes."""

    in_shape: tuple[int, ...]
    codes: list[Code]
    out: Value | None
    """The logits; ``None`` where they come from what is no frame."""
    layers: dict[str, int]
    """The code that each layer with weights belongs to; the head's have the number after the last code."""
    unread: list[Unread]
    opaque: dict[int, tuple[int, int, int]]
    """Shapes of what is no frame, by its number below 0."""


class Unreadable(Exception):
    """A layer cannot be read as part of a frame; the text says why."""


_SKIPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def trace(model: nn.Module, in_shape: Sequence[int]) -> Traced:
    """Read a network in evaluation mode; see `robustframe.reframe`.

    Args:
        model: the network; it is left as it is.
        in_shape: shape of one input.

    Raises:
        InputError: for a network in training mode, one that cannot be traced, layers with weights that are called
            twice, or shapes that do not fit.
    """
    if any(each.training for each in model.modules()):
        raise InputError("the model is in training mode; call model.eval() first, as a frame is read at fixed weights")
    model = copy.deepcopy(model).cpu().double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        graph = fx.symbolic_trace(_OneArgument(model))
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be traced by torch.fx, because what it does depends on its input or is "
            f"hidden from it: {told(error)}"
        ) from error
    graph.graph.eliminate_dead_code()
    return _Reader(graph, tuple(in_shape)).read()


class _OneArgument(nn.Module):
    """A network that is called with its image alone, so that its other arguments are what they are by default."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Any) -> Any:
        """Call the network; what is given stands for images while it is traced."""
        return self.model(images)


def _plain(target: Any) -> str:
    """Return what the network itself calls a layer."""
    return str(target).removeprefix("model.")


class _Reader:
    def __init__(self, graph: fx.GraphModule, in_shape: tuple[int, ...]) -> None:
        self.graph, self.in_shape = graph, in_shape
        self.made = Traced(in_shape, [], None, {}, [], {})
        self.values: dict[fx.Node, Any] = {}
        self.names: dict[fx.Node, list[str]] = {}
        self.called: set[str] = set()
        self.coded: set[fx.Node] = set()
        self.branches = 0

    def read(self) -> Traced:
        shapes = _shapes(self.graph, self.in_shape)
        for node in self.graph.graph.nodes:
            if node.op == "output":
                self._output(node)
                continue
            try:
                self.values[node] = self._value(node, shapes)
            except Unreadable as error:
                self.values[node] = self._opaque(node, str(error), shapes[node])
        return self.made

    def _output(self, node: fx.Node) -> None:
        given = node.args[0]
        found = self.values.get(given) if isinstance(given, fx.Node) else None
        if not isinstance(found, Value):
            self.made.unread.append(Unread("output", "the model returns something else than one tensor of logits"))
            return
        number = len(self.made.codes) + 1
        for name in self._pending(cast(fx.Node, given)):
            self.made.layers.setdefault(name, number)
        if not self.made.unread:
            self.made.out = found

    def _value(self, node: fx.Node, shapes: dict[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            shape = _as_image(self.in_shape)
            like = torch.zeros((), dtype=torch.float64)
            whole = Term(IMAGE, identity(shape[0], like))
            return Value(shape, (whole,), like.new_zeros(shape[0], 1, 1), flat=len(self.in_shape) == 1)
        if node.op == "get_attr":
            return _attribute(self.graph, str(node.target))
        if node.op == "call_module":
            return self._module(node)
        return self._function(node)

    def _module(self, node: fx.Node) -> Value:
        name, module = _plain(node.target), self.graph.get_submodule(str(node.target))
        given = self._given(node, node.args[0])
        if next(module.parameters(), None) is not None:
            if name in self.called:
                raise InputError(
                    f"layer {name!r} is called more than once; a frame has one row a layer, so give each call a layer "
                    "of its own with the same weights"
                )
            self.called.add(name)
            self._note(node, name)
        if isinstance(module, _SKIPPED):
            return given
        for kind, function in _MODULES.items():
            # Of a subclass, such as one with parametrised weights, if it computes the same.
            if isinstance(module, kind) and type(module).forward is kind.forward:
                return function(self, node, module, given)
        raise Unreadable(_no_frame(type(module)))

    def _function(self, node: fx.Node) -> Any:
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        function = _FUNCTIONS.get(str(what).rstrip("_").lstrip("_"))
        if function is None:
            if str(what) in _LAYERS_AS_FUNCTIONS:
                raise Unreadable(f"{what} is called as a function, with weights that no layer holds; use the layer")
            raise Unreadable(f"{what} is no linear map, ReLU or sum of branches")
        return function(self, node)

    def _given(self, node: fx.Node, argument: Any) -> Value:
        found = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if isinstance(found, Value):
            return found
        raise Unreadable(f"{node.name} works on something else than images or vectors")

    def _opaque(self, node: fx.Node, why: str, shape: Any) -> Any:
        if not isinstance(shape, torch.Size):
            return None
        name = _plain(node.target) if node.op == "call_module" else node.name
        self.made.unread.append(Unread(name, why))
        if len(shape) not in (2, 4):
            return None
        image = _as_image(tuple(shape[1:]))
        number = -len(self.made.unread)
        self.made.opaque[number] = image
        like = torch.zeros((), dtype=torch.float64)
        return Value(image, (Term(number, identity(image[0], like)),), like.new_zeros(image[0], 1, 1), len(shape) == 2)

    def _note(self, node: fx.Node, name: str) -> None:
        self.names.setdefault(node, []).append(name)

    def _pending(self, node: fx.Node) -> list[str]:
        """The layers between a node and the codes that it is made of, in order."""
        found: list[str] = []
        seen: set[fx.Node] = set()

        def visit(at: fx.Node) -> None:
            if at in seen or at in self.coded:
                return
            seen.add(at)
            for each in at.all_input_nodes:
                visit(each)
            found.extend(self.names.get(at, []))

        visit(node)
        return [name for name in found if name not in self.made.layers]

    def branch(self) -> int:
        """Return a number that no branch has yet."""
        self.branches += 1
        return self.branches

    def new_code(self, node: fx.Node, given: Value) -> Value:
        """Put a ReLU on a value: the next code."""
        self.coded.add(node)
        if given.positive:
            return given
        number = len(self.made.codes) + 1
        source = node.all_input_nodes[0]
        names = self._pending(source)
        for name in names:
            self.made.layers[name] = number
        self.made.codes.append(Code(self._called(names) or node.name, given))
        whole = Term(number, identity(given.shape[0], given.constant))
        nothing = given.constant.new_zeros(given.shape[0], 1, 1)
        return Value(given.shape, (whole,), nothing, given.flat, positive=True)

    def _called(self, names: list[str]) -> str:
        """Name a row after its layers, less batch norms and what their names have in common."""
        main = [each for each in names if not isinstance(self._layer(each), _NORMS)] or names
        common = main[0].rpartition(".")[0] + "." if main else ""
        return " + ".join([each.removeprefix(common) if at else each for at, each in enumerate(main)])

    def _layer(self, name: str) -> nn.Module:
        """Return a layer by the network's own name, which is empty where the network is one layer."""
        return self.graph.get_submodule("model" if name == "model" else f"model.{name}")

    def through(self, given: Value, then: Map, bias: Tensor | None = None, *, flat: bool | None = None) -> Value:
        """Apply a convolution to a value."""
        branch, terms = self.branch(), []
        for term in given.terms:
            part = _channels(then, term.first, term.first + term.map.weight.shape[0], given.shape[0])
            size = self._size(term)
            made = chain(term.map, part, size)
            if made is None:
                raise Unreadable("its padding stands between two linear maps, so that both are no single convolution")
            terms.append(replace(term, map=made, first=0, branch=branch))
        constant = given.constant
        if not bool(constant.any()):
            made_constant = constant.new_zeros(then.weight.shape[0], 1, 1)
        else:
            made_constant = _squeezed(then.apply(constant.expand(given.shape).unsqueeze(0)).squeeze(0))
        if bias is not None:
            made_constant = made_constant + bias.view(-1, 1, 1)
        sides = _sides_after(then, (given.shape[1], given.shape[2]))
        shape = (then.weight.shape[0], *sides)
        return Value(shape, tuple(_merged(terms)), made_constant, given.flat if flat is None else flat)

    def _size(self, term: Term) -> Sides:
        shape = self.source_shape(term.source)
        sides = (shape[1], shape[2])
        return sides if term.pick is None else term.pick.sides(sides)

    def source_shape(self, source: int) -> tuple[int, int, int]:
        """Return the shape of a source as an image."""
        if source == IMAGE:
            return _as_image(self.in_shape)
        return self.made.opaque[source] if source < 0 else self.made.codes[source - 1].value.shape


def _merged(terms: Sequence[Term]) -> list[Term]:
    """Join terms that take the same from the same source."""
    made: list[Term] = []
    for term in terms:
        for at, other in enumerate(made):
            alike = (other.source, other.pick, other.first, other.branch) == (
                term.source, term.pick, term.first, term.branch
            )  # fmt: skip
            a, b = other.map, term.map
            shaped = (a.stride, a.padding, a.groups, a.box, a.weight.shape)
            if alike and shaped == (b.stride, b.padding, b.groups, b.box, b.weight.shape):
                made[at] = replace(other, map=replace(a, weight=a.weight + b.weight))
                break
        else:
            made.append(term)
    return made


def _channels(then: Map, first: int, end: int, channels: int) -> Map:
    """Return the part of a map that reads some of its channels."""
    if (first, end) == (0, channels):
        return then
    if then.groups == 1:
        return replace(then, weight=then.weight[:, first:end])
    whole = replace(then, box=(1, 1)).full()
    return replace(then, weight=whole[:, first:end], groups=1)


def _squeezed(constant: Tensor) -> Tensor:
    """Keep one number a channel where all of its pixels have the same."""
    corner = constant[:, :1, :1]
    same = torch.allclose(constant, corner.expand_as(constant), rtol=1e-12, atol=1e-13)
    return corner.clone() if same else constant


def _sides_after(then: Map, size: Sides) -> Sides:
    return cast(
        Sides,
        tuple((size[at] + 2 * then.padding[at] - then.kernel[at]) // then.stride[at] + 1 for at in (0, 1)),
    )


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    if len(shape) == 1:
        return (shape[0], 1, 1)
    raise Unreadable(f"values of shape {shape} are neither images nor vectors")


def _shapes(graph: fx.GraphModule, in_shape: tuple[int, ...]) -> dict[fx.Node, Any]:
    """The shape of every node's value, found by running the network on zeros."""
    shapes: dict[fx.Node, Any] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            made = super().run_node(n)
            shapes[n] = made.shape if isinstance(made, Tensor) else None
            return made

    try:
        with torch.no_grad():
            Watch(graph).run(torch.zeros(1, *in_shape, dtype=torch.float64))
    except Exception as error:
        raise InputError(f"the model does not take inputs of shape {in_shape}: {told(error)}") from error
    return shapes


def _attribute(graph: fx.GraphModule, name: str) -> Any:
    found: Any = graph
    for part in name.split("."):
        found = getattr(found, part)
    return found.double() if isinstance(found, Tensor) and found.is_floating_point() else found


def _no_frame(kind: type) -> str:
    reasons = {
        "MultiheadAttention": "attention multiplies codes with one another, where a frame is linear in each",
        "LayerNorm": "it divides by a norm of the values themselves, which is not linear",
        "GroupNorm": "it divides by a norm of the values themselves, which is not linear",
        "InstanceNorm2d": "it divides by a norm of the values themselves, which is not linear",
        "MaxPool2d": "it chooses among values that are no codes",
    }
    smooth = "it is no proximal step of a penalty on nonnegative codes, as ReLU is"
    return f"{kind.__name__}: {reasons.get(kind.__name__, smooth)}"


def _pair(given: Any) -> Sides:
    return (int(given), int(given)) if isinstance(given, int) else (int(given[0]), int(given[1]))


# Layers ---------------------------------------------------------------------------------------------------------------


def _conv(reader: _Reader, node: fx.Node, layer: nn.Conv2d, given: Value) -> Value:
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


def _linear(reader: _Reader, node: fx.Node, layer: nn.Linear, given: Value) -> Value:
    if not given.flat:
        raise Unreadable("Linear works on the last side of an image; flatten it first")
    weight = layer.weight.detach()
    then = Map(weight.view(len(weight), *given.shape))
    if given.shape[1:] == (1, 1):
        then = Map(weight.view(len(weight), -1, 1, 1))
    return reader.through(given, then, layer.bias, flat=True)


def _norm(reader: _Reader, node: fx.Node, layer: nn.BatchNorm1d | nn.BatchNorm2d, given: Value) -> Value:
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


def _scale(reader: _Reader, given: Value, factors: Tensor, shift: Tensor | None, *, keep: bool = False) -> Value:
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


def _relu(reader: _Reader, node: fx.Node, layer: nn.Module | None, given: Value) -> Value:
    return reader.new_code(node, given)


def _avg(reader: _Reader, node: fx.Node, layer: nn.AvgPool2d, given: Value) -> Value:
    kernel = _pair(layer.kernel_size)
    return _averaged(reader, given, kernel, _pair(layer.stride or kernel), _pair(layer.padding), layer.ceil_mode)


def _averaged(reader: _Reader, given: Value, kernel: Sides, stride: Sides, padding: Sides, ceil: bool = False) -> Value:
    if padding != (0, 0) or (ceil and any((given.shape[1 + at] - kernel[at]) % stride[at] for at in (0, 1))):
        raise Unreadable("average pooling over the border divides by fewer pixels there")
    made = reader.through(given, average(given.shape[0], kernel, stride, given.constant))
    return replace(made, positive=given.positive)


def _adaptive(reader: _Reader, node: fx.Node, layer: nn.AdaptiveAvgPool2d, given: Value) -> Value:
    wanted = layer.output_size
    sides = (wanted, wanted) if not isinstance(wanted, (tuple, list)) else tuple(wanted)
    return _adapted(reader, given, tuple(side or given.shape[1 + at] for at, side in enumerate(sides)))


def _adapted(reader: _Reader, given: Value, sides: Sequence[Any]) -> Value:
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


def _max(reader: _Reader, node: fx.Node, layer: nn.MaxPool2d, given: Value) -> Value:
    kernel = _pair(layer.kernel_size)
    stride, padding, dilation = _pair(layer.stride or kernel), _pair(layer.padding), _pair(layer.dilation)
    return _picked(reader, node, given, Pick(kernel, stride, padding, dilation, bool(layer.ceil_mode)))


def _picked(reader: _Reader, node: fx.Node, given: Value, pick: Pick) -> Value:
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
            if isinstance(module, _SKIPPED):
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


def _flatten(reader: _Reader, node: fx.Node, layer: nn.Flatten, given: Value) -> Value:
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


def _call_relu(reader: _Reader, node: fx.Node) -> Value:
    return reader.new_code(node, reader._given(node, node.args[0]))


def _call_same(reader: _Reader, node: fx.Node) -> Value:
    if _argument(node, 2, "training", False) and getattr(node.target, "__name__", "").startswith("dropout"):
        raise Unreadable("dropout is left on, so that each call is another network")
    return reader._given(node, node.args[0])


def _two(reader: _Reader, node: fx.Node) -> tuple[Any, Any]:
    """The two sides of an operation, numbers and constants as they are."""
    found = [reader.values.get(each) if isinstance(each, fx.Node) else each for each in node.args[:2]]
    if len(found) < 2 or any(each is None for each in found):
        raise Unreadable(f"{node.name} works on something else than images, vectors and numbers")
    return found[0], found[1]


def _call_add(reader: _Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if _argument(node, 2, "alpha", 1) != 1:
        raise Unreadable("a sum with a factor alpha")
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a + b
    if isinstance(a, Value) and isinstance(b, Value):
        if a.shape != b.shape or a.flat != b.flat:
            raise Unreadable("a sum of values of two shapes")
        terms = tuple(_merged([*a.terms, *b.terms]))
        return replace(a, terms=terms, constant=a.constant + b.constant, positive=a.positive and b.positive)
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return replace(value, constant=value.constant + _factor(value, number).view(-1, 1, 1), positive=False)


def _call_sub(reader: _Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a - b
    if isinstance(a, Value) and not isinstance(b, Value):
        return replace(a, constant=a.constant - _factor(a, b).view(-1, 1, 1), positive=False)
    raise Unreadable("a difference of two branches")


def _call_mul(reader: _Reader, node: fx.Node) -> Any:
    a, b = _two(reader, node)
    if not isinstance(a, Value) and not isinstance(b, Value):
        return a * b
    if isinstance(a, Value) and isinstance(b, Value):
        raise Unreadable("a product of two values is not linear")
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return _scale(reader, value, _factor(value, number), None, keep=True)


def _call_div(reader: _Reader, node: fx.Node) -> Any:
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


def _call_cat(reader: _Reader, node: fx.Node) -> Value:
    parts = [reader._given(node, each) for each in cast(Sequence[Any], node.args[0])]
    if _argument(node, 1, "dim", 0) not in (1, -3 if not parts[0].flat else -1):
        raise Unreadable("values are joined along a side that is not their channels")
    if any(part.flat and part.shape[1:] != (1, 1) for part in parts):
        raise Unreadable("flattened images are joined")
    terms, first, constants, branch = [], 0, [], reader.branch()
    for part in parts:
        terms += [replace(term, first=term.first + first, branch=branch) for term in part.terms]
        constants.append(part.constant)
        first += part.shape[0]
    if any(each.shape[1:] != (1, 1) for each in constants):
        constants = [each.expand(part.shape) for each, part in zip(constants, parts)]
    positive = all(part.positive for part in parts)
    return Value((first, *parts[0].shape[1:]), tuple(terms), torch.cat(constants), parts[0].flat, positive)


def _call_flatten(reader: _Reader, node: fx.Node) -> Value:
    if _argument(node, 1, "start_dim", 0) != 1 or _argument(node, 2, "end_dim", -1) not in (-1, 3):
        raise Unreadable("flatten keeps no batch of vectors; start at 1")
    return replace(reader._given(node, node.args[0]), flat=True)


def _call_view(reader: _Reader, node: fx.Node) -> Value:
    given = reader._given(node, node.args[0])
    sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (tuple, list)) else node.args[1:]
    if len(cast(Sequence[Any], sizes)) == 2:
        last = cast(Sequence[Any], sizes)[1]
        last = reader.values.get(last, last) if isinstance(last, fx.Node) else last
        if last in (-1, math.prod(given.shape)):
            return replace(given, flat=True)
    raise Unreadable("view changes the shape to something else than vectors")


def _call_mean(reader: _Reader, node: fx.Node) -> Value:
    given = reader._given(node, node.args[0])
    sides = _argument(node, 1, "dim")
    if given.flat or sorted(side % 4 for side in cast(Sequence[int], sides or ())) != [2, 3]:
        raise Unreadable("a mean over something else than the pixels of an image")
    made = _adapted(reader, given, (1, 1))
    return replace(made, flat=not _argument(node, 2, "keepdim", False))


def _call_avg(reader: _Reader, node: fx.Node) -> Value:
    kernel = _pair(_argument(node, 1, "kernel_size"))
    stride, padding = _argument(node, 2, "stride") or kernel, _argument(node, 3, "padding", 0)
    given = reader._given(node, node.args[0])
    return _averaged(reader, given, kernel, _pair(stride), _pair(padding), bool(_argument(node, 4, "ceil_mode", False)))


def _call_adaptive(reader: _Reader, node: fx.Node) -> Value:
    wanted = _argument(node, 1, "output_size")
    return _adapted(reader, reader._given(node, node.args[0]), _pair(wanted))


def _call_max(reader: _Reader, node: fx.Node) -> Value:
    kernel = _pair(_argument(node, 1, "kernel_size"))
    stride, padding = _argument(node, 2, "stride") or kernel, _argument(node, 3, "padding", 0)
    dilation, ceil = _argument(node, 4, "dilation", 1), bool(_argument(node, 5, "ceil_mode", False))
    pick = Pick(kernel, _pair(stride), _pair(padding), _pair(dilation), ceil)
    return _picked(reader, node, reader._given(node, node.args[0]), pick)


def _call_getattr(reader: _Reader, node: fx.Node) -> Any:
    given = reader.values.get(cast(fx.Node, node.args[0]))
    if isinstance(given, Value) and node.args[1] == "shape":
        return _shape(given)
    raise Unreadable(f"the attribute {node.args[1]} of a value")


def _call_size(reader: _Reader, node: fx.Node) -> Any:
    shape = _shape(reader._given(node, node.args[0]))
    at = _argument(node, 1, "dim")
    return shape if at is None else shape[at]


def _call_getitem(reader: _Reader, node: fx.Node) -> Any:
    given = reader.values.get(cast(fx.Node, node.args[0]))
    if isinstance(given, tuple):
        return given[cast(int, node.args[1])]
    raise Unreadable("a part of a value is taken")


def _shape(given: Value) -> tuple[int, ...]:
    # One image stands for any batch; nobody may ask how many there are but to keep them apart.
    return (1, math.prod(given.shape)) if given.flat else (1, *given.shape)


_FUNCTIONS: dict[str, Callable[[_Reader, fx.Node], Any]] = {
    "relu": _call_relu, "dropout": _call_same, "dropout1d": _call_same, "dropout2d": _call_same,
    "contiguous": _call_same, "clone": _call_same, "add": _call_add, "iadd": _call_add, "sub": _call_sub,
    "isub": _call_sub, "mul": _call_mul, "imul": _call_mul, "truediv": _call_div, "div": _call_div,
    "itruediv": _call_div, "cat": _call_cat, "concat": _call_cat, "flatten": _call_flatten, "view": _call_view,
    "reshape": _call_view, "mean": _call_mean, "avg_pool2d": _call_avg, "adaptive_avg_pool2d": _call_adaptive,
    "max_pool2d": _call_max, "boolean_dispatch": _call_max, "getattr": _call_getattr, "size": _call_size,
    "getitem": _call_getitem,
}  # fmt: skip
_LAYERS_AS_FUNCTIONS = ("conv2d", "linear", "batch_norm", "conv1d", "conv3d")
