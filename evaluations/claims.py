"""The claims of the papers that this project grew from, and what the published evaluations say of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robustframe.errors import InputError
from robustframe.runs import Run, open_run
from robustframe.statistics import Association, Interval, Mean, crossed_mean, mean_of_few, spearman
from robustframe.zoo import Card, load

Standing = Literal["supported", "not supported", "undecided"]

_POINT = 0.01
"""A difference of accuracies below this is no effect worth a claim."""
_WEAK = 0.2
"""Nor is a rank correlation below this."""


@dataclass(frozen=True)
class Claim:
    """One claim and its test."""

    text: str
    source: str
    evaluation: str
    """Folder in ``evaluations/``."""
    standing: Standing
    figures: str
    """The evidence: effect, interval, number of models."""


def claims(evaluations: Path, *, only: str | None = None) -> list[Claim]:
    """Test every claim on the published records.

    A claim of a direction is *supported* when the whole 95 % interval lies on its side of zero, and *not supported*
    when it lies on the other side or is too close to zero to matter (within a point of accuracy, or 0.2 of a
    rank correlation); otherwise it is *undecided*. A claim to be no worse is supported when the interval excludes a
    loss of a point, and not supported when it lies below that.

    Args:
        evaluations: the folder with a folder per evaluation, each with its ``results``.
        only: the evaluation whose claims are wanted; all when left out.

    Raises:
        InputError: for an evaluation without claims, or a record that is missing or incomplete.
    """
    if only is not None and only not in _TESTS:
        raise InputError(f"there are no claims on the evaluation {only!r}; it is one of {', '.join(_TESTS)}")
    return [
        claim
        for name, test in _TESTS.items()
        if only in (None, name)
        for claim in test(Published.read(evaluations / name / "results"))
    ]


def claims_table(found: Sequence[Claim], *, evaluations: str | None = None) -> str:
    """Write claims as a Markdown table.

    Args:
        found: the claims.
        evaluations: the path of ``evaluations/`` as seen from the page, for links; without it none are made.
    """
    lines = ["| Claim | | Evidence | Evaluation |", "| :-- | :-- | :-- | :-- |"]
    for claim in found:
        place = f"`{claim.evaluation}`"
        if evaluations is not None:
            place = f"[{place}]({evaluations}/{claim.evaluation}/README.md)"
        lines.append(f"| {claim.text} ({claim.source}) | **{claim.standing}** | {claim.figures} | {place} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Published:
    """An evaluation that was published."""

    name: str
    run: Run

    @classmethod
    def read(cls, folder: Path) -> "Published":
        """Read the results of an evaluation.

        Raises:
            InputError: when they are missing, incomplete or altered.
        """
        return cls(folder.parent.name, open_run(folder))

    @property
    def threats(self) -> list[str]:
        """The threats, in the order of the recipe."""
        return [threat.label for threat in self.run.threats]

    def models(self, chosen: Callable[[Card], bool]) -> list[str]:
        """The names of the zoo pairs whose card is chosen, in the order of the recipe."""
        names = dict.fromkeys(entry.model for entry in self.run.record.classifiers if entry.use == f"zoo:{entry.model}")
        return [name for name in names if chosen(card_of(name))]

    def column(self, classifier: str, column: str, threat: str | None = None) -> NDArray[np.float64]:
        """One number per example: ``"robust"`` (under a threat, or averaged over all) or ``"clean_correct"``."""
        threats = self.threats if threat is None else [threat]
        rows = [self.run.rows(classifier, each) for each in threats]
        if not len(rows[0]):
            raise InputError(f"the evaluation {self.name} has no classifier {classifier!r}")
        columns: NDArray[np.float64] = np.stack([each[column].to_numpy().astype(np.float64) for each in rows])
        return np.asarray(columns.mean(0), dtype=np.float64)

    def gain(self, models: Sequence[str], column: str, threat: str | None = None) -> Mean:
        """How much more the recurrent twins get right than the feed-forward ones, over models and examples."""
        rows = [
            self.column(f"{name}/recurrent", column, threat) - self.column(f"{name}/feedforward", column, threat)
            for name in models
        ]
        return crossed_mean(np.stack(rows), seed=0)

    def between(self, pairs: Sequence[tuple[str, str]], threat: str | None = None) -> Mean:
        """How much more robust the second classifiers are than the first."""
        rows = [self.column(second, "robust", threat) - self.column(first, "robust", threat) for first, second in pairs]
        return crossed_mean(np.stack(rows), seed=0)


@cache
def card_of(name: str) -> Card:
    """The card of a zoo pair."""
    return load(name)[1]


def _direction(interval: Interval, sign: int, negligible: float) -> Standing:
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > 0:
        return "supported"
    return "not supported" if high < 0 or -negligible < low <= high < negligible else "undecided"


def _no_worse(interval: Interval) -> Standing:
    if interval.low > -_POINT:
        return "supported"
    return "not supported" if interval.high < -_POINT else "undecided"


def _points(mean: Mean) -> str:
    return f"{100 * mean.value:+.1f} [{100 * mean.interval.low:+.1f}, {100 * mean.interval.high:+.1f}] points"


def _rho(found: Association) -> str:
    p = f"p = {found.p_value:.2g}" if found.p_value >= 0.001 else "p < 0.001"
    return f"rho {found.value:+.2f} [{found.interval.low:+.2f}, {found.interval.high:+.2f}], {p}, {found.n} models"


def _correlation(x: Sequence[float], y: Sequence[float]) -> Association:
    found = spearman(x, y, seed=0)
    if found is None:
        raise InputError("all models have the same number, so there is nothing to correlate")
    return found


def generalisation_error(evaluation: Published, name: str, twin: str) -> float:
    """Accuracy on training images, which the card states, less that on the evaluation's test images."""
    card = card_of(name)
    if card.training_accuracy is None:
        raise InputError(f"the card of {name} states no training accuracy; train it again")
    trained = card.training_accuracy.by_sweeps[str(1 if twin == "feedforward" else card.sweeps)]
    return trained - float(evaluation.column(f"{name}/{twin}", "clean_correct").mean())


