"""Claims: what makes one supported, and that every number comes from the published records and cards."""

from pathlib import Path

import numpy as np
import pytest
from claims import Published, _direction, _no_worse, claims, claims_table

from robustframe.errors import InputError
from robustframe.recipe import shipped_folder
from robustframe.statistics import Interval, crossed_mean, mean_of_few

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
    assert _direction(Interval(low, high), sign, 0.01) == standing


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [(-0.009, 0.0, "supported"), (-0.03, -0.011, "not supported"), (-0.011, 0.2, "undecided")],
)
def test_no_worse_allows_a_loss_of_less_than_a_point(low: float, high: float, standing: str) -> None:
    assert _no_worse(Interval(low, high)) == standing


def test_a_crossed_mean_is_wider_than_that_of_pooled_examples_where_models_differ() -> None:
    draws = np.random.default_rng(0)
    alike = draws.normal(0, 1, (6, 200))
    found = crossed_mean(alike, seed=0)
    assert found.value == pytest.approx(alike.mean())
    assert found.interval.low < found.value < found.interval.high
    apart = alike + np.linspace(-2, 2, 6)[:, None]
    wide, narrow = crossed_mean(apart, seed=0).interval, found.interval
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    # One model: the interval of its examples, close to the normal one.
    single = crossed_mean(alike[:1], seed=0)
    assert single.interval.high - single.interval.low == pytest.approx(2 * 1.96 * alike[0].std() / 200**0.5, rel=0.1)
    with pytest.raises(InputError, match="table of finite numbers"):
        crossed_mean(np.full((2, 3), np.nan), seed=0)


def test_a_crossed_interval_covers() -> None:
    """Random models and examples: the true mean 0 lies inside in about 95 % of experiments, rather more."""
    draws = np.random.default_rng(1)
    inside = 0
    for at in range(60):
        values = draws.normal(0, 0.5, (12, 1)) + draws.normal(0, 0.5, (1, 60)) + draws.normal(0, 1, (12, 60))
        found = crossed_mean(values, seed=at, resamples=500).interval
        inside += found.low <= 0 <= found.high
    assert inside >= 52


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


def test_a_gain_is_what_the_verdicts_say() -> None:
    evaluation = Published.read(EVALUATIONS / "aware" / "results")
    threat = evaluation.threats[0]
    (result, partner) = (
        next(r for r in evaluation.run.results if (r.classifier, r.threat) == (name, threat))
        for name in ("fmnist-chain3-16/recurrent", "fmnist-chain3-16/feedforward")
    )
    mean = evaluation.gain(["fmnist-chain3-16"], "robust", threat)
    assert mean.value == pytest.approx((result.robust_correct - partner.robust_correct) / result.examples)
    with pytest.raises(InputError, match="has no classifier 'nobody'"):
        evaluation.column("nobody", "robust")


def test_claims_ask_for_an_evaluation_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no claims on the evaluation 'default'"):
        claims(EVALUATIONS, only="default")
    with pytest.raises(InputError):
        claims(tmp_path, only="aware")
