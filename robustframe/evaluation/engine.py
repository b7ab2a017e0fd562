"""From a task to a record: units of work in order, survivors only, continued where it was left."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch

from robustframe.calls import DEFAULT_BATCH, borrowed, call_in_batches, predict
from robustframe.data import Dataset
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.evaluation.bounds import certified_correct, certified_radii
from robustframe.evaluation.diagnosis import Shelf
from robustframe.evaluation.entries import attack_entry, distrust, doubts
from robustframe.evaluation.environment import environment
from robustframe.evaluation.manifest import manifest
from robustframe.evaluation.models import Classifier, check_model
from robustframe.evaluation.stages import Stage, make_stages
from robustframe.evaluation.units import (
    ATTACK_SCHEMA,
    CLEAN_SCHEMA,
    Unit,
    chunks,
    classifier_folder,
    correct,
    parquet,
    slug,
)
from robustframe.evaluation.verdicts import fresh_verdicts, judge
from robustframe.files import check_sealed
from robustframe.recipe import Battery, digest, user_files
from robustframe.record import (
    EVIDENCE,
    RECORD,
    VERDICTS,
    DataEntry,
    Record,
    Result,
    read_record,
    write_aside,
)
from robustframe.threat import ThreatModel

log = logging.getLogger("robustframe")


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
    folder: Path = field(default_factory=Path)
    """What the paths of users' attacks are relative to."""
    diagnose: bool = True
    """Check after the attacks whether their numbers are to be believed; changes no verdict."""

    def undiagnosed(self) -> "Task":
        """Return the same evaluation without checks of its numbers."""
        return replace(self, recipe={**self.recipe, "diagnose": False}, diagnose=False)

    @property
    def hash(self) -> str:
        """SHA-256 of everything asked; two runs with the same hash are the same evaluation."""
        return run_hash(
            version("robustframe"),
            self.recipe,
            self.batteries,
            user_files(self.batteries, self.folder),
            self.data.sha256,
            [classifier.entry.model_dump() for classifier in self.classifiers],
        )


def run_hash(
    code: str,
    recipe: dict[str, Any],
    batteries: list[Battery],
    files: dict[str, str],
    data: str,
    classifiers: list[dict[str, Any]],
) -> str:
    """Hash everything an evaluation asks: the version of the code, the recipe, and what it names.

    Args:
        code: version of robustframe.
        recipe: as the record holds it.
        batteries: with their content.
        files: SHA-256 of each file of the user's that a battery names.
        data: SHA-256 of the examples.
        classifiers: their entries in the record.
    """
    return digest(
        {
            "robustframe": code,
            "recipe": recipe,
            # Without defaults, so that a new setting with one leaves old evaluations what they are.
            "batteries": [battery.model_dump(by_alias=True, exclude_defaults=True) for battery in batteries],
            "files": files,
            "data": data,
            "classifiers": classifiers,
        }
    )


@dataclass(frozen=True)
class Moment:
    """What an evaluation says after each finished unit."""

    done: int
    units: int
    classifier: str
    threat: str
    attack: str
    survivors: int
    robust_accuracy: float
    """Survivors so far over the examples of the data set, for this classifier and threat."""


def run(
    task: Task,
    folder: Path,
    *,
    device: torch.device,
    batch_size: int = DEFAULT_BATCH,
    report: Callable[[Moment], None] = lambda moment: None,
) -> Record:
    """Carry an evaluation out, or continue it; the files of the run end the same, byte for byte.

    Args:
        task: what to evaluate.
        folder: the run's folder, made when it is not there.
        device: where the models are.
        batch_size: rows of one model call at most; it changes no verdict.
        report: called after every unit.

    Returns:
        The complete record, as it stands in ``record.json``.

    Raises:
        InputError: when the folder belongs to another evaluation, or a model cannot be evaluated.
    """
    whole_number(batch_size, "batch size", least=1)
    for threat in task.threats:
        threat.check_shape(tuple(task.data.images.shape[1:]))
    flags = [flag for each in task.classifiers for flag in check_model(each, task.data, device)]
    here = environment(device)
    record = Record(
        status="started",
        name=task.name,
        hash=task.hash,
        recipe=task.recipe,
        batteries=[battery.model_dump(by_alias=True) for battery in task.batteries],
        data=_data_entry(task.data),
        classifiers=[classifier.entry for classifier in task.classifiers],
        environment=here,
    )
    done = _open(folder, record)
    if done is not None:
        return done
    work = _Work(task, folder, device, batch_size, report)
    results, verdicts = [], []
    for classifier in task.classifiers:
        clean = work.clean(classifier)
        radii = certified_radii(classifier, task.data, device)
        for threat in task.threats:
            result, rows = work.attack(classifier, threat, clean)
            certified = certified_correct(radii, threat, task.data.images[0].numel())
            results.append(result.model_copy(update={"certified_correct": certified}))
            verdicts.append(rows)
    if task.diagnose:
        results = work.diagnose(results, verdicts)
    flags += [sentence for result in results for sentence in distrust(result)]
    flags += [sentence for result in results for entry in result.attacks for sentence in doubts(result, entry)]
    table = parquet(pl.concat(verdicts))
    write_aside(folder / VERDICTS, table)
    evidence = manifest(folder)
    write_aside(folder / EVIDENCE, evidence)
    record = record.model_copy(
        update={
            "status": "complete",
            "results": results,
            "verdicts_sha256": hashlib.sha256(table).hexdigest(),
            "evidence_sha256": hashlib.sha256(evidence).hexdigest(),
            "flags": flags,
        }
    )
    write_aside(folder / RECORD, record.to_json().encode())
    return record