def least_potential(name: str) -> float:
    """The least deep frame potential of a pair's architecture."""
    least = card_of(name).least_potential
    if least is None:
        raise InputError(f"the card of {name} states no least potential; train it again")
    return least.value


_PAPER = "arXiv:2103.05804"
_PURSUIT = "arXiv:2011.14427"


def _generalisation(evaluation: Published) -> Iterator[Claim]:
    names = evaluation.models(lambda card: card.least_potential is not None)
    least = [least_potential(name) for name in names]
    use = "Fashion-MNIST" if evaluation.run.record.data.use == "fashion-mnist" else "the digits"
    for twin, word in (("feedforward", "feed-forward"), ("recurrent", "recurrent")):
        found = _correlation(least, [generalisation_error(evaluation, name, twin) for name in names])
        yield Claim(
            f"An architecture's generalisation error follows its least deep frame potential ({use}, {word} twins)",
            _PAPER, evaluation.name, _direction(found.interval, +1, _WEAK), _rho(found),
        )  # fmt: skip


def _architectures(evaluation: Published) -> Iterator[Claim]:
    yield from _generalisation(evaluation)
    cells: dict[tuple[int, int], dict[str, str]] = {}
    for name in evaluation.models(lambda card: True):
        card = card_of(name)
        first = card.layers[0]
        filters = first["filters"] if isinstance(first, dict) else first.code[0]
        cells.setdefault((len(card.layers), filters), {})[card.structure] = name
    whole = [cell for cell in cells.values() if len(cell) == 3]
    for worse, better in (("chain", "residual"), ("residual", "dense")):
        errors = [
            [generalisation_error(evaluation, cell[structure], "feedforward") for structure in (worse, better)]
            for cell in whole
        ]
        mean = mean_of_few(np.array([first - second for first, second in errors]))
        yield Claim(
            f"At equal depth, width and parameters {better} frames generalise better than {worse} frames",
            _PAPER, evaluation.name, _direction(mean.interval, +1, _POINT / 10),
            f"generalisation error {_points(mean)} smaller, {mean.n} pairs of architectures",
        )  # fmt: skip


def _accuracy(evaluation: Published) -> Iterator[Claim]:
    mean = evaluation.gain(evaluation.models(lambda card: not card.untied), "clean_correct")
    yield Claim(
        "The recurrent twin is as accurate as the feed-forward one", _PAPER, evaluation.name,
        _no_worse(mean.interval), f"recurrent {_points(mean)}, {mean.n} pairs",
    )  # fmt: skip


def _trained(card: Card, *, adversarially: bool) -> bool:
    return bool(card.recipe.get("adversary")) == adversarially


