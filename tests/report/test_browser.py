"""The report in a browser: no messages, no requests, usable on phones, in dark mode and by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgadahat_hooks.report import report
from tests.support import runs

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("FGADAHAT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium: `apt install chromium`, or name one in FGADAHAT_CHROMIUM",
)
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: `pip install playwright`")
RUNS = ("small", "hat", "large")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {"small": runs.summary(), "hat": runs.summary("hat", 1, False), "large": runs.large(30, 60)}
    return {name: report(summary, folder / f"{name}.html") for name, summary in found.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        # Chromium's sandbox does not run as root, which is what containers are.
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, files: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open a report in the light scheme on a wide window; record its console messages and requests."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.messages, page.requested = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(files[getattr(request, "param", "small")].as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("opened", RUNS, indirect=True)
def test_it_is_silent_and_asks_for_nothing(opened: Any) -> None:
    assert opened.messages == []
    assert [url for url in opened.requested if url != opened.url and url != "data:,"] == []


@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("opened", RUNS, indirect=True)
def test_only_what_may_scroll_is_wider_than_the_window(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """width => [...document.querySelectorAll('body *')]
        .filter(part => !part.closest('.scroll, nav, .skip'))
        .filter(part => part.getBoundingClientRect().right > width + 1)
        .map(part => part.outerHTML.slice(0, 80))"""
    assert opened.evaluate(beyond, width) == []


def test_text_in_pictures_keeps_its_size_on_a_phone(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 800})
    sizes = "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
    assert min(opened.evaluate(sizes)) >= 11


@pytest.mark.parametrize("opened", ["small", "large"], indirect=True)
def test_the_keyboard_reaches_links_and_regions(opened: Any) -> None:
    focus = """() => { const e = document.activeElement;
        return e.getAttribute('href') ?? e.getAttribute('aria-label') ?? e.tagName }"""
    seen = []
    for _ in range(60):
        opened.keyboard.press("Tab")
        seen.append(opened.evaluate(focus))
        if "BODY" in seen:
            break
    wanted = "[...document.querySelectorAll('a, [tabindex=\"0\"], summary')].filter(e => e.checkVisibility())"
    names = f"{wanted}.map(e => e.getAttribute('href') ?? e.getAttribute('aria-label') ?? e.tagName)"
    assert seen[:-1] == opened.evaluate(names)
    assert seen[0] == "#content"
    assert len(seen) > 12


def test_the_skip_link_shows_when_it_is_reached_and_skips(opened: Any) -> None:
    left = "document.querySelector('.skip').getBoundingClientRect().left"
    assert opened.evaluate(left) < 0
    opened.keyboard.press("Tab")
    assert opened.evaluate(left) >= 0
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "content"


def test_regions_scroll_by_keyboard(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 800})
    opened.locator("details", has_text="parameters and buffers").locator("summary").click()
    region = opened.get_by_role("region", name="Parameters and buffers")
    region.focus()
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
    opened.wait_for_function("part => part.scrollLeft > 0", arg=region.element_handle())


@pytest.mark.parametrize("opened", RUNS, indirect=True)
def test_everything_has_a_name(opened: Any) -> None:
    assert opened.title()
    assert opened.locator("html").get_attribute("lang") == "en"
    tree = opened.context.new_cdp_session(opened).send("Accessibility.getFullAXTree")["nodes"]
    named = {"image", "region", "navigation", "link", "table", "DisclosureTriangle"}
    parts = [(node["role"]["value"], node["name"]["value"]) for node in tree if not node["ignored"]]
    assert {role for role, name in parts} >= named
    assert [role for role, name in parts if role in named and not name.strip()] == []
    assert opened.get_by_role("main").count() == opened.get_by_role("banner").count() == 1


def test_the_dark_scheme_is_dark(opened: Any) -> None:
    colours = """[...document.querySelectorAll('body, section, td.cell')].slice(0, 30).map(e => {
        const style = getComputedStyle(e); return [style.backgroundColor, style.color] })"""
    light = opened.evaluate(colours)
    opened.emulate_media(color_scheme="dark")
    dark = opened.evaluate(colours)
    assert all(one != other for one, other in zip(light[:3], dark[:3], strict=True))
    assert sum(map(int, dark[0][0][4:-1].split(","))) < 100 < sum(map(int, light[0][0][4:-1].split(",")))
    opened.emulate_media(color_scheme="dark", media="print")
    assert opened.evaluate(colours)[3:] == light[3:]


def test_print_shows_everything(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()
    assert opened.evaluate(
        "[...document.querySelectorAll('details table')].every(e => e.getBoundingClientRect().height > 0)"
    )
