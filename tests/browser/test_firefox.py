"""The page and the unit tests in Firefox. What the page shows in detail, the tests in Chromium prove."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.server import PageServer
from tests.browser.firefox import Firefox
from tests.browser.progress_page import REMOTE_HOST
from tests.browser.scripted_backend import MemoryBucket, ScriptedBackend

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SHIMS = "/tests/browser/node_in_browser"


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    with Firefox() as firefox:
        assert firefox.version.lower().startswith("firefox/")
        yield firefox


@pytest.fixture
def page(firefox: Firefox, backend: ScriptedBackend) -> Iterator[PageServer]:
    # Firefox has no way to give this machine another name.
    url = backend.url.replace(REMOTE_HOST, "127.0.0.1")
    with PageServer(websocket_url=url, bucket="documents", s3_client=MemoryBucket()) as server:  # type: ignore[arg-type]
        yield server
        firefox.goto("about:blank")


@pytest.fixture(scope="module")
def repository() -> Iterator[str]:
    """The address of this repository's files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=ROOT)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def text(selector: str, expected: str) -> str:
    return f"document.querySelector({json.dumps(selector)})?.textContent === {json.dumps(expected)}"


def test_a_document_goes_by_over_a_lost_connection_and_is_cancelled(
    firefox: Firefox, page: PageServer, backend: ScriptedBackend
) -> None:
    firefox.goto(f"{page.url}#doc=a")
    firefox.wait(text("#connection", "Live"))
    backend.reach("a", 2, 4)
    firefox.wait("document.querySelector('progress').value === 50")
    backend.drop_connections()
    backend.publish(
        {"status": "progress", "docId": "a", "sequence": 9, "pagesProcessed": 3, "totalPages": 4, "message": "3"}
    )
    firefox.wait("document.querySelector('progress').value === 75")
    firefox.wait(text(".step", "3"))
    firefox.evaluate("document.querySelector('.cancel').click()")
    firefox.wait(text(".phase", "Cancelled"))
    assert firefox.faults() == []


def test_a_page_left_and_come_back_to_shows_the_true_state(
    firefox: Firefox, page: PageServer, backend: ScriptedBackend
) -> None:
    firefox.goto(f"{page.url}#doc=a")
    backend.reach("a", 1, 4)
    firefox.wait("document.querySelector('progress').value === 25")
    firefox.goto("about:blank")
    backend.reach("a", 3, 4)
    firefox.evaluate("history.back()")
    firefox.wait("document.querySelector('progress')?.value === 75")
    firefox.wait(text("#connection", "Live"))


@pytest.mark.parametrize("file", sorted((ROOT / "tests/web").rglob("*.test.mjs")), ids=lambda file: file.name)
def test_the_unit_tests_of_the_page_pass_in_firefox(firefox: Firefox, repository: str, file: Path) -> None:
    firefox.goto(f"{repository}{SHIMS}/index.html")
    run = f"""(async () => {{
        await import({json.dumps("/" + file.relative_to(ROOT).as_posix())});
        return await (await import("node:test")).run();
    }})()"""
    passed = len(re.findall(r"^test\(", file.read_text(), flags=re.MULTILINE))
    assert firefox.evaluate(run) == {"passed": passed, "failures": []}
