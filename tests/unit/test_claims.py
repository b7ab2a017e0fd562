"""Claims: what makes one supported, and that every number comes from the published records and cards."""

import re
from pathlib import Path

import numpy as np
import pytest
from claims import claims
from published import ERRORS, Basis, Published, least_potential
from wording import claims_table, direction, found_of, no_worse

from robustframe.errors import InputError
from robustframe.recipe import shipped_folder
from robustframe.report import robustness_table
from robustframe.report.figures import association_figure, gather_points, svg
from robustframe.report.site.board import read_runs
from robustframe.report.site.facts import Facts, card_of
from robustframe.report.site.findings import coherence_findings
from robustframe.report.site.rows import BoardRow, sections
from robustframe.runs import open_run
from robustframe.statistics import Interval, crossed_mean, mean_of_few
from robustframe.zoo import load

EVALUATIONS = shipped_folder("evaluations")


@pytest.mark.parametrize(
    ("low", "high", "sign", "standing"),
    [
        (0.01, 0.2, +1, "supported"),
        (-0.2, -0.01, -1, "supported"),
        (-0.2, -0.001, +1, "not supported"),
        (-0.004, 0.009, +1, "not supported"),
        (-0.004, 0.02, +1, "undecided"),
        (-0.2, 0.2, -1, "undecided"),
    ],
)
def test_a_direction_needs_the_whole_interval(low: float, high: float, sign: int, standing: str) -> None:
    assert direction(Interval(low, high), sign, 0.01) == standing


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [(-0.009, 0.0, "supported"), (-0.03, -0.011, "not supported"), (-0.011, 0.2, "undecided")],
)
def test_no_worse_allows_a_loss_of_less_than_a_point(low: float, high: float, standing: str) -> None:
    assert no_worse(Interval(low, high)) == standing


def test_a_crossed_mean_is_wider_than_that_of_pooled_examples_where_models_differ() -> None:
    draws = np.random.default_rng(0)
    alike = draws.normal(0, 1, (6, 200))
    found = crossed_mean(alike)
    assert found.value == pytest.approx(alike.mean())
    assert found.interval.low < found.value < found.interval.high
    apart = alike + np.linspace(-2, 2, 6)[:, None]
    wide, narrow = crossed_mean(apart).interval, found.interval
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    # One model: the interval of its examples.
    single = crossed_mean(alike[:1])
    assert single.interval.high - single.interval.low == pytest.approx(2 * 1.96 * alike[0].std() / 200**0.5, rel=0.03)
    with pytest.raises(InputError, match="table of finite numbers"):
        crossed_mean(np.full((2, 3), np.nan))
    with pytest.raises(InputError, match="2 groups were given for 6 models"):
        crossed_mean(alike, groups=["a", "b"])


@pytest.mark.parametrize(("of_models", "of_examples"), [(0.1, 0.2), (0.1, 0.0), (0.02, 0.2), (0.0, 0.0)], ids=str)
@pytest.mark.parametrize("models", [3, 4, 7, 20])
def test_an_interval_over_models_covers(models: int, of_models: float, of_examples: float) -> None:
    """The true mean 0 lies inside in at least 95 % of 800 experiments, less three standard errors."""
    draws, inside, tries = np.random.default_rng(models), 0, 800
    for _ in range(tries):
        values = draws.normal(0, of_models, (models, 1)) + draws.normal(0, of_examples, (1, 150))
        found = crossed_mean(values + draws.normal(0, 0.5, (models, 150))).interval
        inside += found.low <= 0 <= found.high
    assert inside >= tries * 0.95 - 3 * (tries * 0.95 * 0.05) ** 0.5


def test_repetitions_with_other_seeds_are_averaged_and_not_counted() -> None:
    """Three nets that differ by 10 points, each with five seeds that differ by 1: three things, not fifteen."""
    draws, inside, pooled, tries = np.random.default_rng(1), 0, 0, 600
    names = [name for name in "abc" for _ in range(5)]
    for _ in range(tries):
        of_nets = np.repeat(draws.normal(0, 0.1, 3), 5)[:, None]
        values = of_nets + draws.normal(0, 0.01, (15, 1)) + draws.normal(0, 0.4, (15, 100))
        one, other = crossed_mean(values, groups=names), crossed_mean(values)
        assert one.n == 3
        assert one.value == pytest.approx(other.value)
        inside += one.interval.low <= 0 <= one.interval.high
        pooled += other.interval.low <= 0 <= other.interval.high
    assert inside >= tries * 0.95 - 3 * (tries * 0.95 * 0.05) ** 0.5
    assert pooled < 0.8 * tries


