"""How the tests find their way about the page."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.functions.fakes import eventually

OpenPage = Callable[..., Page]
"""`open_page(url, fragment="")`, the fixture of that name."""

REMOTE_HOST = "api.docprogress.test"
"""This machine under a name that the page takes for another's: only then does being offline cut it off."""

PDF = b"%PDF-1.7\n" + b"0" * 2000
"""Enough of a PDF for the page and its server, which look at the header only."""


def card(page: Page, name: str) -> Locator:
    """The card of one document, by what stands on it: the file's name, or the document's id."""
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name, exact=True))


def expect_ready_for_files(page: Page) -> None:
    """The page takes files from when it has read its settings."""
    expect(page.locator("#drop strong")).to_be_visible()


def choose(page: Page, *names: str, content: bytes = PDF) -> None:
    """Pick files that exist in memory only."""
    expect_ready_for_files(page)
    files: list[FilePayload] = [{"name": name, "mimeType": "application/pdf", "buffer": content} for name in names]
    page.get_by_label("choose files").set_input_files(files)


def wait_until(page: Page, expression: str) -> None:
    """As `Page.wait_for_function`, which a page whose policy forbids `eval` can only ask once."""
    assert eventually(lambda: bool(page.evaluate(expression))), expression
