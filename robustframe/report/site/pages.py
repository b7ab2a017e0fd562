"""From entries and facts to pages: what each template is given, and the environment that escapes it all."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustframe.report.layout import Cell, coherence_text, one_line, written
from robustframe.report.pixels import png_url
from robustframe.report.site.board import TWINS, BoardEntry, BoardRun, Model
from robustframe.report.site.drawing import LinkedPoint, curve_picture, interval_bar, scatter_picture, zero_bar
from robustframe.report.site.facts import Facts
from robustframe.report.site.markup import NORM_SIGNS, Environment, Markup, environment
from robustframe.report.site.pictures import ExamplePicture
from robustframe.report.site.rows import BoardRow, Group
from robustframe.statistics import Proportion, resolution_sentence

KINDS = {"feedforward": "ff", "recurrent": "rec", None: "one"}
"""The class that gives a twin its colour."""
VERDICTS = {
    "sound": "sound",
    "suspicious": "suspicious",
    "unfinished": "checks not finished",
    "unchecked": "not checked",
    "begun": "run not finished",
}
_ENOUGH = 5
"""Of fewer models, no order of ranks is significant at 5 %, and a picture says nothing."""


@dataclass(frozen=True)
class Page:
    """One model with what is known of it."""

    model: Model
    name: str
    """File name, without ending."""
    facts: Facts


def templates() -> Environment:
    """Return the templates with everything that they use."""
    filters: dict[str, Callable[..., Any]] = {
        "cell": cell_text, "coherence": coherence_text, "bar": interval_bar,
        "zero_bar": zero_bar, "points": points_text, "png_url": png_url, "lines": lines,
        "share": share_text, "attack": attack_text,
    }  # fmt: skip
    return environment(filters, {"twins": TWINS, "kinds": KINDS, "verdicts": VERDICTS, "norms": NORM_SIGNS})


def cell_text(cell: Cell, p: float | None = None, signed: bool = False) -> Markup:
    """Write a number with its interval, and the p-value of a difference."""
    parts = written(cell, p, signed=signed)
    interval = f' <span class="ci">{parts.interval}</span>' if parts.interval else ""
    return Markup(
        f'<span class="num">{parts.value}</span>{interval}' + (f' <span class="p">{parts.p}</span>' if parts.p else "")
    )


def points_text(cell: Cell, digits: int = 1) -> Markup:
    """Write a difference in points, or a correlation with two digits, with its interval and signs."""
    times = 100 if digits == 1 else 1
    parts = [
        f"{times * each:+.{digits}f}".replace("-", "−")
        for each in (cell.value, cell.low, cell.high)
        if each is not None
    ]
    interval = f' <span class="ci">[{parts[1]}, {parts[2]}]</span>' if len(parts) == 3 else ""
    return Markup(f'<span class="num">{parts[0]}</span>{interval}')


def attack_text(label: str) -> str:
    """Name an attack by itself, then its battery: ``"apgd-t (swift@1)"`` for ``"swift@1/03-apgd-t"``."""
    battery, _, attack = label.partition("/")
    return f"{attack.partition('-')[2] or attack} ({battery})"


def share_text(share: Proportion) -> Markup:
    """Write a share of examples with its interval."""
    ends = share.interval()
    return cell_text(Cell(share.value, ends.low, ends.high))


def lines(text: str) -> Markup:
    """Escape a text and keep its lines and spaces, for a drawing in letters."""
    return Markup("\n").join(text.splitlines())


def group_context(group: Group, pages: Mapping[tuple[str, str], Page], *, picture: bool) -> dict[str, Any]:
    """What the board shows of a table besides its rows.

    Args:
        group: the table.
        pages: by name and weights of their models.
        picture: whether coherence against robustness is drawn, where there is enough of it.
    """
    entry = group.first
    return {
        "group": group,
        "count": f"{entry.run.record.data.count:,} examples",
        "examples": resolution_sentence(entry.run.record.data.count),
        "batteries": entry.source.batteries,
        "runs": list(dict.fromkeys(row.first.run.cited for row in group.rows)),
        "picture": association(group, pages) if picture else None,
    }


def data_title(entry: BoardEntry) -> str:
    """Name the data set of an entry, for people."""
    data = entry.run.record.data
    return f"{data.use} {data.split}"


def threat_title(entry: BoardEntry) -> str:
    """Name the threat of an entry, for people."""
    return f"{NORM_SIGNS[entry.threat.norm]} ≤ {entry.threat.label.partition(':')[2]}"


def association(group: Group, pages: Mapping[tuple[str, str], Page]) -> Markup | None:
    """Draw coherence against robustness, where there are enough sound models for it to say something."""
    points = [
        LinkedPoint(
            kind=KINDS[entry.classifier.twin],
            name=one_line(entry.classifier.name),
            href=f"models/{pages[entry.key].name}.html",
            row=placed.row.key,
            coherence=entry.classifier.mutual_coherence,
            robust=entry.row.robust,
        )
        for placed in group.ranked
        for entry in placed.row.shown
        if entry.classifier.mutual_coherence is not None and entry.row is not None
    ]
    if len({point.row for point in points}) < _ENOUGH:
        return None
    return scatter_picture(points, "Robust accuracy against mutual coherence, a point a classifier")


def by_run(model: Model) -> Iterator[tuple[BoardRun, list[BoardEntry]]]:
    """Group the entries of a model by run."""
    for source in dict.fromkeys(entry.source for entry in model.entries):
        yield source, [entry for entry in model.entries if entry.source is source]


def _by_threat(entries: Sequence[BoardEntry]) -> Iterator[list[BoardEntry]]:
    """Group the entries of one model in one run by threat."""
    for label in dict.fromkeys(entry.threat.label for entry in entries):
        yield [entry for entry in entries if entry.threat.label == label]


def run_contexts(
    page: Page,
    rows: Mapping[BoardEntry, BoardRow],
    places: Mapping[BoardRow, str],
    pictures: Mapping[BoardRow, Sequence[ExamplePicture]],
) -> list[dict[str, Any]]:
    """What a model's page shows of each run.

    Args:
        page: the page.
        rows: the row of each entry.
        places: what is said of the rank of each row.
        pictures: the adversarial examples of each row that has some.
    """
    return [
        {
            "source": source,
            "run": source.run,
            "threats": [
                {
                    "title": threat_title(own[0]),
                    "row": rows[own[0]],
                    "place": places[rows[own[0]]],
                    "entries": sorted(own, key=rows[own[0]].entries.index),
                    "examples": pictures.get(rows[own[0]], ()),
                    "broken": sum(
                        e.result.clean_correct - e.result.robust_correct for e in own if e.result is not None
                    ),
                    **_beside(sorted(own, key=rows[own[0]].entries.index)),
                }
                for own in _by_threat(entries)
            ],
            "curves": list(_curves(source, entries)),
        }
        for source, entries in by_run(page.model)
    ]


def _beside(entries: Sequence[BoardEntry]) -> dict[str, list[tuple[str, list[Any]]]]:
    """Checks and attacks of the classifiers beside each other: by name what each says, `None` where nothing."""
    checks: dict[str, list[Any]] = {}
    attacks: dict[str, list[Any]] = {}
    for at, entry in enumerate(entries):
        if entry.result is None:
            continue
        for check in entry.result.diagnosis.checks if entry.result.diagnosis is not None else []:
            checks.setdefault(check.name, [None] * len(entries))[at] = check
        for attack in entry.result.attacks:
            attacks.setdefault(attack.label, [None] * len(entries))[at] = attack
    return {"checks": list(checks.items()), "attacks": list(attacks.items())}


def _curves(source: BoardRun, entries: Sequence[BoardEntry]) -> Iterator[dict[str, Any]]:
    twins = {entry.classifier.name: entry.classifier.twin for entry in entries}
    own = [curve for curve in source.curves if curve.classifier in twins]
    for kind in dict.fromkeys(curve.kind for curve in own):
        same = [curve for curve in own if curve.kind == kind]
        drawn = [(KINDS[twins[curve.classifier]], curve) for curve in same]
        label = "; ".join(
            f"{TWINS[twins[curve.classifier]]}: {100 * curve.at(0.0).value:.1f} % at 0, "
            f"{100 * curve.at(curve.reach).value:.1f} % at {curve.reach:g}"
            for curve in same
        )
        yield {
            "norm": kind,
            "svg": curve_picture(drawn, f"Robust accuracy over eps in {kind}. {label}"),
            "curves": [(twins[curve.classifier], curve) for curve in same],
            "violations": [violation for curve in same for violation in curve.violations],
        }


def favicon() -> str:
    """Return the site's mark, so that no browser asks for one."""
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        '<rect width="16" height="16" rx="4" fill="#0b6f78"/>'
        '<path d="M3.5 4.5h9M3.5 8h6.5M3.5 11.5h3.5" stroke="#fff" stroke-width="1.6" stroke-linecap="round"/></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
