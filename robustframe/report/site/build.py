"""From runs to a folder of pages."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

from robustframe.report.site.board import BoardEntry, models, read_runs
from robustframe.report.site.downloads import as_bibtex, as_csv, as_json, leaderboard
from robustframe.report.site.facts import card_of, facts
from robustframe.report.site.folder import check_out, put_in_place
from robustframe.report.site.pages import Page, by_run
from robustframe.report.site.pictures import draw_examples
from robustframe.report.site.render import Renderer
from robustframe.report.site.robustbench import Radii, model_info, radii
from robustframe.report.site.rows import BoardSection, sections
from robustframe.runs.kept import MOST
from robustframe.runs.units import slug

LIMIT = 2_950_000
"""Bytes of a site's pages and data: below 3 MB with the list of its files."""
_LEVELS = [(MOST, True), *((most, False) for most in (MOST, 16, 8, 6, 4, 2, 1, 0))]
"""How many examples are shown of a row, and whether also checks that passed say their sentence:
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
    """Adversarial examples shown at most of a row; fewer than `MOST` where the site is large."""


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
    found = sections(entries, _made_for)
    # Before frames are measured: the images are gone by then, so that not both are in memory.
    pictures = draw_examples((row for section in found for group in section.groups for row in group.rows), data_root)
    known = models(entries)
    names = page_names([(model.name, model.sha256) for model in known])
    pages = [Page(model, name, facts(model)) for model, name in zip(known, names)]
    several = radii(entries)
    renderer = Renderer(found, pages, pictures, several)
    fixed = {**_fixed_files(pages, found, several), **renderer.board()}
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


def _made_for(entry: BoardEntry) -> int | None:
    card = card_of(entry)
    return card.sweeps if card is not None else None


def _fixed_files(pages: Sequence[Page], found: Sequence[BoardSection], several: Radii) -> dict[str, bytes]:
    """Everything that is no page: assets, recipes, the numbers as data."""
    assets = package_files("robustframe.report.site") / "assets"
    files = {f"assets/{name}": (assets / name).read_bytes() for name in ("site.css", "site.js", "compare.js")}
    for page in pages:
        for source, _ in by_run(page.model):
            if source.provenance.recipe is not None:
                files[f"recipes/{source.place}.toml"] = source.provenance.recipe.encode()
        files |= model_info(page.model.entries, page.name, page.facts, several)
    rows = leaderboard(found, {page.model.key: page.name for page in pages})
    return files | {
        "leaderboard.json": as_json(rows),
        "leaderboard.csv": as_csv(rows),
        "cite.bib": as_bibtex(list(dict.fromkeys(each.source for page in pages for each in page.model.entries))),
    }


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
