"""What was found, for the first screen: which twin is more robust, and whether coherence matters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robustframe.report.layout import Cell
from robustframe.report.robust_ranks import ENOUGH, Rankable, robust_ranks
from robustframe.report.site.facts import Facts
from robustframe.report.site.markup import NORM_SIGNS
from robustframe.report.site.rows import BoardRow, BoardSection, Group
from robustframe.statistics import crossed_mean

_ORDER = ("normal", "linf", "l2", "l1", "adversarial", "unknown")
Known = Callable[[BoardRow], Facts]


@dataclass(frozen=True)
class BoardFinding:
    """One number about pairs of one training under one threat, from the table that has the most sound ones."""

    training: str
    structure: str
    """Empty for all structures together."""
    section: BoardSection
    group: Group
    pairs: int
    apart: int
    """Pairs that were left out, since a check doubts them or they are not finished."""
    cell: Cell
    """A difference of accuracies or a rank correlation, with its 95 % interval."""
    twin: str = "recurrent"
    """Whose robustness a correlation is about."""

    @property
    def sign(self) -> int:
        """On which side of zero the whole interval lies; 0 when on neither."""
        if self.cell.low is None or self.cell.high is None:
            return 0
        return (self.cell.low > 0) - (self.cell.high < 0)


def twin_findings(sections: Sequence[BoardSection], known: Known) -> list[BoardFinding]:
    """How much more robust recurrent twins are than feed-forward ones: for each training, threat and structure."""
    found = []
    for training, section, group, rows in _measured(sections, known, lambda row: row.difference is not None):
        for structure, own in [("", rows), *_by_structure(rows, known)]:
            apart = _apart(group, known, training, structure)
            found.append(BoardFinding(training, structure, section, group, len(own), apart, _gain(own)))
    return found


def coherence_findings(sections: Sequence[BoardSection], known: Known) -> list[BoardFinding]:
    """How robust accuracy goes with the coherence of frames, by rank: for each training, threat, twin and structure."""
    found = []
    for training, section, group, rows in _measured(sections, known, _has_coherence):
        for twin in ("recurrent", "feedforward"):
            strata = [("", rows), *(_by_structure(rows, known) if twin == "recurrent" else ())]
            for structure, own in strata:
                cell = _rank_correlation(own, twin, known)
                if cell is not None:
                    apart = _apart(group, known, training, structure)
                    found.append(BoardFinding(training, structure, section, group, len(own), apart, cell, twin))
    return found


def leading(findings: Sequence[BoardFinding]) -> BoardFinding | None:
    """The finding about the most pairs, which a sentence names first."""
    whole = [each for each in findings if not each.structure]
    return max(whole, key=lambda each: each.pairs, default=None)


def twins_answer(findings: Sequence[BoardFinding]) -> tuple[str, list[str]]:
    """Which twin is more robust: in a sentence, and in one for each training."""
    whole = [each for each in findings if not each.structure]
    several, lines = _several(findings), []
    for training in dict.fromkeys(each.training for each in whole):
        own = [each for each in whole if each.training == training]
        said = [
            _where(own, +1, "recurrent by {} points at {}", several=several),
            _where(own, -1, "feed-forward by {} points at {}", several=several),
            _where(own, 0, "not told apart at {1}", several=several),
        ]
        lines.append(f"{_trained(training)}: {'; '.join(each for each in said if each)}.")
    signs = {each.sign for each in whole}
    if not signs:
        return "No pair has been measured soundly yet", lines
    if signs == {0}:
        return "The twins cannot be told apart", lines
    if {1, -1} <= signs:
        return "It depends on training and radius", lines
    who = "recurrent" if 1 in signs else "feed-forward"
    return f"The {who} twin, {'where they can be told apart' if 0 in signs else 'under every threat'}", lines


def coherence_answer(findings: Sequence[BoardFinding]) -> tuple[str, list[str]]:
    """Whether coherence matters: in a sentence, and in one about the most pairs."""
    signs = {each.sign for each in findings if not each.structure}
    first = leading(findings)
    if first is None:
        return f"Not known: it takes {ENOUGH} sound pairs under one threat", []
    ends = (first.cell.value, first.cell.low, first.cell.high)
    value, low, high = (f"{each or 0.0:+.2f}".replace("-", "−") for each in ends)
    pairs = f"{first.pairs} pairs at {_at([first], several=_several(findings))}"
    lines = [f"{_trained(first.training)}, {pairs}: ρ {value}, anything from {low} to {high}."]
    if signs == {0}:
        return "No relation to robustness is seen", lines
    if {1, -1} <= signs:
        return "It depends on training, twin and radius", lines
    return f"{'More' if 1 in signs else 'Less'} coherent frames go with more robust models", lines


def _trained(training: str) -> str:
    return {"normal": "Trained normally", "unknown": "Training unknown"}.get(training, f"Trained against {training}")


def _where(findings: Sequence[BoardFinding], sign: int, text: str, *, several: bool) -> str:
    own = [each for each in findings if each.sign == sign]
    points = [f"{abs(100 * (each.cell.value or 0.0)):.1f}" for each in own]
    return text.format(_listed(points), _at(own, several=several)) if own else ""


def _several(findings: Sequence[BoardFinding]) -> bool:
    """Whether findings are on several data sets, so that each has to be named."""
    return len({each.section.first.run.record.data.use for each in findings}) > 1


def _at(findings: Sequence[BoardFinding], *, several: bool) -> str:
    """Name the threats of findings, each norm once."""
    of: dict[str, list[str]] = {}
    for each in findings:
        entry = each.section.first
        data = f"{entry.run.record.data.use}, " if several else ""
        kind = f"{data}{NORM_SIGNS[entry.threat.norm]} ≤"
        of.setdefault(kind, []).append(entry.threat.label.partition(":")[2])
    return "; ".join(f"{kind} {_listed(radii)}" for kind, radii in of.items())


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _measured(
    sections: Sequence[BoardSection], known: Known, counts: Callable[[BoardRow], bool]
) -> list[tuple[str, BoardSection, Group, list[BoardRow]]]:
    """For each training and threat the sound rows that count, of the table that has the most of them."""
    found = []
    for section in sections:
        rows = [(group, [placed.row for placed in group.ranked if counts(placed.row)]) for group in section.groups]
        for training in {known(row).trained for _, own in rows for row in own}:
            of_kind = [(group, [row for row in own if known(row).trained == training]) for group, own in rows]
            group, most = max(of_kind, key=lambda each: len(each[1]))
            found.append((training, section, group, most))
    return sorted(found, key=lambda each: (_ORDER.index(each[0]), each[1].first.threat.norm, each[1].first.threat.eps))


def _apart(group: Group, known: Known, training: str, structure: str) -> int:
    """Count the pairs that a finding leaves out."""
    facts = [known(row) for row in group.apart if len(row.shown) > 1]
    return sum(each.trained == training and structure in ("", each.structure) for each in facts)


def _by_structure(rows: Sequence[BoardRow], known: Known) -> list[tuple[str, list[BoardRow]]]:
    """The rows of each structure; none where there is but one."""
    names = sorted({known(row).structure for row in rows})
    if len(names) < 2:
        return []
    return [(name, [row for row in rows if known(row).structure == name]) for name in names]


def _gain(rows: Sequence[BoardRow]) -> Cell:
    if len(rows) == 1 and rows[0].difference is not None:
        return rows[0].difference
    gains = [_robust(row, "recurrent") - _robust(row, "feedforward") for row in rows]
    mean = crossed_mean(np.stack(gains))
    return Cell(mean.value, mean.interval.low, mean.interval.high)


def _robust(row: BoardRow, twin: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    entry = row.recurrent if twin == "recurrent" else row.feedforward
    return np.zeros(0) if entry is None else entry.verdicts["robust"].to_numpy().astype(np.float64)


def _has_coherence(row: BoardRow) -> bool:
    return row.difference is not None and row.first.classifier.mutual_coherence is not None


def _rank_correlation(rows: Sequence[BoardRow], twin: str, known: Known) -> Cell | None:
    entries = [(row, row.recurrent if twin == "recurrent" else row.feedforward) for row in rows]
    ranks = robust_ranks(
        [
            Rankable(
                entry.classifier.mutual_coherence,
                float(entry.verdicts["robust"].mean()),  # type: ignore[arg-type]
                float(entry.verdicts["clean_correct"].mean()),  # type: ignore[arg-type]
                known(row).structure,
            )
            for row, entry in entries
            if entry is not None and entry.classifier.mutual_coherence is not None
        ]
    ).found
    return None if ranks is None else Cell(ranks.value, ranks.interval.low, ranks.interval.high)
