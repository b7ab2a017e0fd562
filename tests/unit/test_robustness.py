"""The robustness table of a record: p and intervals that agree, and a caption that says what can be told apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up import BATTERY, diagnose_row, make_run
from tampering import seal

from robustframe.errors import InputError
from robustframe.report import robustness_table, robustness_tables
from robustframe.report.layout import Table, TableRow
from robustframe.runs import Run, open_run, open_runs
from robustframe.statistics import PairedDifference, holm


def first(right: int, n: int = 1000) -> np.ndarray:
    return np.arange(n) < right


def build(folder: Path) -> Table:
    return robustness_table(open_run(folder))


def differences(table: Table) -> dict[tuple[str, str], TableRow]:
    return {(row.model, row.threat): row for row in table.rows if row.twin == "difference"}


def test_the_differences_of_a_table_are_tested_together(tmp_path: Path) -> None:
    clean = {"a": (first(900), first(909)), "b": (first(900), first(906))}
    robust = {
        ("a", "linf:0.1"): (first(500), first(508)), ("a", "l2:1"): (first(400), first(400)),
        ("b", "linf:0.1"): (first(300), first(310)), ("b", "l2:1"): (first(200), first(230)),
    }  # fmt: skip
    verdicts = {
        (f"{model}/{twin}", threat): (clean[model][at], each[at])
        for (model, threat), each in robust.items()
        for at, twin in enumerate(("feedforward", "recurrent"))
    }
    table = build(make_run(tmp_path / "run", verdicts))
    shown = differences(table)
    raw = {("clean", model): PairedDifference.of(*clean[model]).p_value for model in clean}
    raw |= {key: PairedDifference.of(*each).p_value for key, each in robust.items()}
    for (model, threat), row in shown.items():
        assert row.p_robust == raw[model, threat]
        assert row.p_clean == raw["clean", model]
        assert row.robust.low is not None
        assert row.robust.high is not None
        assert (row.robust.low <= 0 <= row.robust.high) == (raw[model, threat] >= 0.05)
    # The same clean images stand beside both threats, but they are one test.
    together = sum(p <= 0.05 for p in holm(list(raw.values())))
    assert 0 < together < sum(p <= 0.05 for p in raw.values())
    assert f"not adjusted for the 6 differences, of which {together} hold together" in table.caption
    assert "1,000 examples resolve about 3 points." in table.caption


def test_a_table_without_pairs_speaks_of_no_differences(tmp_path: Path) -> None:
    table = build(make_run(tmp_path / "run", {("net", "linf:0.1"): (first(90, 100), first(50, 100))}))
    assert "Holm" not in table.caption
    assert "McNemar" not in table.caption
    assert "100 examples resolve about 10 points." in table.caption


def test_with_five_pairs_coherence_is_set_against_robustness(tmp_path: Path) -> None:
    verdicts, coherence = {}, {}
    for at in range(5):
        for twin in ("feedforward", "recurrent"):
            verdicts[f"m{at}/{twin}", "linf:0.1"] = (first(90, 100), first(80 - 10 * at, 100))
            coherence[f"m{at}/{twin}"] = 0.3 + 0.1 * at
    table = build(make_run(tmp_path / "run", verdicts, coherence=coherence))
    said = "of recurrent twins under linf:0.1: Spearman's rho -1.00 [-1.00, -0.13], p = 0.034, 5 models."
    assert said in table.caption
    four = {key: each for key, each in verdicts.items() if not key[0].startswith("m4")}
    assert "Spearman" not in build(make_run(tmp_path / "four", four, coherence=coherence)).caption


def made(folder: Path, number: int, **changes: object) -> Run:
    """A run of model ``a``, with a hash of its own and whatever else is different."""
    verdicts = {(f"a/{twin}", "linf:0.1"): (first(90, 100), first(50, 100)) for twin in ("feedforward", "recurrent")}
    make_run(folder, verdicts, data=str(changes.pop("data", "1")) * 64)
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"hash": f"{number:064d}", **changes}))
    seal(folder)
    return open_run(folder, unfinished=True)


def test_runs_on_the_same_examples_share_a_table_and_others_do_not(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / name, number, data=data) for number, (name, data) in enumerate((("x", 1), ("y", 2), ("z", 1)))
    ]
    tables = robustness_tables(runs)
    assert [{row.model for row in table.rows} for table in tables] == [
        {"a (x-00000000)", "a (z-00000000)"},
        {"a"},
    ]
    assert tables[0].title.startswith("2 runs: digits test, 100 examples")
    assert "not adjusted for the 4 differences" in tables[0].caption
    assert tables[0].caption.endswith(f"Runs {runs[0].cited}, {runs[2].cited}.")
    assert runs[0].cited == f"x-00000000 (seal {runs[0].seal[:16]})"
    assert "Attacks: quick@1. " in tables[0].caption
    other = {"batteries": [{**BATTERY, "name": "swift"}]}
    (mixed,) = robustness_tables([runs[0], made(tmp_path / "w", 7, **other)])
    assert "quick@1 in x-00000000; swift@1 in w-00000000, which bound the robust accuracy" in mixed.caption
    with pytest.raises(InputError, match="are the same run; give it once"):
        open_runs([runs[0].folder, runs[0].folder])
    with pytest.raises(InputError, match="give at least one"):
        open_runs([])


def test_one_run_has_the_table_that_is_published(tmp_path: Path) -> None:
    run = made(tmp_path / "x", 1)
    assert robustness_tables([run]) == [robustness_table(run)]


@pytest.mark.parametrize(
    ("passed", "decides", "shown"),
    [(False, True, "suspicious"), (None, True, "checks not finished"), (None, False, "sound"), (True, True, "sound")],
)
def test_a_verdict_has_words_of_its_own(tmp_path: Path, passed: bool | None, decides: bool, shown: str) -> None:
    make_run(tmp_path / "run", {("a", "linf:0.1"): (first(90, 100), first(50, 100))})
    diagnose_row(tmp_path / "run", passed=passed, decides=decides)
    (row,) = build(tmp_path / "run").rows
    assert row.verdict == shown
    assert ("some-check" in row.note) == (shown != "sound")


UNFINISHED: dict[str, object] = {
    "status": "started", **dict.fromkeys(("results", "verdicts_sha256", "evidence_sha256"))
}  # fmt: skip


def test_an_unfinished_run_is_shown_as_such_and_has_no_number(tmp_path: Path) -> None:
    runs = [made(tmp_path / "x", 1), made(tmp_path / "y", 2, **UNFINISHED)]
    (table,) = robustness_tables(runs)
    unfinished = [row for row in table.rows if row.verdict == "run not finished"]
    assert [row.twin for row in unfinished] == ["feed-forward", "recurrent"]
    assert all(row.clean.value is None and row.robust.value is None for row in unfinished)
    assert all("y is not complete; the same evaluate command continues it" in row.note for row in unfinished)
    assert "not adjusted for the 2 differences" in table.caption
    with pytest.raises(InputError, match="is not complete"):
        open_run(tmp_path / "y")
