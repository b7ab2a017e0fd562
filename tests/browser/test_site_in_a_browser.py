"""The leaderboard as a reader meets it: from a file, in chromium, by mouse, by keyboard, on a phone, in the dark."""

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
        self.page.goto((self.site / file).as_uri())

    def shown(self, what: str) -> list[str]:
        """The texts of the elements that can be seen."""
        found = self.page.locator(what)
        return [found.nth(at).inner_text() for at in range(found.count()) if found.nth(at).is_visible()]

    def robust(self) -> list[float | None]:
        """The robust accuracies of the first table, from above; `None` where unknown."""
        texts = self.page.locator("section.group:not([hidden])").first.locator("td.robust").all()
        return [float(value) if (value := each.get_attribute("data-v")) else None for each in texts]

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


def test_rows_are_sorted_and_unknown_numbers_stay_last(reader: Reader) -> None:
    reader.open()
    falling = reader.robust()
    known = [value for value in falling if value is not None]
    assert len(known) == 4
    assert known == sorted(known, reverse=True)
    assert falling[len(known) :] == [None] * (len(falling) - len(known))
    head = reader.page.locator("th.robust").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = reader.robust()
    assert rising[: len(known)] == known[::-1]
    assert rising[len(known) :] == falling[len(known) :]
    reader.page.locator("#sort").select_option("model")
    names = reader.shown("section.group th.model a")
    first = names[: len(falling)]
    assert first == sorted(first, key=str.lower)
    reader.page.get_by_role("button", name="Reset").click()
    reader.page.wait_for_function("document.querySelector('#sort').value === 'robust'")
    assert reader.robust() == falling


def test_rows_are_filtered_and_the_view_can_be_passed_on(reader: Reader) -> None:
    reader.open()
    count = reader.page.locator("#count")
    assert count.inner_text() == "12 rows"
    reader.page.locator("#f-twin").select_option("recurrent")
    assert count.inner_text() == "6 of 12 rows"
    reader.page.locator("#f-threat").select_option("L2 ≤ 0.8")
    assert count.inner_text() == "3 of 12 rows"
    assert reader.shown("section.group h2 .threat") == ["L2 ≤ 0.8"]
    reader.page.locator("#f-verdict").select_option("begun")
    assert count.inner_text() == "1 of 12 rows"
    reader.page.get_by_label("Search").fill("tiny")
    assert reader.shown("#nothing") == ["No row fits these filters."]
    reader.page.locator("#f-verdict").select_option("")
    assert [name.splitlines()[0] for name in reader.shown("tbody th.model")] == ["tiny"]
    address = reader.page.url
    reader.page.goto("about:blank")
    reader.page.goto(address)
    assert reader.page.locator("#count").inner_text() == "1 of 12 rows"
    assert reader.page.get_by_label("Search").input_value() == "tiny"


def test_the_keyboard_alone_is_enough(reader: Reader) -> None:
    reader.open()
    press = reader.page.keyboard.press
    press("Tab")
    assert reader.focused() == "Skip to the content"
    press("Enter")
    press("Tab")
    assert reader.focused() == "How to read it"
    press("/")
    assert reader.focused() == "q"
    reader.page.keyboard.type("tiny")
    assert reader.page.locator("#count").inner_text() == "4 of 12 rows"
    falling = reader.robust()[:2]
    for _ in range(40):
        press("Tab")
        if reader.focused() == "Robust %":
            break
    press("Enter")
    assert [each for each in reader.robust() if each in falling][:2] == sorted(falling)
    for _ in range(10):
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
    assert len(reader.shown("tbody tr")) == 12
    assert reader.shown("#filters") == []
    assert reader.shown("#theme") == []
    reader.context.close()
