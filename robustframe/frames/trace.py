"""An ordinary network as what lies between its ReLUs: affine maps of the image and of the codes before."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from robustframe.errors import InputError, told
from robustframe.frames.affine import IMAGE, Code, Term, Traced, Unread, Unreadable, Value, merged
from robustframe.frames.maps import Map, Sides, chain, identity
from robustframe.frames.rules import NORMS, function_rule, module_rule


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
                self.values[node] = self._value(node)
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

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            shape = _as_image(self.in_shape)
            like = torch.zeros((), dtype=torch.float64)
            whole = Term(IMAGE, identity(shape[0], like), branch=self.branch())
            return Value(shape, (whole,), like.new_zeros(shape[0], 1, 1), flat=len(self.in_shape) == 1)
        if node.op == "get_attr":
            return _attribute(self.graph, str(node.target))
        if node.op == "call_module":
            return self._module(node)
        return function_rule(node.target)(self, node)

    def _module(self, node: fx.Node) -> Value:
        name, module = _plain(node.target), self.graph.get_submodule(str(node.target))
        given = self.given(node, node.args[0])
        if next(module.parameters(), None) is not None:
            if name in self.called:
                raise InputError(
                    f"layer {name!r} is called more than once; a frame has one row a layer, so give each call a layer "
                    "of its own with the same weights"
                )
            self.called.add(name)
            self._note(node, name)
        rule = module_rule(module)
        return given if rule is None else rule(self, node, module, given)

    def given(self, node: fx.Node, argument: Any) -> Value:
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
        whole = Term(number, identity(image[0], like), branch=self.branch())
        return Value(image, (whole,), like.new_zeros(image[0], 1, 1), len(shape) == 2)

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
        # Each code is a branch of its own where it is added to others.
        whole = Term(number, identity(given.shape[0], given.constant), branch=self.branch())
        nothing = given.constant.new_zeros(given.shape[0], 1, 1)
        return Value(given.shape, (whole,), nothing, given.flat, positive=True)

    def _called(self, names: list[str]) -> str:
        """Name a row after its layers, less batch norms and what their names have in common."""
        main = [each for each in names if not isinstance(self._layer(each), NORMS)] or names
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
        shape = (then.weight.shape[0], *then.sides((given.shape[1], given.shape[2])))
        return Value(shape, tuple(merged(terms)), made_constant, given.flat if flat is None else flat)

    def _size(self, term: Term) -> Sides:
        shape = self.source_shape(term.source)
        sides = (shape[1], shape[2])
        return sides if term.pick is None else term.pick.sides(sides)

    def source_shape(self, source: int) -> tuple[int, int, int]:
        """Return the shape of a source as an image."""
        if source == IMAGE:
            return _as_image(self.in_shape)
        return self.made.opaque[source] if source < 0 else self.made.codes[source - 1].value.shape


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
