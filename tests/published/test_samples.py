"""Records and cards that earlier states of the code wrote: they load, verify and show the table of their time."""

from pathlib import Path

import pytest

import robustframe
from robustframe.record import read_record
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
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


def test_a_record_of_earlier_verifies() -> None:
    # The newest sample is what evaluations/default published, which verifies there.
    assert robustframe.verify(SAMPLES / "diagnosed", device="cpu").ok
    oldest = robustframe.verify(SAMPLES / "oldest", device="cpu")
    # Its hash was made of other parts then; all else holds.
    assert [each.name for each in oldest.checks if each.state == "failed"] == ["record"], str(oldest)
    assert "another state of the code made it" in str(oldest)


def test_what_an_old_record_does_not_know_is_unknown_and_not_zero() -> None:
    for result in read_record(SAMPLES / "oldest").results or []:
        assert result.diagnosis is None
        assert result.certified_correct is None
        assert {attack.blind for attack in result.attacks} == {None}


def test_a_card_of_earlier_loads() -> None:
    card = read_card(SAMPLES / "card.json")
    assert card.sha256 == read_card(ZOO / "fmnist-chain3.json").sha256
