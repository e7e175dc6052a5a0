"""The page that `make docs` draws of docs/asyncapi.yaml, in Chromium and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.npm_packages import command, skip_or_fail
from tests.wire import document
from tools import protocol_page

pytestmark = pytest.mark.browser


def test_the_page_shows_every_message_and_asks_nobody_for_anything(context: BrowserContext, tmp_path: Path) -> None:
    command("npm")
    try:
        script, style = protocol_page.component()
    except protocol_page.NotHad as error:
        skip_or_fail(str(error))
    file = tmp_path / "protocol.html"
    file.write_text(protocol_page.page(protocol_page.SOURCE.read_text(), script, style))
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
    page.goto(file.as_uri())
    for message in document()["components"]["messages"].values():
        expect(page.get_by_text(message["title"], exact=True).first).to_be_attached()
    assert faults == []


def test_another_archive_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command("npm")
    monkeypatch.setattr(protocol_page, "CACHE", tmp_path)
    monkeypatch.setattr(protocol_page, "SHA256", "0" * 64)
    with pytest.raises(protocol_page.NotHad, match=r"and not the 0000|could not fetch"):
        protocol_page.component()
    assert list(tmp_path.iterdir()) == []
