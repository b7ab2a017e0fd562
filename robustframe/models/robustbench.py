"""Models of RobustBench's zoo, where its package is installed (Croce et al., 2021, arXiv:2010.09670)."""

from pathlib import Path

from torch import nn

from robustframe.errors import InputError, told
from robustframe.recipe import ModelSpec


def load_robustbench(spec: ModelSpec, place: str, *, download: bool = False) -> nn.Module:
    """Load a model of RobustBench's zoo by its name.

    Its weights lie in ``models/DATA/THREAT/NAME.pt`` of the working directory, where RobustBench puts them.

    Args:
        spec: as the recipe names it; weights and classes are the zoo's.
        place: ``NAME`` of a model for CIFAR-10 and Linf, or ``DATA/THREAT/NAME``, such as
            ``"cifar100/L2/Carmon2019Unlabeled"``.
        download: allow the weights to be downloaded.

    Raises:
        InputError: when RobustBench is not installed, has no such model, or the weights are not there.
    """
    if spec.weights is not None or spec.classes is not None:
        raise InputError(f"{spec.use} has weights and classes of its own; leave both out")
    *kind, name = place.split("/")
    if len(kind) not in (0, 2) or not name:
        raise InputError(f"model {spec.use!r} must read robustbench:NAME or robustbench:DATA/THREAT/NAME")
    data, threat = kind or ("cifar10", "Linf")
    try:
        from robustbench.utils import load_model
    except ImportError as error:
        raise InputError(
            f"{spec.use} needs RobustBench, which cannot be imported ({told(error)}); `pip install robustbench`"
        ) from error
    file = Path("models", data, threat, f"{name}.pt")
    if not download and not file.is_file():
        raise InputError(f"the weights of {spec.use} are not at {file}; fetch them with --download")
    try:
        model: nn.Module = load_model(name, model_dir="models", dataset=data, threat_model=threat)
    except Exception as error:
        raise InputError(f"{spec.use} cannot be loaded: {told(error)}") from error
    return model
