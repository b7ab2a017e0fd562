"""Python values written down as text that is the same in every process, on every machine and in every folder."""

import argparse
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import inspect
import json
import math
import os
import re
import sys
import types
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustframe.userfile import LIBRARIES, module_behind, plain_name

LONG = "sha256:"
"""How a text begins that stands for one too long to be shown."""
_SHOWN = 60
_LONGEST = 1000
_DEEP, _MOST = 60, 10_000
"""How deep values may lie in each other, and how many containers and objects of one attribute are written: ways through
objects that all refer to each other have no end."""
_REPEATED = (
    range, slice, complex, decimal.Decimal, fractions.Fraction, datetime.date, datetime.time, datetime.timedelta,
    uuid.UUID, re.Pattern, torch.dtype, torch.layout, torch.memory_format,
)  # fmt: skip
"""What Python itself writes the same everywhere."""
_OPEN = ("torchvision", "timm")
"""Packages whose plain objects hold settings, such as the transforms of a preprocessing."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_INTERNAL = frozenset(vars(nn.Module()))


def hashed(text: str) -> str:
    """Return the hash that stands for a text."""
    return LONG + hashlib.sha256(text.encode()).hexdigest()


def shown(text: str) -> str:
    """Return a text as it may be published: itself when it is short and names no path, else its hash."""
    return text if len(text) <= _SHOWN and "/" not in text and "\\" not in text else hashed(text)


def attributes_of(layer: nn.Module) -> dict[str, Any]:
    """Return what a layer holds that is neither a layer nor in the state dict: plain attributes, hooks."""
    if isinstance(layer, torch.jit.ScriptModule):
        return {}
    own = vars(layer)
    found = {name: value for name, value in own.items() if name not in _INTERNAL}
    found |= {name: own["_buffers"][name] for name in sorted(own["_non_persistent_buffers_set"])}
    # Their keys count all hooks of the process.
    found |= {name.strip("_"): list(own[name].values()) for name in _HOOKS if own.get(name)}
    if isinstance(layer, torch.fx.GraphModule):
        found["code"] = layer.code
    return found


class Writer:
    """Writes values down, and notes whose code they lead to.

    Args:
        model: whose layers are written by name, wherever an attribute refers to one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, types.ModuleType] = {}
        """The user's modules that were met."""
        self.classes: dict[type, None] = {}
        """The user's classes that were met."""
        self.packages: set[str] = set()
        self.unread: set[str] = set()
        self._layers = {id(layer): name for name, layer in model.named_modules()}
        self._folders: set[str] = set()
        self._written: dict[int, tuple[Any, str]] = {}
        """By identity; each value is held, lest another take its place in memory."""
        self._open: dict[int, int] = {}
        """What is being written, and how deep it lies."""
        self._reach = math.inf
        """The least depth that what is being written refers back to."""
        self._left = _MOST
        self._owners: dict[str, str] = {}

    def class_name(self, cls: type) -> str:
        """Return a class's name, and note it when it is the user's."""
        if self.is_users(cls):
            self.classes[cls] = None
        return plain_name(f"{cls.__module__}.{cls.__qualname__}")

    def is_users(self, cls: type) -> bool:
        """Say whether a class is the user's own."""
        return self._owner(cls.__module__) in ("file", "no file")

    def class_body(self, cls: type) -> str:
        """Write what a class of the user's can do: its bases, and its functions."""
        lines = [self.class_name(base) for base in cls.__bases__]
        for name, value in sorted(vars(cls).items()):
            for function in _functions(value):
                # What dataclasses and their like generate follows from the class.
                if not (name.startswith("__") and function.__code__.co_filename == "<string>"):
                    lines.append(f"{name}: {self.text(function)}")
        return "\n".join(lines)

    def class_attributes(self, cls: type) -> dict[str, str]:
        """Write the plain attributes of a class of the user's."""
        return {
            name: self.text(value)
            for name, value in vars(cls).items()
            if not name.startswith(("__", "_abc_")) and not list(_functions(value))
        }

    def _owner(self, name: str | None) -> str:
        """Return whose a module is: ``"file"`` or ``"no file"`` for the user's, ``"package"``, or ``"python"``."""
        name = name or ""
        if name not in self._owners:
            self._owners[name] = self._look_up(name)
        return self._owners[name]

    def _look_up(self, name: str) -> str:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return "python"
        module = sys.modules.get(name)
        behind = None if module is None else module_behind(module)
        if module is not None and behind is not None:
            self.modules[name] = module
            self._folders |= {str(behind.root), str(behind.root.resolve())}
            return "file"
        if top not in LIBRARIES and getattr(module, "__file__", None) is None:
            return "no file"
        self.packages.add(top)
        return "package"

    def text(self, value: Any) -> str:
        """Write one value."""
        if isinstance(value, enum.Enum):
            return f"{self.class_name(type(value))}.{value.name}"
        if value is None or isinstance(value, bool | int | float):
            return repr(value) if type(value) in (bool, int, float, type(None)) else f"{type(value).__name__} {value!r}"
        if isinstance(value, str):
            return json.dumps(self._placeless(value))
        if isinstance(value, PurePath):
            return f"path {json.dumps(self._placeless(str(value)))}"
        if isinstance(value, bytes | bytearray):
            return f"{len(value)} bytes {hashed(bytes(value).hex())}"
        if isinstance(value, _REPEATED):
            return repr(value)
        if isinstance(value, type):
            return f"class {self.class_name(value)}"
        if id(value) in self._layers:
            return f"layer {self._layers[id(value)]}"
        if id(value) in self._written:
            return self._written[id(value)][1]
        if id(value) in self._open:
            depth = self._open[id(value)]
            self._reach = min(self._reach, depth)
            return f"what is {len(self._open) - depth} above"
        self._left = self._left - 1 if self._open else _MOST
        if len(self._open) > _DEEP or self._left < 0:
            self.unread.add("what lies deepest in its attributes")
            return f"a {type(value).__name__}"
        return self._enter(value)

    def _enter(self, value: Any) -> str:
        outer, self._reach, depth = self._reach, math.inf, len(self._open)
        self._open[id(value)] = depth
        try:
            text = self._compound(value)
        finally:
            del self._open[id(value)]
        if len(text) > _LONGEST:
            text = hashed(text)
        # What lies on a circle is written otherwise elsewhere, where the circle is entered at another place.
        if self._reach > depth:
            self._written[id(value)] = (value, text)
        self._reach = outer if self._reach >= depth else min(outer, self._reach)
        return text

    def _compound(self, value: Any) -> str:
        numbers = self._numbers(value)
        if numbers is not None:
            return numbers
        if isinstance(value, Mapping):
            pairs = sorted(f"{self.text(key)}: {self.text(part)}" for key, part in value.items())
            return f"{_kind(value, dict)}{{{', '.join(pairs)}}}"
        if isinstance(value, set | frozenset):
            return f"{{{', '.join(sorted(self.text(part) for part in value))}}}"
        if isinstance(value, list | tuple | deque):
            parts = ", ".join(self.text(part) for part in value)
            return (
                f"{_kind(value, list, tuple)}[{parts}]"
                if not isinstance(value, tuple)
                else f"{_kind(value, tuple)}({parts})"
            )
        called = self._called(value)
        return self._object(value) if called is None else called

    def _numbers(self, value: Any) -> str | None:
        if isinstance(value, Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray):
            content = "" if value.dtype.hasobject else hashed(np.ascontiguousarray(value).tobytes().hex())
            return f"array {value.dtype} {value.shape} {content}"
        if isinstance(value, np.generic):
            return f"{value.dtype} {value.item()!r}"
        if isinstance(value, torch.Generator):
            return f"generator {_tensor(value.get_state())}"
        # A model is the same on another device.
        return "a device" if isinstance(value, torch.device) else None

    def _called(self, value: Any) -> str | None:
        """Write a function, or what wraps one; ``None`` for anything else."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return f"method {self.text(value.__func__)} of {self.text(value.__self__)}"
        if isinstance(value, functools.partial):
            return f"partial {self.text(value.func)} {self.text(value.args)} {self.text(value.keywords)}"
        if isinstance(value, types.ModuleType):
            self._owner(value.__name__)
            return f"module {plain_name(value.__name__)}"
        if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType | np.ufunc):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        return None

    def _function(self, function: types.FunctionType) -> str:
        owner = self._owner(function.__module__)
        name = plain_name(f"{function.__module__}.{function.__qualname__}")
        if owner in ("python", "package"):
            return name
        code = function.__code__
        lines = [name]
        if owner == "no file":
            lines += [self._source(function), *self._globals(function)]
        elif "<" in function.__qualname__:
            # The file tells what it is once it is known which of several it is.
            lines.append(
                str(min(((row, column) for row, _, column, _ in code.co_positions() if row and column), default=""))
            )
        lines += [self.text(function.__defaults__), self.text(function.__kwdefaults__)]
        for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                lines.append(f"{free} = {self.text(cell.cell_contents)}")
            except ValueError:
                lines.append(f"{free} is empty")
        return "function " + "; ".join(lines)

    def _source(self, function: types.FunctionType) -> str:
        try:
            return hashed(inspect.getsource(function.__code__))
        except (OSError, TypeError, SyntaxError, IndexError):
            self.unread.add(plain_name(f"{function.__module__}.{function.__qualname__}"))
            return "unread"

    def _globals(self, function: types.FunctionType) -> Iterator[str]:
        """Write the global names that a function of a notebook or shell uses, as no file states them."""
        pending, names = [function.__code__], set()
        while pending:
            code = pending.pop()
            names |= set(code.co_names)
            pending += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        for name in sorted(names & function.__globals__.keys()):
            yield f"{name} = {self.text(function.__globals__[name])}"

    def _object(self, value: Any) -> str:
        cls = type(value)
        name = self.class_name(cls)
        if isinstance(value, nn.Module):
            # One that is held in a list, say, which torch does not count among the layers.
            held = {**attributes_of(value), **vars(value)["_modules"], **value.state_dict()}
            return f"{name} {self.text(held)}"
        if dataclasses.is_dataclass(value):
            fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
            return f"{name} {self.text(fields)}"
        known = self.is_users(cls) or name.partition(".")[0] in _OPEN
        if known or isinstance(value, types.SimpleNamespace | argparse.Namespace):
            slots = [slot for base in cls.__mro__ for slot in _slots(base)]
            held = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)} | getattr(
                value, "__dict__", {}
            )
            return f"{name} {self.text(held)}"
        return f"a {name}"

    def _placeless(self, text: str) -> str:
        for folder in sorted(self._folders - {os.sep}, key=len, reverse=True):
            text = text.replace(folder, ".")
        return plain_name(text)


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """Yield the functions that an entry of a class stands for."""
    wrapped: Iterable[Any] = (value,)
    if isinstance(value, staticmethod | classmethod):
        wrapped = (value.__func__,)
    elif isinstance(value, property):
        wrapped = (value.fget, value.fset, value.fdel)
    yield from (each for each in wrapped if isinstance(each, types.FunctionType))


def _kind(value: Any, *plain: type) -> str:
    return "" if type(value) in plain else f"{type(value).__name__} "


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [slot for slot in slots if slot not in ("__dict__", "__weakref__")]


def _tensor(tensor: Tensor) -> str:
    said = f"tensor {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    try:
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError):
        # A tensor without plain storage: on no device, sparse, quantised.
        return said
    return f"{said} {LONG}{hashlib.sha256(content.data).hexdigest()}"
