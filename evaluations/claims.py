"""The claims of the papers that this project grew from, and what the published evaluations say of each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from published import ERRORS, Basis, Published, arm_of, card_of, least_potential, recipe_of
from wording import POINT, WEAK, Claim, control_of, controlled, direction, found_of, more, no_worse, order, points, rho

from robustframe.errors import InputError
from robustframe.report.robust_ranks import doubted_models, group_of, left_out_of
from robustframe.statistics import clears_floor, mean_of_few, spearman
from robustframe.zoo import Card


def claims(evaluations: Path, *, only: str | None = None) -> list[Claim]:
    """Test every claim on the published records.

    With three seeds or more on three architectures or more, a claim of a direction is *supported* when the whole 95 %
    interval lies on its side of zero, and *not supported* when it lies on the other side or is too close to zero to
    matter (within a point of accuracy, or 0.2 of a rank correlation); otherwise it is *undecided*. A claim to be no
    worse is supported when the interval excludes a loss of a point, and not supported when it lies below that. With
    fewer there is no verdict, only what the pairs at hand show.

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


_PAPER = "arXiv:2103.05804"
_PURSUIT = "arXiv:2011.14427"
_WORDS = {"feedforward": "feed-forward", "recurrent": "recurrent"}


def _errors(evaluation: Published) -> Iterator[Claim]:
    names = evaluation.models(lambda card: card.least_potential is not None)
    cards = [card_of(name) for name in names]
    least = [least_potential(name) for name in names]
    given = {"parameters": [float(card.parameters) for card in cards], "depth": [float(len(c.layers)) for c in cards]}
    if len(set(given["depth"])) == 1:
        del given["depth"]
    for what, error in ERRORS.items():
        for twin, word in _WORDS.items():
            numbers = [error(evaluation, name, twin) for name in names]
            found = spearman(least, numbers)
            controls = controlled(least, numbers, given, {"structure": [card.structure for card in cards]})
            standing = direction(found.interval, +1, WEAK) if found else "undecided"
            yield Claim(
                f"An architecture's {what} follows its least deep frame potential ({evaluation.data}, {word} twins)",
                _PAPER, evaluation.name,
                found_of(
                    Basis.of(names), standing, order(found, f"the {what}", "the least potential"),
                    control_of(found, least, numbers, given),
                ),
                "; ".join([rho(found), *controls]),
            )  # fmt: skip


def _architectures(evaluation: Published) -> Iterator[Claim]:
    yield from _errors(evaluation)
    cells: dict[tuple[int, int], dict[str, str]] = {}
    for name in evaluation.models(lambda card: True):
        card = card_of(name)
        first = card.layers[0]
        filters = first["filters"] if isinstance(first, dict) else first.code[0]
        cells.setdefault((len(card.layers), filters), {})[card.structure] = name
    whole = [cell for cell in cells.values() if len(cell) == 3]
    for worse, better in (("chain", "residual"), ("residual", "dense")):
        for what, error in ERRORS.items():
            numbers = [[error(evaluation, cell[each], "feedforward") for each in (worse, better)] for cell in whole]
            mean = mean_of_few(np.array([second - first for first, second in numbers]))
            plain = more(mean, f"the {what} of {better} frames")
            yield Claim(
                f"At equal depth, width and parameters {better} frames have a lower {what} than {worse} frames",
                _PAPER, evaluation.name,
                found_of(Basis.of([cell[better] for cell in whole]), direction(mean.interval, -1, POINT / 10), plain),
                f"{points(mean)}, {mean.n} pairs of architectures, feed-forward twins",
            )  # fmt: skip


def _trainings(evaluation: Published) -> dict[str, list[str]]:
    """The pairs that were trained for both twins at once, by what they were trained against."""
    found: dict[str, list[str]] = {}
    for name in evaluation.models(lambda card: not card.untied):
        if arm_of(name) == "joint":
            found.setdefault(f"trained {card_of(name).manner}", []).append(name)
    return found


def _accuracy(evaluation: Published) -> Iterator[Claim]:
    for training, names in _trainings(evaluation).items():
        mean = evaluation.gain(names, "clean_correct")
        yield Claim(
            f"The recurrent twin is as accurate as the feed-forward one (twins of one joint training, {training})",
            _PAPER, evaluation.name,
            found_of(Basis.of(names), no_worse(mean.interval), more(mean, "accuracy of the recurrent twins")),
            f"recurrent {points(mean)}, {len(names)} pairs",
        )  # fmt: skip


def _robustness(measured: str) -> Callable[[Published], Iterator[Claim]]:
    def test(evaluation: Published) -> Iterator[Claim]:
        for training, names in _trainings(evaluation).items():
            mean = evaluation.gain(names, "robust")
            each = ", ".join(
                f"{100 * evaluation.gain(names, 'robust', t).value:+.1f} at {t}" for t in evaluation.threats
            )
            yield Claim(
                f"The recurrent twin is more robust, measured {measured} (twins of one joint training, {training})",
                f"{_PAPER}, {_PURSUIT}", evaluation.name,
                found_of(
                    Basis.of(names), direction(mean.interval, +1, POINT), more(mean, "robustness of recurrent twins")
                ),
                f"recurrent {points(mean)} over all radii, {len(names)} pairs ({each})",
            )  # fmt: skip

    return test


