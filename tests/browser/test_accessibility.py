"""What WCAG 2.2 AA asks of the page and a program can measure: names, structure, contrast, keyboard, reflow, motion.

Not proven here: how a screen reader reads it, or whether the words are clear; both need people.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from local.server import PageServer
from tests.browser.progress_page import OpenPage, choose
from tests.browser.scripted_backend import ScriptedBackend
from tests.npm_packages import AXE, installed

pytestmark = pytest.mark.browser

ShowAll = Callable[[], Page]

# Relative luminance and contrast as WCAG 2.2 defines them. Returns [what, ratio, needed] for each visible text, and for
# what carries meaning without text: bars, borders of fields, icons.
MEASURE_CONTRAST = """
() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => {
    const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  };
  const backgroundOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [r, g, b];
      if (alpha !== 0) throw new Error("half transparent background: " + at.className);
    }
    throw new Error("no background");
  };
  const isVisible = (element) => element.checkVisibility() && element.getBoundingClientRect().width > 1;
  const results = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && isVisible(element)) {
      const ratio = contrast(parse(getComputedStyle(element).color), backgroundOf(element));
      results.push([walker.currentNode.data.trim(), ratio, 4.5]);
    }
  }
  for (const bar of document.querySelectorAll("progress")) {
    if (!isVisible(bar)) continue;
    const tone = parse(getComputedStyle(bar).color);
    results.push(["bar against its track", contrast(tone, parse(getComputedStyle(bar).backgroundColor)), 3]);
    results.push(["bar against its card", contrast(tone, backgroundOf(bar.parentElement)), 3]);
  }
  for (const field of document.querySelectorAll("input:not([type=file]), .drop, .again, [type=submit]")) {
    if (!isVisible(field)) continue;
    const border = parse(getComputedStyle(field).borderTopColor);
    results.push(["border of " + field.outerHTML, contrast(border, backgroundOf(field.parentElement)), 3]);
  }
  for (const icon of document.querySelectorAll(".dismiss svg, .drop svg")) {
    if (!isVisible(icon)) continue;
    results.push(["icon", contrast(parse(getComputedStyle(icon).stroke), backgroundOf(icon)), 3]);
  }
  return results;
}
"""


@pytest.fixture
def show_all(site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext) -> ShowAll:
    """One card in each phase, a notice, and the button of who is signed in."""

    def show_all() -> Page:
        phases = ("waiting", "processing", "complete", "retrying", "failed")
        kept = [{"id": "waiting", "name": "waiting"}]
        context.add_init_script(f"localStorage.setItem('docprogress.documents', JSON.stringify({json.dumps(kept)}))")
        page = open_page(site.url, "#" + "&".join(f"doc={phase}" for phase in phases))
        expect(page.locator("#connection")).to_have_text("Live")
        for phase in phases[1:]:
            backend.reach(phase, 3, 8)
        expect(page.locator('[data-phase="processing"]')).to_have_count(4)
        end = {"status": "processing_complete", "docId": "complete", "sequence": 1000}
        backend.publish({**end, "result": {"key": "results/complete.json"}})
        backend.fail("retrying", "The worker was interrupted.", recoverable=True)
        backend.fail("failed", "Page 4 is damaged.")
        choose(page, "photo.pdf", content=b"JFIF")
        for phase, count in {"complete": 1, "retrying": 1, "failed": 2}.items():
            expect(page.locator(f'[data-phase="{phase}"]')).to_have_count(count)
        page.evaluate(
            """() => {
              const notice = document.getElementById("notice");
              notice.hidden = false;
              notice.textContent = "Sign in, then reload this page.";
              const session = document.getElementById("session");
              session.hidden = false;
              session.textContent = "Sign out";
            }"""
        )
        return page

    return show_all


def test_everything_stands_out_enough_in_both_schemes(show_all: ShowAll) -> None:
    page = show_all()
    backgrounds: dict[Any, str] = {"light": "rgb(245, 244, 240)", "dark": "rgb(19, 20, 22)"}
    for scheme, background in backgrounds.items():
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
        measured = page.evaluate(MEASURE_CONTRAST)
        texts = {what for what, _, _ in measured}
        assert {"Document progress", "Processing", "Retrying", "Failed", "Watch", "bar against its track"} <= texts
        assert [(scheme, what, round(ratio, 2)) for what, ratio, needed in measured if ratio < needed] == []


def test_axe_finds_nothing(show_all: ShowAll) -> None:
    page = show_all()
    page.get_by_role("button", name="Stop watching waiting").press("Enter")
    page.locator("#remembered summary").press("Enter")
    # Through the debugger, which the page's Content-Security-Policy does not concern.
    page.evaluate((installed(AXE) / "axe-core" / "axe.min.js").read_text())
    schemes: list[Any] = ["light", "dark"]
    # A desk, a phone, and a window zoomed to 200 %, which has half as many CSS pixels.
    for scheme, width in itertools.product(schemes, (1000, 375, 640)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 640})
        findings = page.evaluate(
            "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))"
        )
        assert findings == [], (scheme, width)
    page.evaluate("document.querySelector('.dismiss').removeAttribute('aria-label')")
    assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == ["button-name"]


def test_focus_is_always_seen(show_all: ShowAll) -> None:
    page = show_all()
    for _ in range(9):
        page.keyboard.press("Tab")
        # The file input itself is hidden: its label shows the focus.
        outlined = page.evaluate(
            """() => {
              const shown = document.activeElement.closest(".drop") ?? document.activeElement;
              const { outlineStyle, outlineWidth } = getComputedStyle(shown);
              return [outlineStyle, outlineWidth, shown.checkVisibility()];
            }"""
        )
        assert outlined == ["solid", "3px", True]


def test_the_page_has_landmarks_headings_and_names(show_all: ShowAll) -> None:
    page = show_all()
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("banner")).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    for name in ("Add documents", "Documents"):
        expect(page.get_by_role("region", name=name, exact=True)).to_have_count(1)
    tree = page.locator("body").aria_snapshot()
    assert re.findall(r"^ *- (?:button|textbox|progressbar|img)(?: \[|:|$).*", tree, flags=re.MULTILINE) == []
    levels = [int(level) for level in re.findall(r"- heading .*\[level=(\d)\]", tree)]
    assert levels == [1, 2, 3, 3, 3, 3, 3, 3]
    expect(page.get_by_role("progressbar", name="Progress of processing")).to_have_js_property("value", 37.5)
    expect(page.get_by_role("textbox", name="Already uploaded? Watch it by its id")).to_be_visible()
    expect(page.get_by_role("list")).to_have_count(1)
    assert page.locator("[id]").evaluate_all("all => new Set(all.map((one) => one.id)).size === all.length")


def test_what_changes_is_announced_politely(show_all: ShowAll, backend: ScriptedBackend) -> None:
    page = show_all()
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
    backend.fail("processing", "Page 5 is damaged.")  # the last news, so that no other takes its place
    expect(page.get_by_role("status")).to_contain_text("processing: failed. Page 5 is damaged.")
    live = page.locator("[aria-live], [role=status], [role=alert], [role=log]")
    assert live.evaluate_all("all => all.map((one) => one.id)") == ["notice", "announcements"]


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(show_all: ShowAll) -> None:
    page = show_all()
    reached = []
    for _ in range(17):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.id"
                " || document.activeElement.textContent"
            )
        )
    names = ("photo.pdf", "waiting", "processing", "complete", "retrying", "failed")
    buttons = {name: [f"Stop watching {name}"] for name in names}
    for name in ("waiting", "processing", "retrying"):
        buttons[name].append(f"Cancel {name}")
    buttons["complete"].append("Save the result of complete")
    expected = ["session", "files", "document-id", "Watch", *(button for name in names for button in buttons[name])]
    assert reached[: len(expected)] == expected


def test_focus_stays_in_the_list_when_a_card_is_dismissed_by_keyboard(show_all: ShowAll) -> None:
    page = show_all()
    for name, next_name in (("waiting", "processing"), ("failed", "retrying")):
        page.get_by_role("button", name=f"Stop watching {name}", exact=True).press("Enter")
        expect(page.get_by_role("button", name=f"Stop watching {next_name}", exact=True)).to_be_focused()
    for name in ("photo.pdf", "processing", "complete", "retrying"):
        page.get_by_role("button", name=f"Stop watching {name}", exact=True).press("Space")
    expect(page.get_by_label("choose files")).to_be_focused()


def test_the_file_picker_opens_from_the_keyboard(show_all: ShowAll) -> None:
    page = show_all()
    picker = page.get_by_label("choose files")
    # Playwright does not wait until the browser intercepts file choosers; focusing is a round trip in between.
    with page.expect_file_chooser() as chooser:
        picker.focus()
        expect(picker).to_be_focused()
        page.keyboard.press("Space")
    assert chooser.value.is_multiple()


def test_nothing_is_cut_off_at_any_width(show_all: ShowAll) -> None:
    """320 CSS pixels is what WCAG's reflow criterion (1.4.10) asks for."""
    page = show_all()
    for width in (320, 375, 1000):
        page.set_viewport_size({"width": width, "height": 800})
        expect(page.locator("html")).to_have_js_property("scrollWidth", width)
        sizes = page.locator("button:visible, input:visible:not([type=file])").evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))"
        )
        assert min(sizes) >= 24, "a target has 24 by 24 pixels at least (2.5.8)"


@pytest.mark.parametrize(("width", "text_size"), [(390, 200), (360, 150)])
def test_large_text_on_a_phone_leaves_every_name_and_nothing_beside_the_window(
    show_all: ShowAll, width: int, text_size: int
) -> None:
    page = show_all()
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("size => { document.documentElement.style.fontSize = `${size}%`; }", text_size)
    page.locator("#connection").evaluate("shown => { shown.textContent = 'Reconnecting'; }")  # the widest of its words
    expect(page.locator("html")).to_have_js_property("scrollWidth", width)
    for name in page.locator(".name").all():
        assert name.evaluate("shown => shown.clientWidth >= 100 && shown.scrollWidth <= shown.clientWidth")


def test_nothing_moves_for_who_asked_for_that(show_all: ShowAll) -> None:
    page = show_all()
    moving = "document.getAnimations().filter((animation) => animation.playState === 'running').length"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0, "a waiting document moves, so the check below can fail"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
