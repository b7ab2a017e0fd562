"""From what a recipe names to classifiers that can be attacked, checked before anything runs."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustframe.children import Child, ChildEnded
from robustframe.errors import InputError
from robustframe.frames import mutual_coherence
from robustframe.models.identity import CodeIdentity, answers, code_of
from robustframe.models.sources import find_model, smoothed
from robustframe.models.values import LONG
from robustframe.pairs import Pair, Twin, Untied
from robustframe.recipe import ModelSpec, digest
from robustframe.runs.record import ClassifierEntry
from robustframe.types import Images


class Source:
    """The model that one entry of a recipe names: loaded when it is needed, and let go when it is not.

    Args:
        spec: the model as the recipe names it.
        folder: what relative paths are relative to.
        device: where the model goes.
        download: whether a model of the hub may be fetched.
    """

    def __init__(self, spec: ModelSpec, folder: Path, device: torch.device, *, download: bool = False) -> None:
        self.spec, self.folder, self.device, self.download = spec, folder, device, download
        self._loaded: list[Classifier] | None = None

    def classifiers(self) -> "list[Classifier]":
        """Return its classifiers, loaded.

        Raises:
            InputError: for an unknown name, a damaged file, or code that does not build a module.
        """
        if self._loaded is None:
            self._loaded = _load(self.spec, self.folder, self.device, self.download)
        return self._loaded

    def entries(self) -> list[ClassifierEntry]:
        """Return what a record says about each of its classifiers; raises as `classifiers`."""
        return [each.entry for each in self.classifiers()]

    def release(self) -> None:
        """Let the model go; the next one who needs it loads it again."""
        self._loaded = None


class Classifier:
    """One classifier to evaluate, and what the record says about it.

    Args:
        entry: what the record says.
        module: the classifier itself; ``None`` where a source loads it when it is needed.
        source: where it comes from.
        place: which of the source's classifiers it is.
    """

    def __init__(
        self, entry: ClassifierEntry, module: nn.Module | None = None, source: Source | None = None, place: int = 0
    ) -> None:
        self.entry, self.source, self.place = entry, source, place
        self._module = module

    def stating(self, *, mutual_coherence: float | None, no_frame: str | None) -> "Classifier":
        """Return the classifier with what its frame says, or why it is none."""
        entry = self.entry.model_copy(update={"mutual_coherence": mutual_coherence, "no_frame": no_frame})
        return Classifier(entry, self._module, self.source, self.place)

    @property
    def module(self) -> nn.Module:
        """The classifier itself.

        Raises:
            InputError: when it has to be loaded, and is not what it was.
        """
        if self._module is not None:
            return self._module
        classifiers = [] if self.source is None else self.source.classifiers()
        now = classifiers[self.place] if self.place < len(classifiers) else None
        if now is None or _bare(now.entry) != _bare(self.entry):
            raise InputError(
                f"{self.entry.name} is another model each time it is loaded; seed what it draws, and leave its files "
                "alone"
            )
        return now.module


def _bare(entry: ClassifierEntry) -> ClassifierEntry:
    """What a record says of a classifier as it is loaded, before its frame is looked at."""
    return entry if entry.twin is not None else entry.model_copy(update={"mutual_coherence": None, "no_frame": None})


def load_models(
    specs: Sequence[ModelSpec],
    *,
    folder: Path,
    device: torch.device,
    download: bool = False,
    keep: bool = True,
    isolate: bool = False,
) -> list[Classifier]:
    """Load every model of a recipe onto a device.

    Args:
        specs: the models as the recipe names them.
        folder: what relative paths are relative to.
        device: where the models go.
        download: whether weights that are not here may be fetched.
        keep: hold every model in memory; otherwise each is let go, and loaded again when it is needed.
        isolate: load each in a process of its own, which tells what it is, and none in this one until it is needed.

    Returns:
        One classifier for a model, two for a pair.

    Raises:
        InputError: for an unknown name, a damaged file, or code that does not build a module.
    """
    classifiers: list[Classifier] = []
    for spec in specs:
        source = Source(spec, folder, device, download=download)
        entries = _entries_elsewhere(source) if isolate else source.entries()
        classifiers += [Classifier(entry, None, source, place) for place, entry in enumerate(entries)]
        if not keep:
            source.release()
    names = [classifier.entry.name for classifier in classifiers]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models are called {name}; give one of them another name = '...'")
    return classifiers


def _entries_elsewhere(source: Source) -> list[ClassifierEntry]:
    """Load a model in a process of its own, and return what a record says about its classifiers.

    Raises:
        InputError: as when it is loaded here, and when that brings the process to an end.
    """
    make = partial(Source, source.spec, source.folder.resolve(), source.device, download=source.download)
    with Child(make) as child:
        try:
            entries: list[ClassifierEntry] = child.call("entries")
        except ChildEnded as error:
            raise InputError(f"model {source.spec.use} cannot be loaded: its process {error}") from error
    return entries


def _load(spec: ModelSpec, folder: Path, device: torch.device, download: bool) -> list[Classifier]:
    found = find_model(spec, folder=folder, download=download)
    return classify(
        found.module.to(device),
        spec.name or found.name,
        spec,
        sha256=None if found.card is None else found.card.sha256,
        coherence=None if found.card is None else found.card.mutual_coherence,
        files=found.files,
        weights_sha256=found.weights_sha256,
    )


def classify(
    module: nn.Module,
    name: str,
    spec: ModelSpec,
    *,
    sha256: str | None = None,
    coherence: float | None = None,
    files: Mapping[str, str] | None = None,
    images: Images | None = None,
    weights_sha256: str | None = None,
) -> list[Classifier]:
    """Make the classifiers of one module: the wanted twins of a pair, or the module itself.

    Args:
        module: a `Pair` or any module that maps images to logits.
        name: what tables call it.
        spec: where it comes from, and which twins.
        sha256: identity of the weights; computed from them when ``None``.
        coherence: mutual coherence of the pair's frame; computed when ``None``.
        files: SHA-256 of files of the user's that belong to the identity, by name.
        images: a few that the model may be shown, to tell what it changes of itself by answering from what it is.
        weights_sha256: of the weights file, where a recipe names one.
    """
    _check_readable(module, name)
    code = CodeIdentity({}, {}) if sha256 else _identity(module, files or {}, images)
    sha256 = sha256 or _fingerprint(module, code)
    if spec.smooth is not None and isinstance(module, Pair):
        # Its twins are smoothed below, and are other classifiers than they were.
        sha256 = digest({"sha256": sha256, "smooth": spec.smooth.model_dump()})
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if not isinstance(module, Pair):
        sweeps = (
            module.solver.sweeps if isinstance(module, Twin) else module.sweeps if isinstance(module, Untied) else None
        )
        if spec.sweeps is not None:
            raise InputError(f"{name} is not a pair; leave out sweeps = {spec.sweeps}")
        entry = ClassifierEntry(
            name=name, model=name, twin=None, use=spec.use, sha256=sha256,
            parameters=parameters, sweeps=sweeps, mutual_coherence=coherence, weights_sha256=weights_sha256,
            code=code.parts, unread=list(code.unread),
        )  # fmt: skip
        return [Classifier(entry, module)]
    coherence = mutual_coherence(module.frame) if coherence is None else coherence
    recurrent = module.recurrent if spec.sweeps is None else Twin(module, spec.sweeps)
    twins: dict[str, Twin] = {"feedforward": module.feedforward, "recurrent": recurrent}
    return [
        Classifier(
            ClassifierEntry(
                name=f"{name}/{twin}", model=name, twin=twin, use=spec.use, sha256=sha256,
                parameters=parameters, sweeps=twins[twin].solver.sweeps, mutual_coherence=coherence,
                weights_sha256=weights_sha256, code=code.parts, unread=list(code.unread),
            ),
            smoothed(twins[twin], spec),
        )
        for twin in ("feedforward", "recurrent")
        if twin in spec.twins
    ]  # fmt: skip


def _check_readable(module: nn.Module, name: str) -> None:
    """Refuse a model whose weights are not known, or no tensors: nobody could say whether it is the same one again."""
    lazy = [key for key, value in [*module.named_parameters(), *module.named_buffers()] if is_lazy(value)]
    if lazy:
        raise InputError(f"{name} has no {lazy[0]} yet; call it on one image first, so that it knows its sizes")
    odd = [key for key, value in module.state_dict().items() if not _is_readable(value)]
    if odd:
        raise InputError(
            f"{name} holds {odd[0]}, whose numbers cannot be read; evaluate the model that it was made from, or one "
            "that keeps them as tensors"
        )


def _is_readable(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_readable(each) for each in value)
    return value is None or isinstance(value, Tensor | torch.dtype | str | int | float)


def _identity(module: nn.Module, files: Mapping[str, str], images: Images | None) -> CodeIdentity:
    """The code and settings of a module, less what it changes of itself by answering."""
    if images is not None:
        # Asked before the first look as well: what it computes once and keeps is there from then on.
        _ask(module, images)
    found = code_of(module)
    if images is not None:
        _ask(module, images)
        found = found.settled(code_of(module))
    return replace(found, parts={**found.parts, **{name: LONG + sha256 for name, sha256 in files.items()}})


def _ask(module: nn.Module, images: Images) -> None:
    """Let a model answer, for what that changes of it; `check_model` says what is wrong with one that cannot."""
    with contextlib.suppress(Exception):
        answers(module, images[:1])


def _fingerprint(module: nn.Module, code: CodeIdentity) -> str:
    sha = hashlib.sha256(code.sha256.encode())
    for name, value in sorted(module.state_dict().items()):
        for tensor in _tensors(value):
            sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        if not isinstance(value, Tensor):
            sha.update(f"{name} {value if not isinstance(value, tuple | list) else len(value)}".encode())
    return sha.hexdigest()


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of an entry of a state dict, quantised ones as the numbers that they stand for."""
    if isinstance(value, Tensor):
        yield value.dequantize() if value.is_quantized else value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
