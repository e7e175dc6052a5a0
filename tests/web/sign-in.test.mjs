// Not proven here: that a browser keeps, leaves and comes back as these stand-ins do (tests/browser).

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { SignIn, SignInError } from "../../web/sign-in.js";

const ISSUER = "https://issuer.example.com/pool";
const HOUR_MS = 3_600_000;

/** @type {(body: URLSearchParams) => [status: number, answer: object]} */
let answer;
/** @type {URLSearchParams[]} */
let asked;
let nowMs = 0;

/** What a browser has and Node.js has not always. */
class Storage {
  #items = new Map();
  getItem = (key) => this.#items.get(key) ?? null;
  setItem = (key, value) => this.#items.set(key, value);
  removeItem = (key) => this.#items.delete(key);
}
globalThis.sessionStorage ??= new Storage();

beforeEach(() => {
  [asked, nowMs] = [[], 1_800_000_000_000];
  sessionStorage.removeItem("docprogress.tokens");
  answer = () => [200, { access_token: `new-${asked.length}`, refresh_token: `next-${asked.length}`, expires_in: 3600 }];
  globalThis.fetch = async (url, { body }) => {
    if (url.endsWith("/.well-known/openid-configuration")) {
      return Response.json({ issuer: ISSUER, token_endpoint: `${ISSUER}/token` });
    }
    asked.push(body);
    const [status, said] = answer(body);
    return Response.json(said, { status });
  };
  Date.now = () => nowMs;
});

/** Somebody whose token ends in an hour. */
function signedIn({ refresh = "first", renewInMs = HOUR_MS } = {}) {
  sessionStorage.setItem("docprogress.tokens", JSON.stringify({ value: "old", renewAt: nowMs + renewInMs, refresh }));
  return new SignIn({ issuer: ISSUER, clientId: "page" });
}

test("a token is used until a minute before its end, and then renewed once for all who ask", async () => {
  const session = signedIn();
  nowMs += HOUR_MS - 1;
  assert.equal(await session.token(), "old");
  nowMs += 1;
  assert.deepEqual(await Promise.all([session.token(), session.token()]), ["new-1", "new-1"]);
  assert.deepEqual(Object.fromEntries(asked[0]), {
    grant_type: "refresh_token",
    refresh_token: "first",
    client_id: "page",
  });
  nowMs += HOUR_MS - 60_001;
  assert.equal(await session.token(), "new-1");
  nowMs += 1;
  assert.equal(await session.token(), "new-2");
  assert.equal(asked[1].get("refresh_token"), "next-1", "the issuer took the first one in");
});

test("a token that says how long it lives is believed", async () => {
  const claims = btoa(JSON.stringify({ iat: 5, exp: 5 + 40, name: "\xdcnal???" })).replaceAll("/", "_").replaceAll("+", "-");
  answer = () => [200, { access_token: `a.${claims}.c`, expires_in: 3600 }];
  const session = signedIn({ renewInMs: 0 });
  await session.token();
  nowMs += 19_999;
  await session.token();
  assert.equal(asked.length, 1);
  nowMs += 1;
  await session.token();
  assert.equal(asked.length, 2, "half of a short life is over");
  assert.equal(asked[1].get("refresh_token"), "first", "the issuer gave no other one");
});

test("a token that the server refuses is renewed, whatever the clock says", async () => {
  const session = signedIn();
  session.refused();
  assert.equal(await session.token(), "new-1");
  new SignIn({ issuer: ISSUER, clientId: "page" }).refused();
});

test("an issuer that cannot be reached signs nobody out", async () => {
  const offline = () => {
    throw new TypeError("offline");
  };
  const session = signedIn({ renewInMs: 0 });
  for (const failure of [() => [503, {}], () => [200, { access_token: 7 }], offline]) {
    answer = failure;
    await assert.rejects(session.token(), SignInError);
    assert.equal(session.isSignedIn, true);
  }
  answer = () => [200, { access_token: "late" }];
  assert.equal(await session.token(), "late");
});

test("who may not renew is signed out", async () => {
  for (const refresh of [null, "first"]) {
    const session = signedIn({ renewInMs: 0, refresh });
    answer = () => [400, { error: "invalid_grant" }];
    assert.equal(await session.token(), null);
    assert.equal(session.isSignedIn, false);
  }
});

test("who signs out while a token is renewed stays signed out", async () => {
  const session = signedIn({ renewInMs: 0 });
  answer = () => {
    sessionStorage.removeItem("docprogress.tokens");
    return [200, { access_token: "late" }];
  };
  assert.equal(await session.token(), null);
  assert.equal(session.isSignedIn, false);
});
