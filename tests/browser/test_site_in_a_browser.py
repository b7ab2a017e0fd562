"""The leaderboard as a reader meets it: from a file, in chromium, by mouse, by keyboard, on a phone, in the dark."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 800}


class Reader:
    """A page that notes what goes wrong in it and where it asks for something."""

    def __init__(self, browser: Any, site: Path, **settings: Any) -> None:
        self.site = site
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))

    def open(self, file: str = "index.html") -> None:
        name, mark, place = file.partition("#")
        self.page.goto((self.site / name).as_uri() + mark + place)

    def shown(self, what: str) -> list[str]:
        """The texts of the elements that can be seen."""
        found = self.page.locator(what)
        return [found.nth(at).inner_text() for at in range(found.count()) if found.nth(at).is_visible()]

    def robust(self) -> list[float | None]:
        """The accuracies of the recurrent twins in the first table, from above; `None` where unknown."""
        texts = self.page.locator("table.board:not([hidden])").first.locator("td.robust.rec").all()
        return [float(value) if (value := each.get_attribute("data-v")) else None for each in texts]

    def models(self) -> list[str]:
        """The names of the rows that can be seen, from above."""
        return [name.splitlines()[0] for name in self.shown("tbody th.model")]

    def focused(self) -> str:
        return self.page.evaluate("(document.activeElement.id || document.activeElement.innerText).trim()")


@pytest.fixture
def reader(browser: Any, site: Path) -> Iterator[Reader]:
    found = Reader(browser, site, viewport=DESK)
    yield found
    assert found.wrong == []
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []
    found.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_sound_accessible_and_as_wide_as_a_phone(browser: Any, site: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    reader = Reader(browser, site, viewport=PHONE, color_scheme=scheme)
    for file in sorted(site.rglob("*.html")):
        reader.open(file.relative_to(site).as_posix())
        reader.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        width, title = reader.page.evaluate("[document.documentElement.scrollWidth, document.title]")
        assert width <= PHONE["width"], file
        assert title != "1"
        # Without the style sheets that it would ask for again, which the page forbids.
        violations = axe.run(reader.page, options={"preload": False}).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == [], file
    ground = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) > 380) == (scheme == "light")
    assert reader.wrong == []
    assert reader.asked
    assert [url for url in reader.asked if not url.startswith(("file:", "data:"))] == []
    reader.context.close()


def test_the_first_screen_answers_both_questions(browser: Any, findings_site: Path) -> None:
    reader = Reader(browser, findings_site, viewport=DESK)
    reader.open()
    assert reader.shown(".question h2") == [
        "The recurrent twin, under every threat", "Less coherent frames go with more robust models"
    ]  # fmt: skip
    for question in ("#twins", "#coherence"):
        box = reader.page.locator(f"{question} h2").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < DESK["height"] / 2
    (line,) = reader.shown("#twins .line")
    assert line == "Training unknown: recurrent by 16.7 points at L∞ ≤ 0.1."
    (said,) = reader.shown("#twins td.said")
    assert said.startswith("+16.7 [+")
    # The interval has the colour of the twin that is ahead.
    colour = "what => getComputedStyle(document.querySelector(what)).color"
    assert reader.page.evaluate(colour, "#twins .zero.more") == reader.page.evaluate(colour, ".twin.rec")
    reader.context.close()


def test_a_pair_is_one_row_and_unfolds_to_its_sweeps(reader: Reader) -> None:
    reader.open()
    row = reader.page.locator("table.board tbody tr:not(.sweeps)").first
    assert row.locator("td.robust.ff .num").count() == row.locator("td.robust.rec .num").count() == 1
    ff, rec, difference = (
        float(row.locator(f"td.{kind}").get_attribute("data-v") or "nan") for kind in ("ff", "rec", "diff")
    )
    assert difference == pytest.approx(rec - ff)
    below = reader.page.locator("tr.sweeps").first
    assert not below.is_visible()
    row.get_by_role("button", name="sweeps").click()
    assert [each.split(":")[0] for each in below.locator("li").all_inner_texts()][:2] == [
        "feed-forward 1 sweep", "recurrent 3 sweeps"
    ]  # fmt: skip
    row.get_by_role("button", name="sweeps").click()
    assert not below.is_visible()


def test_rows_that_are_doubted_or_not_finished_stand_apart_without_a_rank(
    browser: Any, findings_site: Path, reader: Reader
) -> None:
    other = Reader(browser, findings_site, viewport=DESK)
    other.open()
    ranked, apart = other.page.locator(".group > table"), other.page.locator("details.apart table")
    assert other.models() == ["m5", "m4", "m3", "m2", "m1", "m0"]
    assert all(rank[0].isdigit() for rank in ranked.locator("tr:not(.sweeps) td.rank").all_inner_texts())
    assert set(ranked.locator("tr:not(.sweeps) td.verd").all_inner_texts()) == {"sound"}
    assert not apart.is_visible()
    other.page.locator("details.apart > summary").click()
    assert apart.locator("td.rank").all_inner_texts() == ["–"]
    assert apart.locator("td.verd").all_inner_texts() == ["suspicious"]
    other.context.close()
    # Where nothing is sound, what there is need not be unfolded.
    reader.open()
    apart = reader.page.locator("section.measured").first.locator("details.apart table")
    assert reader.page.locator(".group > table").count() == 0
    assert apart.is_visible()
    assert apart.locator("td.rank").all_inner_texts() == ["–"] * 3
    assert apart.locator("td.verd").all_inner_texts()[-1] == "run not finished"


def test_rows_are_sorted(reader: Reader) -> None:
    reader.open()
    names = reader.models()
    head = reader.page.locator("[data-sort='model']").first
    head.click()
    heads = reader.page.locator("th[aria-sort='ascending']")
    assert heads.first.inner_text().split()[0] == "Model"
    rising = reader.models()
    half = len(rising) // 2
    assert rising[:half] == sorted(rising[:half], key=str.lower)
    head.click()
    assert reader.models()[:half] == rising[:half][::-1]
    reader.page.locator("#sort").select_option("rec")
    known = [value for value in reader.robust() if value is not None]
    assert known == sorted(known, reverse=True)
    reader.page.get_by_role("button", name="Reset").click()
    reader.page.wait_for_function("document.querySelector('#sort').value === 'robust'")
    assert reader.models() == names


def test_rows_and_points_are_filtered_and_the_view_can_be_passed_on(browser: Any, findings_site: Path) -> None:
    reader = Reader(browser, findings_site, viewport=DESK)
    reader.open()
    count = reader.page.locator("#count")
    assert count.inner_text() == "7 rows"
    points = reader.page.locator(".plot a[data-row]")
    visible = "[...document.querySelectorAll('.plot a[data-row]')].filter(each => each.getClientRects().length).length"
    assert points.count() == reader.page.evaluate(visible) == 12
    reader.page.get_by_label("Search").fill("m1")
    assert count.inner_text() == "1 of 7 rows"
    assert reader.models() == ["m1"]
    assert reader.page.evaluate(visible) == 2
    address = reader.page.url
    reader.page.goto("about:blank")
    reader.page.goto(address)
    assert reader.page.locator("#count").inner_text() == "1 of 7 rows"
    # What fits is not left in a fold.
    reader.page.get_by_label("Search").fill("doubted")
    assert reader.models() == ["doubted"]
    assert reader.page.evaluate(visible) == 0
    reader.page.get_by_label("Search").fill("nothing of this kind")
    assert reader.shown("#nothing") == ["No row fits these filters."]
    reader.page.get_by_role("button", name="Reset").click()
    reader.page.wait_for_function("document.querySelector('#count').textContent === '7 rows'")
    reader.context.close()


def test_filters_by_threat_and_verdict_leave_what_they_say(reader: Reader) -> None:
    reader.open()
    count = reader.page.locator("#count")
    assert count.inner_text() == "6 rows"
    reader.page.locator("#f-threat").select_option("L2 ≤ 0.8")
    assert count.inner_text() == "3 of 6 rows"
    assert reader.shown("section.measured h2 .threat") == ["L2 ≤ 0.8"]
    reader.page.locator("#f-verdict").select_option("begun")
    assert count.inner_text() == "1 of 6 rows"
    assert reader.models() == ["begun"]


def test_links_lead_to_a_row_inside_a_fold(reader: Reader) -> None:
    reader.open()
    row = reader.page.locator("details.apart tr:not(.sweeps)[id]").first.get_attribute("id")
    reader.page.goto("about:blank")
    reader.open(f"index.html#{row}")
    assert reader.page.locator(f"#{row}").is_visible()


def test_no_two_links_to_tables_have_one_text(reader: Reader) -> None:
    reader.open()
    texts = reader.shown("nav.jump a")
    assert len(texts) == len(set(texts)) == 2


def test_two_models_are_compared_where_both_were_measured(browser: Any, findings_site: Path) -> None:
    reader = Reader(browser, findings_site, viewport=DESK)
    reader.open("compare.html#a=m0&b=m5")
    assert reader.page.locator("#model-A").input_value() == "m0"
    assert reader.page.locator("#model-B").input_value() == "m5"
    assert [row.split("\t") for row in reader.page.locator("#compared table").last.inner_text().splitlines()][1:3] == [
        ["feed-forward, robust", "33.3 [22.7, 45.9]", "75.0 [62.8, 84.2]"],
        ["only this one withstands", "0 of 60 examples", "25 of 60 examples"],
    ]
    reader.page.locator("#model-B").select_option("doubted")
    assert reader.page.url.endswith("#a=m0&b=doubted")
    reader.context.close()


def test_examples_are_browsed_by_model_class_and_what_broke(reader: Reader) -> None:
    reader.open("examples.html")
    total = reader.page.locator(".examples li").count()
    assert reader.page.locator("#count").inner_text() == f"{total} of {total} examples"
    wide = "[...document.images].slice(0, 3).map(each => each.naturalWidth / each.naturalHeight)"
    # Clean image, and perturbation and adversarial image of both twins.
    assert all(5 <= each < 6.5 for each in reader.page.evaluate(wide))
    label = reader.page.locator(".examples li").first.get_attribute("data-label") or ""
    reader.page.get_by_label("Class").select_option(label)
    left = reader.page.locator(".examples li:not([hidden])")
    assert 0 < left.count() < total
    assert {each.get_attribute("data-label") for each in left.all()} == {label}
    assert "by pgd (shown@0.1)" in left.first.inner_text()


def test_the_board_can_be_downloaded(reader: Reader) -> None:
    reader.open()
    files = [each.get_attribute("href") or "" for each in reader.page.locator("#downloads a").all()]
    assert files == ["leaderboard.csv", "leaderboard.json", "cite.bib"]
    rows = list(csv.DictReader((reader.site / files[0]).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(json.loads((reader.site / files[1]).read_text())) == 12
    known = [row for row in rows if row["robust"]]
    assert all(float(row["robust_low"]) <= float(row["robust"]) <= float(row["robust_high"]) for row in known)
    assert (reader.site / files[2]).read_text(encoding="utf-8").count("@misc{robustframe-") == 3


def test_paper_shows_tables_without_what_is_for_the_screen(reader: Reader) -> None:
    reader.open()
    reader.page.emulate_media(media="print")
    assert reader.shown("#filters, nav, .unfold, .structures") == []
    assert len(reader.shown(".question h2")) == 2
    assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_index_is_ready_within_a_second(reader: Reader) -> None:
    reader.open()
    spent = reader.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert spent < 1000


def test_the_keyboard_alone_is_enough(reader: Reader) -> None:
    reader.open()
    press = reader.page.keyboard.press
    press("Tab")
    assert reader.focused() == "Skip to the content"
    press("Enter")
    press("/")
    assert reader.focused() == "q"
    reader.page.keyboard.type("tiny")
    assert reader.page.locator("#count").inner_text() == "2 of 6 rows"
    for _ in range(40):
        press("Tab")
        if reader.focused() == "tiny":
            break
    press("Enter")
    reader.page.wait_for_url("**/models/tiny.html*")
    assert reader.page.locator("h1").inner_text() == "tiny"
    opened = reader.page.locator("details").first
    opened.locator("summary").focus()
    press("Enter")
    assert opened.get_attribute("open") is not None


def test_the_theme_can_be_chosen_and_is_kept(reader: Reader) -> None:
    reader.open()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = reader.page.evaluate(ground)
    button = reader.page.get_by_role("button", name="Theme")
    button.click()
    assert reader.page.evaluate(ground) == light
    button.click()
    dark = reader.page.evaluate(ground)
    assert dark != light
    reader.open("models/tiny.html")
    assert reader.page.evaluate(ground) == dark
    reader.page.get_by_role("button", name="Theme: dark").click()
    assert reader.page.evaluate(ground) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_have_the_colour_of_their_twin(browser: Any, site: Path, scheme: str) -> None:
    reader = Reader(browser, site, viewport=DESK, color_scheme=scheme)
    reader.open("models/tiny.html")
    colours = (
        """kind => [...document.querySelectorAll(`.plot .${kind} .mark`)].map(each => getComputedStyle(each).fill)"""
    )
    twin = "kind => getComputedStyle(document.querySelector(`.twin.${kind}`)).color"
    for kind in ("ff", "rec"):
        found = reader.page.evaluate(colours, kind)
        assert found
        assert set(found) == {reader.page.evaluate(twin, kind)}
    assert reader.page.evaluate(twin, "ff") != reader.page.evaluate(twin, "rec")
    reader.context.close()


def test_one_radius_is_a_point_with_its_interval_and_no_line(reader: Reader) -> None:
    reader.open("models/tiny.html")
    plots = reader.page.locator(".plots .plot")
    assert plots.count() == 2
    for at in range(2):
        for twin in ("ff", "rec"):
            own = plots.nth(at).locator(f"g.{twin}")
            assert [own.locator(f".{part}").count() for part in ("mark", "whisker", "line", "band")] == [1, 1, 0, 0]
    assert "on average" not in reader.page.locator(".plots").inner_text()


def test_a_phone_shows_the_accuracy_table_whole(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=PHONE)
    reader.open("models/tiny.html")
    table = reader.page.locator(".accuracy").first
    for cell in table.locator("tbody td").all():
        box = cell.bounding_box()
        if cell.inner_text() and box is not None:
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"]
    reader.context.close()


def test_what_is_written_in_a_record_is_shown_and_not_run(reader: Reader) -> None:
    reader.open()
    evil = next(name for name in reader.shown("th.model a") if name.startswith("<img"))
    reader.page.get_by_role("link", name=evil).first.click()
    assert reader.page.locator("h1").inner_text() == evil
    assert reader.page.title().startswith(evil)
    assert reader.page.locator("img[src='x']").count() == 0


def test_it_is_a_table_without_scripts_too(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=DESK, java_script_enabled=False)
    reader.open()
    assert len(reader.shown("table.board tbody tr:not(.sweeps)")) == 6
    assert reader.shown("#filters") == []
    assert reader.shown("#theme") == []
    reader.context.close()
