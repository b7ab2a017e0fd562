"""What the studies say: claims on many small nets with several seeds each, and the tables below them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from studied import Outcome, Trained, averaged, basis_of, by_architecture, read_study, response, slopes
from wording import (
    POINT,
    WEAK,
    Claim,
    control_of,
    controlled,
    direction,
    found_of,
    more,
    order,
    points,
    rho,
)

from robustframe.errors import InputError
from robustframe.report.robust_ranks import left_out_of
from robustframe.statistics import Mean, clears_floor, mean_of_few, spearman

LARGE = 20_000
"""Parameters above which a net of the study of the potential counts as large."""
TRAINED = 0.95
"""Training accuracy below which a net counts as not trained."""
TWINS = {"feedforward": "feed-forward", "recurrent": "recurrent"}
_PAPER = "arXiv:2103.05804"


def study_claims(folder: Path) -> list[Claim]:
    """Test the claims that a study is about.

    Args:
        folder: of the study, in ``evaluations/``.

    Raises:
        InputError: for a study that there is not, or results that are missing or stale.
    """
    if folder.name not in STUDIES:
        raise InputError(f"there is no study {folder.name!r}; it is one of {', '.join(STUDIES)}")
    return list(STUDIES[folder.name][0](read_study(folder)))


def study_cost(folder: Path) -> str:
    """Say how many nets a study has, what they took, and how they are made again."""
    nets = read_study(folder)
    minutes = sum(each.net.seconds for each in nets) / 60
    return (
        f"{len(nets)} nets, {basis_of(nets).seeds} seeds each, trained and measured in {minutes:.0f} minutes on one "
        f"thread of a busy machine. `python evaluations/study.py evaluations/{folder.name}` does it again, or goes on "
        "where it was stopped."
    )


def nets_table(folder: Path) -> str:
    """Write the table of a study, means over seeds."""
    return STUDIES[folder.name][1](read_study(folder))


def _regularised_table(nets: Sequence[Trained]) -> str:
    ways = list(dict.fromkeys(each.way for each in nets))
    titles = ["Architecture", "Parameters", "Least F"]
    titles += [f"{what}, {way}" for way in ways for what in ("F", "Training error", "Test error")]
    rows = []
    for name, own in by_architecture(nets).items():
        first = own[0].net
        row = [name, f"{first.parameters:,}", f"{first.least_potential or 0.0:.3f}"]
        for way in ways:
            these = [each for each in own if each.way == way]
            row.append(f"{_mean(each.net.potential for each in these):.3f}")
            row.append(f"{100 * _mean(each.error() - each.gap() for each in these):.1f} %")
            row.append(f"{100 * _mean(each.error() for each in these):.1f} %")
        rows.append(row)
    return _table(titles, rows)


def _doses_table(nets: Sequence[Trained]) -> str:
    threats = list(nets[0].net.robust_accuracy)
    titles = ["Architecture", "Weight", "Mutual coherence", "F"]
    titles += [f"{what}, {word} (%)" for what in ("Clean", *threats) for word in TWINS.values()]
    rows = []
    for name, own in by_architecture(nets).items():
        for dose in sorted({each.dose for each in own}):
            these = [each.net for each in own if each.dose == dose]
            row = [name, f"{dose:g}", f"{_mean(each.mutual_coherence for each in these):.3f}"]
            row.append(f"{_mean(each.potential for each in these):.3f}")
            row += [f"{100 * _mean(each.test_accuracy[twin] for each in these):.1f}" for twin in TWINS]
            row += [
                f"{100 * _mean(each.robust_accuracy[t][twin] for each in these):.1f}" for t in threats for twin in TWINS
            ]
            rows.append(row)
    return _table(titles, rows)


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, [":--", *["--:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _regularised(nets: Sequence[Trained]) -> Iterator[Claim]:
    ways = {way: [each for each in nets if each.way == way] for way in dict.fromkeys(each.way for each in nets)}
    yield _mended(ways)
    for way, own in ways.items():
        least = averaged(own, lambda each: each.net.least_potential or 0.0)
        given = {
            "parameters": averaged(own, lambda each: float(each.net.parameters)),
            "depth": averaged(own, lambda each: float(len(each.pair.layers))),
        }
        outcomes: dict[str, Outcome] = {"test error": Trained.error, "generalisation gap": Trained.gap}
        for what, outcome in outcomes.items():
            numbers = averaged(own, outcome)
            found = spearman(least, numbers)
            yield Claim(
                f"An architecture's {what} follows its least deep frame potential "
                f"(the digits, fully connected, trained {way})", _PAPER, "regularised",
                found_of(
                    basis_of(own), direction(found.interval, +1, WEAK) if found else "undecided",
                    order(found, f"the {what}", "the least potential"), control_of(found, least, numbers, given),
                ),
                "; ".join([rho(found), *controlled(least, numbers, given, {})]),
            )  # fmt: skip
        trained = averaged(own, lambda each: each.net.potential)
        found = spearman(least, trained)
        times = float(np.median([a / b for a, b in zip(trained, least) if b]))
        yield Claim(
            f"The potential of trained nets follows the least of their architecture (trained {way})", _PAPER,
            "regularised",
            found_of(
                basis_of(own), direction(found.interval, +1, WEAK) if found else "undecided",
                order(found, "the potential as trained", "the least"), control_of(found, least, trained, given),
            ),
            "; ".join([rho(found), *controlled(least, trained, given, {}), f"{times:.1f} times the least (median)"]),
        )  # fmt: skip


def _mended(ways: Mapping[str, Sequence[Trained]]) -> Claim:
    large = {way: [each for each in own if each.net.parameters > LARGE] for way, own in ways.items()}
    small = {way: [each for each in own if each.net.parameters <= LARGE] for way, own in ways.items()}
    gains = [
        np.array(averaged(each["with the penalty"], Trained.error)) - averaged(each["plainly"], Trained.error)
        for each in (large, small)
    ]
    gain, other = map(mean_of_few, gains)
    each = ", ".join(
        f"{name} {100 * value:+.1f}" for name, value in zip(by_architecture(large["plainly"]), gains[0], strict=True)
    )
    failed = ", ".join(
        f"{sum(each.net.training_accuracy['feedforward'] < TRAINED for each in own)} of {len(own)} {way}"
        for way, own in large.items()
    )
    return Claim(
        f"Potential regularisation mends large nets that cannot be trained (over {LARGE:,} parameters)",
        "arXiv:2003.13866", "regularised",
        found_of(
            basis_of(large["with the penalty"]), direction(gain.interval, -1, POINT), more(gain, "their test error")
        ),
        f"test error {points(gain)}, {gain.n} architectures ({each}); nets below {100 * TRAINED:.0f} % training "
        f"accuracy: {failed}; test error of the smaller ones {points(other)}, {other.n} architectures",
    )  # fmt: skip


def _doses(nets: Sequence[Trained]) -> Iterator[Claim]:
    lowered = response(slopes(nets, lambda each: each.net.mutual_coherence))
    squeezed = response(slopes(nets, lambda each: each.net.potential))
    yield Claim(
        "A coherence penalty lowers the mutual coherence of the whole frame (does the dose arrive?)", "control",
        "doses", found_of(basis_of(nets), direction(lowered.interval, -1, 0.0), "see the table"),
        f"mutual coherence {_plain(lowered)} per step of the dose ({_each(slopes(nets, _mutual), '{:+.3f}')}); "
        f"potential F {_plain(squeezed)}",
    )  # fmt: skip
    for twin, word in TWINS.items():
        yield _dose(nets, twin, word)
    for twin, word in TWINS.items():
        for what, number in (("mutual coherence", _mutual), ("deep frame potential", _frame_potential)):
            yield _ranked(nets, what, number, (twin, word))


def _mutual(each: Trained) -> float:
    return each.net.mutual_coherence


def _frame_potential(each: Trained) -> float:
    return each.net.potential


def _dose(nets: Sequence[Trained], twin: str, word: str) -> Claim:
    found = slopes(nets, lambda each: each.robust(twin))
    mean, clean = response(found), response(slopes(nets, lambda each: each.net.test_accuracy[twin]))
    steps = len({each.dose for each in nets}) - 1
    signs = {bool(np.mean(own) > 0) for own in found.values()}
    alone = "" if len(signs) == 1 else ", and not of one sign in all architectures"
    radii = [
        f"{100 * response(slopes(nets, partial(Trained.robust, twin=twin, threats=[threat]))).value:+.1f} at {threat}"
        for threat in nets[0].net.robust_accuracy
    ]
    return Claim(
        f"A stronger coherence penalty makes nets more robust (dose and response, {word} twins)", _PAPER, "doses",
        found_of(
            basis_of(nets), direction(mean.interval, +1, POINT / steps),
            more(mean, "robustness per step of the dose"), alone,
        ),
        f"robust {points(mean)} per step of the dose, over both radii, {mean.n} architectures "
        f"({_each(found, '{:+.1f}', 100)}; {', '.join(radii)}); clean {points(clean)}",
    )  # fmt: skip


def _ranked(nets: Sequence[Trained], what: str, number: Outcome, twin: tuple[str, str]) -> Claim:
    believed = [each for each in nets if not each.net.doubted]
    cleared = clears_floor([each.net.test_accuracy[twin[0]] for each in believed])
    own = [each for each, clears in zip(believed, cleared) if clears]
    x, y = [number(each) for each in own], [each.robust(twin[0]) for each in own]
    clean = [each.net.test_accuracy[twin[0]] for each in own]
    names = [each.architecture for each in own]
    found, given = spearman(x, y, groups=names), spearman(x, y, given=[clean], groups=names)
    each = []
    for name in dict.fromkeys(names):
        alone = spearman(*zip(*[(a, b) for own_name, a, b in zip(names, x, y) if own_name == name]))
        each.append(f"{name} {'says nothing' if alone is None else rho(alone)}")
    left_out = left_out_of(len(nets) - len(believed), len(believed) - len(own))
    return Claim(
        f"Nets of one architecture whose frames have a lower {what} are more robust ({twin[1]} twins)",
        _PAPER, "doses",
        found_of(
            basis_of(own), direction(found.interval, -1, WEAK) if found else "undecided",
            order(found, "robust accuracy", f"the {what}"),
        ),
        f"within architectures {rho(found)}{left_out}; given clean accuracy {rho(given)}; {'; '.join(each)}",
    )  # fmt: skip


def _plain(mean: Mean) -> str:
    return f"{mean.value:+.3f} [{mean.interval.low:+.3f}, {mean.interval.high:+.3f}]"


def _each(found: Mapping[str, Sequence[float]], form: str, times: float = 1.0) -> str:
    """The slope of each architecture with Student's interval over its seeds."""
    said = []
    for name, own in found.items():
        mean = mean_of_few(times * np.array(own))
        ends = f"[{form.format(mean.interval.low)}, {form.format(mean.interval.high)}]"
        said.append(f"{name} {form.format(mean.value)} {ends}")
    return ", ".join(said)


STUDIES: dict[str, tuple[Callable[[Sequence[Trained]], Iterator[Claim]], Callable[[Sequence[Trained]], str]]] = {
    "regularised": (_regularised, _regularised_table),
    "doses": (_doses, _doses_table),
}
"""The claims and the table of each study."""
