"""A comparison of two runs as text."""

from collections.abc import Iterator

from robustframe.report.layout import Cell, Grid, Table, TableRow, grid
from robustframe.report.robustness import share_cell
from robustframe.report.tables import document
from robustframe.statistics import Ranked, family_sentence, resolution_sentence
from robustframe.verification.compare import ROBUST, WRONG, Comparison, Difference, Outcome


def render_comparison(comparison: Comparison, format: str) -> str:
    """Write a comparison out: differences, ranks, who was broken by what, transfer.

    Args:
        comparison: what was found.
        format: ``"terminal"`` or ``"md"``.

    Raises:
        InputError: for an unknown format.
    """
    grids = [*_ranks(comparison), *_outcomes(comparison), *_transfer(comparison)]
    return document([differences_table(comparison), *grids, *_sentences(comparison)], format)


def differences_table(comparison: Comparison) -> Table:
    """Lay the differences out as a robustness table, with the runs in place of twins."""
    clean = {(each.first, each.second): each for each in comparison.differences if each.measure == "clean"}
    rows = [
        row
        for each in comparison.differences
        if each.threat is not None
        for row in _rows(str(each.threat), clean[each.first, each.second], each, comparison.examples)
    ]
    ps = [each.p_value for each in comparison.differences if each.p_value is not None]
    caption = (
        f"First: {comparison.first}. Second: {comparison.second}. Clean and robust accuracy in % with 95 % intervals "
        f"(Wilson; differences second minus first on the same examples: Newcombe, exact McNemar p; "
        f"{family_sentence(ps, of='differences')}). {resolution_sentence(comparison.examples)}."
    )
    return Table(title="Comparison", caption=caption, rows=tuple(rows), column="Run")


def _who(each: Difference | Outcome) -> str:
    return each.first if each.first == each.second else f"{each.first} vs. {each.second}"


def _rows(threat: str, clean: Difference, robust: Difference, examples: int) -> Iterator[TableRow]:
    for run in ("first", "second"):
        one, two = (share_cell(round(getattr(each, f"{run}_value") * examples), examples) for each in (clean, robust))
        yield TableRow(_who(robust), None, run, threat, one, two)
    one, two = (Cell(each.value, each.low, each.high) for each in (clean, robust))
    yield TableRow(_who(robust), None, "difference", threat, one, two, clean.p_value, robust.p_value)


def _ranks(comparison: Comparison) -> Iterator[Grid]:
    caption = "A rank is shared where a difference is not significant (exact McNemar, Holm over all pairs, 5 %)."
    for threat, ranked in comparison.ranks.items():
        rows = [(each.name, _rank(each, ranked), f"{100 * each.value:.1f}") for each in ranked]
        yield grid(f"Robust accuracy under {threat}, ranked", ("Classifier", "Rank", "Robust %"), rows, caption)


def _rank(one: Ranked, ranked: tuple[Ranked, ...]) -> str:
    shared = sum(each.rank == one.rank for each in ranked) > 1
    return f"{one.rank}{'=' if shared else ''}"


def _outcomes(comparison: Comparison) -> Iterator[Grid]:
    found: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    for each in comparison.outcomes:
        found.setdefault((_who(each), each.threat), {})[each.first_outcome, each.second_outcome] = each.count
    for (who, threat), counts in found.items():
        downs, across = (sorted({key[at] for key in counts}, key=_order) for at in (0, 1))
        rows = [(down, *(f"{counts.get((down, each), 0):,}" for each in across)) for down in downs]
        title = f"{who} under {threat}: who was broken by what (first run down, second across)"
        yield grid(title, ("first \\ second", *across), rows)


def _order(outcome: str) -> tuple[int, str]:
    return {ROBUST: 0, WRONG: 2}.get(outcome, 1), outcome


def _transfer(comparison: Comparison) -> Iterator[Grid]:
    caption = (
        "Stored adversarial images of one run, shown to the classifiers of the other that get the clean image right. "
        "New: robust by the target's own attacks, yet broken by an image that was made for another classifier; its "
        "robust accuracy is too high by these, and many of them mean that its attacks are too weak."
    )
    rows = [
        (f"{each.source} -> {each.target} ({each.direction})", each.threat, f"{each.broken:,} of {each.shown:,}",
         f"{each.new:,}")
        for each in comparison.transfer or ()
    ]  # fmt: skip
    if rows:
        yield grid("Transfer", ("Images of -> on", "Threat", "Broken", "New"), rows, caption)


def _sentences(comparison: Comparison) -> Iterator[str]:
    for each in comparison.averages:
        yield (
            f"{_who(each)}, robust accuracy averaged over {len(comparison.threats)} threats: "
            f"{100 * each.first_value:.1f} and {100 * each.second_value:.1f} %, difference {100 * each.value:+.1f} "
            f"[{100 * each.low:+.1f}, {100 * each.high:+.1f}] (Student over examples)."
        )
    if comparison.uncompared:
        yield f"Not compared, as only one run has it: {', '.join(comparison.uncompared)}."
    if comparison.transfer is None:
        yield f"Transfer was left out: {comparison.left_out}."
    elif not comparison.transfer:
        yield "No transfer to show: both runs hold the same classifiers."
