"""Families of tests, rankings, resampling and rank correlation against published values and exact enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from robustframe.errors import InputError
from robustframe.statistics import (
    PairedDifference,
    bootstrap_difference,
    holm,
    resolution,
    resolution_sentence,
    shared_ranks,
    spearman,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([0.3], [0.3]),
        # p.adjust(c(...), "holm") of R, from its documentation of the method.
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.5, 0.5, 0.0], [1.0, 1.0, 0.0]),
        ([0.2, 0.9, 1.0], [0.6, 1.0, 1.0]),
    ],
)
def test_holm_steps_down(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)


def test_holm_finds_something_false_as_seldom_as_it_says() -> None:
    """With independent uniform p-values the chance of any finding is at most the level; here it is counted."""
    rng = np.random.default_rng(0)
    families = rng.random((4000, 5))
    any_found = sum(min(holm(list(family))) <= 0.05 for family in families)
    # Exactly 1 - (1 - 0.05 / 5)^5 = 4.9 %, give or take 4 standard errors.
    assert any_found / 4000 == pytest.approx(1 - (1 - 0.01) ** 5, abs=4 * math.sqrt(0.049 * 0.951 / 4000))


def test_no_probability_is_refused() -> None:
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="is not a probability"):
            holm([0.1, wrong])


@pytest.mark.parametrize(
    ("examples", "points", "sentence"),
    [
        (1000, 3.09, "1,000 examples resolve about 3 points"),
        (10_000, 0.98, "10,000 examples resolve about 1 point"),
        (100, 9.62, "100 examples resolve about 10 points"),
        (100_000, 0.31, "100,000 examples resolve about 0.3 points"),
        (1, 40, "1 example resolves about 40 points"),
    ],
)
def test_the_resolution_is_half_the_widest_interval(examples: int, points: float, sentence: str) -> None:
    # Wilson's half width at 1/2 is z / (2 sqrt(n + z^2)); from an odd number of examples, a hair less.
    assert 100 * resolution(examples) == pytest.approx(points, abs=0.01 if examples > 1 else 1)
    assert resolution_sentence(examples) == sentence


def test_the_bootstrap_repeats_itself_and_agrees_with_newcombe() -> None:
    first = np.array([True] * 600 + [False] * 400)
    second = np.array([True] * 550 + [False] * 50 + [True] * 90 + [False] * 310)
    one = bootstrap_difference(first, second, seed=1)
    assert one == bootstrap_difference(first, second, seed=1)
    numbers = np.random.default_rng(0).normal(size=(2, 100))
    assert bootstrap_difference(*numbers, seed=1) != bootstrap_difference(*numbers, seed=2)
    closed = PairedDifference.of(first, second)
    assert (one.low, one.high) == pytest.approx((closed.interval().low, closed.interval().high), abs=0.003)
    assert one.low < closed.value < one.high


def test_the_bootstrap_keeps_pairs_together() -> None:
    """Numbers that vary wildly but differ by the same amount everywhere leave no doubt about that amount."""
    first = np.random.default_rng(0).normal(size=200) * 100
    same = bootstrap_difference(first, first + 1, seed=0)
    assert (same.low, same.high) == pytest.approx((1, 1))
    nearly = bootstrap_difference(first, first + 1 + 0.01 * np.sign(first), seed=0)
    assert 0.99 < nearly.low < nearly.high < 1.01


def test_the_bootstrap_refuses_what_is_not_paired() -> None:
    with pytest.raises(InputError, match="two arrays of one length"):
        bootstrap_difference(np.ones(3), np.ones(2), seed=0)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        bootstrap_difference(np.ones(3), np.ones(3), seed=0, level=95.0)


def verdicts(right: int, n: int = 400) -> np.ndarray:
    return np.arange(n) < right


def test_those_that_cannot_be_told_apart_share_a_rank() -> None:
    ranked = shared_ranks({"low": verdicts(100), "a": verdicts(300), "b": verdicts(302), "mid": verdicts(200)})
    assert [(each.name, each.rank) for each in ranked] == [("b", 1), ("a", 1), ("mid", 3), ("low", 4)]
    assert ranked[0].value == pytest.approx(302 / 400)


def test_no_two_without_a_significant_difference_have_different_ranks() -> None:
    """Neighbours 4 apart are not significantly different, the ends 40 apart are: one rank for all."""
    chain = {str(right): verdicts(right) for right in range(200, 244, 4)}
    ranked = shared_ranks(chain)
    assert PairedDifference.of(chain["200"], chain["240"]).p_value < 1e-9
    assert {each.rank for each in ranked} == {1}


def test_more_comparisons_ask_for_more_evidence() -> None:
    """7 examples in one direction: p = 0.016, enough for one pair, not for the smallest of ten."""
    two = {"a": verdicts(207), "b": verdicts(200)}
    assert [each.rank for each in shared_ranks(two)] == [1, 2]
    five = two | {f"c{at}": verdicts(200 - at) for at in range(1, 4)}
    assert [each.rank for each in shared_ranks(five)][:2] == [1, 1]


@pytest.mark.parametrize("seed", range(8))
def test_ranks_are_those_of_every_pair_tested_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = {f"m{at}": rng.random(150) < share for at, share in enumerate(rng.choice([0.1, 0.3, 0.5, 0.55], size=7))}
    ranked = shared_ranks(drawn)
    pairs = list(itertools.combinations([each.name for each in ranked], 2))
    ps = holm([PairedDifference.of(drawn[one], drawn[other]).p_value for one, other in pairs])
    tied = {pair for pair, p in zip(pairs, ps) if p > 0.05}
    names = [each.name for each in ranked]
    for place, each in enumerate(ranked):
        begins = not any((one, other) in tied for one in names[:place] for other in names[place:])
        assert (each.rank == place + 1) is begins, each


def test_a_ranking_needs_a_level_and_the_same_examples() -> None:
    with pytest.raises(InputError, match="significance level 5"):
        shared_ranks({"a": verdicts(3)}, level=5.0)
    with pytest.raises(InputError, match="needs the same examples"):
        shared_ranks({"a": verdicts(3), "b": verdicts(3, n=10)})
    assert shared_ranks({}) == []


def test_spearman_equals_scipys_and_its_p_the_enumeration_of_every_order() -> None:
    x, y = [0.5, 0.52, 0.61, 0.7, 0.7, 0.9], [0.4, 0.38, 0.33, 0.35, 0.2, 0.21]
    found = spearman(x, y, seed=0)
    assert found is not None
    rho = spearmanr(x, y).statistic
    assert found.value == pytest.approx(rho)
    every = [abs(spearmanr(order, y).statistic) for order in itertools.permutations(x)]
    assert found.p_value == pytest.approx(np.mean([each >= abs(rho) - 1e-9 for each in every]))
    assert found.n == 6


def test_a_perfect_order_of_four_is_no_proof() -> None:
    found = spearman([1, 2, 3, 4], [10, 20, 30, 40], seed=0)
    assert found is not None
    assert (found.value, found.p_value) == pytest.approx((1, 2 / 24))
    assert (found.interval.low, found.interval.high) == pytest.approx((1, 1))


def test_the_interval_of_a_correlation_narrows_with_the_number_of_things() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    few, many = spearman(x[:12], y[:12], seed=0), spearman(x, y, seed=0)
    assert few is not None
    assert many is not None
    assert few == spearman(x[:12], y[:12], seed=0)
    assert many.interval.high - many.interval.low < 0.6 * (few.interval.high - few.interval.low)
    for found in (few, many):
        assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1
    # Fisher's interval for ranks (Bonett and Wright, 2000) is close at n = 200.
    half = 1.96 * math.sqrt((1 + many.value**2 / 2) / (200 - 3))
    fisher = [math.tanh(math.atanh(many.value) + sign * half) for sign in (-1, 1)]
    assert (many.interval.low, many.interval.high) == pytest.approx(fisher, abs=0.03)


def test_what_has_no_ranks_has_no_correlation() -> None:
    assert spearman([1, 1, 1], [1, 2, 3], seed=0) is None
    for x, y in (([1, 2], [1, 2]), ([1, 2, 3], [1, 2])):
        with pytest.raises(InputError, match="at least 3 numbers"):
            spearman(x, y, seed=0)
    with pytest.raises(InputError, match="finite"):
        spearman([1, 2, math.nan], [1, 2, 3], seed=0)
