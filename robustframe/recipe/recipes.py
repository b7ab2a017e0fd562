"""Recipes and batteries: strict TOML in, errors that name file, key, what was found and what is allowed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from packaging.version import Version
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_serializer,
)

from robustframe.attacks.base import Attack
from robustframe.attacks.registry import ATTACKS, make_attack
from robustframe.corruptions import CITED
from robustframe.data.listing import CLASSES
from robustframe.errors import InputError, first_mistake, key_of, mistake, shown, unknown
from robustframe.files import read_toml_tables
from robustframe.plugins import find_plugin, plugins
from robustframe.targets import EVERY, each_target
from robustframe.threat import ThreatModel
from robustframe.types import Norm
from robustframe.userfile import code_named, files_of
from robustframe.zoo.card import SWEEPS

Twin = Literal["feedforward", "recurrent"]
Prepare = Literal["auto", "none"]
_CALLED = {
    **dict.fromkeys(("autoattack", "auto-attack", "aa", "autoattack-standard", "aa-standard"), "standard@1"),
    **dict.fromkeys(("autoattack-rand", "aa-rand", "random"), "rand@1"),
}
"""Batteries by what others call them."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_PLACE = 1000
"""Most letters of what names a file, a folder or a model."""
THREATS = 100
"""Most threats of a recipe."""
_ATTACKS, _BATTERIES, _MODELS = 200, 20, 1000
_CHANNELS, _PIXELS = 2**10, 2**13
"""Most channels and longest side that an image is made to have."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and does not convert types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, allow_inf_nan=False)


_Made = TypeVar("_Made", bound=Strict)


def typed(kind: type[_Made], content: Mapping[str, Any]) -> _Made:
    """Make a part of a recipe of what somebody typed.

    Raises:
        InputError: for the first mistake.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(first_mistake(error)) from None


class DataSpec(Strict):
    """Which examples: a data set, a split of it, and how many from its beginning."""

    use: str = Field(max_length=_PLACE)
    """A name in `robustframe.data.available`, ``file:PATH.npz`` or ``folder:PATH``."""
    split: str = Field(default="test", max_length=100)
    count: int | None = Field(default=None, ge=1)
    resize: int | None = Field(default=None, ge=1, le=_PIXELS)
    """Of a folder's images: length of the shorter side, in pixels."""
    crop: int | None = Field(default=None, ge=1, le=_PIXELS)
    """Of a folder's images, after ``resize``: side of the square cut from the middle."""
    class_map: list[Annotated[str, Field(max_length=_PLACE)]] | str | None = Field(default=None, max_length=CLASSES)
    """Which folder is which class: their names in the order of the model's logits, or a file of them."""

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["DataSpec"], dict[str, Any]]) -> dict[str, Any]:
        # What a run asks is hashed, and those without a map ask what they always did.
        stated = write(self)
        return {key: value for key, value in stated.items() if key != "class_map" or value is not None}


class Normalise(Strict):
    """What a model does to each channel of an image first: ``(x - mean) / std``, in units of [0, 1]."""

    mean: list[float] = Field(min_length=1)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


class CorruptionSpec(Strict):
    """Which corruptions of the clean images a model is tried on besides the attacks."""

    use: str = Field(default=CITED, max_length=_PLACE)
    """``corruptions@1``, or ``folder:PATH`` for images in files, as of CIFAR-10-C."""
    kinds: list[Annotated[str, Field(max_length=100)]] | None = Field(default=None, max_length=1000)
    """Such as ``["fog", "snow"]``; all that there are when left out."""
    severities: list[int] | None = Field(default=None, max_length=1000)
    """From 1 to 5; all five when left out."""


class About(Strict):
    """Where a model is published: what a leaderboard says beside its numbers."""

    title: str | None = Field(default=None, max_length=500)
    """Of the paper; a leaderboard shows the model's name when it is left out."""
    authors: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=1000)
    venue: str | None = Field(default=None, max_length=200)
    """Such as ``ICML`` or ``arXiv``."""
    year: int | None = Field(default=None, ge=1950, le=2200)
    link: str | None = Field(default=None, pattern=r"^https?://[^\s\"'<>]+$", max_length=1000)
    architecture: str | None = Field(default=None, max_length=200)
    additional_data: bool | None = None
    """Whether it was trained on more than the training split of its data set."""


