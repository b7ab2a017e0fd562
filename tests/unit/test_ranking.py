"""Attacks ranked: what each alone found, and comparisons that do not depend on the order of a battery."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from robustframe.cli import app
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.recipe import Battery
from robustframe.report.attack_text import attack_tables
from robustframe.report.figures import descent_figure, svg
from robustframe.report.tables import render
from robustframe.runs import open_run
from robustframe.runs.ledger import Ledger, read_ledger
from robustframe.runs.ranking import Descent, rank_ledgers
from robustframe.runs.record import AttackEntry, ClassifierEntry, DataEntry, Record, Result

RIGHT = [True, True, True, True, True, False]
COST = 10


def made_up(name: str, breaks: dict[str, list[int]], *, stored: bool = True, closest: bool = False) -> Ledger:
    """A run of one classifier on six examples, the last of them wrong: which attack breaks which when it meets it."""
    met: dict[str, list[int]] = {}
    by: list[str | None] = [None] * len(RIGHT)
    passes = [1] * len(RIGHT)
    for at, (use, broken) in enumerate(breaks.items(), start=1):
        label = f"{name}@1/{at:02d}-{use}"
        met[label] = [i for i, right in enumerate(RIGHT) if right and (closest or by[i] is None)]
        for i in met[label]:
            passes[i] += COST * at
            by[i] = label if i in broken else by[i]
    entries = [
        AttackEntry(
            battery=f"{name}@1", position=at, use=use, name=None, settings={}, skipped=None, entered=len(met[label]),
            broken=0, unverified=0, forwards=COST * at * len(met[label]), backwards=0, blind=0, nonfinite=0,
        )
        for at, (use, label) in enumerate(zip(breaks, met), start=1)
    ]  # fmt: skip
    result = Result(
        classifier="net", threat="linf:0.1", examples=6, clean_correct=5, robust_correct=0, certified_correct=None,
        attacks=entries, diagnosis=None,
    )  # fmt: skip
    record = Record.model_construct(
        results=[result],
        data=DataEntry(use="digits", split="test", count=6, sha256="1" * 64, classes=[]),
        classifiers=[ClassifierEntry.model_construct(name="net", sha256="0" * 64, twin=None, sweeps=None)],
    )
    verdicts = pl.DataFrame(
        {
            "index": range(6), "clean_correct": RIGHT, "broken_by": by,
            "forwards": passes, "backwards": [0] * 6,
        },
        schema_overrides={"broken_by": pl.String},
    )  # fmt: skip

    def unit(classifier: str, threat: str, label: str) -> pl.DataFrame:
        index, use = met[label], label.partition("-")[2]
        spent = [COST * (list(met).index(label) + 1)] * len(index)
        success = [i in breaks[use] for i in index]
        return pl.DataFrame({"index": index, "success": success, "forwards": spent, "backwards": [0] * len(index)})

    attacks = [{"use": use} for use in breaks]
    battery = Battery.model_validate({"schema": 1, "name": name, "version": "1", "closest": closest, "attack": attacks})
    return read_ledger(name, record, [battery], lambda *_: verdicts, unit if stored else None)


RECIPE = """
schema = 1
name = "{name}"
seed = 0
chunk = 20
threats = ["linf:0.15"]
battery = ["{name}.toml"]
diagnose = false
[data]
use = "digits"
count = 50
[[model]]
use = "card:{card}"
"""
ONE = {"a": [0, 1], "b": [0, 2]}
OTHER = {"c": [1, 2, 3]}


@pytest.mark.parametrize("stored", [True, False])
def test_what_each_attack_alone_found_is_counted_by_hand(stored: bool) -> None:
    ranking = rank_ledgers([made_up("one", ONE, stored=stored), made_up("two", OTHER, stored=stored)], sort="order")
    found = {each.attack: (each.cases, each.met, each.broken, each.alone, each.untested) for each in ranking.attacks}
    assert found == {
        # b never met example 0, which nobody else broke; example 1 is also found by c.
        "one@1/01-a": (5, 5, 2, 0, 1),
        "one@1/02-b": (5, 3, 1, 0, 0),
        "two@1/01-c": (5, 5, 3, 1, 0),
    }
    assert [each.whole for each in ranking.attacks] == [True, False, True]


@pytest.mark.parametrize("stored", [True, False])
def test_two_attacks_are_compared_only_where_neither_met_what_the_other_left(stored: bool) -> None:
    ranking = rank_ledgers([made_up("one", ONE, stored=stored), made_up("two", OTHER, stored=stored)])
    pairs = {(pair.first, pair.second): pair for pair in ranking.pairs}
    assert set(pairs) == {("one@1/01-a", "two@1/01-c"), ("one@1/02-b", "two@1/01-c")}
    assert ranking.incomparable == 1
    first = pairs["one@1/01-a", "two@1/01-c"]
    assert (first.cases, first.both, first.only_first, first.only_second) == (5, 1, 1, 2)
    assert first.p_value == 1.0
    second = pairs["one@1/02-b", "two@1/01-c"]
    assert (second.cases, second.both, second.only_first, second.only_second) == (3, 1, 0, 1)
    assert (second.first_passes, second.second_passes) == ((60, 30) if stored else (None, None))


def test_an_attack_is_not_compared_on_what_its_twin_in_another_battery_left() -> None:
    ranking = rank_ledgers([made_up("one", ONE), made_up("two", {"a": [0, 1]})])
    assert ranking.pairs == ()
    # What both stand-ins of an attack found, it found alone.
    assert {each.attack: each.alone for each in ranking.attacks} == {
        "two@1/01-a": 0, "one@1/01-a": 0, "one@1/02-b": 1,
    }  # fmt: skip


def test_where_every_attack_meets_every_example_all_is_known() -> None:
    ranking = rank_ledgers([made_up("near", ONE, closest=True)], sort="alone")
    assert [(each.attack, each.broken, each.alone, each.untested) for each in ranking.attacks] == [
        ("near@1/01-a", 2, 1, 0), ("near@1/02-b", 2, 1, 0),
    ]  # fmt: skip
    assert (ranking.pairs[0].both, ranking.pairs[0].only_first, ranking.pairs[0].only_second) == (1, 1, 1)
    assert all(descent.closest for descent in ranking.descents)


def test_a_published_copy_with_closest_successes_says_what_it_does_not_hold() -> None:
    mixed = [made_up("near", ONE, closest=True, stored=False), made_up("two", OTHER)]
    ranking = rank_ledgers(mixed)
    assert [each.attack for each in ranking.attacks] == ["two@1/01-c"]
    assert "near@1 is left out" in render(attack_tables(ranking)[0], "md")
    with pytest.raises(InputError, match="nothing to rank"):
        rank_ledgers(mixed[:1])


def test_a_published_copy_tells_nothing_of_attacks_beside_closest_successes() -> None:
    # The nearer success of the second battery took the place of what the first one broke.
    battery = {"schema": 1, "version": "1", "attack": [{"use": "a"}]}
    batteries = [
        Battery.model_validate({**battery, "name": name, "closest": name == "near"}) for name in ("one", "near")
    ]
    names = [battery.name for battery in batteries]
    entries = [
        AttackEntry.model_construct(
            battery=f"{name}@1", position=1, use="a", name=None, settings={}, skipped=None, forwards=50, backwards=0
        )
        for name in names
    ]
    record = Record.model_construct(
        results=[Result.model_construct(classifier="net", threat="linf:0.1", attacks=entries)],
        data=DataEntry(use="digits", split="test", count=6, sha256="1" * 64, classes=[]),
        classifiers=[ClassifierEntry.model_construct(name="net", sha256="0" * 64, twin=None, sweeps=None)],
    )
    verdicts = pl.DataFrame({"index": range(6), "clean_correct": RIGHT, "broken_by": ["near@1/01-a"] + [None] * 5})
    ledger = read_ledger("mixed", record, batteries, lambda *row: verdicts, None)
    assert ledger.stints == ()
    assert "near@1 is left out, and so is what went beside it: one@1." in ledger.unknown[0]


def test_a_descent_falls_where_examples_are_broken() -> None:
    (descent,) = rank_ledgers([made_up("one", ONE)]).descents
    # Clean 5 of 6; a breaks two at pass 11, b one at pass 31.
    label = "one@1/{}".format
    assert descent.points == (
        (1, 5 / 6, label("01-a")), (11, 3 / 6, label("01-a")), (31, 2 / 6, label("02-b")),
    )  # fmt: skip


def test_breaks_per_pass_rank_those_that_met_everything_first() -> None:
    ranking = rank_ledgers([made_up("one", {"a": [0], "b": [1, 2, 3, 4]}), made_up("two", OTHER)])
    assert [each.attack for each in ranking.attacks] == ["two@1/01-c", "one@1/01-a", "one@1/02-b"]
    assert ranking.attacks[0].breaks_per_1000 == pytest.approx(1000 * 3 / 50)
    assert ranking.attacks[0].passes_per_case == COST


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(InputError, match="unknown order 'speed'"):
        rank_ledgers([made_up("one", ONE)], sort="speed")


@pytest.fixture(scope="module")
def own(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same pair: a battery, and an attack of one's own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom robustframe.attacks import FGSM\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(FGSM):\n    '''One step.'''\n"
    )
    head = 'schema = 1\nversion = "1"\n'
    (folder / "shown.toml").write_text(
        f'{head}name = "shown"\n[[attack]]\nuse = "pgd"\nsteps = 4\n[[attack]]\nuse = "square"\nqueries = 20\n'
    )
    (folder / "mine.toml").write_text(f'{head}name = "mine"\n[[attack]]\nuse = "file:mine.py:Mine"\nname = "mine"\n')
    for battery in ("shown", "mine"):
        recipe = RECIPE.format(name=battery, card=tiny_card)
        (folder / f"{battery}-recipe.toml").write_text(recipe)
        evaluate_recipe(folder / f"{battery}-recipe.toml", out=folder / f"run-{battery}", device="cpu")
    return folder


def test_the_counts_are_those_of_the_record_and_of_a_published_copy(own: Path, tmp_path: Path) -> None:
    run = open_run(own / "run-shown")
    ranking = run.rank_attacks(open_run(own / "run-mine"), sort="order")
    for each in ranking.attacks[:2]:
        entries = [entry for result in run.results for entry in result.attacks if entry.label == each.attack]
        for name, counted in (("met", "entered"), ("broken", "broken"), ("forwards", "forwards")):
            assert getattr(each, name) == sum(getattr(entry, counted) for entry in entries)
    robust = {descent.path: descent.points[-1][1] for descent in ranking.descents}
    assert robust["shown@1"] == pytest.approx(np.mean([result.robust_correct / 50 for result in run.results]))
    assert [each.attack for each in ranking.attacks] == ["shown@1/01-pgd", "shown@1/02-square", "mine@1/01-mine"]
    assert {(pair.first, pair.second) for pair in ranking.pairs} == {
        ("shown@1/01-pgd", "mine@1/01-mine"), ("shown@1/02-square", "mine@1/01-mine"),
    }  # fmt: skip
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("record.json", "verdicts.parquet", "seal.sha256"):
        shutil.copy(own / "run-shown" / name, copy)
    published = open_run(copy).rank_attacks()
    assert published.attacks == run.rank_attacks().attacks
    assert published.descents == run.rank_attacks().descents


def test_what_an_attack_did_is_read_by_its_label(own: Path, tmp_path: Path) -> None:
    run = open_run(own / "run-shown")
    entry = run.record.results[0].attacks[0]
    rows = run.attack_rows(run.record.results[0].classifier, "linf:0.15", entry.label)
    assert (len(rows), int(rows["success"].sum())) == (entry.entered, entry.broken)
    with pytest.raises(InputError, match="unknown attack 'shown@1/01-pgdd'"):
        run.attack_rows(run.record.results[0].classifier, "linf:0.15", "shown@1/01-pgdd")
    broken = tmp_path / "broken"
    shutil.copytree(run.folder, broken)
    next(iter(sorted(broken.glob("units/*/linf_0.15/*pgd/*.parquet")))).write_bytes(b"")
    with pytest.raises(InputError, match="is not what was written"):
        open_run(broken).rank_attacks()


def test_the_command_writes_tables_json_and_a_picture(own: Path, tmp_path: Path) -> None:
    runs = [str(own / "run-shown"), str(own / "run-mine")]
    plot = tmp_path / "attacks.svg"
    found = CliRunner().invoke(app, ["attacks-report", *runs, "--plot", str(plot)])
    assert found.exit_code == 0, found.output
    assert "2 runs are pooled: 2 classifiers, 1 threats." in " ".join(found.output.split())
    assert "<svg" in plot.read_text()
    said = json.loads(CliRunner().invoke(app, ["attacks-report", *runs, "--json"]).stdout)
    assert {each["attack"] for each in said["attacks"]} == {"shown@1/01-pgd", "shown@1/02-square", "mine@1/01-mine"}
    text = CliRunner().invoke(app, ["attacks-report", *runs, "--format", "csv"]).stdout
    first = list(csv.DictReader(io.StringIO(text.split("\n\n")[0])))
    assert {row["attack"]: row["alone"] for row in first} == {e["attack"]: str(e["alone"]) for e in said["attacks"]}


def test_an_attack_that_broke_nothing_has_a_name_in_the_picture() -> None:
    nothing = Descent(
        "sources@1/03-from-other", "d", "linf:0.1", ("m",), 10, ((1, 0.9, ""), (40, 0.9, "")), closest=True
    )
    drawn = svg(descent_figure([nothing]))
    assert "from-other" in drawn
    assert "sources@1" not in drawn
