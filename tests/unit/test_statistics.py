"""Intervals and paired tests against published values, closed forms and exact enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from robustframe.errors import InputError
from robustframe.statistics import Interval, PairedDifference, Proportion

Z95 = 1.959963984540054


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (1, 7), (913, 1000), (1, 1)])
def test_an_accuracy_has_wilsons_interval(successes: int, trials: int) -> None:
    p, n, z2 = successes / trials, trials, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    found = Proportion(successes, trials).interval()
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert 0 <= found.low <= p <= found.high <= 1
    assert Proportion(successes, trials).value == p


def test_a_perfect_score_is_not_certainty() -> None:
    assert Proportion(50, 50).interval().low == pytest.approx(1 - Z95**2 / (50 + Z95**2))
    assert Proportion(0, 50).interval().high == pytest.approx(Z95**2 / (50 + Z95**2))


@pytest.mark.parametrize(
    ("both", "only_a", "only_b", "neither", "low", "high"),
    [
        # Newcombe (1998), table of worked examples, method 10.
        (36, 12, 2, 0, 0.0569, 0.3404),
        # Bentur et al. (2009) as worked by Fagerland, Lydersen and Laake (2014), to three decimals.
        (1, 1, 7, 12, -0.507, -0.026),
    ],
)
def test_a_paired_difference_has_newcombes_published_interval(
    both: int, only_a: int, only_b: int, neither: int, low: float, high: float
) -> None:
    # Both sources take the first proportion less the second.
    found = PairedDifference(both=both, only_first=only_b, only_second=only_a, neither=neither).newcombe()
    tolerance = 5e-5 if abs(low) < 0.1 else 5e-4
    assert (found.low, found.high) == pytest.approx((low, high), abs=tolerance)


def test_no_differing_pair_still_leaves_a_width() -> None:
    perfect = PairedDifference(both=50, only_first=0, only_second=0, neither=0)
    edge = Z95**2 / (50 + Z95**2)
    assert perfect.value == 0
    assert perfect.p_value == 1
    assert (perfect.interval().low, perfect.interval().high) == pytest.approx((-edge, edge))
    mixed = PairedDifference(both=25, only_first=0, only_second=0, neither=25).interval()
    assert -0.05 < mixed.low < -0.03
    assert mixed.high == -mixed.low


def test_swapping_the_two_swaps_the_sign() -> None:
    one = PairedDifference(both=30, only_first=4, only_second=11, neither=15)
    other = PairedDifference(both=30, only_first=11, only_second=4, neither=15)
    assert one.value == -other.value == pytest.approx(7 / 60)
    assert one.p_value == other.p_value
    low, high = one.interval().low, one.interval().high
    assert (other.interval().low, other.interval().high) == pytest.approx((-high, -low))


def test_an_interval_holds_its_value_inside_the_possible_for_every_small_table() -> None:
    for counts in _tables(6):
        difference = PairedDifference(*counts)
        found = difference.interval()
        assert -1 <= found.low <= difference.value <= found.high <= 1
        assert found.low < found.high


def test_a_higher_level_gives_a_wider_interval() -> None:
    pair, single = PairedDifference(30, 4, 11, 15), Proportion(34, 60)
    for wide, narrow in (
        (pair.interval(0.99), pair.interval(0.9)),
        (single.interval(0.99), single.interval(0.9)),
    ):
        assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    "cells",
    [(0.5, 0.1, 0.1, 0.3), (0.3, 0.05, 0.25, 0.4), (0.05, 0.15, 0.1, 0.7), (0.2, 0.3, 0.3, 0.2)],
)
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(cells: tuple[float, ...]) -> None:
    """The coverage is summed over all tables of 14 pairs, so there is no chance in this test."""
    n, truth = 14, cells[2] - cells[1]
    covered = 0.0
    for counts in _tables(n):
        weight = math.factorial(n) / math.prod(math.factorial(count) for count in counts)
        probability = weight * math.prod(p**count for p, count in zip(cells, counts, strict=True))
        found, wider = PairedDifference(*counts).newcombe(), PairedDifference(*counts).interval()
        covered += probability * (found.low <= truth <= found.high)
        assert wider.low <= found.low < found.high <= wider.high
    assert 0.94 <= covered <= 0.99


def test_an_interval_and_the_exact_test_beside_it_never_disagree() -> None:
    """Over all tables of 14 pairs, and large ones near the edge; Newcombe's alone says more than the test in some."""
    alone = 0
    for counts in [*_tables(14), (400, 40, 60, 500), (400, 40, 59, 501), (400, 40, 61, 499), (9000, 9, 20, 971)]:
        pair = PairedDifference(*counts)
        for level in (0.9, 0.95):
            found, published = pair.interval(level), pair.newcombe(level)
            assert (found.low <= 0 <= found.high) == (pair.p_value >= 1 - level)
            assert found.low <= pair.value <= found.high
            alone += not published.low <= 0 <= published.high and pair.p_value >= 1 - level
    assert alone > 20


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 5), (3, 3), (1, 9), (7, 4), (10, 0), (5, 6)])
def test_mcnemar_equals_the_enumeration_of_every_coin_toss(only_first: int, only_second: int) -> None:
    tosses = only_first + only_second
    seen = abs(only_second - tosses / 2)
    extreme = sum(abs(sum(heads) - tosses / 2) >= seen for heads in itertools.product((0, 1), repeat=tosses))
    difference = PairedDifference(both=8, only_first=only_first, only_second=only_second, neither=2)
    assert difference.p_value == pytest.approx(extreme / 2**tosses)


