"""The ranking of attacks as tables: what each did, and two of them on the same cases."""

from robustframe.report.layout import UNKNOWN, Cell, Column, Grid, Measured, TextCell, one_line
from robustframe.report.robustness import share_cell
from robustframe.runs.ranking import AttackRanking, HeadToHead, RankedAttack
from robustframe.statistics import family_sentence

_COLUMNS = (
    Column("attack", "Attack"),
    Column("met", "Met", "number"),
    Column("cases", "of cases", "number", drop=2),
    Column("broken", "Broken (%)", "measured"),
    Column("passes_per_case", "Passes a case", "number"),
    Column("breaks_per_1000", "Breaks per 1,000 passes", "number"),
    Column("alone", "Alone", "number"),
    Column("untested", "Untested", "number"),
)
_PAIRS = (
    Column("first", "First"),
    Column("second", "Second"),
    Column("cases", "Cases", "number"),
    Column("both", "Both", "number", drop=1),
    Column("only_first", "Only first", "number"),
    Column("only_second", "Only second", "number"),
    Column("first_passes", "Passes, first", "number", drop=2),
    Column("second_passes", "Passes, second", "number", drop=2),
    Column("p", "p", "number"),
)


def attack_tables(ranking: AttackRanking) -> list[Grid]:
    """Put a ranking into tables: of attacks, and of pairs where there are any that can be compared."""
    whole = [each for each in ranking.attacks if each.whole]
    rest = [each for each in ranking.attacks if not each.whole]
    groups = tuple(tuple(map(_line, each)) for each in (whole, rest) if each)
    named = ranking.runs[0].split(" (seal")[0] if len(ranking.runs) == 1 else f"{len(ranking.runs)} runs"
    title = f"Attacks of {named}: {'; '.join(ranking.data)}, {', '.join(ranking.threats)}"
    tables = [Grid(title, _caption(ranking, bool(whole), bool(rest)), _COLUMNS, groups)]
    if ranking.pairs:
        pairs = Grid("Two attacks on the same cases", _pairs_caption(ranking), _PAIRS, (_pair_lines(ranking),), keys=2)
        tables.append(pairs)
    return tables


def _line(attack: RankedAttack) -> tuple[TextCell | Measured, ...]:
    return (
        TextCell(one_line(attack.attack)),
        _count(attack.met),
        _count(attack.cases),
        Measured(share_cell(attack.broken, attack.met) if attack.met else Cell()),
        _number(attack.passes_per_case, 1),
        _number(attack.breaks_per_1000, 2),
        _count(attack.alone),
        _count(attack.untested),
    )


def _pair_lines(ranking: AttackRanking) -> tuple[tuple[TextCell, ...], ...]:
    ordered = sorted(ranking.pairs, key=lambda pair: pair.p_value)
    return tuple(_pair_line(pair) for pair in ordered)


def _pair_line(pair: HeadToHead) -> tuple[TextCell, ...]:
    return (
        TextCell(one_line(pair.first)),
        TextCell(one_line(pair.second)),
        *map(_count, (pair.cases, pair.both, pair.only_first, pair.only_second)),
        *map(_count, (pair.first_passes, pair.second_passes)),
        TextCell(f"{pair.p_value:.2g}", raw=repr(pair.p_value)),
    )


def _count(number: int | None) -> TextCell:
    return TextCell(UNKNOWN, raw="") if number is None else TextCell(f"{number:,}", raw=str(number))


def _number(number: float | None, digits: int) -> TextCell:
    return TextCell(UNKNOWN, raw="") if number is None else TextCell(f"{number:,.{digits}f}", raw=repr(number))


def _caption(ranking: AttackRanking, whole: bool, rest: bool) -> str:
    several = len(ranking.runs) > 1
    sentences = [
        "A case is an example that a classifier gets right when clean, under one threat. Broken: of the cases met, "
        "with 95 % intervals (Wilson). Passes: forwards and backwards of single examples, each counted as one.",
    ]
    if rest:
        sentences.append(
            "Attacks of a battery run one after another, and each meets only what those before it left: "
            + ("the lower group" if whole else "each of these")
            + " met harder cases, so that its shares and breaks per pass do not compare with others'."
        )
    sentences.append(
        "Alone: broken by it and missed by every other attack, each of which met the case. Untested: no other attack "
        "broke the case, but at least one never met it."
    )
    if several:
        sentences.append(
            f"{len(ranking.runs)} runs are pooled: {ranking.classifiers} classifiers, {len(ranking.threats)} threats."
        )
    if ranking.repeated:
        sentences.append(
            f"In {ranking.repeated} rows an attack was run more than once; what the first run found counts."
        )
    sentences += ranking.unknown
    sentences.append(f"Run{'s' if several else ''} {', '.join(ranking.runs)}.")
    return " ".join(sentences)


def _pairs_caption(ranking: AttackRanking) -> str:
    family = family_sentence([pair.p_value for pair in ranking.pairs], of="pairs")
    said = f"Cases that both met, neither because the other had missed them; exact McNemar p; {family}."
    if any(pair.cases < max(each.cases for each in ranking.attacks) for pair in ranking.pairs):
        said += " Fewer than all cases are those that others had missed, which favours attacks unlike these."
    if ranking.incomparable:
        said += (
            f" {ranking.incomparable} pairs are left out, as one meets only what the other missed; runs with batteries "
            "of one attack each, or a battery with closest = true, compare them."
        )
    return said