def whole_number(value: int, what: str, *, least: int) -> int:
    """Return a whole number of at least ``least``; anything else is an `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{what} {value!r} must be a whole number of at least {least}")
    return value


def _open(folder: Path, record: Record) -> Record | None:
    """Begin or take up a run; return its record when it is complete already."""
    if not (folder / RECORD).exists():
        folder.mkdir(parents=True, exist_ok=True)
        check_sealed(folder)
        write_aside(folder / RECORD, record.to_json().encode())
        return None
    found = read_record(folder)
    if found.hash != record.hash:
        raise InputError(
            f"{folder} belongs to another evaluation ({found.name}-{found.hash[:8]}, this is "
            f"{record.name}-{record.hash[:8]}): {other_parts(found, record)}; choose another folder or delete it"
        )
    if found.environment != record.environment:
        log.warning("%s was begun in another environment; finished parts are kept as they are", folder)
    return found if found.status == "complete" else None


def other_parts(found: Record, record: Record) -> str:
    """Say in what a run in a folder differs from the one that is asked for, so that it cannot be continued."""
    then, now = found.environment.robustframe, record.environment.robustframe
    if then != now:
        # Nobody knows whether two versions draw the same numbers; two halves of a run must.
        return f"robustframe {then} began it, this is {now}, whose results may be others"
    parts = {
        "recipe": found.recipe != record.recipe,
        "batteries": found.batteries != record.batteries,
        "examples": found.data.sha256 != record.data.sha256,
        "models": found.classifiers != record.classifiers,
    }
    return f"other {' and '.join(name for name, other in parts.items() if other) or 'code of the user'}"


class _Work:
    """The units of one run."""

    def __init__(
        self,
        task: Task,
        folder: Path,
        device: torch.device,
        batch_size: int,
        report: Callable[[Moment], None],
    ) -> None:
        self.task, self.folder, self.device = task, folder, device
        self.batch_size, self.report = batch_size, report
        self.chunks = chunks(len(task.data), task.chunk)
        self.stages = make_stages(task.batteries, task.folder)
        self.votes = max(battery.votes for battery in task.batteries)
        stages = sum(
            1 + sum(stage.runs_for(threat) for threat in task.threats for stage in self._stages_of(classifier))
            for classifier in task.classifiers
        )
        self.units = stages * len(self.chunks) + task.diagnose * len(task.classifiers) * len(task.threats)
        self.done = 0

    def _stages_of(self, classifier: Classifier) -> list[Stage]:
        return [stage for stage in self.stages if stage.why_not(classifier.module) is None]

    def clean(self, classifier: Classifier) -> list[pl.DataFrame]:
        """Classify every clean image; one table a chunk."""
        tables = []
        right = 0
        for number, index in enumerate(self.chunks):
            unit = Unit(self._place(classifier, "clean"), number)
            rows = unit.load(CLEAN_SCHEMA)
            if rows is None:
                with borrowed(classifier.module) as model, torch.no_grad():
                    images = self.task.data.images[index].to(self.device)
                    votes = [predict(call_in_batches(model, images, self.batch_size)) for _ in range(self.votes)]
                    predictions = torch.stack(votes).mode(0).values
                rows = unit.save_clean(index, self.task.data.labels[index], predictions, self.votes)
            tables.append(rows)
            right += int(correct(rows).sum())
            self._say(classifier, "", "clean", right)
        return tables

    def attack(
        self, classifier: Classifier, threat: ThreatModel, clean: list[pl.DataFrame]
    ) -> tuple[Result, pl.DataFrame]:
        """Put every survivor through every attack; return the counts and the verdict of each example."""
        alive = [correct(rows) for rows in clean]
        verdicts = [fresh_verdicts(rows) for rows in clean]
        entries = []
        for stage in self.stages:
            if not stage.runs_for(threat):
                continue
            skipped = stage.why_not(classifier.module)
            if skipped is not None:
                entries.append(attack_entry(stage, pl.DataFrame(schema=ATTACK_SCHEMA), skipped))
                continue
            tables = []
            for number, index in enumerate(self.chunks):
                entering = correct(clean[number]) if stage.battery.closest else alive[number]
                rows = self._attack_chunk(classifier, threat, stage, number, index[entering])
                broken = torch.from_numpy(rows["index"].filter(rows["success"]).to_numpy().copy())
                alive[number] = alive[number] & ~torch.isin(index, broken)
                verdicts[number] = judge(verdicts[number], rows, stage.label, closest=stage.battery.closest)
                tables.append(rows)
                left = sum(int(each.sum()) for each in alive)
                self._say(classifier, threat.label, stage.label, left)
            entries.append(attack_entry(stage, pl.concat(tables)))
        result = Result(
            classifier=classifier.entry.name,
            threat=threat.label,
            examples=len(self.task.data),
            clean_correct=sum(int(correct(rows).sum()) for rows in clean),
            robust_correct=sum(int(each.sum()) for each in alive),
            attacks=entries,
        )
        names = [pl.lit(classifier.entry.name).alias("classifier"), pl.lit(threat.label).alias("threat")]
        return result, pl.concat(verdicts).select(*names, pl.all())

    def diagnose(self, results: list[Result], verdicts: list[pl.DataFrame]) -> list[Result]:
        """Check every row, once the images that broke any classifier are there to be replayed on the others."""
        task = self.task
        shelf = Shelf(
            task.data, task.classifiers, task.threats, self.stages, len(self.chunks), self.votes, task.seed,
            self._place, self.device, self.batch_size,
        )  # fmt: skip
        checked = []
        rows = [(classifier, threat) for classifier in task.classifiers for threat in task.threats]
        for (classifier, threat), result, table in zip(rows, results, verdicts, strict=True):
            diagnosis = shelf.diagnose(classifier, threat, result, table)
            checked.append(result.model_copy(update={"diagnosis": diagnosis}))
            self._say(classifier, threat.label, "diagnosis", result.robust_correct)
        return checked

    def _attack_chunk(
        self,
        classifier: Classifier,
        threat: ThreatModel,
        stage: Stage,
        number: int,
        index: torch.Tensor,
    ) -> pl.DataFrame:
        unit = Unit(self._place(classifier, slug(threat.label), slug(stage.label)), number)
        rows = unit.load(ATTACK_SCHEMA)
        if rows is not None and rows["index"].to_list() == index.tolist():
            return rows
        first = number * self.task.chunk
        # The classifier is not in the key: both twins of a pair meet the same random numbers.
        key = (self.task.seed, threat.label, stage.key, number)
        draws = Draws(key, len(self.chunks[number]), index - first, self.device)
        result = stage.attack.run(
            classifier.module,
            self.task.data.images[index].to(self.device),
            self.task.data.labels[index].to(self.device),
            threat,
            draws,
            batch_size=self.batch_size,
            known_correct=True,
            votes=stage.battery.votes,
            closest=stage.battery.closest,
        )
        return unit.save_attack(index, result)

    def _place(self, classifier: Classifier, *parts: str) -> Path:
        at = self.task.classifiers.index(classifier)
        return (self.folder / classifier_folder(at, classifier.entry.name)).joinpath(*parts)

    def _say(self, classifier: Classifier, threat: str, attack: str, survivors: int) -> None:
        self.done += 1
        share = survivors / len(self.task.data)
        self.report(Moment(self.done, self.units, classifier.entry.name, threat, attack, survivors, share))


def _data_entry(data: Dataset) -> DataEntry:
    return DataEntry(use=data.name, split=data.split, count=len(data), sha256=data.sha256, classes=list(data.classes))
