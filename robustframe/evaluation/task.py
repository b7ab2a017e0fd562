"""An evaluation with everything loaded, and the hash of everything that it asks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from robustframe.attacks import TransferAttack
from robustframe.corruptions import Corruptions
from robustframe.data import Dataset
from robustframe.errors import unknown
from robustframe.models.classifiers import Classifier
from robustframe.recipe import Battery, code_files, digest
from robustframe.recipe.stages import Stage, make_stages
from robustframe.runs.units import RunFiles, chunks
from robustframe.threat import ThreatModel


@dataclass(frozen=True)
class Origin:
    """Where an evaluation comes from; with its recipe, all that another process needs to load it."""

    path: Path
    """Where the recipe is said to stand; its folder is what paths are relative to."""
    data_root: Path | None
    """Where data that does not ship lies."""


@dataclass(frozen=True)
class Task:
    """An evaluation with everything loaded."""

    name: str
    recipe: dict[str, Any]
    data: Dataset
    classifiers: list[Classifier]
    threats: list[ThreatModel]
    batteries: list[Battery]
    seed: int
    chunk: int
    """Examples that are attacked together."""
    folder: Path = field(default_factory=Path)
    """What the paths of users' attacks are relative to."""
    diagnose: bool = True
    """Check after the attacks whether their numbers can be believed; changes no verdict."""
    corruptions: Corruptions | None = None
    """Corrupted images that every classifier is tried on as well."""
    prepare: bool = True
    """Search prepared copies of the classifiers where they agree with them; changes no verdict of an image."""
    origin: Origin | None = None
    """Where other processes can load it from; ``None`` for models passed from Python."""

    @cached_property
    def stages(self) -> list[Stage]:
        """The attacks of all batteries, in order."""
        return make_stages(self.batteries, self.folder)

    @cached_property
    def chunks(self) -> list[Tensor]:
        """The example indices of each chunk."""
        return list(chunks(len(self.data), self.chunk))

    @property
    def bfloat16(self) -> bool:
        """Whether any battery searches in bfloat16."""
        return any(battery.precision == "bfloat16" for battery in self.batteries)

    @property
    def votes(self) -> int:
        """How often a classifier is asked for its answer to a clean image."""
        return max(battery.votes for battery in self.batteries)

    def source(self, attack: TransferAttack) -> int | None:
        """Return the place of the classifier whose gradients an attack takes; ``None`` where it names none.

        Raises:
            InputError: when it is none of the task.
        """
        names = [classifier.entry.name for classifier in self.classifiers]
        if attack.source and attack.source not in names:
            raise unknown("source of a transfer attack", attack.source, names)
        return names.index(attack.source) if attack.source else None

    def files(self, folder: Path) -> RunFiles:
        """Say where the files of a run of it lie."""
        return RunFiles(folder, tuple(classifier.entry.name for classifier in self.classifiers))

    def undiagnosed(self) -> "Task":
        """Return the same evaluation without checks of its numbers."""
        return replace(self, recipe={**self.recipe, "diagnose": False}, diagnose=False)

    def unprepared(self) -> "Task":
        """Return the same evaluation with every search on the models themselves."""
        return replace(self, recipe={**self.recipe, "prepare": "none"}, prepare=False)

    @cached_property
    def code_files(self) -> dict[str, str]:
        """SHA-256 of the code of the user's that recipe and batteries name, and that this imports."""
        return code_files(self.recipe, self.batteries, self.folder)

    @property
    def hash(self) -> str:
        """SHA-256 of everything asked; two runs with the same hash are the same evaluation."""
        return run_hash(
            version("robustframe"),
            self.recipe,
            self.batteries,
            self.code_files,
            self.data.sha256,
            [classifier.entry.model_dump() for classifier in self.classifiers],
            None if self.corruptions is None else self.corruptions.sha256,
        )


def corruptions_of(task: Task) -> Corruptions:
    """Return the corruptions of a task that has some."""
    if task.corruptions is None:
        raise ValueError("a unit of corruptions belongs to a task that asks for some")
    return task.corruptions


def run_hash(
    code: str,
    recipe: dict[str, Any],
    batteries: Sequence[Battery],
    files: dict[str, str],
    data: str,
    classifiers: list[dict[str, Any]],
    corruptions: str | None = None,
) -> str:
    """Hash everything an evaluation asks: the version of the code, the recipe, and what it names.

    Args:
        code: version of robustframe.
        recipe: as the record holds it.
        batteries: with their content.
        files: SHA-256 of the code of the user's that recipe and batteries name; see `code_files`.
        data: SHA-256 of the examples.
        classifiers: their entries in the record.
        corruptions: SHA-256 of corrupted images that are read from files; ``None`` where none are.
    """
    files_of_images = {} if corruptions is None else {"corruptions": corruptions}
    return digest(
        {
            **files_of_images,
            "robustframe": code,
            "recipe": recipe,
            "batteries": [battery.model_dump(by_alias=True) for battery in batteries],
            "files": files,
            "data": data,
            "classifiers": [_asked(entry) for entry in classifiers],
        }
    )


def _asked(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what was measured of the frame of a model that is no pair: it is found, not asked."""
    kept = {key: value for key, value in entry.items() if key != "no_frame"}
    return {**kept, "mutual_coherence": None} if entry["twin"] is None and entry["code"] else kept
