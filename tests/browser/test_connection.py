"""The client's connection in Chromium, through a relay that does to it what networks do.

Not proven here: how long the client waits where nothing wakes it (tests/web, with a clock of its own).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from local.server import PageServer
from tests.browser.progress_page import REMOTE_HOST, OpenPage
from tests.browser.relay import Relay
from tests.browser.scripted_backend import MemoryBucket, ScriptedBackend

pytestmark = pytest.mark.browser

# The client alone, which waits half a second for an answer, and says in the title what it has heard.
WATCH = """
async (url) => {
    const { ProgressClient } = await import("/client/index.js");
    const say = () => { document.title = `${client.state} ${watch.state?.sequence ?? "?"}`; };
    const client = new ProgressClient(url, { replyTimeoutMs: 500, reconnectBaseMs: 50, onStateChange: say });
    const watch = client.watch("a", { onUpdate: say });
    window.client = client;
}
"""
WAKINGS = {
    "visibilitychange": "document.dispatchEvent(new Event('visibilitychange'))",
    "pageshow": "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
    "focus": "dispatchEvent(new Event('focus'))",
    "online": "dispatchEvent(new Event('online'))",
    "resume": "document.dispatchEvent(new Event('resume'))",
}


@pytest.fixture
def relay(backend: ScriptedBackend) -> Iterator[Relay]:
    port = urlsplit(backend.url).port
    assert port is not None
    with Relay(port, name=REMOTE_HOST) as relay:
        yield relay


@pytest.fixture
def watching(backend: ScriptedBackend, relay: Relay, context: BrowserContext) -> Iterator[Page]:
    url = f"ws://{REMOTE_HOST}:{relay.port}/local"
    with PageServer(websocket_url=url, bucket="documents", s3_client=MemoryBucket()) as server:  # type: ignore[arg-type]
        # In place of the page, whose own client would connect too.
        context.route("**/app.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
        page = context.new_page()
        page.goto(server.url)
        backend.reach("a", 1, 9)
        page.evaluate(WATCH, url)
        expect(page).to_have_title("open 2")
        yield page


@pytest.mark.parametrize("waking", WAKINGS)
def test_a_dead_socket_is_replaced_when_its_user_is_back(
    watching: Page, backend: ScriptedBackend, relay: Relay, waking: str
) -> None:
    relay.hang()
    backend.reach("a", 5, 9)
    watching.evaluate(WAKINGS[waking])
    expect(watching).to_have_title("open 6")
    assert relay.accepted == 2


@pytest.mark.parametrize("harm", ["cut", "close_half"])
def test_a_connection_that_ends_without_a_word_is_replaced(
    watching: Page, backend: ScriptedBackend, relay: Relay, harm: str
) -> None:
    getattr(relay, harm)()
    backend.reach("a", 5, 9)
    expect(watching).to_have_title("open 6")
    assert relay.accepted == 2


def test_a_host_that_the_pages_policy_does_not_allow_is_noticed_at_once_and_named(watching: Page) -> None:
    told: Any = watching.evaluate(
        """async () => {
            const { ProgressClient } = await import("/client/index.js");
            return await new Promise((resolve) => {
                const client = new ProgressClient("ws://elsewhere.invalid/local?token=secret", {
                    onStateChange: (state, { code, message }) => (resolve([state, code, message]), client.close()),
                });
            });
        }"""
    )
    assert told[:2] == ["reconnecting", "CONNECTION_LOST"]
    assert "ws://elsewhere.invalid" in told[2]
    assert "connect-src" in told[2]
    assert "secret" not in told[2]


def test_a_page_that_was_left_and_comes_back_by_the_back_button_shows_the_true_state(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.reach("a", 1, 4)
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 25)
    page.goto("about:blank")
    backend.reach("a", 3, 4)
    page.go_back()
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 75)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
