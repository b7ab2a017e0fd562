"""The settings of the process that change numbers: what they are while the library works, and how they come back."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_modules

from robustframe.errors import told
from robustframe.lending.notes import note

log = logging.getLogger("robustframe")

_SMALL = 2e-310
"""Below what a float holds to all its digits."""


@dataclass(frozen=True)
class _Setting:
    """A setting of the whole process."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    ordinary: Any = None
    """What it is while the library works, whatever the caller has set; as the caller has it when ``None``."""


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _cudnn() -> tuple[bool, ...]:
    flags = torch.backends.cudnn
    return flags.enabled, flags.benchmark, flags.deterministic


def _set_cudnn(value: tuple[bool, bool, bool]) -> None:
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = value


def _set_tf32(value: bool) -> None:
    torch.backends.cudnn.allow_tf32 = value


def _flushes() -> bool:
    """Whether the processor takes the smallest numbers for zero; torch has no function that says it."""
    return _SMALL * 0.5 == 0.0


def _set_device(value: torch.device) -> None:
    torch.set_default_device(None if value == torch.device("cpu") else value)


def _errors_of_warnings() -> list[Any]:
    # Others only say what is shown, and modules that are imported on the way add them for good.
    return [each for each in warnings.filters if each[0] == "error"]


def _set_errors_of_warnings(value: list[Any]) -> None:
    left = [each for each in warnings.filters if each[0] != "error" or each in value]
    warnings.filters[:] = [*left, *(each for each in value if each not in left)]  # type: ignore[index]


_HOOKS = [held for name, held in vars(torch_modules).items() if name.startswith("_global_") and isinstance(held, dict)]
"""What torch calls with every module of the process."""


def _hooks() -> list[dict[Any, Any]]:
    return [dict(held) for held in _HOOKS]


def _set_hooks(value: list[dict[Any, Any]]) -> None:
    for held, before in zip(_HOOKS, value, strict=True):
        held.clear()
        held.update(before)


def _blocked() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


_SETTINGS = [
    _Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _Setting("the default device", torch.get_default_device, _set_device),
    _Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    *(
        _Setting(
            f"autocast ({kind})",
            lambda kind=kind: torch.is_autocast_enabled(kind),  # type: ignore[misc]
            lambda value, kind=kind: torch.set_autocast_enabled(kind, value),  # type: ignore[misc]
            False,
        )
        for kind in ("cpu", "cuda")
    ),
    _Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting(
        "the deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    _Setting("cuDNN's enabled, benchmark and deterministic", _cudnn, _set_cudnn),
    _Setting(
        "the precision of products of matrices",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
    ),
    # On by default: a GPU's convolutions would have the precision of ten bits, and a model no exact answer.
    _Setting("TF32 in cuDNN", lambda: torch.backends.cudnn.allow_tf32, _set_tf32, False),
    _Setting("the flushing of the smallest numbers", _flushes, torch.set_flush_denormal),
    _Setting("the detection of anomalies", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    _Setting("the hooks of all modules", _hooks, _set_hooks),
    _Setting("NumPy's handling of errors", np.geterr, lambda value: np.seterr(**value)),
    _Setting("the warnings that are errors", _errors_of_warnings, _set_errors_of_warnings),
    _Setting("the working directory", os.getcwd, os.chdir),
]
if hasattr(signal, "pthread_sigmask"):
    _SETTINGS.append(
        _Setting("the blocked signals", _blocked, lambda value: signal.pthread_sigmask(signal.SIG_SETMASK, value))
    )


@contextmanager
def kept() -> Iterator[None]:
    """Work with the ordinary settings of the process, whatever the caller has set, and give back what was found.

    Inside, gradients are recorded, products and convolutions have the full precision of float32, and neither inference
    mode nor autocast, another default dtype than float32 nor another default device than the CPU is on. Afterwards the
    settings, the working directory among them, are what they were before, also after an exception.
    """
    with ExitStack() as stack:
        # Restores by itself whatever of gradient and inference mode is left open inside.
        stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        found = [_read(setting) for setting in _SETTINGS]
        for setting, value in zip(_SETTINGS, found, strict=True):
            if setting.ordinary is not None and value != setting.ordinary:
                setting.write(setting.ordinary)
        start = [
            value if setting.ordinary is None else setting.ordinary
            for setting, value in zip(_SETTINGS, found, strict=True)
        ]
        try:
            yield
        finally:
            for setting, before, lent_as in zip(_SETTINGS, found, start, strict=True):
                now = _read(setting)
                if now != lent_as:
                    note(f"changes {setting.name} of the process, which was taken back")
                if now != before and before is not None:
                    _take_back(setting, before)


def _read(setting: _Setting) -> Any:
    try:
        return setting.read()
    except (OSError, RuntimeError):
        # Such as a working directory that someone has deleted.
        return None


def _take_back(setting: _Setting, value: Any) -> None:
    try:
        setting.write(value)
    except (OSError, RuntimeError) as error:
        log.warning("%s cannot be set back: %s", setting.name, told(error))
