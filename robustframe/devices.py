"""Where to compute: devices by name, and what they are."""

import platform

import torch

from robustframe.errors import InputError, shown


def pick_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first CUDA device, or the CPU where there is none.

    Raises:
        InputError: for a device this machine or this torch does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise InputError(f"device {shown(name)} is not available here; use cpu, or auto") from error
    return device


def device_name(device: torch.device) -> str:
    """Return what a device is, such as ``NVIDIA H100 80GB HBM3`` or ``x86_64``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
