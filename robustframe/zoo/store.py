"""Pairs by name or by card: nothing is parsed before its hash is right."""

import hashlib
import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from robustframe.errors import InputError, IntegrityError, unknown
from robustframe.frames.build import assemble
from robustframe.pairs import Pair, Untied
from robustframe.zoo.card import Card

ZOO = Path(__file__).parent / "pairs"
"""Where the shipped pairs lie."""


def names() -> list[str]:
    """Return the names of the shipped pairs."""
    return sorted(path.stem for path in ZOO.glob("*.json"))


def load(name: str) -> tuple[Pair | Untied, Card]:
    """Load a shipped pair.

    Args:
        name: one of `names`.

    Returns:
        The pair, ready to classify, and its card.

    Raises:
        InputError: for an unknown name, with the nearest one.
        IntegrityError: when its files are not what its card says.
    """
    if name not in names():
        raise unknown("zoo pair", name, names())
    return load_card(ZOO / f"{name}.json")


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        IntegrityError: when it is missing or is no card.
    """
    try:
        return Card.model_validate_json(path.read_bytes())
    except OSError as error:
        raise IntegrityError(f"the card {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise IntegrityError(f"{path} is not a card of this version: {key}: {first['msg']}") from None


def load_card(path: Path) -> tuple[Pair | Untied, Card]:
    """Load a pair by the path of its card; the weights lie beside it.

    Raises:
        IntegrityError: for a missing or truncated file, a wrong hash, or tensors of another name or shape.
    """
    card = read_card(path)
    if Path(card.weights).name != card.weights:
        raise IntegrityError(f"{path}: weights {card.weights!r} must be a file name in the card's folder")
    file = path.parent / card.weights
    try:
        content = file.read_bytes()
    except OSError as error:
        raise IntegrityError(f"the weights {file} of {card.name} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise IntegrityError(
            f"{file} is not the file its card describes: SHA-256 {found[:16]}..., expected {card.sha256[:16]}... "
            f"({len(content):,} bytes); get it again"
        )
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise IntegrityError(f"{file} is not a safetensors file: {error}") from error
    return _fill(card, tensors, file), card


def save(pair: Pair | Untied, folder: Path, card: Card) -> Path:
    """Write weights and card of a pair, the card last; return the card's path.

    Args:
        pair: the pair.
        folder: where to write; made when it is not there.
        card: everything about the pair; its ``weights`` and ``sha256`` are filled in here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in pair.state_dict().items()}
    content = save_tensors(tensors)
    weights = f"{card.name}.safetensors"
    card = card.model_copy(update={"weights": weights, "sha256": hashlib.sha256(content).hexdigest()})
    text = json.dumps(card.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n"
    for path, data in ((folder / weights, content), (folder / f"{card.name}.json", text.encode())):
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(data)
        aside.replace(path)
    return folder / f"{card.name}.json"


def _fill(card: Card, tensors: dict[str, torch.Tensor], file: Path) -> Pair | Untied:
    try:
        # The weights come from the file: no step sizes to find here, and nothing to draw from the user's random state.
        with torch.random.fork_rng(devices=[]):
            pair = _empty(card)
    except (InputError, TypeError) as error:
        raise IntegrityError(f"the card of {card.name} describes no pair: {error}") from error
    expected = pair.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise IntegrityError(f"{file} lacks the tensor {name}")
        if tensors[name].shape != tensor.shape:
            raise IntegrityError(
                f"{file}: {name} has shape {tuple(tensors[name].shape)}, the card says {tuple(tensor.shape)}"
            )
        if not tensors[name].isfinite().all():
            raise IntegrityError(f"{file}: {name} holds values that are not finite")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise IntegrityError(f"{file} holds a tensor {extra[0]} that the card does not know")
    pair.load_state_dict(tensors, strict=True)
    try:
        for frame in pair.frames:
            frame.check()
    except InputError as error:
        raise IntegrityError(f"{file}: {error}") from error
    return pair.eval()


def _empty(card: Card) -> Pair | Untied:
    frames = [assemble(card.in_shape, card.layers, card.structure) for _ in range(card.sweeps if card.untied else 1)]
    if card.untied:
        return Untied(frames, classes=card.classes)
    return Pair(frames[0], classes=card.classes, sweeps=card.sweeps, pursuit=card.pursuit)
