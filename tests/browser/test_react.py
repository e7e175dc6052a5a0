"""The hook in real React, in Chromium, against a scripted server.

Not proven here: other versions of React than the one that tests/npm_packages.py names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from local.server import PageServer
from tests.browser.progress_page import wait_until
from tests.browser.scripted_backend import ScriptedBackend
from tests.npm_packages import REACT, bundled

pytestmark = pytest.mark.browser

Open = Callable[[], Page]
SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
    constructor(...args) { super(...args); window.sockets.push(this); }
};
"""


@pytest.fixture(scope="module")
def application() -> str:
    options = ["--jsx=automatic", '--define:process.env.NODE_ENV="development"']
    return bundled(Path(__file__).parent / "apps" / "react.jsx", *REACT, options=options)


@pytest.fixture
def opened(context: BrowserContext, site: PageServer, application: str) -> Iterator[Open]:
    """The application in place of the page's own, from a server that may reach the scripted one."""
    faults: list[str] = []
    context.add_init_script(SOCKETS)
    context.route("**/app.js", lambda route: route.fulfill(body=application, content_type="text/javascript"))

    def opened() -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if _is_fault(message) else None)
        page.goto(site.url)
        wait_until(page, "window.show !== undefined")
        return page

    yield opened
    assert faults == []


def _is_fault(message: Any) -> bool:
    # Chromium says by itself that a socket was closed before it was open, or that it was refused.
    return message.type in {"error", "warning"} and not message.text.startswith("WebSocket connection to")


def row(page: Page, document_id: str) -> Locator:
    return page.locator(f'[data-id="{document_id}"]').first


def expect_shown(page: Page, document_id: str, **fields: Any) -> None:
    for name, value in fields.items():
        expect(row(page, document_id)).to_contain_text(
            f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'), ensure_ascii=False)}"
        )


def test_documents_are_shown_over_one_connection_from_start_to_result(opened: Open, backend: ScriptedBackend) -> None:
    page = opened()
    page.evaluate("url => show(['a', 'b', 'a'], { url })", backend.url)
    expect_shown(page, "a", status="pending", done=None, connection="open", error=None)
    backend.publish({"status": "processing_started", "docId": "a", "sequence": 1})
    expect_shown(page, "a", status="processing_started", done=0, total=None, unit="pages")
    said = {"message": "Row 4", "phase": {"name": "copy", "index": 1, "of": 2}, "unit": "rows"}
    backend.publish({"status": "progress", "docId": "a", "sequence": 2, "processed": 4, "total": 9, **said})
    expect_shown(page, "a", status="progress", done=4, total=9, **said)
    expect_shown(page, "b", status="pending")
    result = {"key": "results/a.json"}
    backend.publish({"status": "processing_complete", "docId": "a", "sequence": 3, "result": result})
    expect_shown(page, "a", status="processing_complete", done=9, total=9, unit="rows", message=None, result=result)
    expect(page.get_by_role("listitem").nth(2)).to_have_text(row(page, "a").text_content() or "")
    backend.fail("b", "Page 4 is damaged.")
    expect_shown(page, "b", status="error", error="ProgressError PROCESSING_FAILED: Page 4 is damaged.")
    assert len(backend.paths) == 1, "StrictMode mounts twice, and connects once"
    backend.start("b", 4, sequence=1001)
    expect_shown(page, "b", status="processing_started", error=None, done=0, total=4)


def test_a_server_renders_without_a_connection_and_the_browser_takes_it_over(
    opened: Open, backend: ScriptedBackend
) -> None:
    page = opened()
    html = page.evaluate("url => renderOnServer(['a'], { url })", backend.url)
    assert page.evaluate("sockets.length") == 0
    assert "&quot;connection&quot;:&quot;connecting&quot;" in html
    page.evaluate("([html, url]) => hydrate(html, ['a'], { url })", [html, backend.url])
    expect_shown(page, "a", status="pending", connection="open")


def test_unmounting_while_connecting_leaves_no_connection(opened: Open, backend: ScriptedBackend) -> None:
    page = opened()
    page.evaluate(
        """async (url) => {
            show(["a"], { url });
            while (sockets.length === 0) await new Promise((resolve) => setTimeout(resolve));
            unmount();
        }""",
        backend.url,
    )
    wait_until(page, "sockets.every((socket) => socket.readyState === WebSocket.CLOSED)")
    assert page.evaluate("sockets.length") == 1
    page.evaluate("url => show(['a'], { url })", backend.url)
    expect_shown(page, "a", status="pending", connection="open")
    assert page.evaluate("sockets.length") == 2


