"""What the client's README shows for React, Vue and Svelte works as it stands, in Chromium on a scripted server."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from local.server import PageServer
from tests.browser.progress_page import wait_until
from tests.browser.scripted_backend import ScriptedBackend
from tests.npm_packages import REACT, SVELTE, VUE, bundled

pytestmark = pytest.mark.browser

README = Path(__file__).parents[2] / "web" / "client" / "README.md"


def test_the_code_for_vue_and_svelte_watches_and_lets_go(
    site: PageServer, backend: ScriptedBackend, context: BrowserContext, tmp_path: Path
) -> None:
    blocks = dict(re.findall(r"```js\n// (vue|svelte)\.js\n(.*?)```", README.read_text(), re.DOTALL))
    for framework, code in blocks.items():
        assert len(code.strip().splitlines()) <= 11
        (tmp_path / f"{framework}.js").write_text(code)
    entry = Path(shutil.copy(Path(__file__).parent / "apps" / "vue_and_svelte.mjs", tmp_path))
    application = bundled(entry, VUE, SVELTE, options=['--define:process.env.NODE_ENV="production"'])
    context.route("**/app.js", lambda route: route.fulfill(body=application, content_type="text/javascript"))
    page = context.new_page()
    page.goto(site.url)
    wait_until(page, "window.start !== undefined")
    page.evaluate("url => start(url)", backend.url)
    expect(page.locator("#vue")).to_have_text("a pending")
    expect(page.locator("#svelte")).to_have_text("b pending")
    backend.start("b", 4)
    expect(page.locator("#svelte")).to_have_text("b processing_started")
    backend.complete("c")
    page.evaluate("id.value = 'c'")
    expect(page.locator("#vue")).to_have_text("c processing_complete")
    backend.wait_until_unwatched("a")
    page.evaluate("app.unmount(); stop()")
    backend.wait_until_unwatched("b")
    backend.wait_until_unwatched("c")


def test_the_code_for_react_shows_a_document_to_its_end(
    site: PageServer, backend: ScriptedBackend, context: BrowserContext, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```jsx\n(.*?)```", README.read_text(), re.DOTALL)
    shown = code.replace("<ProgressProvider ", "window.shown = <ProgressProvider ").replace("wss://…", backend.url)
    (tmp_path / "shown.jsx").write_text(shown)
    entry = tmp_path / "entry.jsx"
    entry.write_text(
        """import { createRoot } from "react-dom/client";
        window.fetchToken = async () => "token";
        await import("./shown.jsx");
        createRoot(document.body).render(window.shown);"""
    )
    options = ["--jsx=automatic", '--define:process.env.NODE_ENV="development"']
    application = bundled(entry, *REACT, options=options)
    context.route("**/app.js", lambda route: route.fulfill(body=application, content_type="text/javascript"))
    page = context.new_page()
    page.goto(site.url)
    expect(page.get_by_role("paragraph")).to_have_text("0 of ? pages")
    backend.reach("report", 3, 4)
    expect(page.get_by_role("paragraph")).to_have_text("3 of 4 pages")
    backend.complete("report")
    expect(page.get_by_role("paragraph")).to_have_text("Complete")
    assert backend.offers == ["docprogress, token"]
