"""A run on disk: what was asked and found, and everything that can be read off it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import polars as pl
import torch
from pydantic import ValidationError
from torch import Tensor

from robustframe.data import Dataset
from robustframe.data.image import save_png
from robustframe.errors import InputError, IntegrityError, as_path, first_mistake, unknown
from robustframe.files import TABLE_BYTES, read_plain
from robustframe.recipe import Battery, Recipe
from robustframe.recipe.examples import load_examples
from robustframe.runs.curve import Curve, security_curves
from robustframe.runs.examples import read_examples
from robustframe.runs.ledger import Ledger, read_ledger
from robustframe.runs.manifest import read_manifest
from robustframe.runs.plausible import contradiction
from robustframe.runs.ranking import AttackRanking, rank_ledgers
from robustframe.runs.record import (
    EVIDENCE,
    GIVEN,
    RECORD,
    VERDICTS,
    ClassifierEntry,
    Record,
    Result,
)
from robustframe.runs.units import ATTACK_SCHEMA, RunFiles, StoredImages, Unit, chunks, parse_images, slug
from robustframe.runs.verdicts import VERDICT_SCHEMA, by_result, read_table, read_verdicts
from robustframe.threat import ThreatModel

if TYPE_CHECKING:
    from robustframe.verification import Verification

Found = TypeVar("Found")
_CORRUPTED = pl.Schema(
    {
        "classifier": pl.String(),
        "kind": pl.String(),
        "severity": pl.Int64(),
        "correct": pl.Int64(),
        "examples": pl.Int64(),
        "accuracy": pl.Float64(),
    }
)
SEAL_DIGITS = 16
"""Digits of a seal that are printed: nobody makes another run of them."""


class Adversarial(NamedTuple):
    """What broke the examples of one classifier under one threat."""

    images: Tensor
    """Adversarial images of the broken examples, in the order of the examples, shape (broken, ...)."""
    broken: Tensor
    """Which examples were broken, shape (examples,): ``images`` belong to ``x[broken]``."""


@dataclass(frozen=True)
class OneExample:
    """Everything that a run knows of one example."""

    index: int
    label: int
    label_name: str
    verdicts: pl.DataFrame
    """A row for each classifier and threat."""
    adversarial: Mapping[tuple[str, str], Tensor]
    """The image that broke it, by classifier and threat; empty for a published copy, which stores no images."""


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """An evaluation as it lies in its folder: what `robustframe.evaluate` and `robustframe.open_run` give.

    Its verdicts are those whose hash the record holds, and the record's counts follow from them; each stored image is
    checked against the run's manifest when it is read.
    """

    folder: Path
    record: Record
    seal: str
    """SHA-256 of ``record.json``, which holds the hashes of everything else: two runs of one seal are the same."""
    broken_seal: str
    """What is wrong with ``seal.sha256``, where the run states its seal; nothing when it is whole."""
    batteries: Sequence[Battery]
    threats: Sequence[ThreatModel]
    chunk: int
    """Examples that were attacked together."""
    recipe_folder: Path
    """What paths in the recipe and its batteries are relative to."""
    held: object = field(default=None, repr=False)
    """What must live as long as the run, such as a temporary folder."""

    @property
    def name(self) -> str:
        """The name of its recipe, and the beginning of the hash of everything asked."""
        return self.record.cited

    @property
    def cited(self) -> str:
        """The name with the beginning of the seal, which `robustframe verify --seal` takes."""
        return f"{self.name} (seal {self.seal[:SEAL_DIGITS]})" if self.complete else self.name

    @property
    def complete(self) -> bool:
        """Whether every unit of work is done."""
        return self.record.status == "complete"

    @property
    def stored(self) -> bool:
        """Whether units are stored here; a published copy has record and verdicts only."""
        return (self.folder / "units").is_dir() or (self.folder / EVIDENCE).is_file()

    @property
    def from_python(self) -> bool:
        """Whether it was made by `robustframe.evaluate`, so that its record names no model that could be loaded."""
        return "model" not in self.record.recipe

    @property
    def files(self) -> RunFiles:
        """Where its files lie."""
        return RunFiles(self.folder, tuple(entry.name for entry in self.record.classifiers))

    @property
    def results(self) -> Sequence[Result]:
        """What was found, a row for each classifier and threat; empty while the run is not complete."""
        return self.record.results or []

    @property
    def chunks(self) -> list[Tensor]:
        """The example indices of each chunk."""
        return list(chunks(self.record.data.count, self.chunk))

    @cached_property
    def manifest(self) -> Mapping[str, str]:
        """The SHA-256 of each file, by its place in the run; empty for a published copy.

        Raises:
            InputError: when it is not the manifest that the record is bound to.
        """
        if not self.stored:
            return {}
        path = self.folder / EVIDENCE
        if not path.is_file():
            raise self.off(f"{path} is missing")
        return read_manifest(self.folder, sha256=self.record.evidence_sha256)

    @cached_property
    def verdicts(self) -> pl.DataFrame:
        """What became of each example: a row for each classifier, threat and example.

        Columns are those of ``verdicts.parquet``, see docs/record.md; without rows while the run is not complete.

        Raises:
            InputError: when the verdicts are missing or not those of the record, or its counts do not follow from them.
        """
        if not self.complete:
            return pl.DataFrame(schema=VERDICT_SCHEMA)
        path = self.folder / VERDICTS
        if not path.is_file():
            raise self.off(f"{path} is missing")
        content = read_plain(path, limit=TABLE_BYTES)
        if hashlib.sha256(content).hexdigest() != self.record.verdicts_sha256:
            raise self.off(f"{path} is not what its record says")
        try:
            verdicts = read_verdicts(path, content)
        except IntegrityError as error:
            raise self.off(str(error)) from error
        if problem := contradiction(self.record, verdicts):
            raise self.off(f"{self.folder / RECORD} is not what its verdicts say: {problem}")
        return verdicts

    @cached_property
    def _by_result(self) -> Mapping[tuple[str, str], pl.DataFrame]:
        return by_result(self.verdicts)

    def off(self, problem: str) -> InputError:
        """Make the one sentence for whatever is wrong with a run."""
        return IntegrityError(f"{problem}; `robustframe verify {self.folder}` says more")

    def entry(self, classifier: str | None = None) -> ClassifierEntry:
        """Return a classifier by name; a model's name will do where it is one classifier.

        Raises:
            InputError: for a name that is none of the run, and for none given where there are several.
        """
        entries = self.record.classifiers
        found = [each for each in entries if classifier in (None, each.name)]
        found = found or [each for each in entries if each.model == classifier]
        return _only("classifier", classifier, found, [each.name for each in entries])

    def threat(self, given: str | ThreatModel | None = None) -> ThreatModel:
        """Return a threat of the run by its label; the only one when ``None``.

        Raises:
            InputError: for one that was not evaluated, and for none given where there are several.
        """
        label = given.label if isinstance(given, ThreatModel) else given
        if label is not None:
            label = ThreatModel.parse(label).label
        found = [each for each in self.threats if label in (None, each.label)]
        return _only("threat", label, found, [each.label for each in self.threats])

    def rows(self, classifier: str, threat: str) -> pl.DataFrame:
        """Return the verdicts of one classifier under one threat, in the order of the examples."""
        return self._by_result.get((classifier, threat), self.verdicts.clear())

    def examples(self, data_root: str | Path | None = None, *, download: bool = False) -> Dataset:
        """Load the examples that were attacked.

        Args:
            data_root: where data that does not ship lies.
            download: allow it to be downloaded.

        Raises:
            InputError: for data that is not here, or is not what was attacked; for a published copy of a run from
                Python, of which the folder alone holds the examples.
        """
        if self.from_python:
            if not (self.folder / GIVEN).exists():
                raise InputError(f"{self.folder} was evaluated from Python, and its examples are not beside it")
            return read_examples(self.folder, self.record.data)
        spec = self.recipe().data
        root = None if data_root is None else Path(data_root)
        data = load_examples(spec, folder=self.recipe_folder, data_root=root, download=download)
        if data.sha256 != self.record.data.sha256:
            raise InputError(f"the examples of {self.folder} are not those of {data.name} {data.split} any more")
        return data

    def recipe(self) -> Recipe:
        """Return the recipe that was evaluated.

        Raises:
            InputError: for a run of `robustframe.evaluate`, which has none, or a recipe that does not read.
        """
        try:
            return Recipe.model_validate(self.record.recipe)
        except ValidationError as error:
            raise InputError(f"{self.folder / RECORD}: recipe.{first_mistake(error)}") from None

    def images(self, unit: Unit) -> StoredImages:
        """Read the adversarial images of a unit.

        Raises:
            InputError: when they are missing, or not what was written.
        """
        content = read_plain(unit.images, limit=TABLE_BYTES) if unit.images.is_file() else b""
        if self.manifest.get(self.files.name(unit.images)) != hashlib.sha256(content).hexdigest():
            raise self.off(f"{unit.images} is not what was written")
        found = parse_images(content)
        if isinstance(found, str):
            raise self.off(f"{unit.images}: {found}")
        return found

    def stored_images(self, classifier: str, threat: str) -> Iterator[StoredImages]:
        """Yield every image that broke a classifier under a threat, unit by unit."""
        position = [each.name for each in self.record.classifiers].index(classifier)
        for result in self.results:
            if (result.classifier, result.threat) != (classifier, threat):
                continue
            for attack in result.attacks:
                for number in range(len(self.chunks)):
                    unit = self.files.attack(position, threat, attack.label, number)
                    if self.files.name(unit.images) in self.manifest:
                        yield self.images(unit)

    def breaking_images(self, classifier: str, threat: str, index: Sequence[int]) -> list[Tensor]:
        """Return the image behind the verdict of each of some broken examples.

        Args:
            classifier: its name.
            threat: its label.
            index: broken examples.

        Raises:
            InputError: for a published copy, which stores none, and when an image is missing or not what was written.
        """
        if not self.stored:
            raise InputError(f"{self.folder} stores no images; a published copy has none, so give the run itself")
        position = [each.name for each in self.record.classifiers].index(classifier)
        by = dict(self.rows(classifier, threat).select("index", "broken_by").iter_rows())
        units: dict[Unit, dict[int, Tensor]] = {}
        found = []
        for each in index:
            unit = self.files.attack(position, threat, str(by.get(each)), each // self.chunk)
            if unit not in units:
                stored = self.images(unit)
                units[unit] = dict(zip(stored.index.tolist(), stored.adversarial))
            if each not in units[unit]:
                raise self.off(f"{unit.images} has no image of example {each}")
            found.append(units[unit][each])
        return found

    def adversarial(self, classifier: str | None = None, threat: str | ThreatModel | None = None) -> Adversarial:
        """Return the adversarial images that were found.

        Args:
            classifier: by name; may be left out where there is one.
            threat: such as ``"linf:8/255"``; may be left out where there is one.

        Returns:
            The images of the broken examples, and which examples these are: ``x[broken]`` are their clean images.

        Raises:
            InputError: for an unknown classifier or threat, and for a published copy, which stores no images.
        """
        name, label = self.entry(classifier).name, self.threat(threat).label
        rows = self.rows(name, label)
        broken = torch.from_numpy((rows["clean_correct"] & ~rows["robust"]).to_numpy().copy())
        images = self.breaking_images(name, label, broken.nonzero().flatten().tolist())
        return Adversarial(torch.stack(images) if images else torch.zeros(0), broken)

    def save_images(
        self, folder: str | Path, classifier: str | None = None, threat: str | ThreatModel | None = None
    ) -> list[Path]:
        """Write the images that broke a classifier as PNG files, which break it when they are read again.

        Args:
            folder: where they go, by classifier and threat: ``17-label-3-as-5.png``, by index, label and prediction.
            classifier: as `adversarial` takes it.
            threat: likewise; one of images that can be saved, ``"linf:8/255 in uint8"``.

        Returns:
            The files, in the order of the examples.

        Raises:
            InputError: as `adversarial`, for a threat of images that cannot be saved, and for other than one or three
                channels.
        """
        name, ball = self.entry(classifier).name, self.threat(threat)
        if not ball.valid:
            raise InputError(
                f"images under {ball.label} lie between the steps of 1/255 and may break nothing once they are saved; "
                f"evaluate '{ball.label} in uint8'"
            )
        found = self.adversarial(name, ball)
        rows = self.rows(name, ball.label).filter(pl.Series(found.broken.tolist()))
        place = as_path(folder, "folder") / slug(name) / slug(ball.label)
        files = [
            f"{row['index']}-label-{row['label']}-as-{row['adversarial_prediction']}.png"
            for row in rows.iter_rows(named=True)
        ]
        return [save_png(place / file, image) for file, image in zip(files, found.images)]

    def example(self, index: int) -> OneExample:
        """Return everything that is known of one example, counted from 0.

        Raises:
            InputError: for an index out of range.
        """
        if not 0 <= index < self.record.data.count:
            raise InputError(f"example {index} must be one of 0 to {self.record.data.count - 1}")
        rows = self.verdicts.filter(pl.col("index") == index)
        broken = rows.filter(pl.col("broken_by").is_not_null()) if self.stored else rows.clear()
        keys = [(row["classifier"], row["threat"]) for row in broken.iter_rows(named=True)]
        label = int(rows["label"][0]) if len(rows) else -1
        return OneExample(
            index, label, self.class_name(label), rows, {key: self.breaking_images(*key, [index])[0] for key in keys}
        )

    def class_name(self, label: int) -> str:
        """Return what a class is called."""
        classes = self.record.data.classes
        return classes[label] if 0 <= label < len(classes) else f"class {label}"

    def per_class(self) -> pl.DataFrame:
        """Return accuracies by class: a row for each classifier, threat and class, with fractions in [0, 1]."""
        counted = self.verdicts.group_by("classifier", "threat", "label", maintain_order=True).agg(
            pl.len().alias("examples"),
            pl.col("clean_correct").mean().alias("clean_accuracy"),
            pl.col("robust").mean().alias("robust_accuracy"),
        )
        names = pl.Series("class", [self.class_name(label) for label in counted["label"].to_list()], dtype=pl.String)
        return counted.with_columns(names).sort("classifier", "threat", "label", maintain_order=True)

    def corrupted(self) -> pl.DataFrame:
        """Return accuracy on corrupted images: a row for each classifier, kind and severity, if any."""
        entry = self.record.corruptions
        rows = [
            (name, kind, severity, count, self.record.data.count, count / self.record.data.count)
            for name, kinds in ({} if entry is None else entry.correct).items()
            for kind, counts in zip(entry.kinds if entry else (), kinds)
            for severity, count in zip(entry.severities if entry else (), counts)
        ]
        return pl.DataFrame(rows, schema=_CORRUPTED, orient="row")

    def norms(self) -> pl.DataFrame:
        """Return how far adversarial images lie from the clean ones: mean and median for each attack that broke any.

        Distances are in the norm of the threat and input units; an example counts for the attack in its verdict.
        """
        broken = self.verdicts.filter(pl.col("broken_by").is_not_null())
        return broken.group_by("classifier", "threat", pl.col("broken_by").alias("attack"), maintain_order=True).agg(
            pl.len().alias("broken"),
            pl.col("distance").mean().alias("mean_distance"),
            pl.col("distance").median().alias("median_distance"),
        )

    def curves(self) -> list[Curve]:
        """Join all radii and norms into robust accuracy over the radius, for each classifier and norm."""
        return security_curves(self.record, self.verdicts)

    def attack_rows(self, classifier: str, threat: str, attack: str) -> pl.DataFrame:
        """Read what one attack did to each example that it met: success, prediction, distance, passes and gradients.

        Args:
            classifier: its name.
            threat: its label.
            attack: its label, such as ``"swift@1/03-apgd-t"``.

        Raises:
            InputError: for an unknown name, a published copy, which stores no units, and a unit that is not what was
                written.
        """
        if not self.stored:
            raise InputError(f"{self.folder} is a published copy, which has verdicts alone; give the run itself")
        name, label = self.entry(classifier).name, self.threat(threat).label
        position = [each.name for each in self.record.classifiers].index(name)
        known = [each.label for result in self.results for each in result.attacks if result.threat == label]
        if attack not in known:
            raise unknown("attack", attack, dict.fromkeys(known))
        parts = [pl.DataFrame(schema=ATTACK_SCHEMA)]
        for number in range(len(self.chunks)):
            path = self.files.attack(position, label, attack, number).table
            content = read_plain(path, limit=TABLE_BYTES) if path.is_file() else b""
            if self.manifest.get(self.files.name(path)) != hashlib.sha256(content).hexdigest():
                raise self.off(f"{path} is not what was written")
            parts.append(read_table(path, ATTACK_SCHEMA, content=content))
        return pl.concat(parts)

    def ledger(self) -> Ledger:
        """Return which example each attack met and broke, and what that cost.

        Raises:
            InputError: for a run that is not complete.
        """
        if not self.complete:
            raise InputError(f"{self.folder} is not complete; run the same evaluate command again to continue it")
        units = self.attack_rows if self.stored else None
        return read_ledger(self.cited, self.record, self.batteries, self.rows, units)

    def rank_attacks(self, *others: "Run", sort: str = "breaks") -> AttackRanking:
        """Rank the attacks of this run by what they broke, what it cost and what each alone found.

        Args:
            others: runs to pool with it, such as one of an attack of your own on the same models and examples.
            sort: ``breaks`` (per pass), ``broken``, ``alone`` or ``order``.
        """
        return rank_ledgers([run.ledger() for run in (self, *others)], sort=sort)

    def table(self, format: str = "terminal") -> str:
        """Return the robustness table as text: ``terminal``, ``md``, ``tex``, ``csv`` or ``html``."""
        from robustframe.report import render, robustness_table

        return render(robustness_table(self), format)

    def verify(self, model: Any = None, x: Any = None, y: Any = None) -> "Verification":
        """Replay the run on its exact models and name whatever differs; see `robustframe.verify`.

        Args:
            model: for a run of `robustframe.evaluate`, the model that was given there.
            x: likewise the images; those beside the run when left out.
            y: likewise the labels.
        """
        from robustframe.verification import verify

        return verify(self.folder, model, x, y)

    def __repr__(self) -> str:
        data = self.record.data
        asked = ", ".join(threat.label for threat in self.threats)
        batteries = " then ".join(battery.cited for battery in self.batteries)
        lines = [f"Run {self.name}: {data.use} {data.split}, {data.count:,} examples, {asked}, {batteries}"]
        for each in self.results[:_SHOWN]:
            clean, robust = (100 * count / each.examples for count in (each.clean_correct, each.robust_correct))
            verdict = "" if each.diagnosis is None else f", {each.diagnosis.verdict}"
            lines.append(f"  {each.classifier}, {each.threat}: clean {clean:.1f} %, robust {robust:.1f} %{verdict}")
        rest = len(self.results) - _SHOWN
        lines += [f"  and {rest} more"] if rest > 0 else []
        lines += [] if self.complete else ["  not complete"]
        return "\n".join([*lines, f"  in {self.folder}"])

    def _repr_html_(self) -> str | None:
        return self.table("html") if self.complete else None


def _only(kind: str, given: str | None, found: Sequence[Found], names: Sequence[str]) -> Found:
    """Return the one that was meant, or say which there are."""
    if len(found) == 1:
        return found[0]
    if given is None or found:
        raise InputError(f"the run has several {kind}s; name one of {', '.join(names)}")
    raise unknown(kind, given, names)


_SHOWN = 6
"""Rows of a run that its repr shows."""
