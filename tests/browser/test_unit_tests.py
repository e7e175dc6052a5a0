"""The page's unit tests in Chromium: they prove the same without Node, and that nothing in them is Node's alone.

The few functions that they use of `node:test` and `node:assert` come from node_in_browser, which is not proven itself
but by failing a test that must fail.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Route

ROOT = Path(__file__).parents[2]
ORIGIN = "http://unit-tests.invalid"
PAGE = (ROOT / "tests/browser/node_in_browser/index.html").read_text()
RUN = """async (file) => {
    await import(file);
    return await (await import("node:test")).run();
}"""

pytestmark = pytest.mark.browser


def serve(route: Route) -> None:
    """Answer from the repository; nothing of this origin reaches a network."""
    path = route.request.url.removeprefix(ORIGIN)
    if path == "/":
        route.fulfill(body=PAGE, content_type="text/html")
    else:
        route.fulfill(path=ROOT / path.lstrip("/"), content_type="text/javascript")


def run(context: BrowserContext, file: str) -> dict[str, object]:
    page = context.new_page()
    page.route(f"{ORIGIN}/**", serve)
    page.goto(ORIGIN)
    result: dict[str, object] = page.evaluate(RUN, file)
    return result


@pytest.mark.parametrize("file", sorted((ROOT / "tests/web").rglob("*.test.mjs")), ids=lambda file: file.name)
def test_the_unit_tests_of_the_page_pass_in_a_browser(context: BrowserContext, file: Path) -> None:
    result = run(context, f"/{file.relative_to(ROOT).as_posix()}")
    assert result == {"passed": len(re.findall(r"^test\(", file.read_text(), flags=re.MULTILINE)), "failures": []}


def test_a_unit_test_that_must_fail_fails(context: BrowserContext) -> None:
    page = context.new_page()
    page.route(f"{ORIGIN}/**", serve)
    page.goto(ORIGIN)
    failures = page.evaluate(
        """async () => {
            const { test, run } = await import("node:test");
            const { default: assert } = await import("node:assert/strict");
            test("true", () => assert(true));
            test("equal", () => assert.equal(1, "1"));
            test("deepEqual", () => assert.deepEqual([{ a: 1 }], [{ a: 1, b: 2 }]));
            test("throws", () => assert.throws(() => {}, TypeError));
            test("other", () => assert.throws(() => { throw new Error("a"); }, TypeError));
            test("rejects", () => assert.rejects(Promise.resolve(1), Error));
            test("code", () => assert.rejects(Promise.reject({ code: "A" }), { code: "B" }));
            return (await run()).failures.map((failure) => failure.split(":")[0]);
        }"""
    )
    assert failures == ["equal", "deepEqual", "throws", "other", "rejects", "code"]
