"""Records and cards that earlier states of the code wrote: they load, verify and show the table of their time."""

from pathlib import Path

import pytest

import robustframe
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
from robustframe.runs.record import read_record
from robustframe.zoo import ZOO, read_card

SAMPLES = Path(__file__).parent / "samples"
RUNS = ["oldest", "diagnosed", "certified"]
"""Before hashes of files, names of attacks and diagnoses; before certified counts; before none of these."""


@pytest.mark.parametrize("name", RUNS)
def test_a_record_of_earlier_loads_and_its_table_has_the_same_accuracies(name: str) -> None:
    record = read_record(SAMPLES / name)
    table = render(robustness_table(record, SAMPLES / name), "md")
    then = (SAMPLES / name / "table.md").read_text(encoding="utf-8")
    for result in record.results or []:
        assert f"{100 * result.robust_correct / result.examples:.1f} [" in table
    for line in then.splitlines():
        for cell in line.split("|"):
            if cell.strip().endswith("]") and "p" not in cell:
                assert cell in table, line


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_what_a_record_of_earlier_found_still_holds(name: str) -> None:
    found = robustframe.verify(SAMPLES / name, device="cpu")
    failed = {each.name for each in found.checks if each.state == "failed"}
    # Before the first release hashes were made of other parts, and the words about a battery were other ones.
    assert failed <= {"record", "batteries"}, str(found)
    assert {"data", "models", "clean", "verdicts"} <= {each.name for each in found.checks if each.state == "holds"}
    assert found.ok == (name == "certified"), str(found)


def test_what_an_old_record_does_not_know_is_unknown_and_not_zero() -> None:
    for result in read_record(SAMPLES / "oldest").results or []:
        assert result.diagnosis is None
        assert result.certified_correct is None
        assert {attack.blind for attack in result.attacks} == {None}


def test_a_card_of_earlier_loads() -> None:
    card = read_card(SAMPLES / "card.json")
    assert card.sha256 == read_card(ZOO / "fmnist-chain3.json").sha256