class Smoothing(Strict):
    """A model smoothed by noise; see `robustframe.certify.Smoothed`."""

    sigma: float = Field(gt=0, le=100)
    draws: int = Field(default=16, ge=1, le=2**16)
    samples: int = Field(default=1000, ge=1, le=10**7)
    alpha: float = Field(default=0.001, gt=0, lt=1)


class ModelSpec(Strict):
    """One model, where it comes from, and what it is given."""

    use: str = Field(max_length=_PLACE)
    """A source and a place, such as ``zoo:NAME`` or ``file:PATH.py:FUNCTION``; see `robustframe.models.sources`."""
    name: str | None = Field(default=None, max_length=100)
    """What tables call it; made from ``use`` when left out."""
    twins: list[Twin] = Field(default_factory=lambda: list(get_args(Twin)), min_length=1)
    """Which classifiers of a pair to evaluate; of no meaning for anything else."""
    sweeps: int | None = Field(default=None, ge=2, le=SWEEPS)
    """Sweeps of the recurrent twin; the pair's own when left out."""
    weights: str | None = Field(default=None, max_length=_PLACE)
    """A safetensors or weights-only checkpoint to load, ``FILE:KEYS`` where it holds several, or ``pretrained``."""
    classes: int | None = Field(default=None, ge=2, le=CLASSES)
    """Of a model by name: how many logits it has."""
    channels: int | None = Field(default=None, ge=2, le=_CHANNELS)
    """How many the model takes: the one of grey images is repeated before anything else is done to them."""
    normalise: Normalise | None = None
    """Preprocessing put in front of the model; attacks see images in [0, 1]."""
    output: Annotated[str, Field(max_length=_PLACE)] | int | None = None
    """The key, attribute or place of the logits in what the model returns, where it returns more."""
    sigmoid: bool = False
    """The model returns one number per image, before its sigmoid."""
    shape: Annotated[list[PositiveInt], Field(min_length=1, max_length=3)] | None = None
    """Of one image, for a network that is read as a frame (``reframe:``); that of the data when left out."""
    smooth: Smoothing | None = None
    """Noise around its images whose majority decides, so that radii can be certified of any model."""
    about: About | None = None
    """Whose it is, for exports."""

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["ModelSpec"], dict[str, Any]]) -> dict[str, Any]:
        # As for data: a model that says none of these asks what it always did. A place may be 0, which is no False.
        stated = write(self)
        late = ("channels", "output", "sigmoid", "shape", "smooth", "about")
        unsaid = {key for key in late if stated[key] is None or stated[key] is False}
        return {key: value for key, value in stated.items() if key not in unsaid}


class Recipe(Strict):
    """One evaluation, completely stated."""

    format: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=_NAME)
    about: str = ""
    seed: int = Field(ge=0, lt=2**63)
    chunk: int = Field(default=250, ge=1, lt=2**22)
    """Examples that share their random numbers and are attacked together; part of what is asked."""
    threats: list[str] = Field(min_length=1, max_length=THREATS)
    battery: list[str] = Field(min_length=1, max_length=_BATTERIES)
    """Batteries in the order in which survivors go through them, such as ``["quick@1"]``."""
    data: DataSpec
    model: list[ModelSpec] = Field(min_length=1, max_length=_MODELS)
    diagnose: bool = True
    """Check after the attacks whether their numbers can be believed, for a tenth of their cost."""
    corruptions: CorruptionSpec | None = None
    """Common corruptions that every model is tried on as well; none when left out."""
    prepare: Prepare = "auto"
    """``auto``: attacks search a prepared copy of a model where there is one that agrees with it
    (`robustframe.prepared`). ``none``: they search the model itself, in float32. Verdicts are the model's own."""

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["Recipe"], dict[str, Any]]) -> dict[str, Any]:
        # As for data: recipes that say neither ask what they always did.
        late = {"corruptions": None, "prepare": "auto"}
        return {key: value for key, value in write(self).items() if key not in late or value != late[key]}


class AttackSpec(BaseModel):
    """One attack of a battery: which, and its settings; the attack itself checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str
    name: str | None = Field(default=None, pattern=_NAME)
    """What verdicts call it, where ``use`` says too little, such as two settings of one attack."""
    norms: list[Norm] | None = Field(default=None, min_length=1)
    """The norms of threats it is run for; every one when left out."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the attack itself is given."""
        return dict(self.model_extra or {})


