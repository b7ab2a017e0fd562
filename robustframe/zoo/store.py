"""Pairs by name, card or hub: nothing is parsed before its hash is right, and nothing is unpickled at all."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors

from robustframe.errors import InputError, IntegrityError, unknown
from robustframe.files import WEIGHTS_BYTES, is_plain_name, looks_like, parse_safetensors, read_plain
from robustframe.frames.branched import BranchedFrame
from robustframe.frames.branches import Branch, BranchSpec
from robustframe.frames.build import assemble
from robustframe.frames.reframe import Head
from robustframe.pairs import Pair, Untied
from robustframe.pairs.reframed import ReframedPair
from robustframe.zoo.card import SWEEPS, BranchedPart, BranchPart, Card, read_card

ZOO = Path(__file__).parent / "pairs"
"""Where the shipped pairs lie."""
_COPIES = 100
"""Most frames of an untied net."""
_LAYERS, _NUMBERS = 1_000, 2**28
"""Most layers, and numbers of weights and codes together, of a network that was read as a frame."""


def names() -> list[str]:
    """Return the names of the shipped pairs, numbers in them in the order of numbers."""
    return sorted((path.stem for path in ZOO.glob("*.json")), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


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
    return load_named(f"zoo:{name}")


def find_card(use: str, *, folder: Path = Path(), download: bool = False) -> tuple[Path, Path | None]:
    """Find the card that ``zoo:NAME``, ``card:PATH.json`` or ``hf:OWNER/REPO[@REVISION][:NAME]`` names.

    Args:
        use: what a recipe or a user says.
        folder: what a relative ``PATH`` is relative to.
        download: whether what is not in the hub's cache may be fetched.

    Returns:
        The card, and the folder that it and its weights must lie in, as `load_card` takes it.

    Raises:
        InputError: for anything else, an unknown name, or a repository that is not here.
    """
    kind, _, place = use.partition(":")
    if kind == "zoo":
        if place not in names():
            raise unknown("zoo pair", place, names())
        # Installers may link a package's files to their cache, so that what ships may lie anywhere.
        return ZOO / f"{place}.json", None
    if kind == "card":
        path = folder / place
        return path, path.parent
    if kind == "hf":
        # The client of the hub is an extra, and slow to import.
        from robustframe.zoo.hub import fetch_card

        return fetch_card(place, download=download)
    raise InputError(
        f"model {use!r} must read zoo:NAME, card:PATH.json, hf:OWNER/REPO or file:PATH.py:FUNCTION; "
        "`robustframe zoo list` shows the zoo"
    )


def load_named(use: str, *, folder: Path = Path(), download: bool = False) -> tuple[Pair | Untied, Card]:
    """Load the pair that a user or a recipe names; arguments and errors are those of `find_card` and `load_card`."""
    path, inside = find_card(use, folder=folder, download=download)
    pair, card = load_card(path, inside=inside)
    if use.startswith("zoo:") and card.name != path.stem:
        raise IntegrityError(f"{path} is the card of another pair, {card.name!r}; install robustframe again")
    return pair, card


_BESIDE = Path()
"""Stands for the folder of the card."""


def load_card(path: Path, *, inside: Path | None = _BESIDE) -> tuple[Pair | Untied, Card]:
    """Load a pair by the path of its card; the weights lie beside it.

    Args:
        path: the card.
        inside: the folder that no link may lead out of; the card's own when left out, anywhere when ``None``.

    Raises:
        IntegrityError: for a missing or truncated file, a wrong hash, or tensors of another name or shape.
    """
    card = read_card(path)
    if not is_plain_name(card.weights):
        raise IntegrityError(f"{path}: weights {card.weights!r} must be a file name in the card's folder")
    file = path.parent / card.weights
    content = read_plain(
        file, limit=WEIGHTS_BYTES, inside=path.parent if inside is _BESIDE else inside, what="the weights"
    )
    found = hashlib.sha256(content).hexdigest()
    expected = _expected(card, path)
    if found != card.sha256:
        raise IntegrityError(
            f"{file} is not the file its card describes: SHA-256 {found[:16]}..., expected {card.sha256[:16]}... "
            f"({len(content):,} bytes); {_looks_like(content, expected) or 'altered or another file'}; get it again"
        )
    return _fill(card, expected, parse_safetensors(content, file), file), card


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


def _looks_like(content: bytes, expected: Mapping[str, torch.Tensor]) -> str:
    """Say what a file is instead of the weights, from its first bytes and its length; empty when that tells nothing."""
    if kind := looks_like(content):
        return kind
    # Its header's length stands in front, the tensors end it.
    header = int.from_bytes(content[:8], "little")
    needed = 8 + header + sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if header < 2**20 and len(content) < needed:
        return f"truncated: {needed - len(content):,} of {needed:,} bytes are missing"
    return ""


def _build(card: Card) -> Pair | Untied:
    if card.structure == "branched":
        return _branched(card)
    frames = [assemble(card.in_shape, _plain(card), card.structure) for _ in range(card.sweeps if card.untied else 1)]
    if card.untied:
        return Untied(frames, classes=card.classes)
    return Pair(frames[0], classes=card.classes, sweeps=card.sweeps, pursuit=card.pursuit)


def _plain(card: Card) -> list[dict[str, int]]:
    return [layer for layer in card.layers if not isinstance(layer, BranchedPart)]


def _branched(card: Card) -> ReframedPair:
    """Build the pair that a network was read as."""
    layers = [layer for layer in card.layers if isinstance(layer, BranchedPart)]
    if card.head is None or len(layers) != len(card.layers) or not layers or card.untied:
        raise InputError("a frame with branches has layers with branches, and a head")
    if len(layers) > _LAYERS:
        raise InputError(f"a frame of {len(layers):,} layers is too deep; at most {_LAYERS:,} are allowed")
    rows = [[_spec(branch) for branch in layer.branches] for layer in layers]
    sizes = [*(math.prod(spec.weight) for row in rows for spec in row), math.prod(card.head.weight)]
    sizes += [math.prod(layer.code) for layer in layers]
    if sum(sizes) > _NUMBERS:
        raise InputError(f"its weights and codes would hold more than {_NUMBERS:,} numbers")
    per_pixel = [layer.per_pixel for layer in layers]
    frame = BranchedFrame(card.in_shape, [layer.code for layer in layers], rows, per_pixel=per_pixel)
    last = layers[-1].code
    branch = Branch(_spec(card.head), (last[0], last[1], last[2]) if len(last) == 3 else (last[0], 1, 1))
    return ReframedPair(frame, Head(branch, torch.zeros(card.classes)), sweeps=card.sweeps)


def _spec(part: BranchPart) -> BranchSpec:
    return BranchSpec.from_json(part.model_dump())


def described(pair: ReframedPair) -> tuple[list[BranchedPart], BranchPart]:
    """Return the layers and the head of a pair as its card states them."""
    frame = pair.frame
    layers = [
        BranchedPart(
            code=list(layer.operator.code_shape),
            per_pixel=layer.threshold.shape[1:].numel() > 1,
            branches=[BranchPart(**spec.to_json()) for spec in specs],
        )
        for layer, specs in zip(frame.blocks, frame.specs)
    ]
    return layers, BranchPart(**pair.head.branch.spec.to_json())


def _expected(card: Card, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors that a card describes, without memory for their values: a card may claim any size."""
    if card.sweeps > SWEEPS:
        raise IntegrityError(f"{path}: {card.sweeps:,} sweeps never end; a pair has at most {SWEEPS:,}")
    if card.untied and card.sweeps > _COPIES:
        raise IntegrityError(f"{path}: an untied net of {card.sweeps:,} frames; one has at most {_COPIES}")
    try:
        with torch.device("meta"):
            return _build(card).state_dict()
    except (InputError, TypeError, ValueError, OverflowError, RuntimeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IntegrityError(f"{path}: the card of {card.name} describes no pair: {reason}") from error


def _fill(
    card: Card, expected: Mapping[str, torch.Tensor], tensors: dict[str, torch.Tensor], file: Path
) -> Pair | Untied:
    for name, tensor in expected.items():
        if name not in tensors:
            raise IntegrityError(f"{file} lacks the tensor {name}")
        given = tensors[name]
        if given.shape != tensor.shape:
            raise IntegrityError(f"{file}: {name} has shape {tuple(given.shape)}, the card says {tuple(tensor.shape)}")
        if given.dtype != tensor.dtype:
            raise IntegrityError(f"{file}: {name} is {given.dtype}, a pair has {tensor.dtype}")
        if not given.isfinite().all():
            raise IntegrityError(f"{file}: {name} holds values that are not finite")
        if name.endswith("step_size") and not (given > 0).all():
            raise IntegrityError(f"{file}: {name} must be above 0")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise IntegrityError(f"{file} holds a tensor {extra[0]!r} that the card does not know")
    # The weights come from the file: no step sizes to find here, and nothing to draw from the user's random state.
    with torch.random.fork_rng(devices=[]):
        pair = _build(card)
    pair.load_state_dict(tensors, strict=True)
    try:
        for frame in pair.frames:
            frame.check()
    except InputError as error:
        raise IntegrityError(f"{file}: {error}") from error
    return pair.eval()
