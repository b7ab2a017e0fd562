"""Does the record follow from what it names: its hash, batteries, examples and models."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from robustframe.attacks import Attack
from robustframe.attacks.registry import settings_of
from robustframe.errors import InputError
from robustframe.evaluation.bounds import certified_correct, certified_radii
from robustframe.evaluation.task import run_hash
from robustframe.models.identity import Answers, CodeIdentity, answers, compare_answers
from robustframe.recipe import code_files, differs_from_shipped, read_battery, spelled
from robustframe.recipe.stages import Stage
from robustframe.runs.record import RECORD, Environment, Section
from robustframe.runs.run import Run
from robustframe.threat import ThreatModel
from robustframe.verification.findings import Finding, VerifiedPart, check, left_out
from robustframe.verification.sources import Sources


def check_record(run: Run) -> VerifiedPart:
    """Hash what the record asks, and see whether its parts name the same evaluation."""
    says = "its hash follows from recipe, batteries, examples, weights and version"
    if run.record.failed:
        rows = ", ".join(f"{row.classifier} under {row.threat}" for row in run.record.failed)
        says += f"; it calls failed: {rows}"
    return check("record", says, _record(run))


def _record(run: Run) -> Iterator[Finding]:
    record, recipe = run.record, run.record.recipe
    expected = run_hash(
        record.environment.robustframe,
        recipe,
        run.batteries,
        code_files(run.record.recipe, run.batteries, run.recipe_folder),
        record.data.sha256,
        [entry.model_dump() for entry in record.classifiers],
        None if record.corruptions is None else record.corruptions.sha256,
    )
    if record.hash != expected:
        yield Finding(
            RECORD,
            None,
            f"the hash of what it asks is {expected[:16]}, it says {record.hash[:16]}; recipe, batteries, data, "
            "classifiers or version were edited, or another state of the code made it",
        )
    if recipe.get("name", record.name) != record.name:
        yield Finding(RECORD, None, f"it is named {record.name!r}, its recipe {recipe['name']!r}")
    names = [entry.name for entry in record.classifiers]
    expected_results = [(name, threat.label) for name in names for threat in run.threats]
    found = [(result.classifier, result.threat) for result in record.results or []]
    for missing in [each for each in expected_results if each not in found and each not in record.missing]:
        yield Finding(RECORD, None, f"it has no result for {missing[0]} under {missing[1]}")
    for extra in [each for each in found if each not in expected_results]:
        yield Finding(RECORD, None, f"it has a result for {extra[0]} under {extra[1]}, which it does not ask")
    if len(set(found)) < len(found):
        yield Finding(RECORD, None, "it has two results for one classifier and threat")
    for name, label in sorted(record.missing & set(expected_results)):
        if run.stored and _finished(run, names.index(name), label):
            yield Finding(RECORD, None, f"it calls {name} under {label} failed, though all its units are there")
    yield from _failed(run, expected_results)
    for name in sorted(record.answers.keys() - set(names)):
        yield Finding(RECORD, None, f"it has answers of {name}, which is not one of its classifiers")
    for name in sorted((record.searched or {}).keys() - set(names)):
        yield Finding(
            RECORD, None, f"it says what was searched in place of {name}, which is not one of its classifiers"
        )
    if record.searched is not None and recipe.get("prepare") == "none":
        yield Finding(RECORD, None, "it says what was searched in place of models, where its recipe has prepare = none")


def _failed(run: Run, asked: Collection[tuple[str, str]]) -> Iterator[Finding]:
    """Find rows that are called failed although nothing of them is missing."""
    checked = run.record.recipe.get("diagnose") is not False
    results = {(result.classifier, result.threat): result for result in run.results}
    for row in run.record.failed:
        key = (row.classifier, row.threat)
        where = f"it calls {row.classifier} under {row.threat} failed"
        if key not in asked:
            yield Finding(RECORD, None, f"{where}, which it does not ask")
        elif key in results and (
            results[key].diagnosis is not None or not checked or not ThreatModel.parse(row.threat).whole
        ):
            yield Finding(RECORD, None, f"{where}, though its result is there{' with its checks' if checked else ''}")


def _finished(run: Run, position: int, threat: str) -> bool:
    """Say whether all units of a row are there, whatever is in them."""
    norm = ThreatModel.parse(threat).norm
    labels = [
        f"{battery.cited}/{place:02d}-{spec.name or spec.use}"
        for battery in run.batteries
        for place, spec in enumerate(battery.attack, start=1)
        if spec.norms is None or norm in spec.norms
    ]
    numbers = range(len(run.chunks))
    units = [run.files.clean(position, number) for number in numbers]
    units += [run.files.attack(position, threat, label, number) for label in labels for number in numbers]
    return all(unit.table.is_file() for unit in units)


def check_batteries(run: Run, stages: Sequence[Stage]) -> VerifiedPart:
    """Compare the batteries with those of that name here, and the attacks' settings with the batteries."""
    unknown: list[str] = []
    findings = [*_batteries(run, unknown), *_settings(run, stages)]
    if unknown and not findings:
        return left_out("batteries", f"not here to compare: {', '.join(unknown)}")
    return check("batteries", "content as it is here under that name, every attack with its settings", findings)


