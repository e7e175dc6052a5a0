"""Real PDFs through the deployed program and back into the browser: page, bucket, processor, table, API, page.

What happens in the middle of a document is seen with a worker that stays there for as long as the test looks. Not
proven here: that AWS does what the emulator does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from local.emulator import CREDENTIALS, NO_PROFILE, REGION
from local.page import s3_client_of
from local.sample_pdf import write_sample_pdf
from local.server import PageServer
from local.stack import LocalStack, local_stack
from tests.browser.progress_page import REMOTE_HOST, OpenPage, card, expect_ready_for_files
from tests.browser.relay import Relay
from tests.oidc_server import AUDIENCE, OidcServer

pytestmark = [pytest.mark.browser, pytest.mark.emulator]

ROOT = Path(__file__).parents[2]
# A page now and then, so that an update which comes too late has a successor; the end comes with the input's.
WORKER = """
import select, sys
from docprogress.publisher import publisher
with publisher().track(sys.argv[1]) as tracker:
    tracker.start(total=999)
    while not select.select([sys.stdin], [], [], 0.3)[0]:
        tracker.advance()
"""


@pytest.fixture(scope="module")
def running(browser: Browser) -> Iterator[LocalStack]:
    with local_stack() as stack:
        yield stack


@pytest.fixture
def relay(running: LocalStack) -> Iterator[Relay]:
    """Between the page's WebSocket and the program."""
    with Relay(running.emulator.port, name=REMOTE_HOST) as relay:
        yield relay


@pytest.fixture
def site(running: LocalStack, relay: Relay) -> Iterator[PageServer]:
    s3 = s3_client_of(running)
    address = urlsplit(running.outputs["websocketUrl"])
    with PageServer(
        websocket_url=address._replace(netloc=f"{REMOTE_HOST}:{relay.port}").geturl(),
        bucket=running.outputs["documentsBucket"],
        s3_client=s3,
    ) as server:
        yield server
    s3.close()


