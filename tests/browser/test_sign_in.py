"""The page signs people in at an issuer, and takes their tokens wherever the stack asks for one.

Not proven here: that a real issuer answers as this one does, when a token is renewed (tests/web), and what a stack
checks of it (tests/functions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from local.server import PageServer
from tests.browser.progress_page import card
from tests.browser.scripted_backend import MemoryBucket, ScriptedBackend
from tests.oidc_server import AUDIENCE, OidcServer

pytestmark = pytest.mark.browser

CLIENT = "page-client"


@pytest.fixture
def issuer() -> Iterator[OidcServer]:
    with OidcServer() as server:
        yield server


@pytest.fixture
def sign_in(request: pytest.FixtureRequest, issuer: OidcServer) -> dict[str, str]:
    """As config.json has it, with what a test adds."""
    return {"issuer": issuer.issuer, "clientId": CLIENT, **getattr(request, "param", {})}


@pytest.fixture
def site(backend: ScriptedBackend, sign_in: dict[str, str]) -> Iterator[PageServer]:
    with PageServer(
        websocket_url=backend.url,
        bucket="documents",
        s3_client=MemoryBucket(),  # type: ignore[arg-type]  # it is not asked
        settings={"signIn": sign_in},
    ) as server:
        yield server


@pytest.fixture
def page(context: BrowserContext, site: PageServer, backend: ScriptedBackend) -> Iterator[Page]:
    """Signed out, with a document in its address."""
    backend.reach("a", 2, 4)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{site.url}#doc=a")
    expect(page.locator("#connection")).to_have_text("Signed out")
    yield page
    assert faults == []


def press_sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign in").click()


def expect_signed_in(page: Page) -> None:
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Live")


def offered(backend: ScriptedBackend) -> dict[str, Any]:
    """What the token says that the newest connection came with."""
    protocol, token = str(backend.offers[-1]).split(", ")
    assert protocol == "docprogress"
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def stored(page: Page) -> dict[str, str]:
    kept: dict[str, str] = page.evaluate("({ ...sessionStorage })")
    return kept


def test_whoever_signs_in_comes_back_to_the_documents_and_watches_them(
    page: Page, backend: ScriptedBackend, site: PageServer, issuer: OidcServer
) -> None:
    expect(page.get_by_text("Sign in to see live progress.")).to_be_visible()
    expect(page.get_by_label("Already uploaded? Watch it by its id")).to_be_hidden()
    assert backend.paths == [], "nobody connects without a token"
    press_sign_in(page)
    expect_signed_in(page)
    expect(card(page, "a").locator(".phase")).to_have_text("Processing")
    expect(page).to_have_url(f"{site.url}#doc=a")
    claims = offered(backend)
    assert (claims["sub"], claims["aud"]) == ("alice", AUDIENCE), "the access token that the issuer gives by itself"
    assert page.evaluate("Object.keys(localStorage).filter((key) => /sign|token/.test(key))") == []
    page.reload()
    expect_signed_in(page)
    assert issuer.requests["/authorize"] == issuer.requests["/token"] == 1, "a reload needs neither"


def test_whoever_signs_out_is_forgotten_here_and_at_the_issuer(
    page: Page, site: PageServer, issuer: OidcServer
) -> None:
    press_sign_in(page)
    expect_signed_in(page)
    assert len(issuer.grants) == 1
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#connection")).to_have_text("Signed out")
    expect(page).to_have_url(site.url)
    assert stored(page) == {}
    assert issuer.requests["/logout"] == 1
    assert issuer.grants == {}, "its refresh token is good for nothing any more"


def test_the_back_button_shows_nothing_of_whoever_has_signed_out(page: Page, site: PageServer) -> None:
    press_sign_in(page)
    expect(card(page, "a").locator(".phase")).to_have_text("Processing")
    # A browser under a debugger keeps no page that was left.
    page.evaluate("sessionStorage.clear(); dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("#connection")).to_have_text("Signed out")
    expect(card(page, "a").locator(".phase")).to_have_text("Waiting")


def test_a_sign_in_that_is_refused_says_why(page: Page, site: PageServer, issuer: OidcServer) -> None:
    issuer.visitor = None
    press_sign_in(page)
    expect(page.locator("#notice")).to_have_text("You are not signed in: Nobody with an account is here.")
    expect(page).to_have_url(f"{site.url}#doc=a")
    issuer.visitor = "bob"
    press_sign_in(page)
    expect_signed_in(page)


def test_an_answer_that_this_tab_did_not_ask_for_signs_nobody_in(
    page: Page, site: PageServer, issuer: OidcServer
) -> None:
    asked = {"client_id": CLIENT, "redirect_uri": site.url, "state": "theirs", "sub": "mallory"}
    page.goto(issuer.authorize(asked))
    expect(page.locator("#notice")).to_contain_text("was not begun in this tab")
    expect(page).to_have_url(site.url)
    assert issuer.requests["/token"] == 0
    press_sign_in(page)
    expect_signed_in(page)
    page.go_back()  # to the page before the issuer's
    expect_signed_in(page)


def test_an_issuer_that_is_away_or_another_one_is_told(page: Page, issuer: OidcServer) -> None:
    issuer.discovery = {"issuer": "https://other.example.com"}
    press_sign_in(page)
    expect(page.locator("#notice")).to_contain_text("do not agree")
    page.route(f"{issuer.issuer}/**", lambda route: route.abort())
    press_sign_in(page)
    expect(page.locator("#notice")).to_contain_text("cannot be reached")
    page.unroute(f"{issuer.issuer}/**")
    issuer.discovery = {}
    press_sign_in(page)
    expect_signed_in(page)


@pytest.mark.parametrize(
    ("sign_in", "audience"),
    [({"audience": CLIENT}, CLIENT), ({"audience": "https://api.example.com"}, "https://api.example.com")],
    ids=["ID token", "access token"],
    indirect=["sign_in"],
)
def test_the_token_is_for_the_audience_that_the_stack_takes(
    page: Page, backend: ScriptedBackend, audience: str
) -> None:
    press_sign_in(page)
    expect_signed_in(page)
    assert offered(backend)["aud"] == audience


def test_a_token_is_renewed_in_time_and_a_sign_in_that_has_ended_can_be_repeated(
    page: Page, backend: ScriptedBackend, issuer: OidcServer
) -> None:
    press_sign_in(page)
    expect_signed_in(page)
    kept = json.loads(stored(page)["docprogress.tokens"])
    page.evaluate(
        "(kept) => sessionStorage.setItem('docprogress.tokens', JSON.stringify(kept))", {**kept, "renewAt": 0}
    )
    backend.drop_connections()
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    expect_signed_in(page)
    assert (issuer.requests["/token"], issuer.requests["/authorize"]) == (2, 1)
    issuer.grants.clear()  # as if its account were closed
    page.evaluate(
        "(kept) => sessionStorage.setItem('docprogress.tokens', JSON.stringify(kept))", {**kept, "renewAt": 0}
    )
    backend.drop_connections()
    expect(page.locator("#connection")).to_have_text("Signed out")
    press_sign_in(page)
    expect_signed_in(page)
