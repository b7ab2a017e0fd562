"""The transfer matrix of a run: each classifier as a source of gradients or images, each as a target."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustframe.attacks.registry import settings_of
from robustframe.attacks.transfer import TransferAttack
from robustframe.calls import DEFAULT_BATCH
from robustframe.devices import pick_device
from robustframe.errors import InputError
from robustframe.report.figures.transfer import TransferShare
from robustframe.report.layout import UNKNOWN, Column, Grid, TextCell, one_line
from robustframe.runs import Run, open_run
from robustframe.runs.record import AttackEntry, Result
from robustframe.verification.code import consent
from robustframe.verification.sources import load_sources
from robustframe.verification.transfer import Side, transfers

USE = "transfer"
"""What a battery calls an attack with the gradients of another classifier."""


@dataclass(frozen=True)
class TransferCell:
    """One source on one target."""

    threat: str
    attack: str
    """The settings in which the attack differs from its defaults; empty for stored images."""
    source: str
    target: str
    shown: int
    """Examples that the target gets right when clean and that it was shown an image of."""
    broken: int

    @property
    def share(self) -> float | None:
        """The fraction of these that broke it."""
        return self.broken / self.shown if self.shown else None


@dataclass(frozen=True)
class TransferMatrix:
    """Everything `robustframe transfer` says."""

    run: str
    attacked: bool
    """Its own attacks took the sources' gradients; otherwise stored images are shown to the other classifiers."""
    whole: bool
    """Every attack met every example that its target gets right when clean."""
    cells: tuple[TransferCell, ...]

    @property
    def shares(self) -> list[TransferShare]:
        """What a figure draws."""
        return [TransferShare(_panel(each), each.source, each.target, each.share) for each in self.cells]

    def to_json(self) -> dict[str, Any]:
        """Return the matrix as what JSON can hold."""
        return {**asdict(self), "cells": [{**asdict(each), "share": each.share} for each in self.cells]}


def transfer_matrix(
    run: str | Path | Run,
    *,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    data_root: str | Path | None = None,
    code: Sequence[str | Path] = (),
) -> TransferMatrix:
    """Say how often what is found on each classifier of a run breaks each other one.

    Where the run has attacks with the gradients of named sources (``use = "transfer"``), these are the matrix, and no
    model is run. Otherwise the images that broke each classifier are shown to all others.

    Args:
        run: a complete run of several classifiers, or its folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        batch_size: rows of one model call at most.
        folder: what paths in the recipe are relative to.
        data_root: where data that does not ship lies.
        code: Python files that the run names and that may be run.

    Raises:
        InputError: for a run of one classifier, or one that stores no images or names no models where these are needed.
    """
    opened = run if isinstance(run, Run) else open_run(run, recipe_folder=folder)
    found = [
        TransferCell(result.threat, _differences(entry), entry.settings["source"], result.classifier, entry.entered,
                     entry.broken)
        for result in opened.results
        for entry in _of_sources(result)
    ]  # fmt: skip
    if found:
        whole = all(entry.entered == result.clean_correct for result in opened.results for entry in _of_sources(result))
        return TransferMatrix(opened.cited, attacked=True, whole=whole, cells=tuple(found))
    if len(opened.record.classifiers) < 2:
        raise InputError(f"{opened.folder} has one classifier; transfer is from one to another")
    if not opened.stored:
        raise InputError(f"{opened.folder} stores no images; a published copy has none, so give the run itself")
    if opened.from_python:
        raise InputError(f"{opened.folder} was evaluated from Python, so that its models cannot be loaded")
    with consent([opened], code, "robustframe transfer", folder):
        sources = load_sources(opened, device=pick_device(device), data_root=data_root)
        verdicts = {
            (each.classifier, each.threat): opened.rows(each.classifier, each.threat) for each in opened.results
        }
        side = Side(opened, sources, verdicts)
        shown = transfers(side, side, list(opened.threats), "", batch_size)
    order = [each.name for each in opened.record.classifiers]
    shown.sort(key=lambda each: (each.threat, order.index(each.source), order.index(each.target)))
    cells = [TransferCell(each.threat, "", each.source, each.target, each.shown, each.broken) for each in shown]
    return TransferMatrix(opened.cited, attacked=False, whole=True, cells=tuple(cells))


def _of_sources(result: Result) -> list[AttackEntry]:
    return [each for each in result.attacks if each.use == USE and each.settings.get("source") and not each.skipped]


def _differences(entry: AttackEntry) -> str:
    """Name the settings of an attack that are not the defaults, the source apart."""
    plain = settings_of(TransferAttack())
    own = {name: value for name, value in entry.settings.items() if name != "source" and plain.get(name) != value}
    return ", ".join(f"{name} = {value}" for name, value in own.items()) or "defaults"


def _panel(cell: TransferCell) -> str:
    return f"{cell.threat}, {cell.attack}" if cell.attack else cell.threat


def matrix_tables(matrix: TransferMatrix) -> list[Grid]:
    """Write the matrix as tables: a line a source, a column a target, a table a threat and attack."""
    tables = []
    for panel in dict.fromkeys(_panel(each) for each in matrix.cells):
        mine = {(each.source, each.target): each for each in matrix.cells if _panel(each) == panel}
        sources, targets = (list(dict.fromkeys(key[at] for key in mine)) for at in (0, 1))
        # Of stored images none is shown to its own source, so that no row has all targets.
        targets = targets if matrix.attacked else [each for each in sources if each in targets]
        columns = [Column("source", "Source"), *(Column(each, one_line(each), "number") for each in targets)]
        lines = [
            (TextCell(one_line(source)), *(_cell(mine.get((source, target))) for target in targets))
            for source in sources
        ]
        tables.append(Grid(f"Transfer under {panel}", _caption(matrix), tuple(columns), (tuple(lines),)))
    return tables


def _cell(cell: TransferCell | None) -> TextCell:
    if cell is None or cell.share is None:
        return TextCell(UNKNOWN, raw="")
    return TextCell(f"{100 * cell.share:.1f}", raw=repr(cell.share))


def _caption(matrix: TransferMatrix) -> str:
    if not matrix.attacked:
        said = (
            "In % of the images that broke the source, of examples that the target gets right when clean: those that "
            "break the target. The search for them ended at the first success on the source; an attack with "
            'use = "transfer" searches on, and shows every example to the target.'
        )
    else:
        said = (
            "In % of the examples that the target gets right when clean: those that it misclassifies after all steps "
            "with the gradients of the source. A classifier on itself is the attack with its own gradients."
        )
    if not matrix.whole:
        said += (
            " The battery has no closest = true, so later sources met only what those before them left, and their "
            "numbers are too low."
        )
    return f"{said} Run {matrix.run}."