@pytest.mark.parametrize("counts", [(0, 300), (140, 160), (1, 9_000), (49_000, 51_000), (7, 7), (8, 7)])
def test_mcnemar_equals_scipys_exact_test_of_a_coin(counts: tuple[int, int]) -> None:
    expected = binomtest(counts[0], sum(counts)).pvalue
    assert PairedDifference(0, *counts, 1).p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_two_verdicts_are_counted_example_by_example() -> None:
    first = np.array([True, True, True, False, False, False, False])
    second = np.array([True, False, False, True, True, True, False])
    difference = PairedDifference.of(first, second)
    assert difference == PairedDifference(both=1, only_first=2, only_second=3, neither=1)
    assert difference.n == 7
    assert difference.value == pytest.approx(second.mean() - first.mean())


def test_what_cannot_be_compared_is_refused_in_words() -> None:
    yes = np.ones(3, dtype=bool)
    with pytest.raises(InputError, match="needs the same examples, but there are 3 verdicts and 2"):
        PairedDifference.of(yes, yes[:2])
    with pytest.raises(InputError, match=r"verdicts must be bool of shape \(n,\), not int64"):
        PairedDifference.of(yes, yes.astype(np.int64))
    with pytest.raises(InputError, match=r"not bool of shape \(1, 3\)"):
        PairedDifference.of(yes[None], yes[None])
    with pytest.raises(InputError, match="there are no examples to compare"):
        PairedDifference.of(yes[:0], yes[:0])
    with pytest.raises(InputError, match="are not counts of pairs"):
        PairedDifference(0, 0, 0, 0)
    with pytest.raises(InputError, match="are not counts of pairs"):
        PairedDifference(3, -1, 0, 0)
    for successes, trials in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match=f"{successes} of {trials} is not a proportion"):
            Proportion(successes, trials)
    for level in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(InputError, match="must lie between 0 and 1"):
            Proportion(1, 2).interval(level)


def test_the_interval_is_plain_numbers() -> None:
    found = PairedDifference(1, 2, 3, 4).interval()
    assert isinstance(found, Interval)
    assert type(found.low) is type(found.high) is float


def _tables(n: int) -> list[tuple[int, int, int, int]]:
    """Every way to put n pairs into the four cells."""
    return [(a, b, c, n - a - b - c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)]


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilsons_interval_is_scipys_to_the_last_bit(level: float) -> None:
    # Published tables hold these numbers in full.
    for trials in (1, 7, 90, 1000):
        for successes in range(0, trials + 1, max(1, trials // 12)):
            theirs = binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
            assert Proportion(successes, trials).interval(level) == Interval(float(theirs.low), float(theirs.high))
