"""The pages of a site from its tables, models and pictures."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from robustframe.diagnose.table import QUESTIONS
from robustframe.report.layout import Cell
from robustframe.report.site.board import TWINS, BoardEntry
from robustframe.report.site.facts import Facts
from robustframe.report.site.findings import (
    BoardFinding,
    coherence_answer,
    coherence_findings,
    leading,
    twin_findings,
    twins_answer,
)
from robustframe.report.site.markup import Markup
from robustframe.report.site.pages import (
    VERDICTS,
    Page,
    association,
    data_title,
    favicon,
    group_context,
    run_contexts,
    templates,
    threat_title,
)
from robustframe.report.site.pictures import ExamplePicture
from robustframe.report.site.robustbench import Radii, model_info
from robustframe.report.site.rows import BoardRow, BoardSection, Group

_ON_PAGE = 6
"""Examples shown on the page of a model; the browser of examples has all."""


class Renderer:
    """The pages of a site; what does not depend on how much is shown is made once."""

    def __init__(
        self,
        sections: Sequence[BoardSection],
        pages: Sequence[Page],
        pictures: Mapping[BoardRow, Sequence[ExamplePicture]],
        several: Radii,
    ) -> None:
        self.environment, self.sections, self.pages, self.pictures = templates(), sections, pages, pictures
        self.named = {page.model.key: page for page in pages}
        runs = len({entry.source for page in pages for entry in page.model.entries})
        self.common = {
            "version": version("robustframe"), "runs": runs, "icon": favicon(), "examples": bool(pictures)
        }  # fmt: skip
        self.groups = [group for section in sections for group in section.groups]
        rows = {entry: row for group in self.groups for row in group.rows for entry in row.entries}
        places = {row: place for group in self.groups for row, place in _places(group)}
        self.contexts = [run_contexts(page, rows, places, pictures) for page in pages]
        self.exported = [sorted(model_info(page.model.entries, page.name, page.facts, several)) for page in pages]

    def board(self) -> dict[str, bytes]:
        """The board, how to read it, and two models beside each other."""
        twins, coherence = twin_findings(self.sections, self._facts), coherence_findings(self.sections, self._facts)
        first = leading(coherence)
        index = self._render(
            "index.html.j2", root="", here="board", pages=self.named, exported=any(self.exported),
            models=len(self.pages), choices=self._choices(),
            questions=[
                _question("twins", twins_answer(twins), twins, 1),
                _question("coherence", coherence_answer(coherence), coherence, 2),
            ],
            picture=None if first is None else (first, association(first.group, self.named)),
            sections=[
                {
                    "section": section, "data": data_title(section.first), "threat": threat_title(section.first),
                    "groups": [
                        group_context(group, self.named, picture=first is None or group is not first.group)
                        for group in section.groups
                    ],
                }
                for section in self.sections
            ],
        )  # fmt: skip
        return {
            "index.html": index,
            "reading.html": self._render("reading.html.j2", root="", here="reading", questions=QUESTIONS),
            "compare.html": self._render(
                "compare.html.j2", root="", here="compare", pages=self.pages, data=_inline(self._compared())
            ),
        }

    def models(self, *, most: int, sentences: bool) -> Iterator[tuple[str, bytes]]:
        """Yield the page of each model and the browser of examples, with their places in the site.

        Args:
            most: examples shown of a row.
            sentences: also those of checks that passed.
        """
        for page, contexts, exported in zip(self.pages, self.contexts, self.exported):
            content = self._render(
                "model.html.j2", root="../", here="", page=page, contexts=contexts, exported=exported,
                most=min(most, _ON_PAGE), sentences=sentences,
            )  # fmt: skip
            yield f"models/{page.name}.html", content
        if not self.pictures:
            return
        shown = {row: pictures[:most] for row, pictures in self.pictures.items() if pictures[:most]}
        yield "examples.html", self._render("examples.html.j2", root="", here="examples", pages=self.named, shown=shown)
        for picture in dict.fromkeys(each for pictures in shown.values() for each in pictures):
            yield f"examples/{picture.name}", picture.content

    def _render(self, template: str, **context: Any) -> bytes:
        return self.environment.get_template(template).render(**self.common, **context).encode()

    def _facts(self, row: BoardRow) -> Facts:
        return self.named[row.first.key].facts

    def _choices(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """What each filter offers: values and their names, in order."""
        rows = [row for group in self.groups for row in group.rows]
        plain = {
            "data": ("Data", {data_title(row.first) for row in rows}),
            "threat": ("Threat", {threat_title(row.first) for row in rows}),
            "structure": ("Structure", {self._facts(row).structure for row in rows}),
            "training": ("Training", {self._facts(row).trained for row in rows}),
        }
        choices = [(key, title, [(value, value) for value in sorted(values)]) for key, (title, values) in plain.items()]
        present = {row.verdict for row in rows}
        return [*choices, ("verdict", "Verdict", [(name, text) for name, text in VERDICTS.items() if name in present])]

    def _compared(self) -> list[dict[str, Any]]:
        """Every number of every model, with what became of each example, for two models beside each other."""
        return [
            {
                "page": self.named[row.first.key].name,
                "group": group.key,
                "title": f"{data_title(entry)}, {threat_title(entry)}, {entry.run.record.data.count:,} examples, "
                f"{entry.source.batteries}",
                "count": entry.run.record.data.count,
                "twin": TWINS[entry.classifier.twin],
                "robust": _percents(entry.row.robust),
                "clean": _percents(entry.row.clean),
                "verdict": VERDICTS[entry.verdict],
                "bits": _bits(entry),
            }
            for group in self.groups
            for row in group.rows
            for entry in row.shown
            if entry.row is not None
        ]


def _places(group: Group) -> Iterator[tuple[BoardRow, str]]:
    for placed in group.ranked:
        yield placed.row, f"{placed.rank}{'=' if placed.shared else ''} of {len(group.ranked)}"
    for row in group.apart:
        yield row, "not ranked"


def _question(key: str, answer: tuple[str, list[str]], findings: Sequence[BoardFinding], digits: int) -> dict[str, Any]:
    """One of the two questions of the first screen, answered."""
    ends = [
        abs(end)
        for each in findings
        if not each.structure
        for end in (each.cell.low, each.cell.high)
        if end is not None
    ]
    return {
        "key": key, "answer": answer[0], "lines": answer[1], "findings": findings, "leading": leading(findings),
        "digits": digits,
        "several": len({each.section.first.run.record.data.use for each in findings}) > 1,
        "reach": 1.0 if digits == 2 else max(ends, default=0.01),
        "titles": {each: threat_title(each.section.first) for each in findings},
    }  # fmt: skip


def _percents(cell: Cell) -> list[float]:
    return [round(100 * each, 1) for each in (cell.value, cell.low, cell.high) if each is not None]


def _bits(entry: BoardEntry) -> str:
    """Which examples are robust, eight to a byte, the first example highest."""
    return base64.b64encode(np.packbits(entry.verdicts["robust"].to_numpy()).tobytes()).decode()


def _inline(content: Any) -> Markup:
    """Write data into a page: inside a script element nothing is escaped, and nothing may end it."""
    return Markup(json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"))
