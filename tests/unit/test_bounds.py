"""Certified counts beside the empirical ones: what they are of, and that no attack gets past them."""

from pathlib import Path

import pytest
import torch

import robustframe
from robustframe.certify import lipschitz_radius
from robustframe.data import load
from robustframe.evaluation.bounds import certified_correct
from robustframe.report.robustness import robustness_table
from robustframe.report.tables import render
from robustframe.threat import ThreatModel
from robustframe.zoo import load_card

DIGITS = load("digits").first(60)


def test_the_ball_of_a_threat_must_lie_in_the_certified_ball() -> None:
    radii = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    for threat, count in (("l2:0.4", 3), ("l2:0.5", 2), ("l1:0.9", 2), ("linf:0.1", 2), ("linf:0.125", 1)):
        assert certified_correct(radii, ThreatModel.parse(threat), 64) == count, threat
    assert certified_correct(radii, ThreatModel.parse("l0:1"), 64) is None
    assert certified_correct(None, ThreatModel.parse("l2:0.4"), 64) is None


def test_a_pair_has_a_lower_bound_below_its_upper_one_and_the_table_shows_the_gap(
    tiny_card: Path, tmp_path: Path
) -> None:
    pair, _ = load_card(tiny_card)
    threats = ["l2:0.01", "l2:0.3", "linf:0.3"]
    run = robustframe.evaluate(
        pair, DIGITS.images, DIGITS.labels, threat=threats, battery="quick", out=tmp_path, diagnose=False
    )
    for result in run.results:
        twin = pair.feedforward if result.classifier.endswith("feedforward") else pair.recurrent
        radii = lipschitz_radius(twin, DIGITS.images, DIGITS.labels).radius
        assert result.certified_correct == certified_correct(radii, ThreatModel.parse(result.threat), 64)
        assert result.certified_correct is not None
        assert result.certified_correct <= result.robust_correct
    assert run.results[0].certified_correct
    table = robustness_table(run)
    for format in ("md", "tex", "csv", "terminal"):
        text = render(table, format)
        assert "ertified" in text
        # Where there is room for it.
        assert "(gap" in text or format != "md"


def test_a_model_without_a_certificate_has_no_bound_and_no_column(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    run = robustframe.evaluate(
        model, DIGITS.images, DIGITS.labels, threat="l2:0.3", battery="quick", out=tmp_path, diagnose=False
    )
    assert run.results[0].certified_correct is None
    assert "ertified" not in render(robustness_table(run), "md")


@pytest.mark.parametrize("threat", ["l2:0.05", "linf:0.006"])
def test_no_attack_breaks_what_is_certified(tiny_card: Path, tmp_path: Path, threat: str) -> None:
    pair, _ = load_card(tiny_card)
    run = robustframe.evaluate(
        pair, DIGITS.images, DIGITS.labels, threat=threat, battery="swift", out=tmp_path, diagnose=False
    )
    assert all((result.certified_correct or 0) <= result.robust_correct for result in run.results)


def test_a_column_of_zeros_is_a_sentence(tiny_card: Path, tmp_path: Path) -> None:
    pair, _ = load_card(tiny_card)
    threats = ["linf:0.3", "l2:0.01"]
    both = robustframe.evaluate(
        pair, DIGITS.images, DIGITS.labels, threat=threats, battery="quick", out=tmp_path / "both", diagnose=False
    )
    none = robustframe.evaluate(
        pair, DIGITS.images, DIGITS.labels, threat=threats[0], battery="quick", out=tmp_path / "one", diagnose=False
    )
    assert all(result.certified_correct == 0 for result in none.results)
    for format in ("md", "tex", "csv", "html"):
        assert "ertified" in render(robustness_table(both), format)
        text = render(robustness_table(none), format)
        assert "Certified" not in text.replace("<!--", "")
        assert ("No example is certified (Lipschitz bound)." in text) == (format != "csv")
