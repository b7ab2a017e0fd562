"""Security curves: one bound per example, joined over all threats of a norm, and the contradictions between them."""

import math
from itertools import pairwise

import polars as pl
import pytest

from robustframe.errors import InputError
from robustframe.report.curve_text import curves_text
from robustframe.runs.curve import security_curves
from robustframe.runs.record import AttackEntry, Record, Result


def attack(use, position=1):
    return AttackEntry(
        battery="quick@1", position=position, use=use, settings={}, entered=4, broken=1, unverified=0,
        forwards=1, backwards=1, name=None, skipped=None, blind=0, nonfinite=0,
    )  # fmt: skip


def run(threats, *, classifiers=("net",)):
    """A record and verdicts from, for each threat, the distance of each example: 0 clean wrong, ``None`` robust."""
    rows, results = [], []
    for classifier in classifiers:
        for threat, found in threats.items():
            rows += [
                {
                    "classifier": classifier,
                    "threat": threat,
                    "index": index,
                    "clean_correct": distance != 0,
                    "robust": distance is None,
                    "broken_by": "quick@1/01-fab-t" if distance else None,
                    "distance": distance or None,
                }
                for index, distance in enumerate(found)
            ]
            results.append(
                Result(
                    classifier=classifier,
                    threat=threat,
                    examples=len(found),
                    clean_correct=0,
                    robust_correct=0,
                    certified_correct=None,
                    diagnosis=None,
                    attacks=[attack("fab-t"), attack("square", 2)],
                )
            )
    schema = {"clean_correct": pl.Boolean, "robust": pl.Boolean, "broken_by": pl.String, "distance": pl.Float64}
    record = Record.model_construct(name="test", results=results)
    return record, pl.DataFrame(rows, schema_overrides=schema)


def test_a_success_breaks_its_example_from_its_distance_on_whichever_threat_it_was_found_under():
    curves = security_curves(*run({"linf:0.1": [0, 0.1, None, None], "linf:0.5": [0, 0.04, 0.3, None]}))
    assert len(curves) == 1
    curve = curves[0]
    assert (curve.classifier, curve.norm, curve.index) == ("net", "linf", (0, 1, 2, 3))
    assert curve.distance == (0.0, 0.04, 0.3, math.inf)
    assert (curve.reach, curve.asked, curve.violations) == (0.5, (0.1, 0.5), ())
    counts = {eps: curve.at(eps).successes for eps in (0.0, 0.039, 0.04, 0.1, 0.299, 0.3, 0.5)}
    assert counts == {0.0: 3, 0.039: 3, 0.04: 2, 0.1: 2, 0.299: 2, 0.3: 1, 0.5: 1}
    assert curve.at(0.3).trials == 4
    assert [(point.eps, point.robust.successes) for point in curve.points()] == [
        (0.0, 3), (0.04, 2), (0.1, 2), (0.3, 1), (0.5, 1),
    ]  # fmt: skip
    interval = curve.at(0.3).interval()
    assert interval.low < 0.25 < interval.high


def test_a_curve_never_rises():
    found = {"l2:0.5": [0.4, None, 0.5, 0, None], "l2:1": [None, 0.9, None, 0, None], "l2:2": [1.5, 1.2, 1.9, 0, 1.1]}
    (curve,) = security_curves(*run(found))
    counts = [point.robust.successes for point in curve.points()]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0


def test_an_example_robust_at_a_larger_eps_than_it_was_broken_at_is_a_violation():
    small, middle, large = [0.4, 0.5, None, 0, None], [None, None, None, 0, 0.8], [None, None, None, 0, None]
    record, verdicts = run({"l2:0.5": small, "l2:1": middle, "l2:9": large})
    (curve,) = security_curves(record, verdicts)
    first, second, third = curve.violations
    assert (first.threat, first.found_under, first.examples) == ("l2:1", "l2:0.5", (0, 1))
    assert first.attacks == ("quick@1/01-fab-t", "quick@1/02-square")
    assert first.found_by == "quick@1/01-fab-t"
    assert (second.threat, second.found_under, second.examples) == ("l2:9", "l2:0.5", (0, 1))
    assert (third.threat, third.found_under, third.examples) == ("l2:9", "l2:1", (4,))
    assert str(first) == (
        "net: 2 examples are called robust under l2:1 by quick@1/01-fab-t, quick@1/02-square, and quick@1/01-fab-t "
        "broke them under l2:0.5"
    )
    # The run said that three are robust at 1; the curve knows that two of them are not.
    assert curve.at(1.0).successes == 1