def _coherence(evaluation: Published) -> Iterator[Claim]:
    numbers: dict[str, Callable[[Card], float]] = {
        "mutual coherence": lambda card: card.mutual_coherence,
        "deep frame potential": lambda card: card.potential or 0.0,
    }
    for twin, word in _WORDS.items():
        yield from (_ranked(evaluation, what, number, twin, word) for what, number in numbers.items())


def _ranked(evaluation: Published, what: str, number: Callable[[Card], float], twin: str, word: str) -> Claim:
    names = evaluation.models(lambda card: True)
    doubted = doubted_models(evaluation.run, evaluation.threats[0])
    given_up = len(doubted & set(names))
    names = [name for name in names if name not in doubted]
    clean = [evaluation.share(f"{name}/{twin}", "clean_correct") for name in names]
    cleared = clears_floor(clean)
    names = [name for name, clears in zip(names, cleared) if clears]
    clean = [share for share, clears in zip(clean, cleared) if clears]
    cards = [card_of(name) for name in names]
    entries = [evaluation.run.entry(f"{name}/{twin}") for name in names]
    x, y = [number(card) for card in cards], [evaluation.share(f"{name}/{twin}", "robust") for name in names]
    found = spearman(x, y, groups=[group_of(entry) for entry in entries])
    given = {
        "parameters": [float(card.parameters) for card in cards],
        "depth": [float(len(card.layers)) for card in cards],
        "clean accuracy": clean,
    }
    groups = {"recipe and structure": [f"{recipe_of(name)} {card_of(name).structure}" for name in names]}
    left_out = left_out_of(given_up, len(cleared) - len(names))
    standing = direction(found.interval, -1, WEAK) if found else "undecided"
    return Claim(
        f"Pairs whose frames have a lower {what} are more robust (trained normally, {word} twins)",
        _PAPER, evaluation.name,
        found_of(
            Basis.of(names), standing, order(found, "robust accuracy", f"the {what}"), control_of(found, x, y, given)
        ),
        "; ".join(
            [
                f"within training and structure {rho(found)}{left_out}",
                f"pooled {rho(spearman(x, y))}",
                *controlled(x, y, given, groups),
            ]
        ),
    )  # fmt: skip


def _sweeps(evaluation: Published) -> Iterator[Claim]:
    for name, trained in (("fmnist-chain3-16", "both twins"), ("fmnist-chain3-16-last", "four sweeps")):
        pairs = [(f"{name} at 4 sweeps/recurrent", f"{name} at 16 sweeps/recurrent")]
        mean, clean = evaluation.between(pairs), evaluation.between(pairs, "clean_correct")
        yield Claim(
            f"More sweeps at test time than in training make a pair more robust (trained for {trained})", "folklore",
            evaluation.name,
            found_of(Basis.of([name]), direction(mean.interval, +1, POINT), more(mean, "robustness after 16")),
            f"16 sweeps against 4: robust {points(mean)}, clean {points(clean)}",
        )  # fmt: skip


def _pursuits(evaluation: Published) -> Iterator[Claim]:
    versus = [
        ("Deep pursuit is more robust than layered pursuit (fully connected, each trained for ten sweeps)", _PURSUIT,
         "fmnist-fc3-200-layered/recurrent", "fmnist-fc3-200/recurrent"),
        ("Deep pursuit is more robust than layered pursuit (convolutional, trained jointly)", _PURSUIT,
         "fmnist-chain3-16-layered/recurrent", "fmnist-chain3-16/recurrent"),
        ("Skip connections make deep pursuit more robust", _PURSUIT,
         "fmnist-fc3-200/recurrent", "fmnist-fc3-200-residual/recurrent"),
        ("Deep pursuit in three layers is more robust than pursuit in one", "the replication's question",
         "fmnist-fc1-200/recurrent", "fmnist-fc3-200/recurrent"),
        ("Deep pursuit is more robust than a feed-forward net, each trained alone", _PURSUIT,
         "fmnist-fc3-200-one/feedforward", "fmnist-fc3-200/recurrent"),
        ("Sharing parameters between sweeps makes a net more robust than an untied one of equal cost", "control",
         "fmnist-chain3-16-untied", "fmnist-chain3-16/recurrent"),
    ]  # fmt: skip
    for text, source, first, second in versus:
        mean = evaluation.between([(first, second)])
        shares = [100 * evaluation.share(each, "robust") for each in (first, second)]
        yield Claim(
            text, source, evaluation.name,
            found_of(
                Basis.of([second.partition("/")[0]]), direction(mean.interval, +1, POINT),
                more(mean, "robustness of the former" if "than" in text else "robustness with them"),
            ),
            f"{shares[1]:.1f} against {shares[0]:.1f} %: {points(mean)} over all radii",
        )  # fmt: skip


_TESTS: dict[str, Callable[[Published], Iterator[Claim]]] = {
    "generalisation": _architectures,
    "generalisation-digits": _errors,
    "accuracy": _accuracy,
    "unaware": _robustness("by FGSM and PGD, which do not know the solver"),
    "aware": _robustness("by attacks that know the solver"),
    "coherence": _coherence,
    "sweeps": _sweeps,
    "pursuits": _pursuits,
}
