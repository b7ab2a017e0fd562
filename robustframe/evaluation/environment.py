"""What an evaluation runs on, as its record says it."""

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from robustframe.record import Environment


def environment(device: torch.device) -> Environment:
    """Return versions, device and number of threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return Environment(
        robustframe=version("robustframe"),
        python=platform.python_version(),
        torch=torch.__version__,
        torchattacks=_installed("torchattacks"),
        numpy=np.__version__,
        platform=platform.system(),
        device=f"{device.type} ({name})",
        threads=torch.get_num_threads(),
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