class Battery(Strict):
    """What every survivor goes through, in order; a published version never changes."""

    format: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=_NAME)
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=20)
    about: str = ""
    votes: int = Field(default=1, ge=1)
    """Fresh evaluations of every image whose majority decides; above 1 for models that draw random numbers."""
    closest: bool = False
    """Look for the success nearest to the clean image: every example meets every attack, broken or not."""
    precision: Literal["bfloat16"] | None = None
    """What its attacks search in, on models that are prepared and say the same in it; float32 when left out."""
    attack: list[AttackSpec] = Field(min_length=1, max_length=_ATTACKS)

    @model_serializer(mode="wrap")
    def _stated(self, write: Callable[["Battery"], dict[str, Any]]) -> dict[str, Any]:
        # As for data: a battery that says none is what it always was.
        return {key: value for key, value in write(self).items() if key != "precision" or value is not None}

    @property
    def cited(self) -> str:
        """How a table names it, such as ``quick@1``."""
        return f"{self.name}@{self.version}"


Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into a strict model.

    Raises:
        InputError: of one line per mistake, with file, key, what was found and the nearest known key.
    """
    content = read_toml_tables(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_sentence(path, problem, model) for problem in error.errors()[:2]]
        raise InputError("\n".join(lines)) from None


def shipped_folder(kind: Literal["attacks", "evaluations"]) -> Path:
    """Return where the batteries or evaluations lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def recipes() -> dict[str, Path]:
    """Return the shipped recipes by the name of their folder."""
    return {path.parent.name: path for path in sorted(shipped_folder("evaluations").glob("*/recipe.toml"))}


def find_recipe(given: str) -> Path:
    """Return the file of a recipe given as a path, a folder, or the name of a folder in ``evaluations/``.

    Raises:
        InputError: when there is none, with the nearest name.
    """
    path = Path(given)
    # Unlike the methods of a path, these take a name of any length.
    if os.path.isdir(path) and os.path.isfile(path / "recipe.toml"):
        return path / "recipe.toml"
    if path.suffix == ".toml" or os.path.isfile(path):
        if not os.path.isfile(path):
            raise InputError(f"there is no recipe {shown(given)}")
        return path
    known = recipes()
    if given not in known:
        raise unknown("recipe", given, known)
    return known[given]


def batteries() -> Iterator[Battery]:
    """Yield the shipped batteries."""
    for path in sorted(shipped_folder("attacks").glob("*.toml")):
        yield read_toml(path, Battery)


def batteries_of_packages() -> Iterator[Battery]:
    """Yield the batteries that installed packages add: each entry point is the path of a TOML file.

    Raises:
        InputError: for one that is none, or that calls itself as one that ships.
    """
    for name in plugins("batteries"):
        plugin = find_plugin("batteries", name)
        if plugin is None:
            continue
        path = plugin.load()
        if not isinstance(path, str | Path):
            raise InputError(f"the battery {name} of {plugin.label} is not the path of a TOML file")
        battery = read_toml(Path(path), Battery)
        if differs_from_shipped(battery) is not None:
            raise InputError(f"{plugin.label} calls a battery {battery.cited}, which ships; it needs another name")
        yield battery


def differs_from_shipped(battery: Battery) -> bool | None:
    """Say whether a battery is another one than the shipped one that it is cited as; ``None`` where none ships."""
    cited = (battery.name.casefold(), Version(battery.version))
    shipped = [each for each in batteries() if (each.name.casefold(), Version(each.version)) == cited]
    content = spelled(battery.model_dump(by_alias=True))
    return all(spelled(each.model_dump(by_alias=True)) != content for each in shipped) if shipped else None


def spelled(content: object) -> str:
    """Spell out what JSON can hold, so that 20, 20.0 and true differ, which are equal in Python."""
    return json.dumps(content, sort_keys=True)


def load_battery(given: str, *, folder: Path | None = None, where: str = "") -> Battery:
    """Load a battery by citation (``quick@1``), by name (its newest version), or from a file (``mine.toml``).

    Args:
        given: how the recipe names it.
        folder: what a relative path is relative to; the working directory when ``None``.
        where: the file and key it stood in, for the error.

    Raises:
        InputError: for an unknown battery, with the nearest name, or one that does not read.
    """
    battery = read_battery(given, folder=folder, where=where)
    make_attacks(battery, folder=folder)
    return battery


