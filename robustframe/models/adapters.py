"""Models as they come, made to take images in [0, 1] and to return logits: `robustframe.adapt`."""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustframe.calls import answer, not_a_model, one_number, own_logits
from robustframe.errors import InputError, shown, whole_number
from robustframe.pairs import Pair


def adapt(
    model: Callable[..., Any],
    *,
    output: str | int | None = None,
    sigmoid: bool = False,
    channels: int | None = None,
    normalise: tuple[float | Sequence[float], float | Sequence[float]] | None = None,
    resize: int | tuple[int, int] | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """Make of a model as it comes one that can be evaluated: images in [0, 1], shape (b, c, h, w), to logits.

    Gradients go through all of it, and attacks change the images before any of it. A function is taken as well; the
    modules that it uses by name are the modules of the result.

    Args:
        model: a module, or anything else that can be called with images.
        output: the key, attribute or place of the logits in what it returns.
        sigmoid: it returns one number z an image, before its sigmoid; the logits are then (0, z).
        channels: how many it takes, 2 or more: the one channel of grey images is repeated first, those of images that
            have so many are left alone.
        normalise: mean and standard deviation of each channel, in units of [0, 1]; two numbers for a single channel.
        resize: height and width to which images are scaled first, or both in one; bilinear with antialiasing.
        channels_last: it takes images of shape (b, h, w, c).

    Returns:
        A module around the model, whose weights are the model's own.

    Raises:
        InputError: for a class, a pair, what cannot be called, or a setting that means nothing.
    """
    if isinstance(model, Pair):
        raise InputError("the model is a pair, which solves for the image itself; it is evaluated as it is")
    if isinstance(model, type) or type(model).__name__ == "ExportedProgram" or not callable(model):
        raise InputError(not_a_model(model))
    for name, given in (("sigmoid", sigmoid), ("channels_last", channels_last)):
        if not isinstance(given, bool):
            raise InputError(f"{name} = {shown(given)} must be True or False")
    module = model if isinstance(model, nn.Module) else Called(model)
    if output is not None or sigmoid:
        module = Answering(module, output, sigmoid=sigmoid)
    if channels_last:
        module = ChannelsLast(module)
    if normalise is not None:
        module = Normalised(module, *(_each_channel(part) for part in _two(normalise, "normalise")))
    if resize is not None:
        module = Resized(module, _two(resize, "resize"))
    return module if channels is None else Repeated(module, channels)


def _two(given: Any, what: str) -> tuple[Any, Any]:
    """Return the two parts of a setting; one number stands for both of a size."""
    if what == "resize" and isinstance(given, int):
        return given, given
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 2:
        means = "a height and a width, such as (224, 224)" if what == "resize" else "means and standard deviations"
        raise InputError(f"{what} = {given!r} must be {means}")
    return given[0], given[1]


def _each_channel(given: Any) -> list[float]:
    """Return one number per channel."""
    try:
        numbers: list[float] = torch.as_tensor(given, dtype=torch.float32).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if not numbers:
        raise InputError(f"normalise has {given!r} where a number for each channel is asked for, such as [0.5]")
    return numbers


class Called(nn.Module):
    """A function as a module, with the modules that it uses.

    Args:
        function: maps images to whatever a model may return.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(_modules_of(function))

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Answering(nn.Module):
    """A model whose logits lie in what it returns.

    Args:
        model: the model.
        output: their key, attribute or place; ``None`` where it returns them.
        sigmoid: it returns one number z an image, before its sigmoid; the logits are then (0, z).
    """

    def __init__(self, model: nn.Module, output: str | int | None, *, sigmoid: bool = False) -> None:
        super().__init__()
        self.model, self.output, self.sigmoid = model, output, sigmoid

    def forward(self, x: Tensor) -> Any:
        said = answer(self.model, x)
        said = own_logits(said) if self.output is None else _entry(said, self.output)
        if not self.sigmoid:
            return said
        if not one_number(said, x):
            shape = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
            raise InputError(f"the model returned {shape} for {len(x)} images, not one number each; leave sigmoid out")
        number = said.flatten()
        return torch.stack([torch.zeros_like(number), number], 1)


class ChannelsLast(nn.Module):
    """A model that takes images of shape (b, h, w, c).

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return answer(self.model, x.permute(0, 2, 3, 1).contiguous())


class Resized(nn.Module):
    """A model with images scaled for it, bilinear with antialiasing.

    Args:
        model: takes images of this size.
        size: height and width, in pixels.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        if len(size) != 2 or not all(isinstance(each, int) and each > 0 for each in size):
            raise InputError(f"resize = {tuple(size)} must be a height and a width, such as (224, 224)")
        self.model, self.size = model, (int(size[0]), int(size[1]))

    def forward(self, x: Tensor) -> Any:
        return answer(self.model, F.interpolate(x, self.size, mode="bilinear", antialias=True))


class Repeated(nn.Module):
    """A model of several channels that takes grey images too, whose one channel it is given several times.

    Args:
        model: takes images of so many channels.
        channels: how many, 2 or more.

    Raises:
        InputError: for another number, and when images have neither one channel nor so many.
    """

    def __init__(self, model: nn.Module, channels: int) -> None:
        super().__init__()
        self.model, self.channels = model, whole_number(channels, "channels", least=2)

    def forward(self, x: Tensor) -> Any:
        # Nothing is left to do for colour, so that one description of a model serves grey and colour data.
        if x.dim() == 4 and x.shape[1] == self.channels:
            return answer(self.model, x)
        if x.dim() != 4 or x.shape[1] != 1:
            raise InputError(
                f"channels = {self.channels} repeats the one channel of grey images; an image has shape "
                f"{tuple(x.shape[1:])}"
            )
        return answer(self.model, x.repeat(1, self.channels, 1, 1))


class Normalised(nn.Module):
    """A model with its preprocessing in front of it, so that attacks see images in [0, 1].

    Args:
        model: takes normalised images.
        mean: of each channel, in units of [0, 1].
        std: of each channel, in the same units, above 0.

    Raises:
        InputError: when mean and std differ in length, or images have another number of channels.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise InputError(
                f"normalise has {len(mean)} means and {len(std)} standard deviations; give one per channel"
            )
        if not all(each > 0 for each in std):
            raise InputError(f"normalise divides by {list(std)}; a standard deviation is above 0")
        self.model = model
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Any:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        if x.dim() != 4 or x.shape[1] != len(mean):
            raise InputError(f"normalise has {len(mean)} channels, an image has shape {tuple(x.shape[1:])}")
        return answer(self.model, (x - mean) / std)


def _entry(said: Any, output: str | int) -> Any:
    """Return what lies under a key, an attribute or a place of what a model returned."""
    try:
        if isinstance(output, str) and not isinstance(said, Mapping):
            return getattr(said, output)
        return said[output]
    except (KeyError, IndexError, TypeError, AttributeError):
        there = f" of {', '.join(map(str, said))}" if isinstance(said, Mapping) else ""
        there = f" of {len(said)}" if isinstance(said, list | tuple) else there
        raise InputError(f"the model returned a {type(said).__name__}{there}, which has no {shown(output)}") from None


def _modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a function uses: in its closure, by global names, of the object that it is a method of.

    Functions and objects of the same file are followed, those of others are not.
    """
    home = function.__module__ if isinstance(function, types.FunctionType) else type(function).__module__
    if isinstance(function, types.MethodType):
        home = type(function.__self__).__module__
    found: list[nn.Module] = []
    met: dict[int, Any] = {}
    pending: list[Any] = [function]
    while pending:
        value = pending.pop(0)
        if id(value) in met:
            continue
        met[id(value)] = value
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            pending += _parts(value, home)
    return found


def _parts(value: Any, home: str) -> Iterable[Any]:
    if isinstance(value, types.FunctionType):
        return _names_of(value) if value.__module__ == home else ()
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return vars(value).values() if type(value).__module__ == home and hasattr(value, "__dict__") else ()


def _names_of(function: types.FunctionType) -> Iterable[Any]:
    try:
        names = inspect.getclosurevars(function)
    except ValueError:
        # A name of a closure that has no value yet.
        return ()
    return (*names.nonlocals.values(), *names.globals.values())