@contextlib.contextmanager
def in_the_middle(stack: LocalStack, document_id: str) -> Iterator[None]:
    """The document is being processed until the block ends, and complete after it."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(ROOT / "functions"), str(ROOT / "library"))),
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": stack.emulator.endpoint_url,
        "TABLE_NAME": stack.outputs["tableName"],
        "CALLBACK_URL": stack.outputs["callbackUrl"],
        **CREDENTIALS,
        **NO_PROFILE,
    }
    command = [sys.executable, "-c", WORKER, document_id]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as worker:
        yield
    assert worker.returncode == 0


def sample(folder: Path, name: str, pages: int) -> Path:
    path = folder / name
    write_sample_pdf(path, pages)
    return path


def upload(page: Page, *paths: Path) -> None:
    expect_ready_for_files(page)
    page.get_by_label("choose files").set_input_files(paths)


def expect_in_the_middle(shown: Locator) -> None:
    expect(shown.locator(".facts")).to_have_text(re.compile(r"^[1-9]\d*\sof\s\d+\spages"))


def expect_complete(shown: Locator) -> None:
    expect(shown.locator(".phase")).to_have_text("Complete")
    expect(shown.get_by_role("progressbar")).to_have_js_property("value", 100)


def test_two_pdfs_reach_the_end_in_two_tabs_that_agree(site: PageServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(site.url)
    upload(page, sample(tmp_path, "first.pdf", 150), sample(tmp_path, "second.pdf", 120))
    for name in ("first.pdf", "second.pdf"):
        expect(card(page, name)).to_have_attribute("data-document-id", re.compile("."))
    other_tab = open_page(site.url, page.evaluate("location.hash"))
    for name, pages in (("first.pdf", 150), ("second.pdf", 120)):
        expect_complete(card(page, name))
        # Who asks only after the end is not told how many they were.
        expect(card(page, name).locator(".facts")).to_have_text(re.compile(rf"^{pages}\spages\b|^All pages done$"))
    for shown in other_tab.get_by_role("listitem").all():
        expect_complete(shown)
    expect(other_tab.locator("#tally")).to_have_text("2 of 2 complete")


def test_a_result_is_saved_from_its_card(site: PageServer, context: BrowserContext, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(site.url)
    upload(page, sample(tmp_path, "saved.pdf", 3))
    shown = card(page, "saved.pdf")
    expect_complete(shown)
    with page.expect_download() as saved:
        shown.get_by_role("button", name="Save the result of saved.pdf").click()
    assert saved.value.suggested_filename.endswith(".json")
    assert [each["number"] for each in json.loads(saved.value.path().read_text())["pages"]] == [1, 2, 3]
    page.reload()
    expect(shown.locator(".facts")).to_have_text("3\u00a0pages")


def test_whose_document_it_is_gets_the_result_and_nobody_else(context: BrowserContext, tmp_path: Path) -> None:
    """The page and the program as they are hosted, but for CloudFront: tokens, ownership and IAM."""
    with contextlib.ExitStack() as cleanup:
        issuer = cleanup.enter_context(OidcServer())
        stack = cleanup.enter_context(
            local_stack(
                config={
                    "authorization": "JWT",
                    "jwtIssuer": issuer.issuer,
                    "jwtAudience": AUDIENCE,
                    "jwtTokenSource": "querystring",  # the emulator echoes no subprotocol
                    "documentResults": "true",
                }
            )
        )
        s3 = s3_client_of(stack)
        cleanup.callback(s3.close)
        server = cleanup.enter_context(
            PageServer(
                websocket_url=stack.outputs["websocketUrl"],
                bucket=stack.outputs["documentsBucket"],
                s3_client=s3,
                settings={
                    "resultsUrl": stack.outputs["resultsUrl"],
                    "signIn": {"issuer": issuer.issuer, "clientId": "page"},
                    "tokenTransport": "query",
                },
            )
        )
        body = sample(tmp_path, "hers.pdf", 3).read_bytes()
        s3.put_object(Bucket=stack.outputs["documentsBucket"], Key="hers.pdf", Body=body, Metadata={"owner": "alice"})
        page = context.new_page()
        page.goto(f"{server.url}#doc=hers")
        page.get_by_role("button", name="Sign in").click()
        shown = card(page, "hers")
        expect_complete(shown)
        save = shown.get_by_role("button", name="Save the result of hers")
        with page.expect_download() as saved:
            save.click()
        assert '"pages"' in saved.value.path().read_text()
        # Somebody else at the same tab, which still shows the card.
        stranger = {"value": issuer.token(sub="bob"), "renewAt": 1e15, "refresh": None}
        page.evaluate("(theirs) => sessionStorage.setItem('docprogress.tokens', theirs)", json.dumps(stranger))
        save.click()
        expect(shown.locator(".step")).to_have_text("Not saved: It is not yours to have.")


def test_a_connection_cut_in_the_middle_resumes_and_reaches_the_end(
    running: LocalStack, site: PageServer, open_page: OpenPage, relay: Relay
) -> None:
    page = open_page(site.url, "#doc=cut")
    shown = card(page, "cut")
    with in_the_middle(running, "cut"):
        expect_in_the_middle(shown)
        relay.cut()
        reached = shown.locator(".facts").text_content() or ""
        expect(shown.locator(".facts")).not_to_have_text(reached)
        expect_in_the_middle(shown)
    expect_complete(shown)
    assert relay.accepted == 2
    expect(page.locator("#connection")).to_have_text("Live")


def test_a_reload_and_a_lost_network_in_the_middle_still_show_the_true_state(
    running: LocalStack, site: PageServer, open_page: OpenPage, context: BrowserContext
) -> None:
    page = open_page(site.url, "#doc=lost")
    shown = card(page, "lost")
    with in_the_middle(running, "lost"):
        expect_in_the_middle(shown)
        page.reload()
        expect_in_the_middle(shown)
        context.set_offline(True)
        expect(page.locator("#connection")).to_have_text("Offline")
    expect_in_the_middle(shown)  # nobody could tell it of the end
    context.set_offline(False)
    expect_complete(shown)
    page.reload()
    expect_complete(shown)


def test_a_damaged_pdf_says_that_it_failed_and_what_to_do(
    site: PageServer, open_page: OpenPage, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.pdf"
    damaged.write_bytes(b"%PDF-1.7\nand nothing that a reader could use\n")
    page = open_page(site.url)
    upload(page, damaged)
    shown = card(page, "damaged.pdf")
    expect(shown.locator(".phase")).to_have_text("Failed")
    expect(shown.locator(".what")).not_to_be_empty()
    expect(shown.locator(".advice")).to_have_text(re.compile("save it as a new file"))


def test_a_document_is_cancelled_before_anybody_takes_it_up(site: PageServer, open_page: OpenPage) -> None:
    page = open_page(site.url, "#doc=unwanted")
    shown = card(page, "unwanted")
    expect(shown.locator(".phase")).to_have_text("Waiting")
    shown.get_by_role("button", name="Cancel unwanted").click()
    expect(shown.locator(".phase")).to_have_text("Cancelled")
    expect(shown.locator(".what")).to_have_text("The document was cancelled.")
