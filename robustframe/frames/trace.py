"""An ordinary network as what lies between its ReLUs: affine maps of the image and of the codes before."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from robustframe.errors import InputError, told
from robustframe.frames.affine import IMAGE, Code, Term, Traced, Unread, Unreadable, Value, merged
from robustframe.frames.branches import as_image
from robustframe.frames.maps import Map, Sides, chain, identity
from robustframe.frames.rules import NORMS, first, function_rule, module_rule

_CLOSE = 1e-6
"""Largest difference between what is read and what the network computes, in float64, relative to the largest number."""


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
    model = copied(model, torch.float64)
    # What draws numbers leaves those of everybody else as they are.
    with torch.random.fork_rng(devices=[]):
        try:
            graph = fx.symbolic_trace(_OneArgument(model))
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} cannot be traced by torch.fx, because what it does depends on its input or is "
                f"hidden from it: {told(error)}"
            ) from error
        graph.graph.eliminate_dead_code(lambda node: node.is_impure() or _in_place(graph, node))
        return _Reader(model, graph, tuple(in_shape)).read()


def copied(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Copy a network to the CPU, without gradients.

    Args:
        model: the network; it is left as it is.
        dtype: that of its weights; ``None`` for what they are.

    Raises:
        InputError: for a network that cannot be copied.
    """
    # Weights that are computed from others before each call, as in pruning, are copied as the numbers that they are.
    derived = {
        id(each): each.detach().clone()
        for module in model.modules()
        for each in vars(module).values()
        if isinstance(each, Tensor) and not each.is_leaf
    }
    try:
        made = copy.deepcopy(model, derived).cpu().requires_grad_(False)
        return made if dtype is None else made.to(dtype)
    except Exception as error:
        raise InputError(f"{type(model).__name__} cannot be copied to be read: {told(error)}") from error


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


def _in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a step changes what it is given, which has its result from then on."""
    if node.op == "call_module":
        return getattr(graph.get_submodule(str(node.target)), "inplace", False) is True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "relu" and (node.kwargs.get("inplace") or True in node.args[1:2]):
        return True
    return name.endswith("_") and not name.startswith("_")


class _Reader:
    def __init__(self, model: nn.Module, graph: fx.GraphModule, in_shape: tuple[int, ...]) -> None:
        self.model, self.graph, self.in_shape = model, graph, in_shape
        self.made = Traced(in_shape, [], None, {}, [], {})
        self.values: dict[fx.Node, Any] = {}
        self.names: dict[fx.Node, list[str]] = {}
        self.called: set[str] = set()
        self.coded: set[fx.Node] = set()
        self.branches = 0
        # What the sources of terms are for the two images.
        self.seen: dict[int, Tensor] = {}

    def read(self) -> Traced:
        images = torch.rand(2, *self.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.seen[IMAGE] = as_image(images.clone())
        step = self._step
        wrong = f"the model does not take inputs of shape {self.in_shape}"

        class Steps(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                with _telling(wrong):
                    made = super().run_node(n)
                step(n, made)
                return made

        with torch.no_grad():
            with _telling(wrong):
                self.logits = self.model(images.clone())
            steps = Steps(self.graph)
            steps.extra_traceback = False
            steps.run(images)
        return self.made

    def _step(self, node: fx.Node, made: Any) -> None:
        """Read one step of the network, and hold it against what it makes of two images."""
        if node.op == "output":
            self._output(node, made)
            return
        try:
            found = self.values[node] = self._value(node)
            if isinstance(found, Value) and tuple(getattr(made, "shape", ())) != (2, *_shape_of(found)):
                raise Unreadable("it changes the shape of values in a way of its own")
        except Unreadable as error:
            found = self.values[node] = self._opaque(node, str(error), made)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001
            found = self.values[node] = self._opaque(node, f"it is called in a way of its own: {told(error)}", made)
        given = first(node)
        if isinstance(given, fx.Node) and isinstance(self.values.get(given), Value) and _in_place(self.graph, node):
            self.values[given] = found
        code = len(self.made.codes)
        if code and code not in self.seen:
            before = self._numbers(self.made.codes[-1].value)
            self.seen[code] = before.relu()
            if all(term.pick is None for term in found.terms):
                name = f"layer {code} ({self.made.codes[-1].name})"
                _compare(name, self.seen[code], made, float(before.abs().max()))

    def _numbers(self, value: Value) -> Tensor:
        """What an affine value is for the two images."""
        made = value.constant.expand(value.shape).repeat(2, 1, 1, 1)
        for term in value.terms:
            given = self.seen[term.source]
            given = given if term.pick is None else term.pick.apply(given)[0]
            made[:, term.first : term.first + term.map.weight.shape[0]] += term.map.apply(given)
        return made

    def _output(self, node: fx.Node, made: Any) -> None:
        given = node.args[0]
        found = self.values.get(given) if isinstance(given, fx.Node) else None
        if isinstance(made, Tensor) and isinstance(self.logits, Tensor):
            left = "".join(f" ({each.name}: {each.why})" for each in self.made.unread[:1])
            _compare("the model" + left, made, self.logits)
        if not isinstance(found, Value):
            self.made.unread.append(Unread("output", "the model returns something else than one tensor of logits"))
            return
        number = len(self.made.codes) + 1
        for name in self._pending(cast(fx.Node, given)):
            self.made.layers.setdefault(name, number)
        if not self.made.unread:
            _compare("the model", self._numbers(found), made)
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
        given = self.given(node, first(node))
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

    def _opaque(self, node: fx.Node, why: str, seen: Any) -> Any:
        if not isinstance(seen, Tensor):
            return None
        name = _plain(node.target) if node.op == "call_module" else node.name
        self.made.unread.append(Unread(name, why))
        if seen.dim() not in (2, 4) or len(seen) != 2:
            return None
        image = _as_image(tuple(seen.shape[1:]))
        number = -len(self.made.unread)
        self.made.opaque[number] = image
        self.seen[number] = as_image(seen.clone())
        like = torch.zeros((), dtype=torch.float64)
        whole = Term(number, identity(image[0], like), branch=self.branch())
        return Value(image, (whole,), like.new_zeros(image[0], 1, 1), seen.dim() == 2)

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


def _shape_of(value: Value) -> tuple[int, ...]:
    return (math.prod(value.shape),) if value.flat else value.shape


def _compare(name: str, found: Tensor, made: Tensor, largest: float | None = None) -> None:
    """Check what is read of the network, or of a layer whose values are as large as that, against what it computes.

    Raises:
        InputError: where both differ.
    """
    if not bool(made.isfinite().all()):
        raise InputError(f"{name} is not finite for images in [0, 1]; get the model's weights or train them again")
    same = found.numel() == made.numel()
    apart = float((found.flatten().double() - made.flatten().double()).abs().max()) if same else math.inf
    if not apart <= _CLOSE * (float(made.abs().max()) if largest is None else largest):
        raise InputError(
            f"{name} is not what the model's layers say, because of a hook, a value that is changed in place, chance, "
            "or whatever else torch.fx does not show"
        )


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise InputError(f"{what}: {told(error)}") from error


def _attribute(graph: fx.GraphModule, name: str) -> Any:
    found: Any = graph
    for part in name.split("."):
        found = getattr(found, part)
    return found.double() if isinstance(found, Tensor) and found.is_floating_point() else found
