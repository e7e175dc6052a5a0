"""The page in a real browser, against a scripted server and a bucket in memory.

Not proven here: that the deployed program speaks this protocol (test_end_to_end), timing rules that take minutes
(tests/web, with a clock of its own), or anything about other browsers.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Request, Route, WebSocket, expect

from local.server import PageServer
from tests.browser.progress_page import PDF, OpenPage, card, choose, expect_ready_for_files, wait_until
from tests.browser.scripted_backend import MemoryBucket, ScriptedBackend

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]

DROP = """
([files]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "application/pdf" }));
  }
  for (const type of ["dragover", "drop"]) {
    document.body.dispatchEvent(
      new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }),
    );
  }
}
"""


def drop(page: Page, *names: str) -> None:
    expect_ready_for_files(page)
    files = [[name, base64.b64encode(PDF).decode()] for name in names]
    page.evaluate(DROP, [files])


def document_id(card: Locator) -> str:
    expect(card).to_have_attribute("data-document-id", re.compile("."))
    return card.get_attribute("data-document-id") or ""


def expect_phase(card: Locator, phase: str, value: float | None = None) -> None:
    expect(card.locator(".phase")).to_have_text(phase)
    if value is not None:
        expect(card.get_by_role("progressbar")).to_have_js_property("value", value)


def test_two_dropped_pdfs_are_stored_and_both_bars_reach_the_end(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, bucket: MemoryBucket
) -> None:
    page = open_page(site.url)
    drop(page, "Annual report.pdf", "invoice.pdf")
    for name, pages in (("Annual report.pdf", 40), ("invoice.pdf", 200)):
        shown = card(page, name)
        expect_phase(shown, "Waiting")
        stored = document_id(shown)
        assert bucket.documents[stored] == PDF
        backend.start(stored, pages)
        expect_phase(shown, "Processing", 0)
        backend.reach(stored, pages // 4, pages)
        expect_phase(shown, "Processing", 25)
        expect(shown.locator(".percent")).to_have_text(re.compile(r"^25\s%$"))
        expect(shown.locator(".facts")).to_contain_text(f"{pages // 4} of {pages} pages")
        backend.complete(stored)
        expect_phase(shown, "Complete", 100)
    expect(page.locator("#tally")).to_have_text("2 of 2 complete")
    expect(page).to_have_title("2/2 · Document progress")
    assert page.locator(".name").all_text_contents() == ["Annual report.pdf", "invoice.pdf"]


def test_rate_and_time_left_follow_from_what_was_seen(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    # Playwright's clock also runs by itself, so the rate would be the machine's.
    context.add_init_script("window.nowMs = 0; performance.now = () => window.nowMs;")
    page = open_page(site.url, "#doc=a")
    backend.start("a", 100)
    shown = card(page, "a")
    expect_phase(shown, "Processing", 0)
    page.evaluate("window.nowMs = 4000")
    backend.reach("a", 20, 100)
    expect(shown.locator(".facts")).to_have_text("20 of 100 pages · 5 pages/s · about 16 s left")


def test_a_reload_in_the_middle_shows_the_snapshot_and_goes_on(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url)
    choose(page, "Ärger & Co.pdf")
    stored = document_id(card(page, "Ärger & Co.pdf"))
    backend.start(stored, 10)
    backend.reach(stored, 4, 10)
    expect_phase(card(page, "Ärger & Co.pdf"), "Processing", 40)
    page.reload()
    shown = card(page, "Ärger & Co.pdf")
    expect_phase(shown, "Processing", 40)
    backend.reach(stored, 7, 10)
    expect_phase(shown, "Processing", 70)
    backend.complete(stored)
    expect_phase(shown, "Complete", 100)
    page.reload()
    expect_phase(shown, "Complete", 100)


def test_a_cut_connection_resumes_at_the_true_state(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    backend.start("a", 10)
    expect_phase(card(page, "a"), "Processing", 0)
    backend.is_refusing = True
    backend.drop_connections()
    expect(page.get_by_text("Reconnecting", exact=True)).to_be_visible()
    backend.reach("a", 8, 10)  # heard by nobody
    backend.is_refusing = False
    expect_phase(card(page, "a"), "Processing", 80)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_a_network_that_goes_and_comes_back_loses_nothing(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.start("a", 10)
    expect_phase(card(page, "a"), "Processing", 0)
    context.set_offline(True)
    expect(page.get_by_text("Offline", exact=True)).to_be_visible()
    backend.complete("a")
    context.set_offline(False)
    expect_phase(card(page, "a"), "Complete", 100)


def test_two_tabs_with_the_same_link_agree(site: PageServer, open_page: OpenPage, backend: ScriptedBackend) -> None:
    first = open_page(site.url)
    drop(first, "a.pdf", "b.pdf")
    ids = {name: document_id(card(first, name)) for name in ("a.pdf", "b.pdf")}
    second = open_page(site.url, first.evaluate("location.hash"))
    for name, stored in ids.items():
        backend.start(stored, 4)
        backend.reach(stored, 3, 4)
        expect_phase(card(first, name), "Processing", 75)
        expect_phase(card(second, stored), "Processing", 75)
    assert [item.get_attribute("data-document-id") for item in first.locator(".card").all()] == [
        item.get_attribute("data-document-id") for item in second.locator(".card").all()
    ]


def test_a_link_pasted_into_an_open_page_is_followed(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.reach("b", 1, 4)
    page = open_page(site.url, "#doc=a&doc=b")
    expect_phase(card(page, "a"), "Waiting")
    page.goto(site.url + "#doc=b&doc=c%2Fd%20%E2%9C%93")
    expect(page.locator(".name")).to_have_text(["b", "c/d ✓"])
    expect_phase(card(page, "b"), "Processing", 25)


def test_a_document_is_watched_by_its_id_and_let_go_again(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.reach("report-7", 5, 10)
    page = open_page(site.url)
    field = page.get_by_label("Already uploaded? Watch it by its id")
    for _ in range(2):  # the second time nothing is added
        field.fill("  report-7 ")
        field.press("Enter")
        expect(field).to_have_value("")
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect_phase(card(page, "report-7"), "Processing", 50)
    expect(page).to_have_url(f"{site.url}#doc=report-7")
    page.get_by_role("button", name="Stop watching report-7").click()
    expect(page.get_by_role("listitem")).to_have_count(0)
    expect(page.get_by_text("Nothing is being watched yet.")).to_be_visible()
    expect(page).to_have_url(site.url)


def test_an_id_that_no_document_can_have_is_refused_by_its_field(site: PageServer, open_page: OpenPage) -> None:
    page = open_page(site.url)
    expect_ready_for_files(page)
    field = page.get_by_label("Already uploaded? Watch it by its id")
    field.fill("report\u00077")
    field.press("Enter")
    expect(field).to_have_js_property("validationMessage", "This has a control character, which no document's id has.")
    expect(page.get_by_role("listitem")).to_have_count(0)
    field.fill("report7")
    field.press("Enter")
    expect(card(page, "report7")).to_be_visible()


def test_an_id_or_a_code_may_be_a_word_of_javascript(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=constructor&doc=__proto__")
    expect(page.locator(".name")).to_have_text(["constructor", "__proto__"])
    backend.publish(
        {
            "status": "error",
            "errorCode": "constructor",
            "message": "Nobody knows why.",
            "docId": "__proto__",
            "recoverable": False,
            "sequence": 1,
        }
    )
    expect(card(page, "__proto__").locator(".advice")).to_have_text("Wait a moment, then try again.")


def test_the_address_is_written_once_for_many_documents(
    site: PageServer, open_page: OpenPage, context: BrowserContext
) -> None:
    """Safari throws after 100 changes in 30 seconds."""
    context.add_init_script(
        """
        window.written = 0;
        const { replaceState } = history;
        history.replaceState = function (...args) { window.written++; replaceState.apply(this, args); };
        """
    )
    fragment = "#" + "&".join(f"doc={number}" for number in range(120))
    page = open_page(site.url, fragment)
    expect(page.get_by_role("listitem")).to_have_count(120)
    assert page.url.endswith(fragment)
    assert page.evaluate("window.written") == 1


def test_a_document_is_shown_even_if_the_address_cannot_be_written(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    context.add_init_script("history.replaceState = () => { throw new DOMException('too often', 'SecurityError'); };")
    page = open_page(site.url, "#doc=a&doc=b")
    backend.start("b", 4)
    expect_phase(card(page, "b"), "Processing", 0)
    expect(page.locator("#tally")).to_have_text("0 of 2 complete")
    page.get_by_role("button", name="Stop watching a").click()
    expect(page.locator("#tally")).to_have_text("0 of 1 complete")


def test_the_page_takes_the_kinds_that_it_is_told_of(
    backend: ScriptedBackend, bucket: MemoryBucket, open_page: OpenPage
) -> None:
    with PageServer(
        websocket_url=backend.url,
        bucket="documents",
        s3_client=bucket,  # type: ignore[arg-type]  # the one method that is used
        media_types={".pdf": "application/pdf", ".docx": "application/x-docx"},
    ) as server:
        page = open_page(server.url)
        choose(page, "minutes.DOCX", "photo.jpg", content=b"PK")
        shown = card(page, "minutes.DOCX")
        expect_phase(shown, "Waiting")
        assert bucket.documents[document_id(shown)] == b"PK"
        assert document_id(shown).endswith(".docx"), "a document of another kind keeps its suffix"
        refused = "Such a file is not taken. Save or export the document as PDF or .docx, then add that file."
        expect(card(page, "photo.jpg")).to_contain_text(refused)
        expect(page.locator("#drop strong")).to_have_text("Drop PDF or .docx files here")
        expect(page.locator("#files")).to_have_attribute("accept", ".pdf,.docx,application/pdf,application/x-docx")


def test_what_is_no_pdf_says_so_and_is_not_sent(site: PageServer, open_page: OpenPage, bucket: MemoryBucket) -> None:
    page = open_page(site.url)
    choose(page, "photo.pdf", content=b"\xff\xd8\xff\xe0JFIF")
    shown = card(page, "photo.pdf")
    expect_phase(shown, "Not uploaded")
    expect(shown).to_contain_text("This is not a PDF. Save or export the document as PDF")
    expect(shown.get_by_role("button", name="Upload again")).to_have_count(0)
    assert bucket.documents == {}


def test_a_file_that_is_too_large_says_what_the_limit_is(site: PageServer, open_page: OpenPage) -> None:
    page = open_page(site.url)
    choose(page, "huge.pdf", content=PDF + b"0" * (1 << 20))
    expect(card(page, "huge.pdf")).to_contain_text("This file is too large. A document may have up to 1 MiB.")


def test_an_upload_that_failed_can_be_repeated(
    site: PageServer, open_page: OpenPage, bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    page = open_page(site.url)
    bucket.is_failing = True
    choose(page, "a.pdf")
    shown = card(page, "a.pdf")
    expect(shown).to_contain_text("The server did not take the upload.")
    bucket.is_failing = False
    shown.get_by_role("button", name="Upload again: a.pdf").press("Enter")
    expect(shown.get_by_role("button", name="Stop watching a.pdf")).to_be_focused()
    expect_phase(shown, "Waiting")
    assert list(bucket.documents) == [document_id(shown)]


def test_a_failed_document_says_why_and_what_to_do_and_can_be_uploaded_anew(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url)
    choose(page, "a.pdf")
    shown = card(page, "a.pdf")
    failed = document_id(shown)
    backend.wait_until_watched(failed)
    backend.reach(failed, 3, 4)
    backend.fail(failed, "Page 4 is damaged.")
    expect_phase(shown, "Failed", 75)
    expect(shown).to_contain_text("Page 4 is damaged. Upload it again. If it fails again, save it as a new file")
    expect(page.locator("#tally")).to_have_text("0 of 1 complete, 1 failed")
    shown.get_by_role("button", name="Upload again: a.pdf").click()
    expect_phase(shown, "Waiting")
    expect(shown).not_to_have_attribute("data-document-id", failed)
    expect(shown.get_by_text("damaged")).to_be_hidden()
    backend.complete(failed, 1001)
    backend.fail(document_id(shown), "It needs a password.", sequence=1)
    expect_phase(shown, "Failed")
    expect(shown.get_by_role("progressbar")).to_have_count(0)
    expect(shown.locator(".facts")).to_be_empty()
    backend.start(document_id(shown), 4, sequence=2)
    expect_phase(shown, "Processing", 0)


def test_an_error_that_the_server_will_retry_keeps_watching(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.reach("a", 2, 4)
    shown = card(page, "a")
    expect_phase(shown, "Processing", 50)
    backend.fail("a", "The worker was interrupted.", recoverable=True, sequence=4)
    expect_phase(shown, "Retrying", 50)
    expect(shown).to_contain_text("The worker was interrupted. The server tries again by itself.")
    backend.start("a", 4, sequence=5)
    expect_phase(shown, "Processing", 0)
    expect(shown.get_by_text("interrupted")).to_be_hidden()


def test_a_document_whose_worker_died_may_be_uploaded_again(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url)
    choose(page, "a.pdf")
    shown = card(page, "a.pdf")
    watched = document_id(shown)
    error = {"status": "error", "errorCode": "PROCESSING_STALLED", "recoverable": True}
    backend.publish({**error, "message": "The worker stopped.", "docId": watched, "sequence": 4})
    expect_phase(shown, "Stalled")
    expect(shown).to_contain_text("The worker stopped. If nothing moves in a few minutes, upload it again.")
    expect(shown.get_by_role("button", name="Upload again: a.pdf")).to_be_visible()
    backend.start(watched, 4, sequence=5)
    expect_phase(shown, "Processing", 0)


def test_a_stalled_document_that_nobody_takes_up_again_ends(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    context.clock.install()
    page = open_page(site.url, "#doc=a")
    error = {"status": "error", "errorCode": "PROCESSING_STALLED", "recoverable": True}
    backend.publish({**error, "message": "The worker stopped.", "docId": "a", "sequence": 4})
    expect_phase(card(page, "a"), "Stalled")
    for _ in range(100):
        context.clock.run_for(5_000)
        # The page's clock outruns the network.
        page.evaluate("fetch('config.json').then((response) => response.text())")
        if card(page, "a").locator(".phase").text_content() == "Failed":
            break
    expect_phase(card(page, "a"), "Failed")
    expect(card(page, "a")).to_contain_text("The worker stopped. Nobody works on it any more. Upload it again.")
    backend.start("a", 4, sequence=5)
    expect_phase(card(page, "a"), "Processing", 0)


def test_a_failure_seen_first_shows_no_bar(site: PageServer, open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.fail("a", "Page 4 is damaged.")
    page = open_page(site.url, "#doc=a")
    expect_phase(card(page, "a"), "Failed")
    expect(card(page, "a").get_by_role("progressbar")).to_have_count(0)
    expect(card(page, "a").get_by_role("button", name="Upload again")).to_have_count(0)


@pytest.mark.parametrize("way", ["by upload", "by id"])
def test_a_refused_watch_is_asked_for_again_and_nothing_is_uploaded_twice(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, bucket: MemoryBucket, way: str
) -> None:
    page = open_page(site.url, "#doc=a" if way == "by id" else "")
    if way == "by upload":
        choose(page, "a")
    shown = card(page, "a")
    watched = document_id(shown)
    expect_phase(shown, "Waiting")
    stored = dict(bucket.documents)
    backend.publish(
        {
            "status": "error",
            "errorCode": "FORBIDDEN",
            "message": "You may not watch this document.",
            "docId": watched,
            "recoverable": False,
        }
    )
    expect_phase(shown, "Refused")
    backend.documents[watched] = {"status": "pending", "docId": watched}
    shown.get_by_role("button", name="Watch again: a").press("Enter")
    expect(shown.get_by_role("button", name="Stop watching a")).to_be_focused()
    expect_phase(shown, "Waiting")
    backend.start(watched, 4, sequence=2)
    expect_phase(shown, "Processing", 0)
    assert bucket.documents == stored


def test_of_more_documents_than_a_connection_may_watch_those_that_ended_make_room_for_the_others(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    ids = [f"d{number}" for number in range(130)]
    for stored in ids:
        backend.start(stored, 10)
    page = open_page(site.url, "#" + "&".join(f"doc={stored}" for stored in ids))
    expect(page.locator('[data-phase="processing"]')).to_have_count(90)
    expect(page.locator('[data-phase="waiting"]')).to_have_count(40)
    for stored in ids[:40]:
        backend.complete(stored)
    expect(page.locator('[data-phase="processing"]')).to_have_count(90)
    expect(page.locator('[data-phase="complete"]')).to_have_count(40)
    for stored in ids[40:]:
        backend.complete(stored)
    expect(page.locator("#tally")).to_have_text("130 of 130 complete")
    page.reload()
    expect(page.locator("#tally")).to_have_text("130 of 130 complete")


def test_documents_that_leave_together_are_not_watched_on_their_way_out(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    sent: list[str | bytes] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: sent.append(frame))

    context.on("page", lambda page: page.on("websocket", listen))
    ids = [f"d{number}" for number in range(130)]
    for stored in [*ids, "other"]:
        backend.start(stored, 10)
    page = open_page(site.url, "#" + "&".join(f"doc={stored}" for stored in ids))
    expect(page.locator('[data-phase="processing"]')).to_have_count(90)
    page.evaluate("location.hash = 'doc=other'")
    expect_phase(card(page, "other"), "Processing")
    assert len(sent) == 90 + 90 + 1


def test_what_is_said_aloud_is_a_summary_and_not_each_page(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.wait_until_watched("a")
    page.evaluate(
        """() => {
          const region = document.getElementById("announcements");
          window.said = [];
          new MutationObserver(() => window.said.push(region.textContent)).observe(region, { childList: true });
        }"""
    )
    backend.start("a", 100)
    for pages in range(1, 100):
        backend.reach("a", pages, 100)
    backend.complete("a")
    expect(page.get_by_role("status")).to_contain_text("a: complete.")
    said = " ".join(page.evaluate("window.said"))
    assert "a: processing 100 pages." in said
    assert len(re.findall(r"\bof 100 pages done", said)) == 1, "one report on the way is enough"


def test_of_many_documents_that_change_at_once_a_few_are_said_aloud_and_how_all_stand(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    context.clock.install(time=0)
    context.clock.pause_at(1000)  # whenever they come, they come in the same second
    for number in range(40):
        backend.complete(f"d{number}")
    page = open_page(site.url, "#" + "&".join(f"doc=d{number}" for number in range(40)))
    expect(page.locator("#tally")).to_have_text("40 of 40 complete")
    page.clock.run_for(1000)
    said = page.get_by_role("status").inner_text()
    assert said.endswith("d4: complete. And 35 more. Documents: 40 of 40 complete.")


def test_without_an_upload_address_documents_are_only_watched(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    context.route("**/config.json", lambda route: route.fulfill(json={"websocketUrl": backend.url}))
    page = open_page(site.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(page.get_by_text("Drop PDFs here")).to_be_hidden()
    expect(page.get_by_label("Already uploaded? Watch it by its id")).to_be_visible()


def test_a_document_goes_to_s3_by_a_presigned_form(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    settings = {"websocketUrl": backend.url, "uploadUrl": "uploads", "tokenUrl": "token"}
    form = {"docId": "a-1", "url": f"{site.url}s3", "fields": {"key": "a-1.pdf", "policy": "signed"}}
    asked: list[Request] = []
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(json={"token": "secret"}))
    context.route("**/uploads", lambda route: route.fulfill(json=form))
    context.route("**/s3", lambda route: route.fulfill(status=204))
    page = open_page(site.url)
    page.on("request", lambda request: asked.append(request) if request.method == "POST" else None)
    choose(page, "a.pdf")
    expect_phase(card(page, "a.pdf"), "Waiting")
    assert document_id(card(page, "a.pdf")) == "a-1"
    presigning, sending = asked
    assert presigning.headers["authorization"] == "Bearer secret"
    asked_for = presigning.post_data_json
    assert asked_for == {"fileName": "a.pdf", "size": len(PDF), "correlationId": asked_for["correlationId"]}
    assert "authorization" not in sending.headers, "S3 knows the form, not the token"
    body = (sending.post_data_buffer or b"").decode()
    assert re.findall(r'name="(\w+)"', body) == ["key", "policy", "file"], "S3 ignores what follows the file"


@pytest.mark.parametrize("form", [{}, {"url": "nowhere"}, {"fields": None}, {"docId": "a\u00071"}])
def test_a_presigned_form_that_is_none_can_be_asked_for_again(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext, form: dict[str, object]
) -> None:
    settings = {"websocketUrl": backend.url, "uploadUrl": "uploads"}
    complete = {"docId": "a-1", "url": f"{site.url}s3", "fields": {"key": "a-1.pdf"}}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/uploads", lambda route: route.fulfill(json={**complete, **form} if form else {"docId": "a-1"}))
    context.route("**/s3", lambda route: route.fulfill(status=204))
    page = open_page(site.url)
    choose(page, "a.pdf")
    shown = card(page, "a.pdf")
    expect(shown).to_contain_text("The server did not take the upload. Wait a moment, then upload it again.")
    expect(shown.get_by_role("button", name="Upload again")).to_be_visible()


def test_a_document_dismissed_while_its_token_is_fetched_is_not_uploaded(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    settings = {"websocketUrl": backend.url, "uploadUrl": "uploads", "tokenUrl": "token"}
    held: list[Route] = []
    uploads: list[Request] = []
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(json={"token": "secret"}))
    page = open_page(site.url)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    context.route("**/token", lambda route: held.append(route), times=1)
    with page.expect_request("**/token"):
        choose(page, "a.pdf")
    page.get_by_role("button", name="Stop watching a.pdf").click()
    page.on("request", lambda request: uploads.append(request) if request.method == "POST" else None)
    held[0].fulfill(json={"token": "secret"})
    page.evaluate("fetch('token').then((response) => response.json())")  # one that is answered later
    assert uploads == []


@pytest.mark.parametrize("answer", [{"status": 403}, {"json": {}}], ids=["403", "no token"])
def test_who_is_signed_out_cannot_upload(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext, answer: dict[str, Any]
) -> None:
    settings = {"websocketUrl": backend.url, "uploadUrl": "uploads", "tokenUrl": "token"}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(**answer))
    page = open_page(site.url)
    choose(page, "a.pdf")
    expect(card(page, "a.pdf")).to_contain_text("You may not upload here. Sign in again and reload the page.")


@pytest.mark.parametrize(("status", "text"), [(403, "You may not upload here."), (500, "did not take the upload")])
@pytest.mark.parametrize("at", ["uploads", "s3"])
def test_a_presigned_upload_that_is_refused_says_so(
    site: PageServer,
    open_page: OpenPage,
    backend: ScriptedBackend,
    context: BrowserContext,
    at: str,
    status: int,
    text: str,
) -> None:
    settings = {"websocketUrl": backend.url, "uploadUrl": "uploads"}
    form = {"docId": "a-1", "url": f"{site.url}s3", "fields": {"key": "a-1.pdf"}}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/uploads", lambda route: route.fulfill(json=form))
    context.route(f"**/{at}", lambda route: route.fulfill(status=status, body="<Error/>"))
    page = open_page(site.url)
    choose(page, "a.pdf")
    expect(card(page, "a.pdf")).to_contain_text(text)
    assert card(page, "a.pdf").get_attribute("data-document-id") is None


@pytest.mark.parametrize(
    ("transport", "paths", "offers"),
    [
        ({}, ["/local", "/local"], ["docprogress, first", "docprogress, second"]),
        ({"tokenTransport": "query"}, ["/local?token=first", "/local?token=second"], [None, None]),
    ],
    ids=["default", "query"],
)
def test_a_token_is_fetched_for_each_connection(
    site: PageServer,
    open_page: OpenPage,
    backend: ScriptedBackend,
    context: BrowserContext,
    transport: dict[str, str],
    paths: list[str],
    offers: list[str | None],
) -> None:
    tokens = iter(["first", "second"])
    settings = {"websocketUrl": backend.url, "tokenUrl": "token", **transport}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(json={"token": next(tokens)}))
    page = open_page(site.url, "#doc=a")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    backend.start("a", 4)
    expect_phase(card(page, "a"), "Processing", 0)
    backend.drop_connections()
    backend.reach("a", 1, 4)
    expect_phase(card(page, "a"), "Processing", 25)
    assert (backend.paths, backend.offers) == (paths, offers)


def test_who_is_refused_again_and_again_is_told_what_to_do_and_connected_when_that_ends(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    settings = {"websocketUrl": backend.url, "tokenUrl": "token"}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(json={"token": "stale"}))
    backend.is_refusing = True
    page = open_page(site.url)
    expect(page.get_by_role("alert")).to_contain_text("refuses the connection. This page goes on trying.")
    expect(page.locator("#connection")).to_have_text("Refused")
    backend.is_refusing = False
    page.evaluate("dispatchEvent(new Event('focus'))")  # as when its user comes back to the tab
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


def test_who_is_signed_out_is_told_so(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend, context: BrowserContext
) -> None:
    settings = {"websocketUrl": backend.url, "tokenUrl": "token"}
    context.route("**/config.json", lambda route: route.fulfill(json=settings))
    context.route("**/token", lambda route: route.fulfill(status=401))
    page = open_page(site.url)
    expect(page.get_by_role("alert")).to_have_text("Sign in, then reload this page to see live progress.")
    expect(page.locator("#connection")).to_have_text("Signed out")
    assert backend.paths == []


def test_a_page_without_settings_says_what_is_missing(
    site: PageServer, open_page: OpenPage, context: BrowserContext
) -> None:
    context.route("**/config.json", lambda route: route.fulfill(status=404))
    page = open_page(site.url)
    expect(page.get_by_role("alert")).to_contain_text("config.json")
    expect(page.get_by_label("Already uploaded? Watch it by its id")).to_be_hidden()


def test_a_running_document_says_its_phase_what_it_is_at_and_how_far_it_is_in_its_own_unit(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a")
    backend.publish({"status": "processing_started", "docId": "a", "sequence": 1})
    shown = card(page, "a")
    expect_phase(shown, "Processing")
    expect(shown.locator(".facts")).to_have_text(re.compile(r"^0\spages\sso\sfar$"))
    expect(shown.locator("progress")).not_to_have_attribute("value", re.compile("."))
    state = {"status": "progress", "docId": "a", "unit": "bytes", "phase": {"name": "copy", "index": 2, "of": 3}}
    backend.publish(
        {**state, "sequence": 2, "processed": 2_500_000, "total": 10_000_000, "message": "From the archive"}
    )
    expect(shown.locator(".step")).to_have_text("copy (2 of 3) · From the archive")
    expect_phase(shown, "Processing", 25)
    expect(shown.locator(".facts")).to_contain_text(re.compile(r"^2\.5\sMB\sof\s10\sMB"))
    backend.publish({**state, "sequence": 3, "processed": 5_000_000, "total": 10_000_000, "phase": {"name": "check"}})
    expect(shown.locator(".step")).to_have_text("check")
    expect(page).to_have_title(re.compile(r"^50\s% · 0/1 · Document progress$"))


def test_a_complete_document_says_what_was_not_read_and_links_to_its_result(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=a&doc=b")
    backend.reach("a", 8, 9)
    expect_phase(card(page, "a"), "Processing")
    end = {"status": "processing_complete", "sequence": 100}
    result = {"url": "https://results.example.com/a.json"}
    backend.publish({**end, "docId": "a", "pagesUnreadable": 2, "result": result})
    backend.publish({**end, "docId": "b", "pagesUnreadable": 1, "result": {"url": "javascript:alert(1)"}})
    expect(card(page, "a").locator(".facts")).to_have_text(re.compile(r"^9\spages · 2\spages\scould\snot\sbe\sread$"))
    link = page.get_by_role("link", name="Open the result of a")
    expect(link).to_have_attribute("href", "https://results.example.com/a.json")
    expect_phase(card(page, "b"), "Complete", 100)
    expect(card(page, "b").locator(".facts")).to_have_text(re.compile(r"^1\spage\scould\snot\sbe\sread$"))
    expect(page.get_by_role("link")).to_have_count(1)


def test_a_result_in_the_bucket_is_saved_by_its_button(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    end = {"status": "processing_complete", "sequence": 100}
    backend.publish({**end, "docId": "f/a", "result": {"key": "results/f/a.json", "total": 9, "unit": "lines"}})
    backend.publish({**end, "docId": "b", "result": {"total": 2.5, "unit": "pages"}})
    asked: list[str] = []
    answers: list[dict[str, Any]] = [
        {"status": 404, "json": {"errorCode": "RESULT_MISSING"}},
        {"json": {"url": "javascript:document.title = 'bad'"}},
        {"json": {"url": f"{site.url}file"}},
    ]
    page = open_page(site.url, "#doc=f/a&doc=b")

    def link(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(**answers.pop(0))

    page.route(f"{site.url}results/**", link)
    page.route(f"{site.url}file", lambda route: route.fulfill(body="{}", headers={"Content-Disposition": "attachment"}))
    shown = card(page, "f/a")
    expect(shown.locator(".facts")).to_have_text("9\u00a0lines")
    save = shown.get_by_role("button", name="Save the result of f/a")
    save.press("Enter")
    expect(shown.locator(".step")).to_have_text("Not saved: It has been removed.")
    save.press("Enter")
    expect(shown.locator(".step")).to_have_text(re.compile("^Not saved: It could not be had."))
    with page.expect_download():
        save.press("Enter")
    expect(shown.locator(".step")).to_be_hidden()
    expect(save).to_be_focused()
    assert asked == [f"{site.url}results/f%2Fa"] * 3
    expect(card(page, "b").get_by_role("button", name="Save")).to_have_count(0)
    expect(card(page, "b").locator(".facts")).to_have_text("All pages done")


def test_a_document_is_cancelled_by_its_button(site: PageServer, open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page(site.url, "#doc=a")
    backend.reach("a", 1, 4)
    expect_phase(card(page, "a"), "Processing", 25)
    page.get_by_role("button", name="Cancel a").press("Enter")
    expect_phase(card(page, "a"), "Cancelled", 25)
    expect(card(page, "a")).to_contain_text("Its owner cancelled it. To have it processed after all, upload it again.")
    expect(page.get_by_role("button", name="Cancel a")).to_be_hidden()
    expect(page.get_by_role("button", name="Stop watching a")).to_be_focused()


def test_a_document_that_may_not_be_cancelled_goes_on_and_says_so(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.may_cancel = False
    page = open_page(site.url, "#doc=a")
    backend.reach("a", 1, 4)
    expect_phase(card(page, "a"), "Processing", 25)
    page.get_by_role("button", name="Cancel a").click()
    expect(card(page, "a").locator(".step")).to_have_text("Not cancelled: You may not cancel this document.")
    expect(page.get_by_role("button", name="Cancel a")).to_have_text("Cancel")
    backend.reach("a", 2, 4)
    expect_phase(card(page, "a"), "Processing", 50)


ADVICE = {
    "PROCESSING_FAILED": "Upload it again.",
    "PROCESSING_STALLED": "Upload it again.",
    "CANCELLED": "upload it again.",
    "TIME_LIMIT_EXCEEDED": "Split it",
    "DOCUMENT_TOO_LARGE": "Split it",
    "DOCUMENT_ENCRYPTED": "Remove the password",
    "DOCUMENT_DAMAGED": "Open it, print or save it as a new file",
    "DOCUMENT_EMPTY": "Check that it is the right file",
    "DOCUMENT_MISSING": "Upload it again.",
    "OUT_OF_INK": "Wait a moment, then try again.",
}


def test_the_advice_fits_the_reason(site: PageServer, open_page: OpenPage, backend: ScriptedBackend) -> None:
    for code in ADVICE:
        error = {"status": "error", "errorCode": code, "message": f"It is {code}.", "recoverable": False, "sequence": 2}
        backend.publish({**error, "docId": code})
    page = open_page(site.url, "#" + "&".join(f"doc={code}" for code in ADVICE))
    for code, advice in ADVICE.items():
        expect(card(page, code).locator(".what")).to_have_text(f"It is {code}.")
        expect(card(page, code).locator(".advice")).to_contain_text(advice)
    advices = page.locator(".advice").all_text_contents()
    assert not any(
        "password" in advice for code, advice in zip(ADVICE, advices, strict=True) if "ENCRYPTED" not in code
    )


def test_a_link_of_any_length_leaves_the_page_usable(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.most_subscriptions = 300
    page = open_page(site.url, "#" + "&".join(f"doc=d{number}" for number in range(20_000)))
    expect(page.get_by_role("listitem")).to_have_count(300)
    expect(page.get_by_text("This link names 20,000 documents. The first 300 are shown.")).to_be_visible()
    backend.wait_until_watched("d89")
    for number in range(90):
        backend.complete(f"d{number}")
    backend.wait_until_watched("d150")
    expect(page.locator("#tally")).to_have_text("90 of 300 complete")
    page.goto(site.url + "#doc=d1")
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(page.locator("#link-notice")).to_be_hidden()


def test_an_update_of_one_of_300_documents_writes_to_its_card_alone(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.start("d5", 1000)
    page = open_page(site.url, "#" + "&".join(f"doc=d{number}" for number in range(300)))
    expect_phase(card(page, "d5"), "Processing", 0)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    backend.wait_until_watched("d89")
    backend.start("d89", 10)
    expect_phase(card(page, "d89"), "Processing", 0)  # and so have all that were asked for before it
    page.evaluate(
        """() => {
            window.written = [];
            const home = (node) => (node.closest ? node : node.parentElement)?.closest(".card, title, [id]");
            new MutationObserver((changes) => {
              written.push(...changes.map(({ target }) => home(target)?.dataset.documentId ?? home(target)?.localName));
            }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
        }"""
    )
    for pages in range(1, 21):
        backend.reach("d5", pages, 1000)
    expect(card(page, "d5").locator(".facts")).to_contain_text("20 of 1,000")
    written: list[str] = page.evaluate("written")
    assert set(written) - {"d5"} <= {"title", "p"}, "the title, the tally and what is said aloud"
    assert 20 <= written.count("d5") <= 20 * 20


def test_a_name_in_letters_of_the_other_direction_turns_nothing_else_around(
    site: PageServer, open_page: OpenPage
) -> None:
    name = "\u202efdp.exe"
    page = open_page(site.url)
    page.evaluate("id => { location.hash = `doc=${encodeURIComponent(id)}`; }", name)
    expect(page.locator(".name > bdi")).to_have_text(name)


def test_no_script_but_the_pages_own_runs_wherever_it_is_hosted(site: PageServer, context: BrowserContext) -> None:
    index = ROOT / "web" / "index.html"
    context.route(site.url, lambda route: route.fulfill(body=index.read_text(), content_type="text/html"))
    page = context.new_page()
    page.goto(site.url)
    expect_ready_for_files(page)
    page.evaluate(
        """() => {
            window.ran = [];
            const script = document.createElement("script");
            script.textContent = "ran.push('inline')";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", `<img src="data:," onerror="ran.push('handler')">`);
        }"""
    )
    wait_until(page, "document.querySelector('img').complete")
    assert page.evaluate("window.ran") == []


def test_documents_that_were_added_here_are_remembered_until_they_are_forgotten(
    site: PageServer, open_page: OpenPage, backend: ScriptedBackend
) -> None:
    page = open_page(site.url, "#doc=from-a-link")
    choose(page, "a.pdf")
    stored = document_id(card(page, "a.pdf"))
    field = page.get_by_label("Already uploaded? Watch it by its id")
    for name in ("b", "c"):
        field.fill(name)
        field.press("Enter")
        expect(card(page, name)).to_be_visible()
    remembered = page.locator("#remembered")
    expect(remembered).to_be_hidden()
    page.goto(site.url + "#")
    expect(page.get_by_role("listitem")).to_have_count(0)
    page.reload()
    expect(remembered.locator("summary")).to_have_text("Earlier documents of this browser (3)")
    remembered.locator("summary").click()
    expect(remembered.locator("bdi")).to_have_text(["c", "b", "a.pdf"])
    remembered.get_by_role("button", name="Watch a.pdf").press("Enter")
    expect(card(page, "a.pdf")).to_have_attribute("data-document-id", stored)
    expect(remembered.locator("summary")).to_be_focused()
    remembered.get_by_role("button", name="Forget c").press("Enter")
    expect(remembered.locator("bdi")).to_have_text(["b"])
    remembered.get_by_role("button", name="Forget all").press("Enter")
    expect(remembered).to_be_hidden()
    expect(field).to_be_focused()
    page.reload()
    expect(card(page, "a.pdf")).to_be_visible()
    expect(remembered).to_be_hidden()
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("kept", ["no JSON", "{}", '[1, null, {"id": ""}, {"id": "a", "name": 7}]'])
def test_what_another_program_left_in_the_browser_does_no_harm(
    site: PageServer, open_page: OpenPage, context: BrowserContext, kept: str
) -> None:
    context.add_init_script(f"localStorage.setItem('docprogress.documents', {json.dumps(kept)})")
    page = open_page(site.url, "#doc=a")
    expect(card(page, "a")).to_be_visible()
    expect(page.locator("#remembered")).to_be_hidden()
