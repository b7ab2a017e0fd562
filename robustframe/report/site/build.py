"""From runs to a folder of pages."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from robustframe.diagnose.table import QUESTIONS
from robustframe.report.site.board import TWINS, BoardEntry, Group, Place, grouped, models, read_runs
from robustframe.report.site.facts import facts
from robustframe.report.site.folder import check_out, put_in_place
from robustframe.report.site.markup import Environment
from robustframe.report.site.pages import (
    VERDICTS,
    Page,
    by_run,
    data_title,
    favicon,
    group_context,
    run_contexts,
    templates,
    threat_title,
)
from robustframe.report.site.pictures import MOST, ExamplePicture, draw_examples
from robustframe.report.site.robustbench import Radii, model_info, radii
from robustframe.runs.units import slug

LIMIT = 2_950_000
"""Bytes of a site's pages and data: below 3 MB with the list of its files."""
_LEVELS = [(MOST, True), (4, True), (3, True), (2, True), (2, False), (1, False), (0, False)]
"""How many examples are shown of a classifier under a threat, and whether also checks that passed say their sentence:
as much as fits."""
_LONGEST = 60
"""Characters of a page's name before its mark."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(10))}
"""Names that Windows keeps for devices, whatever ending they have."""


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
    # Before frames are measured: the images are gone by then, so that not both are in memory.
    pictures = draw_examples(entries, data_root)
    found = models(entries)
    names = page_names([(model.name, model.sha256) for model in found])
    pages = [Page(model, name, facts(model)) for model, name in zip(found, names)]
    several = radii(entries)
    renderer = _Renderer(templates(), groups, pages, pictures, several)
    fixed = {**_fixed_files(pages, groups, several), **renderer.board()}
    for most, sentences in _LEVELS:
        files, size = dict(fixed), sum(len(content) for content in fixed.values())
        for name, content in renderer.models(most=most, sentences=sentences):
            files[name], size = content, size + len(content)
            # The last level stays, however large it is; of another, what is too much is not made.
            if size > LIMIT and (most, sentences) != _LEVELS[-1]:
                break
        if size <= LIMIT:
            break
    return Site(put_in_place(files, out), len(pages), len(entries), size, most)


def _fixed_files(pages: Sequence[Page], groups: Sequence[Group], several: Radii) -> dict[str, bytes]:
    """Everything that is no page: assets, recipes, the numbers as data."""
    assets = package_files("robustframe.report.site") / "assets"
    files = {f"assets/{name}": (assets / name).read_bytes() for name in ("site.css", "site.js")}
    for page in pages:
        for source, _ in by_run(page.model):
            if source.provenance.recipe is not None:
                files[f"recipes/{source.place}.toml"] = source.provenance.recipe.encode()
        files |= model_info(page.model.entries, page.name, page.facts, several)
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
        "threat": entry.threat.label, "batteries": entry.source.batteries,
        "model": classifier.model, "twin": TWINS[classifier.twin], "rank": place.rank, "rank_shared": place.shared,
        "robust": [row.robust.value, row.robust.low, row.robust.high] if row else None,
        "clean": [row.clean.value, row.clean.low, row.clean.high] if row else None,
        "certified": row.certified if row else None,
        "coherence": classifier.mutual_coherence, "verdict": entry.verdict,
        "reasons": [check.name for check in result.diagnosis.reasons] if result and result.diagnosis else [],
        "page": f"models/{names[classifier.model, classifier.sha256]}.html",
        "run": entry.run.name, "hash": record.hash, "weights_sha256": classifier.sha256,
        "evidence_sha256": record.evidence_sha256, "seal": entry.run.seal if entry.run.complete else None,
    }  # fmt: skip


class _Renderer:
    """The pages of a site; what does not depend on how much is shown is made once."""

    def __init__(
        self,
        environment: Environment,
        groups: Sequence[Group],
        pages: Sequence[Page],
        pictures: Mapping[BoardEntry, Sequence[ExamplePicture]],
        several: Radii,
    ) -> None:
        self.environment, self.groups, self.pages = environment, groups, pages
        runs = len({entry.source for page in pages for entry in page.model.entries})
        self.common = {"version": version("robustframe"), "runs": runs, "icon": favicon()}
        ranked = [sum(place.rank is not None for place in group.places) for group in groups]
        ranks = {place.entry: (place, of) for group, of in zip(groups, ranked) for place in group.places}
        self.contexts = [run_contexts(page, ranks, pictures) for page in pages]
        self.exported = [sorted(model_info(page.model.entries, page.name, page.facts, several)) for page in pages]

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

    def models(self, *, most: int, sentences: bool) -> Iterator[tuple[str, bytes]]:
        """Yield the page of each model, with its place in the site.

        Args:
            most: examples shown of a classifier under a threat.
            sentences: also those of checks that passed.
        """
        for page, contexts, exported in zip(self.pages, self.contexts, self.exported):
            content = self._render(
                "model.html.j2", root="../", here="", page=page, contexts=contexts, exported=exported, most=most,
                sentences=sentences,
            )  # fmt: skip
            yield f"models/{page.name}.html", content

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


def page_names(models: Sequence[tuple[str, str]]) -> list[str]:
    """Name the page of each model: whatever it is called, its page stays in the site's folder and is no other's.

    Args:
        models: what each is called, any text, with the hash of its weights; all different.

    Returns:
        File names without ending, of letters, digits, dot, dash and underscore, at most 80 long, no two equal even
        where a file system does not tell capitals apart. A name that can stand as it is does.

    >>> page_names([("resnet20", "a"), ("../up", "b")])
    ['resnet20', '_up-2a347c24']
    """
    plain = [name if _stands(name) else "" for name, _ in models]
    taken = [name.casefold() for name in plain]
    return [
        given if given and taken.count(given.casefold()) == 1 else _marked(name, weights)
        for given, (name, weights) in zip(plain, models)
    ]


def _stands(name: str) -> bool:
    """Whether a name can be that of a file as it is, everywhere."""
    return name == slug(name)[:_LONGEST].rstrip(".") and name.split(".")[0].casefold() not in _RESERVED


def _marked(name: str, weights: str) -> str:
    """Make a file name of any name, with a mark by which it is this model's only."""
    stem = slug(name)[:_LONGEST].strip(".") or "_"
    if stem.split(".")[0].casefold() in _RESERVED:
        stem = f"_{stem}"
    mark = hashlib.sha256(f"{name}\n{weights}".encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{stem}-{mark}"