def _robustness(measured: str) -> Callable[[Published], Iterator[Claim]]:
    def test(evaluation: Published) -> Iterator[Claim]:
        for trained, adversarial in (("normally", False), ("adversarially", True)):
            of_kind = partial(_trained, adversarially=adversarial)
            names = evaluation.models(of_kind)
            mean = evaluation.gain(names, "robust")
            each = ", ".join(
                f"{100 * evaluation.gain(names, 'robust', t).value:+.1f} at {t}" for t in evaluation.threats
            )
            yield Claim(
                f"The recurrent twin is more robust, measured {measured} ({trained} trained)", f"{_PAPER}, {_PURSUIT}",
                evaluation.name, _direction(mean.interval, +1, _POINT),
                f"recurrent {_points(mean)} over all radii, {mean.n} pairs ({each})",
            )  # fmt: skip

    return test


def _coherence(evaluation: Published) -> Iterator[Claim]:
    names = evaluation.models(lambda card: True)
    cards = [card_of(name) for name in names]
    robust = [float(evaluation.column(f"{name}/recurrent", "robust").mean()) for name in names]
    measures = {
        "mutual coherence": [card.mutual_coherence for card in cards],
        "deep frame potential": [card.potential or 0.0 for card in cards],
    }
    for what, values in measures.items():
        found = _correlation(values, robust)
        yield Claim(
            f"Pairs whose frames have a lower {what} are more robust (normally trained, recurrent twins)", _PAPER,
            evaluation.name, _direction(found.interval, -1, _WEAK), _rho(found),
        )  # fmt: skip


def _sweeps(evaluation: Published) -> Iterator[Claim]:
    for name, trained in (("fmnist-chain3-16", "both twins"), ("fmnist-chain3-16-last", "four sweeps")):
        mean = evaluation.between([(f"{name} at 4 sweeps/recurrent", f"{name} at 16 sweeps/recurrent")])
        clean = evaluation.column(f"{name} at 16 sweeps/recurrent", "clean_correct") - evaluation.column(
            f"{name} at 4 sweeps/recurrent", "clean_correct"
        )
        yield Claim(
            f"More sweeps at test time than in training make a pair more robust (trained for {trained})", "folklore",
            evaluation.name, _direction(mean.interval, +1, _POINT),
            f"16 sweeps against 4: robust {_points(mean)}, clean {100 * clean.mean():+.1f} points",
        )  # fmt: skip


def _pursuits(evaluation: Published) -> Iterator[Claim]:
    versus = [
        ("Deep pursuit is more robust than layered pursuit (fully connected, trained for ten sweeps)", _PURSUIT,
         "fmnist-fc3-200-layered/recurrent", "fmnist-fc3-200/recurrent"),
        ("Deep pursuit is more robust than layered pursuit (convolutional, trained jointly)", _PURSUIT,
         "fmnist-chain3-16-layered/recurrent", "fmnist-chain3-16/recurrent"),
        ("Skip connections make deep pursuit more robust", _PURSUIT,
         "fmnist-fc3-200/recurrent", "fmnist-fc3-200-residual/recurrent"),
        ("Deep pursuit in three layers is more robust than pursuit in one", "the replication's question",
         "fmnist-fc1-200/recurrent", "fmnist-fc3-200/recurrent"),
        ("Deep pursuit is more robust than the feed-forward net trained alone", _PURSUIT,
         "fmnist-fc3-200-one/feedforward", "fmnist-fc3-200/recurrent"),
        ("Sharing parameters between sweeps makes a net more robust than an untied one of equal cost", "control",
         "fmnist-chain3-16-untied", "fmnist-chain3-16/recurrent"),
    ]  # fmt: skip
    for text, source, first, second in versus:
        mean = evaluation.between([(first, second)])
        shares = [100 * float(evaluation.column(each, "robust").mean()) for each in (first, second)]
        yield Claim(
            text, source, evaluation.name, _direction(mean.interval, +1, _POINT),
            f"{shares[1]:.1f} against {shares[0]:.1f} %: {_points(mean)}, one pair of models",
        )  # fmt: skip


_TESTS: dict[str, Callable[[Published], Iterator[Claim]]] = {
    "generalisation": _architectures,
    "generalisation-digits": _generalisation,
    "accuracy": _accuracy,
    "unaware": _robustness("by FGSM and PGD as in the papers"),
    "aware": _robustness("by attacks that know the solver"),
    "coherence": _coherence,
    "sweeps": _sweeps,
    "pursuits": _pursuits,
}