def test_being_robust_at_a_smaller_eps_or_beyond_a_found_distance_is_none():
    (curve,) = security_curves(*run({"l2:0.5": [None, None], "l2:1": [0.7, 0.5000001], "l2:0.6": [None, 0.6]}))
    assert curve.violations == ()


def test_what_rounding_puts_beyond_the_sphere_counts_at_its_eps():
    (curve,) = security_curves(*run({"linf:0.1": [0.10000000149]}))
    assert curve.at(0.1).successes == 0


def test_each_classifier_and_norm_has_a_curve_of_its_own():
    threats = {"l2:0.5": [0.4, None], "linf:0.1": [0.05, 0.1], "l2:1": [0.3, None]}
    curves = security_curves(*run(threats, classifiers=("a", "b")))
    assert [(curve.classifier, curve.norm) for curve in curves] == [
        ("a", "l2"),
        ("a", "linf"),
        ("b", "l2"),
        ("b", "linf"),
    ]
    assert curves[0].distance == (0.3, math.inf)
    assert curves[1].distance == (0.05, 0.1)


def test_the_area_is_the_mean_accuracy_and_the_median_is_over_all_examples():
    (curve,) = security_curves(*run({"l2:1": [0, 0.2, 0.6, None]}))
    assert curve.area() == pytest.approx((0 + 0.2 + 0.6 + 1) / 4)
    assert curve.area(0.5) == pytest.approx((0 + 0.2 + 0.5 + 0.5) / 4 / 0.5)
    steps = [point.eps for point in curve.points()]
    sizes = [point.robust.value for point in curve.points()]
    assert curve.area() == pytest.approx(sum((b - a) * size for (a, b), size in zip(pairwise(steps), sizes)))
    assert curve.median_distance() == 0.2
    assert security_curves(*run({"l2:1": [0.2, None, None]}))[0].median_distance() is None
    assert security_curves(*run({"l2:1": [0.2, 0.3, None]}))[0].median_distance() == 0.3


@pytest.mark.parametrize("eps", [-0.1, 1.1, math.nan])
def test_nothing_is_said_of_radii_that_were_not_searched(eps):
    (curve,) = security_curves(*run({"l2:1": [0.2, None]}))
    with pytest.raises(InputError, match="largest that this run searched"):
        curve.at(eps)
    with pytest.raises(InputError, match="largest that was searched"):
        curve.area(eps)


def test_what_does_not_belong_together_is_refused():
    record, verdicts = run({"l2:1": [0.2, None], "l2:2": [0.2, None]})
    with pytest.raises(InputError, match="not complete"):
        security_curves(Record.model_construct(name="test", results=None), verdicts)
    with pytest.raises(InputError, match="no column distance"):
        security_curves(record, verdicts.drop("distance"))
    with pytest.raises(InputError, match="0 rows of net under l2:1"):
        security_curves(record, verdicts.filter(pl.col("threat") != "l2:1"))
    with pytest.raises(InputError, match="not one per example"):
        security_curves(record, pl.concat([verdicts, verdicts]))
    with pytest.raises(InputError, match="same examples"):
        security_curves(record, verdicts.filter((pl.col("threat") != "l2:1") | (pl.col("index") != 0)))
    with pytest.raises(InputError, match="have no distance"):
        security_curves(record, verdicts.with_columns(distance=pl.lit(None, pl.Float64)))


def test_the_text_has_a_table_a_norm_and_names_weak_attacks():
    curves = security_curves(*run({"l2:0.5": [0.4, None], "l2:1": [0.3, None], "linf:0.1": [0.05, 0.1]}))
    text = curves_text(curves, "md")
    assert "| Classifier | 0.5 | 1 | Median | Area |" in text
    assert "| net | 50.0 | 50.0 | 0.3 | 0.650 |" in text
    # A norm with one radius is shown at eight up to it.
    assert "| Classifier | 0.0125 | 0.025 | 0.0375 | 0.05 | 0.0625 | 0.075 | 0.0875 | 0.1 | Median | Area |" in text
    assert "WEAK ATTACK" not in text
    (weak,) = security_curves(*run({"linf:0.1": [0.04], "linf:0.5": [None]}))
    assert "WEAK ATTACK" in curves_text([weak])
    with pytest.raises(InputError, match="unknown format 'tex'"):
        curves_text(curves, "tex")
