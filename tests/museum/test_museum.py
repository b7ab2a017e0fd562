"""Every broken defence is caught for the right reason and broken by what is recommended; honest models are sound."""

import pytest
import tour
from exhibits import BROKEN, HONEST, Exhibit, Honest

CURED = 0.25
"""Robust accuracy up to which a defence counts as broken."""


@pytest.mark.slow
@pytest.mark.parametrize("exhibit", BROKEN, ids=lambda exhibit: exhibit.name)
def test_a_broken_defence_is_caught_and_broken_by_the_battery_made_for_it(exhibit: Exhibit) -> None:
    (row,) = tour.see(exhibit)
    assert row.verdict == "suspicious"
    assert set(exhibit.checks) <= set(row.checks)
    assert row.cured is not None
    assert row.cured <= CURED
    assert row.share <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("model", HONEST, ids=lambda model: model.name)
def test_an_honest_model_is_sound(model: Honest) -> None:
    for row in tour.see(model):
        assert row.verdict == "sound", row
        assert row.share <= 0.1


def test_the_page_shows_the_exhibits_that_there_are() -> None:
    shown = tour.exhibits(tour.PAGE.read_text(encoding="utf-8"))
    pieces = [(piece.name, piece.threat, piece.battery) for piece in (*BROKEN, *HONEST)]
    assert list(dict.fromkeys(shown)) == pieces, "stale: run `make museum`"


def test_the_page_of_checks_is_current() -> None:
    text = tour.CHECKS.read_text(encoding="utf-8")
    assert "<!-- checks -->" in text
    assert tour.fill(text) == text, "stale: run `make museum`"
