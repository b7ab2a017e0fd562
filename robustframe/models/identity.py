"""What a model is besides its weights: the user's code behind it, its plain attributes, and its answers."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from robustframe.calls import borrowed, call, device_of
from robustframe.models.values import LONG, Writer, attributes_of, hashed, shown
from robustframe.types import Images
from robustframe.userfile import code_behind, plain_name

PROBES = 4
"""Images that a model is asked at most."""
ALIKE = 1e-5
"""What rounding may change of the largest logit where the same kernels are at work."""
ELSEWHERE = 1e-3
"""And on another device, or with another release of torch."""


@dataclass(frozen=True)
class CodeIdentity:
    """The code and the settings of a model, part by part, so that a difference can be named."""

    parts: dict[str, str]
    """SHA-256 of each file, class and attribute; short attributes in words."""
    packages: dict[str, str]
    """Version of each installed package that has part in it, empty where it is not known. No part of the hash: a model
    may be asked again with another release of torch."""
    unread: tuple[str, ...] = ()
    """What has no source that could be read, and is known by the model's answers alone."""
    moving: tuple[str, ...] = ()
    """Parts that change whenever the model answers, such as a counter of its calls; no part of the hash either."""

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that was read."""
        text = json.dumps([self.parts, self.unread], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def settled(self, later: "CodeIdentity") -> "CodeIdentity":
        """Leave out what the model itself has changed by answering.

        Args:
            later: the identity of the same model after it has been asked. Ask it before the first as well, as what it
                computes once and keeps is there from then on.
        """
        labels = self.parts.keys() | later.parts.keys()
        moving = {label for label in labels if self.parts.get(label) != later.parts.get(label)}
        parts = {label: value for label, value in self.parts.items() if label not in moving}
        return replace(self, parts=parts, moving=tuple(sorted(moving | set(self.moving))))

    def changes(self, now: "CodeIdentity") -> list[str]:
        """Say what is different now, a sentence without its full stop each; none when nothing is.

        Args:
            now: the identity of what should be the same model.
        """
        found = []
        moving = {*self.moving, *now.moving}
        for label in sorted((self.parts.keys() | now.parts.keys()) - moving):
            before, after = self.parts.get(label), now.parts.get(label)
            if before == after:
                continue
            if before is None:
                found.append(f"{label} is new")
            elif after is None:
                found.append(f"{label} is no longer part of it")
            elif LONG in before or LONG in after:
                found.append(f"{label} changed")
            else:
                found.append(f"{label} is {after}, was {before}")
        found += [f"{each} can no longer be read" for each in now.unread if each not in self.unread]
        return found

    def other_packages(self, now: "CodeIdentity") -> list[str]:
        """Say which installed packages have another version now; rounding may differ with them."""
        both = sorted(self.packages.keys() & now.packages.keys())
        return [
            f"{name} is {now.packages[name]}, was {self.packages[name]}"
            for name in both
            if self.packages[name] and now.packages[name] and self.packages[name] != now.packages[name]
        ]


def code_of(module: nn.Module) -> CodeIdentity:
    """Return the user's code behind a model, and the plain attributes of every layer.

    What belongs to Python, torch or another installed package is known by the package's version. Nothing here depends
    on where files lie, on the order of dictionaries and sets, on the device, or on the process.

    Args:
        module: any model; it is not run.
    """
    writer = Writer(module)
    layers: dict[type, list[tuple[str, nn.Module]]] = {}
    for name, layer in module.named_modules():
        layers.setdefault(type(layer), []).append((name, layer))
        if isinstance(layer, torch.jit.ScriptModule):
            writer.unread.add(f"layer {name or 'of the whole'} (compiled by torch.jit)")
    order = [[name, writer.class_name(type(layer))] for name, layer in module.named_modules()]
    settings = {cls: _settings(members, writer) for cls, members in layers.items()}
    bodies: dict[type, str] = {}
    # Writing one class of the user's down may lead to another.
    while fresh := [cls for cls in writer.classes if cls not in bodies]:
        for cls in fresh:
            bodies[cls] = hashed(writer.class_body(cls))
            settings[cls] = writer.class_attributes(cls) | settings.get(cls, {})
    parts = {"the arrangement of its layers": hashed(json.dumps(order))}
    for cls, name in _labels({**settings, **bodies}).items():
        if cls in bodies:
            parts[f"class {name}"] = bodies[cls]
            parts |= {f"attribute {each} of {name}": shown(text) for each, text in settings[cls].items()}
        else:
            parts[f"settings of {name}"] = hashed(json.dumps(settings[cls], sort_keys=True))
    behind = code_behind(writer.modules.values())
    parts |= {label: LONG + sha256 for label, sha256 in behind.files.items()}
    return CodeIdentity(
        parts=dict(sorted(parts.items())),
        packages={name: _version(name) for name in sorted({*behind.packages, *writer.packages})},
        unread=tuple(sorted({*writer.unread, *(f"{label} (compiled)" for label in behind.compiled)})),
    )


def _settings(members: list[tuple[str, nn.Module]], writer: Writer) -> dict[str, str]:
    """Write the attributes of all layers of a class: the text where they agree, else each layer's."""
    texts: dict[str, dict[str, str]] = {}
    for layer_name, layer in members:
        for name, value in attributes_of(layer).items():
            texts.setdefault(name, {})[layer_name] = writer.text(value)
    return {
        name: next(iter(each.values()))
        if len(each) == len(members) and len(set(each.values())) == 1
        else hashed(json.dumps(each, sort_keys=True))
        for name, each in texts.items()
    }