@pytest.mark.parametrize(
    ("basis", "found"),
    [
        (Basis(9, 3, 3), "**supported**, alas"),
        (Basis(8, 3, 2), "3 nets, 2 seeds each or more: plain, alas"),
        (Basis(6, 2, 3), "2 nets, 3 seeds each or more: plain, alas"),
        (Basis(21, 21, 1), "21 pairs, one seed each: plain, alas"),
        (Basis(1, 1, 1), "one pair: plain, alas"),
    ],
)
def test_a_verdict_takes_three_seeds_on_three_architectures(basis: Basis, found: str) -> None:
    assert found_of(basis, "supported", "plain", ", alas") == found


def test_a_basis_counts_architectures_and_their_seeds() -> None:
    assert Basis.of(["fmnist-chain3-16", "fmnist-chain3-10", "fmnist-chain3-16-linf"]) == Basis(3, 3, 1)
    assert Basis.of(["fmnist-chain3-16"] * 3) == Basis(3, 1, 3)


def test_a_mean_of_few_is_students() -> None:
    found = mean_of_few(np.array([1.0, 2.0, 3.0]))
    # t(0.975, 2) = 4.3027, s = 1, s / sqrt(3)
    assert (found.interval.low, found.interval.high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    with pytest.raises(InputError, match="2 finite numbers or more"):
        mean_of_few(np.array([1.0]))


@pytest.mark.slow
def test_every_evaluation_of_the_papers_states_its_claims() -> None:
    found = claims(EVALUATIONS)
    # What an evaluation is, the way from a network to a pair, what lies beyond balls: these test no claim.
    others = ("default", "reframed", "threats")
    assert {claim.evaluation for claim in found} == {
        path.parent.name for path in EVALUATIONS.glob("*/recipe.toml") if path.parent.name not in others
    }
    table = claims_table(found, evaluations="../evaluations")
    assert table.count("\n") == len(found) + 1
    assert "[`aware`](../evaluations/aware/README.md)" in table
    assert all("nan" not in claim.figures for claim in found)
    # Nothing that is published has more than one seed.
    assert all("**" not in claim.found and "one" in claim.found for claim in found)


def _card_alone(row: BoardRow) -> Facts:
    return Facts(card_of(row.first), None, "", None, (), "")


def test_tables_board_figures_and_claims_print_one_number_for_one_statistic(tmp_path: Path) -> None:
    run = open_run(EVALUATIONS / "coherence" / "results")
    (claim,) = (
        claim for claim in claims(EVALUATIONS, only="coherence")
        if "mutual coherence" in claim.text and "recurrent" in claim.text
    )  # fmt: skip
    rho = re.search(r"within training and structure rho (\S+ \[.*?\], p = [\d.]+)", claim.figures)
    assert rho is not None
    assert rho[1] in robustness_table(run).caption
    drawn = svg(association_figure(gather_points([run])))
    assert f"recurrent: Spearman's ρ {rho[1]}".replace("-", "−") in drawn
    board = coherence_findings(sections(read_runs([str(run.folder)], tmp_path)), _card_alone)
    (cell,) = (each.cell for each in board if each.twin == "recurrent" and not each.structure)
    assert rho[1].startswith(f"{cell.value:+.2f} [{cell.low:+.2f}, {cell.high:+.2f}]")


def test_the_gap_is_the_test_error_less_the_training_error() -> None:
    evaluation = Published.read(EVALUATIONS / "generalisation-digits" / "results")
    card = load("digits-fc2-16")[1]
    assert card.training_accuracy is not None
    gap, error = (
        ERRORS[what](evaluation, "digits-fc2-16", "recurrent") for what in ("generalisation gap", "test error")
    )
    assert error == pytest.approx(1 - card.clean_accuracy.by_sweeps["4"])
    assert gap == pytest.approx(error - (1 - card.training_accuracy.by_sweeps["4"]))
    assert least_potential("digits-fc2-8") > least_potential("digits-fc2-512")


def test_a_gain_is_what_the_verdicts_say() -> None:
    evaluation = Published.read(EVALUATIONS / "aware" / "results")
    threat = evaluation.threats[0]
    (result, partner) = (
        next(r for r in evaluation.run.results if (r.classifier, r.threat) == (name, threat))
        for name in ("fmnist-chain3-16/recurrent", "fmnist-chain3-16/feedforward")
    )
    mean = evaluation.gain(["fmnist-chain3-16"], "robust", threat)
    assert mean.value == pytest.approx((result.robust_correct - partner.robust_correct) / result.examples)
    difference = next(
        row for row in robustness_table(evaluation.run).rows
        if (row.model, row.twin, row.threat) == ("fmnist-chain3-16", "difference", threat)
    )  # fmt: skip
    assert (mean.interval.low, mean.interval.high) == (difference.robust.low, difference.robust.high)
    with pytest.raises(InputError, match="has no classifier 'nobody'"):
        evaluation.column("nobody", "robust")


def test_claims_ask_for_an_evaluation_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no claims on the evaluation 'default'"):
        claims(EVALUATIONS, only="default")
    with pytest.raises(InputError):
        claims(tmp_path, only="aware")