def _batteries(run: Run, unknown: list[str]) -> Iterator[Finding]:
    asked = run.record.recipe.get("battery")
    if not isinstance(asked, list) or len(asked) != len(run.batteries):
        yield Finding(RECORD, None, f"its recipe asks for the batteries {asked!r}, it holds {len(run.batteries)}")
        return
    for given, held in zip(asked, run.batteries):
        if not str(given).endswith(".toml") and given not in (held.name, held.cited):
            # A run from Python cites a battery of the user's without saying where its file is.
            yield Finding(RECORD, None, f"its recipe asks for {given}, it holds {held.cited}")
            continue
        # Whatever file it is said to come from, what is cited as a shipped one is that.
        differs = differs_from_shipped(held)
        if differs is None:
            try:
                here = read_battery(str(given), folder=run.recipe_folder)
            except InputError:
                unknown.append(str(given))
                continue
            differs = spelled(here.model_dump(by_alias=True)) != spelled(held.model_dump(by_alias=True))
        if differs:
            yield Finding(
                RECORD, None, f"{held.cited} is not the battery of that name here; a published one never changes"
            )


def _filled(stated: Mapping[str, Any], attack: Attack) -> dict[str, Any]:
    """The settings of a record, with those that there were not yet when it was made, which had their default."""
    own = settings_of(attack, defaults=False)
    return {name: value for name, value in settings_of(attack).items() if name not in own} | dict(stated)


def _settings(run: Run, asked: Sequence[Stage]) -> Iterator[Finding]:
    for result in run.results:
        stages = [stage for stage in asked if any(stage.runs_for(t) for t in run.threats if t.label == result.threat)]
        where = f"{result.classifier}, {result.threat}"
        if len(stages) != len(result.attacks):
            counts = f"{len(result.attacks)} attacks, the batteries have {len(stages)}"
            yield Finding(RECORD, None, f"{where}: it lists {counts} for this threat")
            continue
        for stage, entry in zip(stages, result.attacks):
            stated = (entry.battery, entry.position, entry.use, entry.name)
            if stated != (stage.battery.cited, stage.position, stage.spec.use, stage.spec.name):
                yield Finding(RECORD, None, f"{where}: it lists {entry.use} where {stage.label} stands")
            elif spelled(_filled(entry.settings, stage.attack)) != spelled(settings_of(stage.attack)):
                yield Finding(RECORD, None, f"{where}: the settings of {stage.label} are not those of its battery")


def check_data(run: Run, sources: Sources) -> VerifiedPart:
    """Compare the examples with those that the record says were attacked."""
    data, entry = sources.data, run.record.data
    now = {"use": data.name, "split": data.split, "count": len(data), "sha256": data.sha256}
    now["classes"] = list(data.classes)
    findings = [Finding(RECORD, None, f"data.{text}") for text in _differences(now, entry)]
    return check("data", f"{entry.use} {entry.split}, {entry.count:,} examples, SHA-256 {entry.sha256[:16]}", findings)


def check_models(run: Run, sources: Sources) -> VerifiedPart:
    """Compare the models with those that the record says were attacked."""
    entries, now = run.record.classifiers, [each.entry for each in sources.classifiers]
    findings = []
    if len(entries) != len(now):
        findings.append(Finding(RECORD, None, f"it lists {len(entries)} classifiers, its recipe names {len(now)}"))
    for position, (entry, here) in enumerate(zip(entries, now)):
        findings += [
            Finding(RECORD, None, f"classifiers[{position}] ({entry.name}): {text}")
            for text in _differences(here.model_dump(), entry)
        ]
    return check("models", f"{len(entries)} classifiers with their weights' SHA-256", findings)


def check_answers(run: Run, sources: Sources) -> VerifiedPart:
    """Ask every model what it said to the first examples; rounding may differ."""
    alike = Environment.here(sources.device).kernels == run.record.environment.kernels
    finished = {result.classifier for result in run.results}
    findings = []
    for classifier in sources.classifiers:
        name = classifier.entry.name
        if name not in run.record.answers:
            findings.append(Finding(RECORD, None, f"its answers lack those of {name}"))
            continue
        if name not in finished:
            # It broke down in the run, which claims nothing about it.
            continue
        now = answers(classifier.module, sources.data.images)
        problem = compare_answers(Answers.of_record(run.record.answers[name]), now, alike=alike)
        findings += [] if problem is None else [Finding(RECORD, None, f"{name}: {problem}")]
    return check("answers", f"logits of {len(sources.classifiers)} classifiers on the first examples", findings)


def check_bounds(run: Run, sources: Sources) -> VerifiedPart:
    """Prove the certified counts of the record again."""
    results = {(result.classifier, result.threat): result for result in run.results}
    findings = []
    for classifier in sources.classifiers:
        radii = certified_radii(classifier, sources.data, sources.device)
        for threat in run.threats:
            result = results.get((classifier.entry.name, threat.label))
            now = certified_correct(radii, threat, sources.data.images[0].numel())
            if result is not None and result.certified_correct != now:
                sentence = f"certified_correct is {result.certified_correct}, the certificates prove {now}"
                findings.append(Finding(RECORD, None, f"{result.classifier}, {result.threat}: {sentence}"))
    return check("bounds", "certified counts, proved again", findings)


def _differences(now: dict[str, Any], entry: Section) -> Iterator[str]:
    for key, value in entry.model_dump().items():
        if key == "code" and value != now.get(key):
            yield from CodeIdentity(value, {}).changes(CodeIdentity(now.get(key) or {}, {}))
        elif value != now.get(key) and not _rounded(key, value, now.get(key)):
            found, stated = _short(now.get(key)), _short(value)
            other = "; these are other weights" if key == "sha256" and "model" in now else ""
            yield f"{key} is {found} now, the record says {stated}{other}"


def _rounded(key: str, stated: Any, found: Any) -> bool:
    """Whether two coherences differ by no more than two machines round."""
    both = isinstance(stated, float) and isinstance(found, float)
    return key == "mutual_coherence" and both and math.isclose(stated, found, rel_tol=1e-4)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 70 else f"{text[:64]}..."
