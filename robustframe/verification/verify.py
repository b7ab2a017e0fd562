"""A run replayed without any attack: every claimed break is shown to the exact model again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from robustframe.calls import DEFAULT_BATCH
from robustframe.devices import pick_device
from robustframe.errors import InputError, as_path, whole_number
from robustframe.recipe.stages import Stage, make_stages
from robustframe.runs.opening import read_run
from robustframe.runs.record import VERDICTS
from robustframe.runs.run import Run
from robustframe.verification.asked import (
    check_answers,
    check_batteries,
    check_bounds,
    check_data,
    check_models,
    check_record,
)
from robustframe.verification.code import consent
from robustframe.verification.corrupted import check_corruptions
from robustframe.verification.counts import check_copy, check_counts, check_verdicts, verdicts_of
from robustframe.verification.diagnoses import check_diagnoses
from robustframe.verification.findings import Finding, Verification, VerifiedPart, check, left_out
from robustframe.verification.flags import check_flags, model_flags
from robustframe.verification.replay import Replayer
from robustframe.verification.sealed import check_seal, check_tables
from robustframe.verification.sources import MADE_IN_PYTHON, Sources, given_sources, load_sources
from robustframe.verification.stored import Stored, check_files, check_units, read_units

_COPY = "no images are stored with a published copy; verify the run's own folder for them"


@dataclass(frozen=True)
class VerificationProgress:
    """How far a verification is, after each classifier and attack."""

    done: int
    parts: int
    what: str

    @property
    def shown(self) -> tuple[int, int, str, tuple[str, ...]]:
        """What a bar shows; see `robustframe.bar.Progress`."""
        return self.done, self.parts, self.what, ()


Report = Callable[[VerificationProgress], None]


def verify(
    run: str | Path | Run,
    model: Any = None,
    x: Any = None,
    y: Any = None,
    *,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    code: Sequence[str | Path] = (),
    seal: str | None = None,
    report: Report = lambda progress: None,
) -> Verification:
    """Replay a run without any attack, and name everything that is not as its record says.

    Every stored adversarial image must be finite, inside box and ball, and misclassified by the exact model, as the
    tables say; clean predictions are replayed; verdicts, counts and flags are derived anew; and the hashes of files,
    examples, weights and recipe are compared. It cannot show that an example without a break was attacked as stated:
    for that, evaluate again, which ends in the same bytes.

    Args:
        run: a run, its folder, or the published copy of one (record and verdicts only).
        model: for a run of `robustframe.evaluate`, the model that was given there.
        x: the images likewise, shape (n, ...); those beside the run when left out.
        y: likewise the labels, shape (n,).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``; of models that the recipe names.
        batch_size: rows of one model call at most.
        folder: what paths in the recipe are relative to; the working directory when ``None``.
        data_root: where data that does not ship lies.
        download: allow data and models of the hub to be downloaded.
        code: Python files of models and attacks that the run names and that may be run; a record comes from anybody.
        seal: the run's seal as a table, a paper or a board printed it, 16 digits or more; then any edit is named,
            also one that is consistent in itself.
        report: called after each part.

    Returns:
        The checks with everything that differs; ``ok`` says whether all that could be checked holds.

    Raises:
        InputError: when there is nothing to check: no complete run of this schema, its models or data do not load, or
            it names code that is not in ``code``.
    """
    if isinstance(code, str | Path) or not isinstance(code, Sequence):
        raise InputError(f"code is {type(code).__name__}; give a list of Python files, such as ['mine.py']")
    code = [as_path(each, "a file of code", "Python file") for each in code]
    whole_number(batch_size, "batch size", least=1)
    data_root = None if data_root is None else as_path(data_root, "data_root")
    if not callable(report):
        raise InputError(f"report is {type(report).__name__}; it must be a function of a VerificationProgress")
    read = read_run(run.folder if isinstance(run, Run) else run, recipe_folder=folder)
    with consent([read], code, "robustframe verify", folder):
        sources = _sources(read, model, x, y, device=device, root=data_root, download=download)
        return _verified(read, sources, seal=seal, batch_size=batch_size, report=report)


def _verified(read: Run, sources: Sources | None, *, seal: str | None, batch_size: int, report: Report) -> Verification:
    stages = make_stages(read.batteries, read.recipe_folder)
    checks = [check_seal(read, seal), check_record(read), check_batteries(read, stages)]
    if sources is None:
        checks += [left_out(name, MADE_IN_PYTHON) for name in ("data", "models", "answers", "bounds")]
    else:
        checks += [
            check_data(read, sources),
            check_models(read, sources),
            check_answers(read, sources),
            check_bounds(read, sources),
        ]
    replayer = None if sources is None else Replayer(read, sources, batch_size)
    if read.stored:
        stored = read_units(read, stages, sources)
        checks += [check_files(read, stored), check_units(read, stored)]
        checks += _replay(read, stored, replayer, report)
        checks += [check_verdicts(read, stored), check_counts(read, stored)]
    else:
        checks += _replay_copy(read, stages, replayer)
    checks += [check_diagnoses(read, sources), check_flags(read, verdicts_of(read), model_flags(read, sources))]
    checks += check_corruptions(read, replayer)
    checks.append(check_tables(read))
    return Verification(
        run=str(read.folder),
        title=f"{read.record.name}-{read.record.hash[:8]}, {read.record.data.use} {read.record.data.split}, "
        f"{read.record.data.count:,} examples",
        claimed=sum(entry.broken for result in read.record.results or [] for entry in result.attacks),
        replayed=0 if replayer is None else replayer.tally.images,
        checks=tuple(checks),
    )


def _sources(
    run: Run, model: Any, x: Any, y: Any, *, device: str, root: str | Path | None, download: bool
) -> Sources | None:
    if model is not None:
        return given_sources(run, model, x, y)
    if run.from_python:
        return None
    return load_sources(run, device=pick_device(device), data_root=root, download=download)


def _replay(run: Run, stored: Stored, replayer: Replayer | None, report: Report) -> list[VerifiedPart]:
    if replayer is None:
        return [left_out("clean", MADE_IN_PYTHON), left_out("images", MADE_IN_PYTHON)]
    clean: list[Finding] = []
    images: list[Finding] = []
    fickle: list[str] = []
    parts = len(stored.clean) + len(stored.attacked)
    # Nothing is claimed of a model without a number, and one that broke down in the run would do so here.
    finished = {result.classifier for result in run.results}
    for position, classifier in enumerate(replayer.sources.classifiers[: len(stored.clean)]):
        if classifier.entry.name not in finished:
            continue
        if not replayer.repeats_itself(classifier):
            fickle.append(classifier.entry.name)
            continue
        units, tables = stored.clean[position]
        for unit, rows in zip(units, tables):
            if rows is not None:
                clean += replayer.clean(classifier, rows, run.files.name(unit.table), "prediction")
        report(VerificationProgress(position + 1, parts, f"{classifier.entry.name} clean"))
    for done, attacked in enumerate(stored.attacked, start=len(stored.clean) + 1):
        if attacked.position < len(replayer.sources.classifiers):
            classifier = replayer.sources.classifiers[attacked.position]
            if classifier.entry.name in finished and classifier.entry.name not in fickle:
                for unit, table in zip(attacked.units, attacked.tables):
                    images += [] if table is None else replayer.stored(classifier, attacked, unit, table)
            what = f"{classifier.entry.name} {attacked.threat.label} {attacked.stage.label}"
            report(VerificationProgress(done, parts, what))
    return [
        _replayed("clean", "predictions and labels of the clean images", clean, fickle, 0),
        _replayed(
            "images",
            f"{replayer.tally.images:,} stored images: finite, box, ball, distance, misclassified as stated",
            images,
            fickle,
            replayer.tally.ties,
        ),
    ]


def _replayed(name: str, what: str, findings: list[Finding], fickle: list[str], ties: int) -> VerifiedPart:
    if ties:
        what += f"; {ties} predictions are ties up to rounding"
    if fickle and not findings:
        return left_out(
            name, f"{what}; not for {', '.join(fickle)}, which answers the same images differently each time"
        )
    return check(name, what, findings)


def _replay_copy(run: Run, stages: Sequence[Stage], replayer: Replayer | None) -> list[VerifiedPart]:
    checked, verdicts = check_copy(run, stages)
    if replayer is None or verdicts is None:
        return [left_out("files", _COPY), left_out("clean", MADE_IN_PYTHON), left_out("images", _COPY), checked]
    findings: list[Finding] = []
    fickle: list[str] = []
    for classifier in replayer.sources.classifiers:
        if not replayer.repeats_itself(classifier):
            fickle.append(classifier.entry.name)
            continue
        mine = verdicts.filter(pl.col("classifier") == classifier.entry.name)
        for (threat,), rows in mine.group_by("threat", maintain_order=True):
            where = f"{VERDICTS}, {classifier.entry.name}, {threat}"
            findings += replayer.clean(classifier, rows, where, "clean_prediction")
            broken = rows.filter(pl.col("broken_by").is_not_null(), pl.col("adversarial_prediction").is_not_null())
            for aim in (each for each in run.threats if each.label == threat):
                findings += replayer.aimed(classifier, aim, broken, where, "adversarial_prediction")
    what = "predictions and labels of the clean images"
    clean = _replayed("clean", what, findings, fickle, replayer.tally.ties)
    return [left_out("files", _COPY), clean, left_out("images", _COPY), checked]
