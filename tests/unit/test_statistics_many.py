"""Families of tests, rankings and rank correlations against published values, exact enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from robustframe.errors import InputError
from robustframe.statistics import (
    PairedDifference,
    clears_floor,
    family_sentence,
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


def test_spearman_equals_scipys_and_its_p_is_no_smaller_than_the_enumeration_of_every_order() -> None:
    x, y = [0.5, 0.52, 0.61, 0.7, 0.7, 0.9], [0.4, 0.38, 0.33, 0.35, 0.2, 0.21]
    found = spearman(x, y)
    assert found is not None
    rho = spearmanr(x, y).statistic
    assert found.value == pytest.approx(rho)
    every = np.mean([abs(spearmanr(order, y).statistic) >= abs(rho) - 1e-9 for order in itertools.permutations(x)])
    z = math.atanh(rho) / math.sqrt((1 + rho**2 / 2) / (6 - 3))
    assert found.p_value == pytest.approx(max(every, 2 * norm.sf(abs(z))))
    assert found.n == 6


@given(st.permutations(range(12)), st.integers(0, 5))
@settings(max_examples=5, deadline=None)
def test_a_correlation_does_not_depend_on_the_order_of_rows(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, size = rng.integers(0, 6, 12).astype(float), rng.normal(size=12), rng.normal(size=12)
    names = ["ab"[at % 2] for at in range(12)]
    for given_, groups in (((), None), ((size,), None), ((), names)):
        one = spearman(x, y, given=given_, groups=groups)
        moved = [np.array(each)[order] for each in (x, y, *given_)]
        other = spearman(
            moved[0], moved[1], given=moved[2:], groups=None if groups is None else [groups[at] for at in order]
        )
        assert one == other


@pytest.mark.parametrize("n", [4, 6, 9, 25])
def test_an_interval_of_ranks_holds_zero_exactly_where_p_says_so(n: int) -> None:
    rng = np.random.default_rng(n)
    told = 0
    for _ in range(60):
        x = rng.normal(size=n)
        found = spearman(x, 0.7 * x + rng.normal(size=n))
        assert found is not None
        assert (found.interval.low <= 0 <= found.interval.high) == (found.p_value >= 0.05)
        assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1
        told += found.p_value < 0.05
    # Of four things no order is told from chance.
    assert told == 0 if n == 4 else told > 0


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [7, 21])
def test_the_interval_of_a_correlation_covers(n: int, rho: float) -> None:
    """Pearson's rho of normal numbers gives Spearman's; 500 experiments, 95 % less three standard errors."""
    rng = np.random.default_rng(0)
    truth, inside = 6 / math.pi * math.asin(rho / 2), 0
    for _ in range(500):
        x = rng.normal(size=n)
        found = spearman(x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n))
        assert found is not None
        inside += found.interval.low <= truth <= found.interval.high
    assert inside >= 500 * 0.95 - 3 * math.sqrt(500 * 0.95 * 0.05)


def test_a_perfect_order_of_four_is_no_proof() -> None:
    found = spearman([1, 2, 3, 4], [10, 20, 30, 40])
    assert found is not None
    assert found.value == pytest.approx(1)
    assert found.p_value >= 2 / 24
    assert found.interval.low <= 0
    assert found.interval.high == pytest.approx(1)


def test_the_interval_of_a_correlation_narrows_with_the_number_of_things() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    few, many = spearman(x[:12], y[:12]), spearman(x, y)
    assert few is not None
    assert many is not None
    assert many.interval.high - many.interval.low < 0.6 * (few.interval.high - few.interval.low)
    # Fisher's interval for ranks (Bonett and Wright, 2000).
    half = 1.96 * math.sqrt((1 + many.value**2 / 2) / (200 - 3))
    fisher = [math.tanh(math.atanh(many.value) + sign * half) for sign in (-1, 1)]
    assert (many.interval.low, many.interval.high) == pytest.approx(fisher, abs=1e-4)


def test_a_partial_correlation_takes_out_what_is_given() -> None:
    """Two numbers that follow a third and nothing else: of one another they know nothing once it is given."""
    rng = np.random.default_rng(1)
    size = rng.normal(size=60)
    x, y = size + 0.3 * rng.normal(size=60), size + 0.3 * rng.normal(size=60)
    plain, partial = spearman(x, y), spearman(x, y, given=[size])
    assert plain is not None
    assert partial is not None
    assert plain.value > 0.8
    assert plain.p_value < 0.001
    assert abs(partial.value) < 0.25
    assert partial.p_value > 0.05
    # The textbook's formula for one given number.
    r = {pair: spearmanr(*pair_).statistic for pair, pair_ in {"xy": (x, y), "xs": (x, size), "ys": (y, size)}.items()}
    textbook = (r["xy"] - r["xs"] * r["ys"]) / math.sqrt((1 - r["xs"] ** 2) * (1 - r["ys"] ** 2))
    assert partial.value == pytest.approx(textbook)
    # What follows from the given number has nothing left.
    assert spearman(-size, y, given=[size]) is None


def test_a_partial_correlation_finds_what_is_not_there_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(300):
        size = rng.normal(size=15)
        partial = spearman(size + rng.normal(size=15), size + rng.normal(size=15), given=[size])
        found += partial is not None and partial.p_value < 0.05
    assert found <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_groups_that_are_flat_are_not_made_steep_by_pooling() -> None:
    """Two groups, no order within either, one higher in both numbers: pooled it looks like a law."""
    rng = np.random.default_rng(2)
    names = ["a"] * 15 + ["b"] * 15
    x = rng.normal(size=30) + 10 * np.repeat([0, 1], 15)
    y = rng.normal(size=30) + 10 * np.repeat([0, 1], 15)
    pooled, within = spearman(x, y), spearman(x, y, groups=names)
    assert pooled is not None
    assert within is not None
    assert pooled.value > 0.7
    assert pooled.p_value < 0.001
    assert abs(within.value) < 0.3
    assert within.p_value > 0.05
    assert (within.groups, within.n) == (2, 30)
    # One of its own kind ranks among nobody.
    alone = spearman([*x, 99.0], [*y, -99.0], groups=[*names, "c"])
    assert alone is not None
    assert (alone.value, alone.n) == (within.value, 30)


def test_what_has_no_ranks_has_no_correlation() -> None:
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1, 2, 3], [1, 2, 3], groups=["a", "b", "c"]) is None
    for x, y in (([1, 2], [1, 2]), ([1, 2, 3], [1, 2])):
        with pytest.raises(InputError, match="at least 3 numbers"):
            spearman(x, y)
    with pytest.raises(InputError, match="finite"):
        spearman([1, 2, math.nan], [1, 2, 3])


def test_what_is_wrong_without_an_attack_is_no_row_of_a_correlation_with_robustness() -> None:
    assert clears_floor([0.88, 0.14, 0.35, 0.67, 0.65]) == [True, False, False, True, False]
    assert clears_floor([]) == []


@pytest.mark.parametrize(
    ("ps", "sentence"),
    [
        ([0.001, 0.03, 0.04], "the 3 differences, of which 1 holds together (Holm, 5 %)"),
        ([0.04, 0.03], "the 2 differences, of which 0 hold together (Holm, 5 %)"),
        ([0.04], "the 1 difference, of which 1 holds together (Holm, 5 %)"),
    ],
)
def test_a_family_is_judged_in_a_sentence(ps: list[float], sentence: str) -> None:
    assert family_sentence(ps, of="differences") == f"p and interval not adjusted for {sentence}"
