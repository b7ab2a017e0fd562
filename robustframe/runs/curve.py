"""Security curves: robust accuracy as a function of eps, joined from everything a run found in one norm."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from robustframe.errors import InputError
from robustframe.runs.record import Record, Result
from robustframe.runs.verdicts import by_result
from robustframe.statistics import Proportion
from robustframe.threat import ThreatModel
from robustframe.types import Norm

_NEEDED = ("classifier", "threat", "index", "clean_correct", "robust", "broken_by", "distance")


@dataclass(frozen=True)
class Violation:
    """Examples called robust under a threat, although the same run holds a nearer adversarial example of each.

    The curve counts them as broken. The number that the run reports for this threat is too high, for its attacks were
    too weak there.
    """

    classifier: str
    threat: str
    """The threat under which the examples were called robust."""
    attacks: tuple[str, ...]
    """Every attack that failed on them there, such as ``quick@1/02-apgd-t``."""
    found_under: str
    """The threat under which the nearest adversarial examples were found."""
    found_by: str
    """The attack that found them."""
    examples: tuple[int, ...]
    """Their indices in the data set."""

    def __str__(self) -> str:
        return (
            f"{self.classifier}: {len(self.examples)} examples are called robust under {self.threat} by "
            f"{', '.join(self.attacks)}, and {self.found_by} broke them under {self.found_under}"
        )


@dataclass(frozen=True)
class Point:
    """The curve at one radius."""

    eps: float
    robust: Proportion


@dataclass(frozen=True)
class Curve:
    """Robust accuracy of one classifier in one norm, for every radius.

    An adversarial example at distance d breaks its example for every eps from d on, so the curve cannot rise. Between
    and above the radii at which a run asked, it is an upper bound, as every robust accuracy found by attacks is.
    """

    classifier: str
    norm: Norm
    kind: str
    """The norm and what was sought, such as ``linf to next``: curves of one kind may stand beside each other."""
    index: tuple[int, ...]
    """The examples, by their index in the data set."""
    distance: tuple[float, ...]
    """Of the nearest adversarial example known: 0 for an image that is wrong by itself, infinity where none is."""
    reach: float
    """The largest radius that was searched; above it nothing is known of what is not broken."""
    asked: tuple[float, ...]
    """The radii of the run's threats, rising."""
    violations: tuple[Violation, ...] = ()

    @property
    def line(self) -> bool:
        """Whether several radii were attacked, so that there is a curve between them and not one point."""
        return len(self.asked) > 1

    def at(self, eps: float) -> Proportion:
        """Count the examples that no adversarial example within a radius is known of.

        Args:
            eps: radius in input units, from 0 to ``reach``.

        Returns:
            The robust of all examples; its `interval` is Wilson's.

        Raises:
            InputError: for a radius that was not searched.
        """
        if not 0 <= eps <= self.reach:
            raise InputError(f"eps {eps} must lie between 0 and {self.reach}, the largest that this run searched")
        return Proportion(sum(each > eps for each in self.distance), len(self.distance))

    def points(self, parts: int | None = None) -> tuple[Point, ...]:
        """Return the curve where it falls, at 0 and at the radii of the threats, by rising radius.

        Args:
            parts: for a picture, that many parts of the reach, each of which shows where it ends; all when ``None``.
        """
        ordered = np.sort(np.asarray(self.distance))
        turns = np.unique(np.concatenate([[0.0], self.asked, ordered[ordered <= self.reach]]))
        if parts is not None:
            part = np.floor(parts * turns / self.reach)
            turns = turns[np.append(part[1:] != part[:-1], True) | np.isin(turns, (0.0, *self.asked))]
        robust = len(ordered) - np.searchsorted(ordered, turns, side="right")
        return tuple(Point(float(eps), Proportion(int(count), len(ordered))) for eps, count in zip(turns, robust))

    def area(self, upto: float | None = None) -> float:
        """Average the robust accuracy over all radii from 0 to one.

        Args:
            upto: the last radius, above 0; ``reach`` when ``None``.

        Returns:
            A fraction in [0, 1]: the area under the curve over that of a classifier that is never broken.

        Raises:
            InputError: for a radius that was not searched.
        """
        end = self.reach if upto is None else upto
        if not 0 < end <= self.reach:
            raise InputError(f"upto {end} must lie above 0 and not above {self.reach}, the largest that was searched")
        return float(np.minimum(self.distance, end).mean() / end)

    def median_distance(self) -> float | None:
        """Return the radius at which half of all examples are broken; ``None`` when more than half never were."""
        middle = float(np.sort(np.asarray(self.distance))[(len(self.distance) - 1) // 2])
        return middle if math.isfinite(middle) else None


def security_curves(record: Record, verdicts: pl.DataFrame) -> list[Curve]:
    """Join what a run found into one curve for each classifier and kind of threat.

    Successes at a fixed eps and those of minimal-norm attacks are the same thing here: upper bounds on the distance of
    an example, the smallest of which holds.

    Args:
        record: the record of a complete run.
        verdicts: its ``verdicts.parquet``: a row for each classifier, threat and example.

    Returns:
        The curves, classifiers in the order of the record, kinds in that of the threats.

    Raises:
        InputError: when the run is not complete, or the verdicts are not those of its classifiers and threats.
    """
    if record.results is None:
        raise InputError(f"{record.name} is not complete; run the same evaluate command again to continue it")
    missing = [column for column in _NEEDED if column not in verdicts.columns]
    if missing:
        raise InputError(f"the verdicts of {record.name} have no column {', '.join(missing)}")
    curves, rows = [], by_result(verdicts)
    of: dict[str, list[Result]] = {}
    for result in record.results:
        of.setdefault(result.classifier, []).append(result)
    for classifier, results in of.items():
        threats = [ThreatModel.parse(each.threat) for each in results]
        attacks = {
            each.threat: tuple(attack.label for attack in each.attacks if attack.skipped is None) for each in results
        }
        own = {threat.label: rows.get((classifier, threat.label), verdicts.clear()) for threat in threats}
        for kind in dict.fromkeys(threat.kind for threat in threats):
            same = [threat for threat in threats if threat.kind == kind]
            curves.append(_curve(classifier, same, own, attacks))
    return curves


def _curve(
    classifier: str,
    threats: list[ThreatModel],
    own: Mapping[str, pl.DataFrame],
    attacks: Mapping[str, tuple[str, ...]],
) -> Curve:
    tables = {threat: _bounds(classifier, threat, own[threat.label]) for threat in threats}
    index = tables[threats[0]]["index"].to_list()
    if any(table["index"].to_list() != index for table in tables.values()):
        raise InputError(f"{classifier} was not evaluated on the same examples under all threats in {threats[0].norm}")
    nearest = (
        pl.concat([table.with_columns(under=pl.lit(threat.label)) for threat, table in tables.items()])
        .sort("index", "bound", maintain_order=True)
        .unique("index", keep="first", maintain_order=True)
    )
    violations = [
        each
        for threat, table in tables.items()
        for each in _violations(classifier, threat, table, nearest, attacks[threat.label])
    ]
    asked = sorted({threat.eps for threat in threats})
    return Curve(
        classifier=classifier,
        norm=threats[0].norm,
        kind=threats[0].kind,
        index=tuple(index),
        distance=tuple(nearest["bound"].to_list()),
        reach=asked[-1],
        asked=tuple(asked),
        violations=tuple(violations),
    )


def _bounds(classifier: str, threat: ThreatModel, rows: pl.DataFrame) -> pl.DataFrame:
    """What one threat says of each example: an upper bound on its distance, and who found it."""
    if not len(rows) or rows["index"].n_unique() != len(rows):
        raise InputError(
            f"the verdicts hold {len(rows)} rows of {classifier} under {threat.label}, not one per example"
        )
    unmeasured = rows.filter(pl.col("clean_correct") & ~pl.col("robust") & pl.col("distance").is_null())
    if len(unmeasured):
        raise InputError(f"{classifier}, {threat.label}: {len(unmeasured)} broken examples have no distance")
    # What was stored may lie beyond the sphere by the rounding of its pixels; it counted at this eps all the same.
    reached = pl.min_horizontal("distance", pl.lit(threat.eps))
    bound = pl.when(~pl.col("clean_correct")).then(0.0).when(pl.col("robust")).then(math.inf).otherwise(reached)
    return rows.select("index", bound.alias("bound"), "robust", "broken_by")


def _violations(
    classifier: str, threat: ThreatModel, table: pl.DataFrame, nearest: pl.DataFrame, attacks: tuple[str, ...]
) -> Iterable[Violation]:
    """The examples that this threat calls robust and a nearer adversarial example of another does not."""
    joined = table.filter(pl.col("robust")).join(nearest, on="index", suffix="_nearest", maintain_order="left")
    wrong = joined.filter(pl.col("bound_nearest") <= threat.eps)
    for (under, by), group in wrong.group_by("under", "broken_by_nearest", maintain_order=True):
        yield Violation(classifier, threat.label, attacks, str(under), str(by), tuple(group["index"].to_list()))
