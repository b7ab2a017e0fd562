"""Photographs the board, and draws every kind of figure at the size of print: `make pictures` writes build/pictures/.

They are for looking at, before a release and after each change of style: first screen, a pair, two models beside each
other, the examples, a phone, the dark, and the figures with their captions.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from robustframe.report import figures
from robustframe.report.site import build_site
from robustframe.runs import open_run
from robustframe.zoo import load

ROOT = Path(__file__).parents[1]
EVALUATIONS = ROOT / "evaluations"
BOARD = ("default", "coherence", "aware", "unaware", "pursuits", "sweeps")
DESK, PHONE = (1280, 800), (390, 844)
PAIR = "fmnist-chain3-linf"
SCREENS: dict[str, tuple[str, tuple[int, int], str, bool]] = {
    "first": ("index.html", DESK, "light", False),
    "board": ("index.html", DESK, "light", True),
    "dark": ("index.html", DESK, "dark", False),
    "phone": ("index.html", PHONE, "light", False),
    "phone-pair": (f"models/{PAIR}.html", PHONE, "light", False),
    "pair": (f"models/{PAIR}.html", DESK, "light", True),
    "compare": (f"compare.html#a=fmnist-chain3&b={PAIR}", DESK, "light", True),
    "examples": ("examples.html", DESK, "light", False),
}
"""Page, size of the window, ground, and whether the whole page is taken."""


def photograph(browser: Browser, site: Path, out: Path) -> None:
    """Take every screen of a site."""
    for name, (page, (width, height), scheme, whole) in SCREENS.items():
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
        )
        shown = context.new_page()
        file, mark, place = page.partition("#")
        shown.goto((site / file).as_uri() + mark + place)
        shown.screenshot(path=out / f"{name}.png", full_page=whole)
        context.close()


def draw(out: Path) -> None:
    """Draw every kind of figure at the width of one or two columns, and write its caption."""
    run = {name: open_run(EVALUATIONS / name / "results") for name in BOARD}
    frame = load(PAIR)[0].frame
    points = figures.gather_points([run["coherence"]])
    kinds: dict[str, tuple[str, Callable[[float], figures.Figure]]] = {
        "coherence": ("1col", lambda room: figures.association_figure(points, room=room)),
        "coherence-wide": ("2col", lambda room: figures.association_figure(points, room=room)),
        "curves": ("2col", lambda room: figures.curve_figure(figures.gather_curves([run["unaware"]]), room=room)),
        "radius": ("2col", lambda room: figures.curve_figure(figures.gather_curves([run["coherence"]]), room=room)),
        "sweeps": ("2col", lambda room: figures.sweeps_figure(figures.gather_sweeps([run["sweeps"]]), room=room)),
        "attacks": ("2col", lambda room: figures.outcome_figure(figures.gather_outcomes([run["default"]]), room=room)),
        "gram": ("1col", lambda room: figures.gram_figure(frame)),
        "atoms": ("1col", lambda room: figures.filters_figure(frame)),
    }
    for name, (width, make) in kinds.items():
        paper = figures.Paper.of(width)
        chart = make(paper.room)
        figures.write(chart, out / f"{name}.png", paper=paper)
        (out / f"{name}.txt").write_text(figures.caption(chart) + "\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    out = Path(arguments[0]) if arguments else ROOT / "build" / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    draw(out)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("no chromium is installed, so the board is not photographed", file=sys.stderr)
        return
    site = build_site([str(EVALUATIONS / name / "results") for name in BOARD], out / "site", run_folders=ROOT / "runs")
    with sync_playwright() as playwright:
        # Containers run as root, whom the sandbox refuses.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        photograph(browser, site.folder, out)
        browser.close()
    print(f"look at every picture in {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