def read_battery(given: str, *, folder: Path | None = None, where: str = "") -> Battery:
    """Read a battery as `load_battery` does, without building its attacks: nothing that it names is run."""
    if given.endswith(".toml"):
        path = (folder or Path()) / given
        battery = read_toml(path, Battery)
        if differs_from_shipped(battery):
            raise InputError(
                f"{path} calls itself {battery.cited}, which ships with other content, and a published battery never "
                "changes; give it another name"
            )
        return battery
    known = list(batteries())
    named = {battery.cited: battery for battery in known}
    for battery in sorted(known, key=lambda each: Version(each.version)):
        named[battery.name] = battery
    if given not in named:
        added = {name: battery for battery in batteries_of_packages() for name in (battery.cited, battery.name)}
        if given in added:
            return added[given]
        if meant := _CALLED.get(given.casefold().replace("_", "-")):
            raise InputError(f"{f'{where}: ' if where else ''}{given} is called {meant} here")
        if given in ATTACKS:
            raise InputError(
                f"{f'{where}: ' if where else ''}{given} is an attack, not a battery; write one of it, mine.toml with "
                f'schema = 1, name, version and [[attack]] use = "{given}"'
            )
        raise unknown("battery", given, {each.cited for each in (*known, *added.values())}, where=where)
    return named[given]


def make_attacks(battery: Battery, *, folder: Path | None = None) -> list[Attack]:
    """Build the attacks of a battery, in order; every setting is checked here, before anything runs."""
    return [
        make_attack(spec.use, spec.settings, where=f"{battery.cited}, attack {number}", folder=folder)
        for number, spec in enumerate(battery.attack, start=1)
    ]


def parse_threats(texts: list[str], *, where: str = "") -> list[ThreatModel]:
    """Read the threats of a recipe; the same one twice is an error."""
    try:
        threats = [ThreatModel.parse(text) for text in texts]
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from error
    return _all_different(threats, where)


def spread_threats(threats: list[ThreatModel], classes: int, *, where: str = "") -> list[ThreatModel]:
    """Put a threat for each class but the label, ``to next``, ``to +2``, ..., in place of one ``to all``.

    Args:
        threats: as `parse_threats` reads them.
        classes: of the data; 0 when it does not say.
        where: what an error begins with.
    """
    every = [threat for threat in threats if threat.targets == EVERY]
    if every and classes < 2:
        unsaid = f"{every[0].label}: the data does not say how many classes it has; name the targets, such as 'to next'"
        raise InputError(f"{where}: {unsaid}" if where else unsaid)
    rules = each_target(classes) if every else []
    spread = [[threat] if threat not in every else [threat.to(rule) for rule in rules] for threat in threats]
    return _all_different([threat for several in spread for threat in several], where)


def _all_different(threats: list[ThreatModel], where: str) -> list[ThreatModel]:
    if any(one.same_as(other) for at, one in enumerate(threats) for other in threats[:at]):
        labels = ", ".join(threat.label for threat in threats)
        raise InputError(f"{where or 'threats'}: a threat appears twice in {labels}")
    return threats


def code_files(recipe: dict[str, Any], batteries: Sequence[Battery], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all code of others that an evaluation names: files with what they import, and packages.

    Args:
        recipe: as a record holds it.
        batteries: with their content.
        folder: what paths in them are relative to.

    Returns:
        By the path that names a file, and what it brings with it: ``mine/model.py: helper.py``; of an installed package
        its name and version, and the module that adds an attack.

    Raises:
        InputError: for a file or module that is not there.
    """
    found: dict[str, str] = {}
    for use in {spec.use for battery in batteries for spec in battery.attack} - set(ATTACKS):
        plugin = find_plugin("attacks", use)
        found |= {} if plugin is None else plugin.files()
    for name in code_named([recipe, [battery.model_dump(by_alias=True) for battery in batteries]]):
        if not os.path.isfile(folder / name):
            raise InputError(f"{folder / name} does not exist, whose code is named")
        found |= {f"{name}: {label}": sha256 for label, sha256 in files_of(folder / name).items()}
    return found


def digest(content: object) -> str:
    """Return the SHA-256 of something JSON can hold, in one canonical spelling."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sentence(path: Path, problem: Any, model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        *place, last = problem["loc"]
        return str(unknown("key", str(last), _known_keys(model, place), where=f"{path}: {key_of(problem)}"))
    return f"{path}: {mistake(problem)}"


def _known_keys(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys that would have been right where an unknown one stood."""
    for part in place:
        # An entry of a list, or of a table whose keys are names of the user's.
        if isinstance(part, int) or part not in model.model_fields:
            continue
        field = model.model_fields[part]
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return [field.alias or name for name, field in model.model_fields.items()]