def _labels(classes: Iterable[type]) -> dict[type, str]:
    """Name classes for a sentence, each by its last name where no other has it."""
    classes = list(classes)
    short = Counter(cls.__name__ for cls in classes)
    names: dict[type, str] = {}
    for cls in classes:
        name = cls.__name__ if short[cls.__name__] == 1 else plain_name(f"{cls.__module__}.{cls.__qualname__}")
        while name in names.values():
            name += " (another)"
        names[cls] = name
    return names


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", ""))


@dataclass(frozen=True)
class Answers:
    """What a model says to a few images."""

    logits: Tensor
    """Shape (images, classes), float32 on the CPU."""
    random: bool = False
    """It says something else about the same image in the same call; nothing can be compared then."""

    @classmethod
    def none(cls) -> "Answers":
        """Return those of a model that gave none; nothing can be compared with them."""
        return cls(torch.zeros(0, 0), random=True)

    def stated(self) -> list[list[float]] | None:
        """Return them as a record holds them; ``None`` where they are random."""
        return None if self.random else [[float(each) for each in row] for row in self.logits.tolist()]

    @classmethod
    def of_record(cls, stated: Sequence[Sequence[float]] | None) -> "Answers":
        """Return what a record holds."""
        return cls.none() if stated is None else cls(torch.tensor(stated))


def answers(module: nn.Module, images: Images) -> Answers:
    """Ask a model for its logits on a few images.

    Args:
        module: any model.
        images: shape (b, ...), at least one; the first `PROBES` are shown, the first twice in one call.

    Raises:
        InputError: when it returns no logits.
    """
    few = images[:PROBES]
    with borrowed(module) as model, torch.no_grad():
        # The copy tells whether the model draws numbers. Few rows are no harm: rounding is allowed for.
        rows = torch.cat([few, few[:1]]).to(device_of(module))
        said = call(model, rows).detach().float().cpu()
    return Answers(said[:-1].clone(), random=_apart(said[:1], said[-1:]) > ALIKE)


def compare_answers(stated: Answers, now: Answers, *, alike: bool) -> str | None:
    """Say how a model's answers differ from those that were stated.

    Args:
        stated: of the model as it was.
        now: of what should be the same model, to the same images.
        alike: whether the device and the release of torch are the same, so that only `ALIKE` of the largest logit is
            put down to rounding; otherwise `ELSEWHERE`.

    Returns:
        A sentence without its full stop; ``None`` where they agree, and where the stated ones were random.
    """
    if stated.random:
        return None
    if now.random:
        return "the model answers the same image differently each time, which it did not"
    if stated.logits.shape != now.logits.shape:
        return f"the model answers with logits of shape {tuple(now.logits.shape)}, not {tuple(stated.logits.shape)}"
    if not torch.equal(stated.logits.isnan(), now.logits.isnan()):
        return "the model answers NaN to other images than before"
    allowed = ALIKE if alike else ELSEWHERE
    apart = _apart(stated.logits, now.logits)
    if apart <= allowed:
        return None
    row, column = divmod(int(_differences(stated.logits, now.logits).argmax()), stated.logits.shape[1])
    return (
        f"the model answers otherwise: logit {column} of probe image {row + 1} is {now.logits[row, column]:.6g}, was "
        f"{stated.logits[row, column]:.6g}, {apart:.1g} of the largest where rounding explains {allowed:.0e}"
    )


def _differences(one: Tensor, other: Tensor) -> Tensor:
    """Absolute differences in float64; 0 where both are the same infinity or NaN."""
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one.double() - other.double()).abs()).nan_to_num(nan=torch.inf)


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference as a share of the largest finite logit."""
    finite = torch.cat([one, other]).double()
    finite = finite[finite.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 1.0
    return float(_differences(one, other).max()) / max(scale, torch.finfo(torch.float32).tiny)
