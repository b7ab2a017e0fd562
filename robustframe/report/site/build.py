"""From runs to a folder of pages."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from robustframe.diagnose.table import QUESTIONS
from robustframe.report.site.board import Group, Model, Place, grouped, models
from robustframe.report.site.entries import Entry, read_runs
from robustframe.report.site.facts import facts
from robustframe.report.site.folder import check_out, put_in_place
from robustframe.report.site.markup import Environment
from robustframe.report.site.names import page_names
from robustframe.report.site.pages import (
    TWINS,
    VERDICTS,
    Page,
    Shown,
    by_run,
    by_threat,
    data_title,
    favicon,
    group_context,
    run_contexts,
    templates,
    threat_title,
)
from robustframe.report.site.pictures import MOST, Gallery
from robustframe.report.site.robustbench import model_info

LIMIT = 2_950_000
"""Bytes of a site's pages and data: below 3 MB with the list of its files."""
_LEVELS = [(MOST, True), (4, True), (3, True), (2, True), (2, False), (1, False), (0, False)]
"""How many examples are shown of a classifier under a threat, and whether also checks that passed say their sentence:
as much as fits."""


@dataclass(frozen=True)
class Site:
    """What was built."""

    folder: Path
    models: int
    rows: int
    size: int
    """Bytes of all files."""
    examples: int
    """Adversarial examples shown at most of a classifier under a threat; fewer than `MOST` where the site is large."""


def build_site(
    runs: Sequence[str], out: Path, *, run_folders: Path = Path("runs"), data_root: Path | None = None
) -> Site:
    """Build the leaderboard of some runs.

    Args:
        runs: folders of runs, complete or not, or published copies of them.
        out: the site's folder: not there, empty, or an earlier site, which is replaced.
        run_folders: where runs lie; the images of a published copy are taken from the run of the same record there.
        data_root: where data that does not ship lies, for the clean images beside the adversarial ones.

    Returns:
        Where the site is and how large.

    Raises:
        InputError: for no run, a folder that is none, a run that was altered, or a folder that holds something
            else.
    """
    check_out(out)
    entries = read_runs(runs, run_folders)
    groups = grouped(entries)
    pages = list(_pages(models(entries), data_root))
    renderer = _Renderer(templates(), entries, groups, pages)
    fixed = {**_fixed_files(pages, groups), **renderer.board()}
    for most, sentences in _LEVELS:
        files = {**fixed, **renderer.models(most=most, sentences=sentences)}
        size = sum(len(content) for content in files.values())
        if size <= LIMIT:
            break
    return Site(put_in_place(files, out), len(pages), len(entries), size, most)


def _pages(found: Sequence[Model], data_root: Path | None) -> Iterator[Page]:
    gallery = Gallery(data_root)
    names = page_names([(model.name, model.sha256) for model in found])
    for model, name in zip(found, names):
        shown = []
        for run, entries in by_run(model):
            if run.finished:
                for twins in by_threat(entries):
                    drawn = gallery.examples(twins)
                    shown += [Shown(entry, tuple(examples)) for entry, examples in zip(twins, drawn)]
        yield Page(model, name, facts(model), tuple(shown))


def _fixed_files(pages: Sequence[Page], groups: Sequence[Group]) -> dict[str, bytes]:
    """Everything that is no page: assets, recipes, the numbers as data."""
    assets = package_files("robustframe.report.site") / "assets"
    files = {f"assets/{name}": (assets / name).read_bytes() for name in ("site.css", "site.js")}
    for page in pages:
        for run, _ in by_run(page.model):
            if run.provenance.recipe is not None:
                files[f"recipes/{run.place}.toml"] = run.provenance.recipe.encode()
        files |= model_info(page.model.entries, page.name, page.facts)
    named = {(page.model.name, page.model.sha256): page.name for page in pages}
    rows = [_row(group, place, named) for group in groups for place in group.places]
    files["leaderboard.json"] = ("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n").encode()
    return files


