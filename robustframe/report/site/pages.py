"""From entries and facts to pages: what each template is given, and the environment that escapes it all."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustframe.report.layout import Cell, coherence_text, one_line, written
from robustframe.report.pixels import png_url
from robustframe.report.site.board import TWINS, BoardEntry, BoardRun, Group, Model, Place
from robustframe.report.site.drawing import LinkedPoint, curve_picture, interval_bar, scatter_picture
from robustframe.report.site.facts import Facts
from robustframe.report.site.markup import Environment, Markup, environment
from robustframe.report.site.pictures import ExamplePicture
from robustframe.statistics import Proportion, resolution_sentence, spearman

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
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


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
        "cell": cell_text, "coherence": coherence_text, "bar": interval_bar, "png_url": png_url, "lines": lines,
        "share": share_text,
    }  # fmt: skip
    return environment(filters, {"twins": TWINS, "kinds": KINDS, "verdicts": VERDICTS, "norms": NORMS})


def cell_text(cell: Cell, p: float | None = None, signed: bool = False) -> Markup:
    """Write a number with its interval, and the p-value of a difference."""
    parts = written(cell, p, signed=signed)
    interval = f' <span class="ci">{parts.interval}</span>' if parts.interval else ""
    return Markup(
        f'<span class="num">{parts.value}</span>{interval}' + (f' <span class="p">{parts.p}</span>' if parts.p else "")
    )


def share_text(share: Proportion) -> Markup:
    """Write a share of examples with its interval."""
    ends = share.interval()
    return cell_text(Cell(share.value, ends.low, ends.high))


def lines(text: str) -> Markup:
    """Escape a text and keep its lines and spaces, for a drawing in letters."""
    return Markup("\n").join(text.splitlines())


def group_context(group: Group, pages: dict[tuple[str, str], Page]) -> dict[str, Any]:
    """What the board shows of a group besides its rows."""
    entry = group.first
    finished = [place for place in group.places if place.rank is not None]
    return {
        "group": group,
        "data": data_title(entry),
        "threat": threat_title(entry),
        "examples": resolution_sentence(entry.run.record.data.count),
        "batteries": entry.source.batteries,
        "runs": list(dict.fromkeys(place.entry.run.cited for place in group.places)),
        "certified": any(place.entry.row and place.entry.row.certified is not None for place in group.places),
        "picture": _association(finished, pages),
    }


def data_title(entry: BoardEntry) -> str:
    """Name the examples of an entry, for people."""
    data = entry.run.record.data
    return f"{data.use} {data.split}, {data.count:,}"


def threat_title(entry: BoardEntry) -> str:
    """Name the threat of an entry, for people."""
    return f"{NORMS[entry.threat.norm]} ≤ {entry.threat.label.partition(':')[2]}"


def _association(places: Sequence[Place], pages: dict[tuple[str, str], Page]) -> dict[str, Any] | None:
    """Coherence against robustness, where there are enough models for it to say something."""
    points, sentences = [], []
    for twin in ("feedforward", "recurrent"):
        own = [
            place.entry
            for place in places
            if place.entry.classifier.twin == twin and place.entry.classifier.mutual_coherence is not None
        ]
        if len(own) < _ENOUGH:
            continue
        points += [_point(entry, pages) for entry in own]
        found = spearman([_coherence(e) for e in own], [_robust(e).value or 0.0 for e in own], seed=0)
        if found is not None:
            ends = f"[{found.interval.low:+.2f}, {found.interval.high:+.2f}]"
            sentences.append(
                f"{TWINS[twin]}: Spearman's rho {found.value:+.2f} {ends}, p = {found.p_value:.2g}, {found.n} models"
            )
    if not points:
        return None
    return {
        "svg": scatter_picture(points, "Robust accuracy against mutual coherence, a point a classifier"),
        "text": "; ".join(sentences),
    }


def _coherence(entry: BoardEntry) -> float:
    return entry.classifier.mutual_coherence or 0.0


def _robust(entry: BoardEntry) -> Cell:
    return entry.row.robust if entry.row is not None else Cell()


def _point(entry: BoardEntry, pages: dict[tuple[str, str], Page]) -> LinkedPoint:
    page = pages[entry.classifier.model, entry.classifier.sha256]
    return LinkedPoint(
        KINDS[entry.classifier.twin],
        one_line(entry.classifier.name),
        f"models/{page.name}.html",
        _coherence(entry),
        _robust(entry),
    )


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
    ranks: Mapping[BoardEntry, tuple[Place, int]],
    pictures: Mapping[BoardEntry, Sequence[ExamplePicture]],
) -> list[dict[str, Any]]:
    """What a model's page shows of each run.

    Args:
        page: the page.
        ranks: the place of each entry, and how many its group ranks.
        pictures: the adversarial examples of each entry that has some.
    """
    return [
        {
            "source": source,
            "run": source.run,
            "threats": [
                {
                    "title": threat_title(own[0]),
                    "entries": [(entry, *ranks[entry]) for entry in own],
                    "examples": [(entry, pictures.get(entry, ())) for entry in own],
                    **_beside(own),
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
    for norm in dict.fromkeys(curve.norm for curve in own):
        same = [curve for curve in own if curve.norm == norm]
        drawn = [(KINDS[twins[curve.classifier]], curve) for curve in same]
        label = "; ".join(
            f"{TWINS[twins[curve.classifier]]}: {100 * curve.at(0.0).value:.1f} % at 0, "
            f"{100 * curve.at(curve.reach).value:.1f} % at {curve.reach:g}"
            for curve in same
        )
        yield {
            "norm": norm,
            "svg": curve_picture(drawn, f"Robust accuracy over eps in {norm}. {label}"),
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
