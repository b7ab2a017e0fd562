"""RobustBench's ``benchmark`` (Croce et al., 2021, arXiv:2010.09670) with a run behind it."""

from enum import Enum
from pathlib import Path
from typing import Any

from robustframe.calls import device_of
from robustframe.compat.autoattack import AutoAttack
from robustframe.compat.shared import as_module, threat_of
from robustframe.devices import pick_device
from robustframe.errors import InputError, unknown
from robustframe.recipe import DataSpec
from robustframe.recipe.examples import load_examples

_DATA = "./data"
_THREATS = ("Linf", "L2")


def benchmark(
    model: Any,
    n_examples: int = 10000,
    dataset: Any = "cifar10",
    threat_model: Any = "Linf",
    to_disk: bool = False,
    model_name: str | None = None,
    data_dir: str = _DATA,
    corruptions_data_dir: str | None = None,
    device: Any = None,
    batch_size: int = 32,
    eps: float | str | None = None,
    log_path: str | None = None,
    preprocessing: Any = None,
    aa_state_path: Any = None,
) -> tuple[float, float]:
    """Measure clean and robust accuracy with ``standard@1``, on the first examples of a test split.

    Args:
        model: a module, or a function from images in [0, 1] to logits.
        n_examples: how many.
        dataset: a name in `robustframe.data.available`, or ``"file:PATH.npz"`` or ``"folder:PATH"`` with data of yours.
        threat_model: ``"Linf"`` or ``"L2"``.
        to_disk: must be false; a folder in ``aa_state_path`` keeps the run, and `robustframe report` writes its
            ``model_info``.
        model_name: of no meaning here.
        data_dir: where the data lies, or goes when it is not there, as with RobustBench; when left out and there is no
            folder ``./data``, where robustframe looks for data.
        corruptions_data_dir: must be left out.
        device: where a module is evaluated, and then put back; where it is when left out.
        batch_size: rows of one model call at most; it changes no number.
        eps: radius in input units, or its text, such as ``"8/255"``.
        log_path: a file to which what is printed is added.
        preprocessing: must be left out.
        aa_state_path: folder in which the run is kept, and from which it is continued.

    Returns:
        Clean and robust accuracy, in [0, 1].

    Raises:
        InputError: for data that is not there, a threat without eps, or what is not offered here.
    """
    _refuse(threat_model, to_disk, corruptions_data_dir, preprocessing)
    if eps is None:
        raise InputError(f"the threat {_value(threat_model)} has no radius; say eps=8 / 255")
    threat_of(_value(threat_model), eps)
    root = None if data_dir == _DATA and not Path(data_dir).is_dir() else Path(data_dir)
    spec = DataSpec(use=_value(dataset), count=n_examples)
    data = load_examples(spec, folder=Path(), data_root=root, download=True)
    module = as_module(model, device)
    home = device_of(module)
    adversary = AutoAttack(module, norm=_value(threat_model), eps=eps, log_path=log_path)
    try:
        if device is not None:
            module.to(pick_device(str(device)))
        # The data set itself, so that the record says which it is.
        adversary._standard((data,), data.images, data.labels, batch_size, aa_state_path)
    finally:
        module.to(home)
    found = adversary.run.results[0]
    return found.clean_correct / found.examples, found.robust_correct / found.examples


def _refuse(threat: Any, to_disk: bool, corruptions: str | None, preprocessing: Any) -> None:
    """Refuse what is not offered here, with what to do instead."""
    if _value(threat).startswith("corruptions"):
        raise InputError(
            f"the threat {_value(threat)} is not a ball; save the corrupted images, and "
            "robustframe.evaluate(model, x, y) counts how many are right"
        )
    if _value(threat) not in _THREATS:
        raise unknown("threat", _value(threat), _THREATS)
    if corruptions is not None:
        raise InputError("corruptions_data_dir is for corruptions, which are not here; leave it out")
    if to_disk:
        raise InputError(
            "to_disk=True is not here; say aa_state_path='runs/mine', and `robustframe report runs/mine --out board` "
            "writes board/model_info"
        )
    if preprocessing is not None:
        raise InputError(
            "preprocessing is not here; a recipe says resize and crop beside use = 'folder:PATH', and normalise of "
            "a model"
        )


def _value(given: Any) -> str:
    """Write a text, or a member of one of RobustBench's enumerations, as a text."""
    return str(given.value if isinstance(given, Enum) else given)