def _row(group: Group, place: Place, names: dict[tuple[str, str], str]) -> dict[str, Any]:
    """One row of the board for machines; unknown is null."""
    entry = place.entry
    classifier, record, row, result = entry.classifier, entry.run.record, entry.row, entry.result
    return {
        "group": group.key,
        "data": record.data.use, "split": record.data.split, "examples": record.data.count,
        "threat": entry.threat.label, "batteries": entry.run.batteries,
        "model": classifier.model, "twin": TWINS[classifier.twin], "rank": place.rank, "rank_shared": place.shared,
        "robust": [row.robust.value, row.robust.low, row.robust.high] if row else None,
        "clean": [row.clean.value, row.clean.low, row.clean.high] if row else None,
        "certified": row.certified if row else None,
        "coherence": classifier.mutual_coherence, "verdict": entry.verdict,
        "reasons": [check.name for check in result.diagnosis.reasons] if result and result.diagnosis else [],
        "page": f"models/{names[classifier.model, classifier.sha256]}.html",
        "run": entry.run.key, "hash": record.hash, "weights_sha256": classifier.sha256,
        "evidence_sha256": record.evidence_sha256,
    }  # fmt: skip


class _Renderer:
    """The pages of a site; what does not depend on how much is shown is made once."""

    def __init__(
        self, environment: Environment, entries: Sequence[Entry], groups: Sequence[Group], pages: Sequence[Page]
    ) -> None:
        self.environment, self.entries, self.groups, self.pages = environment, entries, groups, pages
        runs = len({id(entry.run) for entry in entries})
        self.common = {"version": version("robustframe"), "runs": runs, "icon": favicon()}
        ranked = [sum(place.rank is not None for place in group.places) for group in groups]
        ranks = {id(place.entry): (place, of) for group, of in zip(groups, ranked) for place in group.places}
        self.contexts = [run_contexts(page, ranks) for page in pages]
        self.exported = [sorted(model_info(page.model.entries, page.name, page.facts)) for page in pages]

    def board(self) -> dict[str, bytes]:
        """The board, and how to read it."""
        named = {(page.model.name, page.model.sha256): page for page in self.pages}
        board = self._render(
            "index.html.j2", root="", here="board", pages=named, exported=any(self.exported),
            groups=[group_context(group, named) for group in self.groups], choices=_choices(self.groups, named),
        )  # fmt: skip
        return {
            "index.html": board,
            "reading.html": self._render("reading.html.j2", root="", here="reading", questions=QUESTIONS),
        }

    def models(self, *, most: int, sentences: bool) -> dict[str, bytes]:
        """A page for each model.

        Args:
            most: examples shown of a classifier under a threat.
            sentences: also those of checks that passed.
        """
        found = {}
        for page, contexts, exported in zip(self.pages, self.contexts, self.exported):
            found[f"models/{page.name}.html"] = self._render(
                "model.html.j2", root="../", here="", page=page, contexts=contexts, exported=exported, most=most,
                sentences=sentences,
            )  # fmt: skip
        return found

    def _render(self, template: str, **context: Any) -> bytes:
        return self.environment.get_template(template).render(**self.common, **context).encode()


def _choices(
    groups: Sequence[Group], pages: dict[tuple[str, str], Page]
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What each filter offers: values and their names, in order."""
    entries = [place.entry for group in groups for place in group.places]
    known = [pages[entry.classifier.model, entry.classifier.sha256].facts for entry in entries]
    plain: dict[str, tuple[str, set[str]]] = {
        "data": ("Data", {data_title(group.first) for group in groups}),
        "threat": ("Threat", {threat_title(group.first) for group in groups}),
        "structure": ("Structure", {each.structure for each in known}),
        "training": ("Training", {each.trained for each in known}),
        "twin": ("Twin", {TWINS[entry.classifier.twin] for entry in entries}),
    }
    choices = [(key, title, [(value, value) for value in sorted(values)]) for key, (title, values) in plain.items()]
    present = {entry.verdict for entry in entries}
    verdicts = [(name, text) for name, text in VERDICTS.items() if name in present]
    return [*choices, ("verdict", "Verdict", verdicts)]
