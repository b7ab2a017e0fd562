"""The one door through which everyone reads a run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustframe.errors import InputError, as_path, first_mistake, shown
from robustframe.files import check_sealed
from robustframe.recipe import THREATS, Battery, parse_threats, recipes, spread_threats
from robustframe.runs.plausible import implausible
from robustframe.runs.record import EVIDENCE, EXAMPLES, RECORD, broken_seal, find_run, read_record
from robustframe.runs.run import Run

_CHUNKS = 10**5
"""Most chunks of a run."""


def open_run(given: str | Path, *, unfinished: bool = False, recipe_folder: str | Path | None = None) -> Run:
    """Open a run, or the published copy of one.

    Args:
        given: its folder, or its record.
        unfinished: also open one that is not complete; it has no results and no verdicts.
        recipe_folder: what paths in its recipe are relative to; the folder of the shipped recipe of its name, else the
            working directory, when ``None``.

    Returns:
        The run, sealed: its verdicts are those of its record, its counts follow from them, and no file is missing.

    Raises:
        InputError: for no run, one that is not complete, a damaged, edited or foreign file, or another schema.
    """
    run = read_run(given, unfinished=unfinished, recipe_folder=recipe_folder)
    if not run.complete:
        return run
    if problem := run.broken_seal:
        raise run.off(problem)
    if problem := implausible(run.record):
        raise run.off(f"{run.folder / RECORD} cannot be right: {problem}")
    if missing := [name for name in run.manifest if not (run.folder / name).is_file()]:
        raise run.off(f"{run.folder} lacks {len(missing)} of the files in {EVIDENCE}, such as {missing[0]}")
    # Read now, so that whoever holds a run holds one that is whole.
    _ = run.verdicts
    return run


def open_runs(given: Sequence[str | Path], *, unfinished: bool = False) -> list[Run]:
    """Open several runs, each of them once.

    Raises:
        InputError: without runs, for one given twice, and as `open_run`.
    """
    if not given:
        raise InputError("give at least one folder of a run, such as runs/* or evaluations/default/results")
    runs: list[Run] = []
    for each in given:
        run = open_run(each, unfinished=unfinished)
        twice = next((other for other in runs if other.record.hash == run.record.hash), None)
        if twice is not None:
            raise InputError(f"{twice.folder} and {run.folder} are the same run; give it once")
        runs.append(run)
    return runs


def read_run(given: str | Path, *, unfinished: bool = False, recipe_folder: str | Path | None = None) -> Run:
    """Read a run as far as its record says what it is, whatever else is wrong with it; `open_run` is for everyone
    but those who look for what is wrong.

    Raises:
        InputError: for no run, one that is not complete, another schema, or a record that asks nothing that could be.
    """
    folder = find_run(given)
    place = None if recipe_folder is None else as_path(recipe_folder, "the folder that paths are relative to")
    check_sealed(folder)
    record, content = read_record(folder)
    if not record.classifiers or not record.batteries:
        raise InputError(f"{folder / RECORD} lists no classifiers or no batteries, so that there is nothing in it")
    if record.status != "complete" and not unfinished:
        raise InputError(f"{folder} is not complete; run the same evaluate command again to continue it")
    where = f"{folder / RECORD}: recipe"
    threats, chunk = record.recipe.get("threats"), record.recipe.get("chunk")
    if not isinstance(threats, list) or not threats or not all(isinstance(threat, str) for threat in threats):
        raise InputError(f"{where}.threats = {shown(threats)} must be a list such as ['linf:8/255']")
    if len(threats) > THREATS:
        raise InputError(f"{where}.threats has {len(threats):,} of them; a run has at most {THREATS}")
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1 or not 1 <= record.data.count <= EXAMPLES:
        raise InputError(f"{where}.chunk = {chunk!r} and data.count = {record.data.count} must be whole numbers from 1")
    if record.data.count / chunk > _CHUNKS:
        raise InputError(f"{where}.chunk = {chunk} makes too many chunks of {record.data.count:,} examples")
    shipped = recipes().get(record.name)
    place = place or (Path() if shipped is None else shipped.parent)
    return Run(
        folder=folder,
        record=record,
        seal=hashlib.sha256(content).hexdigest(),
        broken_seal=broken_seal(folder, content) if record.status == "complete" else "",
        batteries=[_battery(each, folder) for each in record.batteries],
        threats=spread_threats(
            parse_threats(threats, where=f"{where}.threats"), len(record.data.classes), where=f"{where}.threats"
        ),
        chunk=chunk,
        recipe_folder=place,
    )


def _battery(content: dict[str, Any], folder: Path) -> Battery:
    try:
        return Battery.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{folder / RECORD}: batteries: {first_mistake(error)}") from None
