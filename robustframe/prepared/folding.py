"""Batch norm folded into the layers before it, in a copy: which pairs of layers those are is seen, not guessed."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from robustframe.calls import call

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WIDE = 16
"""Channels in and out from which a layer's products are worth computing in fewer digits."""


@dataclass
class Seen:
    """What a pass through a model showed."""

    called: int = 0
    """Layers that were called."""
    foldable: list[tuple[str, str]] = field(default_factory=list)
    """Layers by name, and the batch norms that alone take what these give."""
    repeated: list[str] = field(default_factory=list)
    """Layers of these kinds that were called more than once."""
    convolutional: bool = False
    """There are two-dimensional convolutions among the layers."""
    wide: float = 0.0
    """Share of the multiplications that lie in layers of at least 16 channels in and out; 0 with depthwise
    convolutions."""


def watch(model: nn.Module, images: Tensor) -> Seen:
    """Pass images through a model and see what its layers are, and who takes what they give.

    Args:
        model: any module; in evaluation mode.
        images: shape (b, ...).
    """
    calls: Counter[str] = Counter()
    given: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            if type(module) in _NORMS:
                taken[name] = inputs[0] if inputs else output
            else:
                given[name] = output

        return hook

    layers = {name: each for name, each in model.named_modules() if type(each) in (*_CONVOLUTIONS, *_NORMS, nn.Linear)}
    uses = _Uses()
    with _hooked(layers, note), torch.no_grad(), uses:
        call(model, images)
    return Seen(
        called=len(calls),
        foldable=[
            (layer, norm)
            for norm, inputs in taken.items()
            for layer, output in given.items()
            if output is inputs and uses.of[id(output)] == 1 and _folds(layers[layer], layers[norm], output)
        ],
        repeated=[name for name, count in calls.items() if count > 1],
        convolutional=any(isinstance(each, nn.Conv2d) for each in layers.values()),
        wide=0.0 if uses.depthwise else uses.wide / max(uses.products, 1),
    )


@contextmanager
def _hooked(layers: dict[str, nn.Module], note: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    handles = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Uses(TorchFunctionMode):
    """Counts which tensors are taken by what makes new ones of them, and the multiplications, as they happen."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()
        """By the identity of a tensor, from when it was made."""
        self.products = self.wide = 0
        self.depthwise = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given, new = (
            {id(leaf) for leaf in tree_leaves(each) if isinstance(leaf, Tensor)} for each in ((args, kwargs), made)
        )
        # What asks for a shape or a type makes no tensor.
        if new:
            self.of.update(given)
        for each in new - given:
            # One that is gone may have had the same identity.
            self.of[each] = 0
        if func in (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.linear):
            weight = args[1] if len(args) > 1 else (kwargs or {}).get("weight")
            if isinstance(weight, Tensor) and isinstance(made, Tensor):
                self._multiplied(weight, args[0] if func is F.conv_transpose2d else made)
                self.depthwise |= func is F.conv2d and weight.shape[1] == 1 < args[0].shape[1]
        return made

    def _multiplied(self, weight: Tensor, places: Tensor) -> None:
        # Every filter is multiplied at every place once; a transposed convolution's places are those it starts from.
        number = weight[0].numel() * places.numel()
        self.products += number
        self.wide += number if min(weight.shape[:2]) >= _WIDE else 0


def _folds(layer: nn.Module, norm: nn.Module, output: Tensor) -> bool:
    """Say whether a batch norm is a fixed factor and offset of each of the layer's channels."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.training or norm.running_mean is None:
        return False
    # Along a sequence, the channels of a batch norm are not the outputs of a linear layer.
    return not isinstance(layer, nn.Linear) or output.dim() == 2


@torch.no_grad()
def fold(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Fold batch norms into the layers before them, in place; nothing is left where they stood.

    Args:
        model: a copy that nobody else holds, with layers in evaluation mode.
        pairs: names of layers and of their batch norms.
    """
    for name, norm_name in pairs:
        layer, norm = model.get_submodule(name), model.get_submodule(norm_name)
        statistics = [norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias]
        # In double precision, so that one rounding is all that folding adds.
        exact = [each.double() if isinstance(each, Tensor) else each for each in statistics]
        bias = None if layer.bias is None else layer.bias.double()
        fused = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        made = fused(layer.weight.double(), bias, *exact)  # type: ignore[arg-type]
        # Parameters of their own, as the layer's may be those of others too.
        layer.weight, layer.bias = (nn.Parameter(each.to(torch.float32), requires_grad=False) for each in made)
        parent, _, last = norm_name.rpartition(".")
        model.get_submodule(parent)._modules[last] = nn.Identity()