def test_an_id_that_changes_shows_the_other_document_and_lets_go_of_the_first(
    opened: Open, backend: ScriptedBackend
) -> None:
    page = opened()
    backend.reach("a", 3, 4)
    page.evaluate("url => show(['a'], { url })", backend.url)
    expect_shown(page, "a", done=3)
    page.evaluate("url => show(['b'], { url })", backend.url)
    expect_shown(page, "b", status="pending", done=None, total=None)
    backend.wait_until_unwatched("a")
    page.evaluate("url => show([null], { url })", backend.url)
    expect(page.get_by_role("listitem")).to_contain_text('"status":null')
    backend.wait_until_unwatched("b")
    page.evaluate("url => show(['a\\n'], { url })", backend.url)
    expect(page.get_by_role("listitem")).to_contain_text("TypeError")
    assert len(backend.paths) == 1


def test_an_update_renders_its_document_alone_and_a_lost_connection_commits_once(
    opened: Open, backend: ScriptedBackend
) -> None:
    backend.most_subscriptions = 300
    ids = [f"d{number}" for number in range(300)]
    for document_id in ids:
        backend.reach(document_id, 1, 9)
    page = opened()
    page.evaluate("([ids, url]) => show(ids, { url }, false)", [ids, backend.url])
    expect(page.get_by_text('"done":1')).to_have_count(300)
    before = page.evaluate("structuredClone(counts)")
    backend.reach("d7", 2, 9)
    expect_shown(page, "d7", done=2)
    after = page.evaluate("structuredClone(counts)")
    changed = [name for name in ids if before["renders"][name] != after["renders"][name]]
    assert (changed, after["commits"] - before["commits"]) == (["d7"], 1)
    backend.is_refusing = True
    backend.drop_connections()
    expect(page.get_by_text('"connection":"reconnecting"')).to_have_count(300)
    assert page.evaluate("counts.commits") - after["commits"] == 1


def test_another_address_or_text_makes_another_connection_and_another_function_none(
    opened: Open, backend: ScriptedBackend
) -> None:
    page = opened()
    for number in range(3):
        page.evaluate("([url, n]) => show(['a'], { url, token: () => 'token' + n })", [backend.url, number])
        expect_shown(page, "a", connection="open")
    assert backend.offers == ["docprogress, token0"]
    backend.drop_connections()
    backend.reach("a", 1, 4)
    expect_shown(page, "a", done=1)
    assert backend.offers[1:] == ["docprogress, token2"], "the newest function is asked"
    page.evaluate("url => show(['a'], { url, token: 'text' })", backend.url)
    wait_until(page, "sockets.length === 3")
    expect_shown(page, "a", done=1, connection="open")
    page.evaluate("url => show(['a'], { url: url + '?again', token: 'text' })", backend.url)
    wait_until(page, "sockets.length === 4")
    expect_shown(page, "a", done=1, connection="open")
    assert page.evaluate("sockets.filter((socket) => socket.readyState === WebSocket.OPEN).length") == 1


def test_who_is_signed_out_is_told_and_who_signs_in_is_connected(opened: Open, backend: ScriptedBackend) -> None:
    page = opened()
    page.evaluate("url => show(['a'], { url, token: () => null })", backend.url)
    expect_shown(page, "a", connection="closed")
    expect(row(page, "a")).to_contain_text("ConnectionError TOKEN_MISSING")
    page.evaluate("url => show(['a'], { url, token: () => 'mine' })", backend.url)
    expect_shown(page, "a", status="pending", connection="open", error=None)
    assert backend.offers == ["docprogress, mine"]


def test_a_client_of_ones_own_outlives_its_provider(opened: Open, backend: ScriptedBackend) -> None:
    page = opened()
    page.evaluate("url => { window.client = new ProgressClient(url); show(['a'], { client }); }", backend.url)
    expect_shown(page, "a", status="pending", connection="open")
    page.evaluate("unmount()")
    backend.wait_until_unwatched("a")
    assert page.evaluate("client.state") == "open"


@pytest.mark.parametrize(
    ("provided", "reason"), [(None, "needs a <ProgressProvider>"), ({}, "needs a url or a client")]
)
def test_a_missing_provider_or_address_is_named(
    context: BrowserContext, site: PageServer, application: str, provided: Any, reason: str
) -> None:
    context.route("**/app.js", lambda route: route.fulfill(body=application, content_type="text/javascript"))
    page = context.new_page()
    page.goto(site.url)
    wait_until(page, "window.show !== undefined")
    page.evaluate("provided => show(['a'], provided)", provided)
    expect(page.locator("#caught")).to_contain_text(reason)
