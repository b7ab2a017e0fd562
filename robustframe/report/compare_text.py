"""A comparison of two runs as text."""

from robustframe.report.grid import Grid, paragraph, render_grid
from robustframe.report.layout import Cell, Row, Table
from robustframe.report.tables import render
from robustframe.statistics import Proportion, Ranked, resolution_sentence
from robustframe.verification.compare import ROBUST, WRONG, Comparison, Difference


def render_comparison(comparison: Comparison, format: str) -> str:
    """Write a comparison out: differences, ranks, who was broken by what, transfer.

    Args:
        comparison: what was found.
        format: ``"terminal"`` or ``"md"``.

    Raises:
        InputError: for an unknown format.
    """
    grids = [*_ranks(comparison), *_outcomes(comparison), *_transfer(comparison)]
    parts = [render_grid(grid, format) for grid in grids]
    texts = _sentences(comparison)
    parts += [paragraph(text, format) for text in texts]
    return "\n".join([render(differences_table(comparison), format), *parts])


def differences_table(comparison: Comparison) -> Table:
    """Lay the differences out as a robustness table, with the runs in place of twins."""
    clean = {(each.first, each.second): each for each in comparison.differences if each.measure == "clean"}
    rows: list[Row] = []
    for each in comparison.differences:
        if each.threat is not None:
            rows += _rows(each, clean[each.first, each.second], comparison.examples)
    tests = sum(each.p_value is not None for each in comparison.differences)
    caption = (
        f"First: {comparison.first}. Second: {comparison.second}. Clean and robust accuracy in % with 95 % intervals "
        f"(Wilson; differences second minus first on the same examples: Newcombe, exact McNemar p, Holm-adjusted over "
        f"the table's {tests} differences). {resolution_sentence(comparison.examples)}."
    )
    return Table(title="Comparison", caption=caption, rows=tuple(rows), column="Run")


def _rows(robust: Difference, clean: Difference, examples: int) -> list[Row]:
    name = robust.first if robust.first == robust.second else f"{robust.first} vs. {robust.second}"
    threat = str(robust.threat)
    accuracies = [
        Row(name, None, run, threat, _accuracy(clean_value, examples), _accuracy(value, examples))
        for run, clean_value, value in (
            ("first", clean.first_value, robust.first_value),
            ("second", clean.second_value, robust.second_value),
        )
    ]
    one, two = (Cell(each.value, each.low, each.high) for each in (clean, robust))
    return [*accuracies, Row(name, None, "difference", threat, one, two, clean.p_adjusted, robust.p_adjusted)]


def _accuracy(value: float, examples: int) -> Cell:
    interval = Proportion(round(value * examples), examples).interval()
    return Cell(value, interval.low, interval.high)


def _ranks(comparison: Comparison) -> list[Grid]:
    return [
        Grid(
            title=f"Robust accuracy under {threat}, ranked",
            head=("Classifier", "Rank", "Robust %"),
            rows=tuple((each.name, _rank(each, ranked), f"{100 * each.value:.1f}") for each in ranked),
            caption="A rank is shared where a difference is not significant (exact McNemar, Holm over all pairs, 5 %).",
        )
        for threat, ranked in comparison.ranks.items()
    ]


def _rank(one: Ranked, ranked: tuple[Ranked, ...]) -> str:
    shared = sum(each.rank == one.rank for each in ranked) > 1
    return f"{one.rank}{'=' if shared else ''}"


def _outcomes(comparison: Comparison) -> list[Grid]:
    grids = []
    for first, second, threat in dict.fromkeys((each.first, each.second, each.threat) for each in comparison.outcomes):
        mine = [
            each for each in comparison.outcomes if (each.first, each.second, each.threat) == (first, second, threat)
        ]
        counts = {(each.first_outcome, each.second_outcome): each.count for each in mine}
        downs, across = (sorted({key[at] for key in counts}, key=_order) for at in (0, 1))
        rows = tuple((down, *(f"{counts.get((down, each), 0):,}" for each in across)) for down in downs)
        who = first if first == second else f"{first} vs. {second}"
        title = f"{who} under {threat}: who was broken by what (first run down, second across)"
        grids.append(Grid(title, ("first \\ second", *across), rows))
    return grids


def _order(outcome: str) -> tuple[int, str]:
    return {ROBUST: 0, WRONG: 2}.get(outcome, 1), outcome


def _transfer(comparison: Comparison) -> list[Grid]:
    if not comparison.transfer:
        return []
    rows = tuple(
        (
            f"{each.source} -> {each.target} ({each.direction})",
            each.threat,
            f"{each.broken:,} of {each.shown:,}",
            f"{each.new:,}",
        )
        for each in comparison.transfer
    )
    caption = (
        "Stored adversarial images of one run, shown to the classifiers of the other that get the clean image right. "
        "New: robust by the target's own attacks, yet broken by an image that was made for another classifier; its "
        "robust accuracy is too high by these, and many of them mean that its attacks are too weak."
    )
    return [Grid("Transfer", ("Images of -> on", "Threat", "Broken", "New"), rows, caption)]


def _sentences(comparison: Comparison) -> list[str]:
    sentences = []
    for each in comparison.averages:
        who = each.first if each.first == each.second else f"{each.first} vs. {each.second}"
        sentences.append(
            f"{who}, robust accuracy averaged over {len(comparison.threats)} threats: {100 * each.first_value:.1f} and "
            f"{100 * each.second_value:.1f} %, difference {100 * each.value:+.1f} "
            f"[{100 * each.low:+.1f}, {100 * each.high:+.1f}] (paired bootstrap over examples)."
        )
    if comparison.uncompared:
        sentences.append(f"Not compared, as only one run has it: {', '.join(comparison.uncompared)}.")
    if comparison.transfer is None:
        sentences.append(f"Transfer was left out: {comparison.left_out}.")
    elif not comparison.transfer:
        sentences.append("No transfer to show: both runs hold the same classifiers.")
    return sentences
