"""What the page looks like, as far as pixels can say; and the pictures of it for people to look at.

`SCREENSHOTS=/tmp/pictures pytest tests/browser/test_appearance.py` writes every stage in every look to that folder;
README_PICTURE=docs/images/page.png writes the one in the README. Not proven here: that it is pleasant.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from local.server import PageServer
from tests.browser.progress_page import OpenPage, choose, expect_ready_for_files
from tests.browser.scripted_backend import ScriptedBackend

pytestmark = pytest.mark.browser

# The colours along the middle of a picture, from left to right, without repetitions: [[r, g, b], width] each.
RUNS_OF_COLOUR = """
async ([picture]) => {
  const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  const { data } = canvas.getImageData(0, Math.floor(bitmap.height / 2), bitmap.width, 1);
  const runs = [];
  for (let at = 0; at < data.length; at += 4) {
    const colour = [...data.slice(at, at + 3)];
    const last = runs.at(-1);
    if (last && last[0].every((value, index) => value === colour[index])) last[1]++;
    else runs.push([colour, 1]);
  }
  return runs;
}
"""


def test_a_bar_has_a_cell_for_each_page_and_is_filled_as_far_as_pages_are_done(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.reach("a", 6, 10)
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_js_property("value", 60)
    picture = base64.b64encode(bar.screenshot(animations="disabled")).decode()
    wide = [(tuple(colour), width) for colour, width in page.evaluate(RUNS_OF_COLOUR, [picture]) if width > 20]
    accent, track = (0x2B, 0x55, 0xD4), (0xE6, 0xE3, 0xDC)
    assert [colour for colour, _ in wide] == [accent] * 6 + [track] * 4
    widths = [width for _, width in wide]
    assert max(widths) - min(widths) <= 2, "pages are of equal width"


def show_stages(page: Page, backend: ScriptedBackend, shoot: Any) -> None:
    """Start, middle, end and error, with a call of `shoot` at each."""
    expect(page.locator("#connection")).to_have_text("Live")
    expect_ready_for_files(page)
    shoot("start")
    choose(
        page, "Annual report 2031.pdf", "Land register, volumes 1 to 9.pdf", "Invoice 4711.pdf", "Scan of 12 May.pdf"
    )
    cards = page.locator(".card[data-document-id]")
    expect(cards).to_have_count(4)
    ids = [card.get_attribute("data-document-id") or "" for card in cards.all()]
    totals = dict(zip(ids, (48, 1204, 12, 9), strict=True))
    for document_id in ids:
        backend.start(document_id, totals[document_id])
    for step in range(1, 7):
        page.clock.run_for(1500)
        for document_id, pages in zip(ids, (step * 5 + 1, step * 77, step * 2, min(step, 3)), strict=True):
            backend.reach(document_id, pages, totals[document_id])
    backend.complete(ids[2], result={"key": f"results/{ids[2]}.json", "total": 12, "unit": "pages"})
    expect(page.locator('[data-phase="complete"]')).to_have_count(1)
    shoot("middle")
    backend.fail(ids[3], "Page 4 cannot be read: its fonts are damaged.")
    expect(page.locator('[data-phase="failed"]')).to_have_count(1)
    shoot("error")
    for document_id in ids[:2]:
        backend.complete(document_id, 2000)
    expect(page.locator('[data-phase="complete"]')).to_have_count(3)
    shoot("end")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 375])
def test_every_stage_fits_its_window(
    browser: Browser, site: PageServer, backend: ScriptedBackend, tmp_path: Path, scheme: Any, width: int
) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    readme_picture = os.environ.get("README_PICTURE")
    taken: list[bytes] = []
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 860},
        device_scale_factor=1.5,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.clock.install()  # so that the rates in the pictures are those of real documents
    page.goto(site.url)

    def shoot(stage: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") == width, f"{stage} is wider than its window"
        overlapping = page.locator(".card-head, .measure").evaluate_all(
            """rows => rows.flatMap((row) => {
              const boxes = [...row.children].map((child) => child.getBoundingClientRect());
              const shown = boxes.filter((box) => box.width > 0);
              return shown.slice(1).filter((box, index) => box.left < shown[index].right - 1);
            })"""
        )
        assert overlapping == [], f"{stage} has things on top of each other"
        taken.append(page.screenshot(path=folder / f"{scheme}-{width}-{stage}.png", full_page=True))
        if readme_picture and (scheme, width, stage) == ("light", 1000, "error"):
            Path(readme_picture).write_bytes(taken[-1])

    show_stages(page, backend, shoot)
    context.close()
    assert len(set(taken)) == 4, "two stages look the same"
