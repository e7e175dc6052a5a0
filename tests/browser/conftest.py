"""Chromium, the page and a server behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from local.server import PageServer
from tests.browser.progress_page import REMOTE_HOST, OpenPage
from tests.browser.scripted_backend import MemoryBucket, ScriptedBackend

# A loaded machine takes its time; a page that is right is not made to wait.
PATIENCE_MILLISECONDS = 60_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: Playwright's event loop would run on under everyone else's `asyncio.run`."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or not Path(chromium).exists():
        reason = "no Chromium: install Debian's package `chromium`, or name one in CHROMIUM"
        # Where the tests must run, such as in CI, a skip would look like success.
        if os.environ.get("DOCPROGRESS_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            timeout=PATIENCE_MILLISECONDS,
            args=[
                # Containers give root no user namespaces, and a small /dev/shm.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                f"--host-resolver-rules=MAP {REMOTE_HOST} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of `Browser.new_context`, for tests to override."""
    return {"viewport": {"width": 1000, "height": 760}, "reduced_motion": "reduce"}


@pytest.fixture
def context(browser: Browser, context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    context = browser.new_context(**context_options)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    yield context
    context.close()


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        yield backend


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def site(backend: ScriptedBackend, bucket: MemoryBucket) -> Iterator[PageServer]:
    with PageServer(
        websocket_url=backend.url,
        bucket="documents",
        s3_client=bucket,  # type: ignore[arg-type]  # the one method that is used
        max_upload_bytes=1 << 20,
    ) as server:
        yield server


@pytest.fixture
def open_page(context: BrowserContext) -> Iterator[OpenPage]:
    """Open the page at an address; what it asks of other origins, and what it throws, fails the test."""
    faults: list[str] = []

    def open_page(url: str, fragment: str = "") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
        page.on(
            "console", lambda message: faults.append(message.text) if _is_fault(message.text, message.type) else None
        )
        page.on(
            "request",
            lambda request: None if request.url.startswith(url) else faults.append(f"asked {request.url}"),
        )
        page.goto(url + fragment)
        return page

    yield open_page
    assert faults == []


def _is_fault(text: str, kind: str) -> bool:
    # Chromium reports each failed connection and each refused upload by itself.
    expected = text.startswith(("WebSocket connection to", "Failed to load resource"))
    return kind in {"error", "warning"} and not expected
