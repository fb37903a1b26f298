# SPDX-License-Identifier: GPL-2.0-or-later
"""The page in a real browser, headless Chromium: filter, sort, zoom, hover, keys, and a console that attacks it.

make test-browser.  APF_SCREENSHOTS=DIR keeps pictures of what was seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.page.test_build_page import golden_page, hostile_page
from tests.unit.report.page.test_mutants_page import mutant
from tests.unit.report.page.test_mutants_page import page as mutants_page

pytestmark = pytest.mark.browser
TIMELINE = "article svg.tl"
SPAN = f"{TIMELINE} rect.work"


@pytest.fixture
def open_page(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that opens a page's text; whatever the browser complains of is a failure."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, offline=True)
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("request", lambda sent: complaints.append(sent.url) if not sent.url.startswith("file:") else None)

    def show(text: str, anchor: str = "") -> Any:
        (tmp_path / "index.html").write_text(text)
        page.goto(f"file://{tmp_path}/index.html{anchor}")
        return page

    yield show
    if folder := os.environ.get("APF_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{request.node.name}.png"))
    context.close()
    assert not complaints


def test_the_table_filters_and_sorts(open_page: Any) -> None:
    page = open_page(golden_page())
    rows = page.locator("#runs tbody tr")
    assert rows.count() == 1
    page.keyboard.press("/")
    page.keyboard.type("no-such-thing")
    assert not rows.first.is_visible()
    assert page.locator("#shown").inner_text() == "0 of 1"
    page.fill("#filter", "s29 pass")
    assert rows.first.is_visible()
    page.check("#only-bad")
    assert not rows.first.is_visible(), "all green"
    page.click("#runs th >> nth=0")
    assert page.locator("#runs th >> nth=0").get_attribute("aria-sort") == "ascending"


def test_a_link_unfolds_its_scenario(open_page: Any) -> None:
    page = open_page(golden_page())
    assert not page.locator(TIMELINE).first.is_visible()
    page.click("#runs tbody a")
    assert page.locator(TIMELINE).first.is_visible()


def test_a_timeline_zooms_by_keys_and_comes_back(open_page: Any) -> None:
    page = open_page(golden_page(), "#S29.1")
    svg, span = page.locator(TIMELINE).first, page.locator(SPAN).first
    svg.focus()
    before = span.bounding_box()["width"]
    for _ in range(3):
        page.keyboard.press("+")
    assert float(svg.get_attribute("data-scale")) == pytest.approx(1.5**3)
    assert span.bounding_box()["width"] == pytest.approx(before * 1.5**3, rel=0.01)
    at = float(svg.get_attribute("data-from"))
    page.keyboard.press("ArrowRight")
    assert float(svg.get_attribute("data-from")) > at
    page.keyboard.press("0")
    assert span.bounding_box()["width"] == pytest.approx(before, rel=0.01)
    first = page.locator(f"{TIMELINE} .axis text").first
    assert first.text_content() == "0.0 ms"


@pytest.mark.parametrize("what", ["mk", "arrow"])
def test_marks_and_arrows_are_thin_lines_over_the_lanes(open_page: Any, what: str) -> None:
    page = open_page(golden_page(), "#S29.1")
    width = page.locator(f"{TIMELINE} path.{what}").first.evaluate("e => parseFloat(getComputedStyle(e).strokeWidth)")
    lane = page.locator(f"{TIMELINE} path.guest").first.evaluate("e => parseFloat(getComputedStyle(e).strokeWidth)")
    assert width < 2 < lane


def test_the_pointer_tells_what_is_there(open_page: Any) -> None:
    page = open_page(golden_page(), "#S29.1")
    page.locator(SPAN).first.hover()
    page.mouse.move(*_middle(page.locator(SPAN).first))
    said = page.locator("#tip-box").inner_text()
    assert "work in async_pf_execute: token 0x" in said
    assert "ms long" in said


def _middle(of: Any) -> tuple[float, float]:
    box = of.bounding_box()
    return box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2


def test_the_page_of_mutants_filters_and_unfolds(open_page: Any) -> None:
    page = open_page(mutants_page(mutant(1), mutant(2, "SURVIVED"), mutant(10)))
    rows = page.locator("#runs tbody tr")
    page.check("#only-bad")
    assert [row.is_visible() for row in rows.all()] == [False, True, False]
    page.uncheck("#only-bad")
    page.click("#runs th >> nth=0")
    page.click("#runs th >> nth=0")
    assert [row.locator("td").first.inner_text() for row in rows.all()] == ["10", "2", "1"], "by number, downwards"
    command = page.locator("#m1 article code")
    assert not command.is_visible()
    page.click("#runs a >> text='M1'")
    assert command.inner_text() == "apf mutants M1" and command.is_visible()


def test_a_hostile_console_does_nothing(open_page: Any) -> None:
    page = open_page(hostile_page())
    page.wait_for_timeout(200)
    assert page.title().startswith("apf run ")
    assert page.locator("img").count() == 0
    page.locator(TIMELINE).first.focus()
    page.locator(SPAN).first.hover()
    assert page.title().startswith("apf run ")


def test_without_a_script_all_of_it_is_there(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(golden_page())
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"file://{tmp_path}/index.html")
    assert page.locator("#runs tbody tr").first.is_visible()
    page.click("summary >> nth=0")
    assert page.locator(SPAN).first.is_visible()
    context.close()


def test_a_browser_of_characters_shows_the_table(tmp_path: Path) -> None:
    if shutil.which("w3m") is None:
        pytest.skip("w3m is not installed")
    (tmp_path / "index.html").write_text(golden_page())
    done = subprocess.run(
        ["w3m", "-dump", "-cols", "160", tmp_path / "index.html"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said = done.stdout
    row = next(line for line in said.splitlines() if line.lstrip().startswith("S29 "))
    assert row.count("PASS") == 2
    assert "vCPU 0: [0] read f[8]" in said
