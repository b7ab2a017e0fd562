"""The board as files: a row a classifier as JSON and CSV, and what to cite as BibTeX."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustframe.recipe import About
from robustframe.report.layout import one_line
from robustframe.report.site.board import TWINS, BoardEntry, BoardRun
from robustframe.report.site.rows import BoardRow, BoardSection, Group
from robustframe.runs.units import slug

_ENDS = ("", "_low", "_high")


def leaderboard(found: Sequence[BoardSection], pages: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    """Return a row a classifier, in the order of the board; unknown is null.

    Args:
        found: the tables.
        pages: the page of each model, by its name and weights.
    """
    return [
        _row(group, row, entry, rank, shared, pages)
        for section in found
        for group in section.groups
        for row, rank, shared in _ranks(group)
        for entry in row.entries
    ]


def as_json(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the rows as JSON, a line a row."""
    return ("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n").encode()


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the rows as CSV; a number with its interval is three columns, and of the hashes only the seal is there."""
    flat = [dict(_flat(row)) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def as_bibtex(sources: Sequence[BoardRun]) -> bytes:
    """Write an entry a run, and one a model whose recipe says where it is published."""
    entries: list[str] = []
    for source in sources:
        run = source.run
        data = run.record.data
        entries.append(
            _bibtex("misc", f"robustframe-{source.place}", {
                "title": f"{run.record.name}: robustness on {data.use} {data.split}, {data.count} examples",
                "note": f"Evaluated by robustframe {run.record.environment.robustframe} with {source.batteries}; "
                + (f"seal {run.seal}" if run.complete else "not finished"),
            })
        )  # fmt: skip
        if not run.from_python:
            entries += [_paper(source, at, spec.about) for at, spec in enumerate(run.recipe().model) if spec.about]
    return "\n".join(dict.fromkeys(entries)).encode()


def _paper(source: BoardRun, at: int, about: About) -> str:
    fields = {
        "title": about.title, "author": " and ".join(about.authors), "booktitle": about.venue,
        "year": about.year, "url": about.link,
    }  # fmt: skip
    return _bibtex("inproceedings" if about.venue else "misc", f"{source.place}-model-{at + 1}", fields)


def _bibtex(kind: str, key: str, fields: Mapping[str, object]) -> str:
    # Braces and backslashes of a name would end the field, or the run of LaTeX.
    said = {
        name: one_line(str(value)).translate(dict.fromkeys(map(ord, "{}\\"))) for name, value in fields.items() if value
    }
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in said.items())
    return f"@{kind}{{{slug(key)},\n{lines}}}\n"


def _ranks(group: Group) -> Iterator[tuple[BoardRow, int | None, bool]]:
    for placed in group.ranked:
        yield placed.row, placed.rank, placed.shared
    for row in group.apart:
        yield row, None, False


def _row(
    group: Group, row: BoardRow, entry: BoardEntry, rank: int | None, shared: bool, pages: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    classifier, record, numbers, result = entry.classifier, entry.run.record, entry.row, entry.result
    difference = row.difference if entry is row.recurrent else None
    return {
        "group": group.key,
        "data": record.data.use, "split": record.data.split, "examples": record.data.count,
        "threat": entry.threat.label, "batteries": entry.source.batteries,
        "model": classifier.model, "twin": TWINS[classifier.twin], "sweeps": classifier.sweeps,
        "rank": rank, "rank_shared": shared,
        "robust": [numbers.robust.value, numbers.robust.low, numbers.robust.high] if numbers else None,
        "clean": [numbers.clean.value, numbers.clean.low, numbers.clean.high] if numbers else None,
        "difference": [difference.value, difference.low, difference.high] if difference else None,
        "certified": numbers.certified if numbers else None,
        "coherence": classifier.mutual_coherence, "verdict": entry.verdict,
        "reasons": [check.name for check in result.diagnosis.reasons] if result and result.diagnosis else [],
        "page": f"models/{pages[entry.key]}.html",
        "run": entry.run.name, "hash": record.hash, "weights_sha256": classifier.sha256,
        "evidence_sha256": record.evidence_sha256, "seal": entry.run.seal if entry.run.complete else None,
    }  # fmt: skip


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name.endswith(("hash", "_sha256")):
            continue
        if name in ("robust", "clean", "difference"):
            yield from zip((f"{name}{end}" for end in _ENDS), value or (None,) * len(_ENDS))
        elif isinstance(value, str):
            # A spreadsheet runs a text that begins like a formula.
            yield name, f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        else:
            yield name, " ".join(value) if isinstance(value, list) else value
