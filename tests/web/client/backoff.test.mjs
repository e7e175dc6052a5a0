// Proven here: how long the client waits before it tries again.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./fake_platform.mjs";
import {
  ADDRESS,
  MINUTE,
  client,
  connect,
  connected,
  expired,
  newPlatform,
  nextAttempt,
  pages,
  platform,
  states,
  watched,
  forgetStates,
} from "./harness.mjs";

test("reconnecting uses full jitter up to the cap, then once to twice the cap, and asks for every document again", async () => {
  await connected({ reconnectBaseMs: 1000, reconnectCapMs: 8000 });
  watched("a");
  watched("b");
  platform.socket.push(pages("a", 1, 1));
  platform.socket.push(pages("b", 1, 1));
  const delays = [
    [0, 0],
    [0.999, 1998],
    [0.5, 2000],
    [0.25, 10_000],
    [0.999, 15_992],
    [0, 8000],
  ];
  for (const [random, delay] of delays) {
    const attempts = platform.sockets.length;
    platform.randomValue = random;
    platform.socket.drop();
    await platform.advance(Math.max(0, delay - 1));
    assert.equal(platform.sockets.length, attempts + (delay === 0 ? 1 : 0), `too early for ${delay} ms`);
    await platform.advance(1);
    assert.equal(platform.sockets.length, attempts + 1, `no attempt after ${delay} ms`);
  }
  platform.socket.accept();
  assert.deepEqual(platform.socket.asked, ["a", "b"]);
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST", "open"]);
});

test("the delay starts over only once a server has answered", async () => {
  await connected({ reconnectBaseMs: 1000 });
  platform.randomValue = 0.999;
  platform.socket.drop();
  await platform.advance(999);
  platform.socket.accept();
  platform.socket.drop(); // accepted, but nothing was ever said
  await platform.advance(1000);
  assert.equal(platform.sockets.length, 2);
  await platform.advance(1000);
  platform.socket.accept();
  platform.socket.push({ status: "pong" });
  platform.socket.drop();
  await platform.advance(999);
  assert.equal(platform.sockets.length, 4);
});

test("a server that takes each new connection for expired is asked ever more rarely", async () => {
  await connected({ reconnectBaseMs: 1000, reconnectCapMs: 8000 });
  const { updates } = watched("a");
  for (const delay of [500, 1000, 2000, 12_000, 12_000]) {
    const attempts = platform.sockets.length;
    platform.socket.push(expired("a"));
    assert(platform.socket.isClosedByClient);
    await platform.advance(delay - 1);
    assert.equal(platform.sockets.length, attempts);
    await platform.advance(1);
    assert.equal(platform.sockets.length, attempts + 1);
    platform.socket.accept();
  }
  assert.deepEqual(updates, []);
});

test("a replacement that keeps failing is tried ever more rarely, however much the old connection has to say", async () => {
  await connected({ replaceAfterMs: 1000, reconnectBaseMs: 1000, reconnectCapMs: 8000 });
  watched("a");
  platform.socket.push(pages("a", 1, 1));
  await platform.advance(1000);
  for (const delay of [500, 1000, 2000, 12_000, 12_000]) {
    const attempts = platform.sockets.length;
    platform.socket.drop();
    platform.sockets[0].push(pages("a", 1, attempts + 1));
    await platform.advance(delay - 1);
    assert.equal(platform.sockets.length, attempts);
    await platform.advance(1);
    assert.equal(platform.sockets.length, attempts + 1);
  }
  assert.deepEqual(states, ["open"]);
});

test("a server that also closes what has expired is not stormed", async () => {
  connect();
  watched("a");
  for (let served = 0, step = 0; step < 600; step++) {
    await platform.advance(50);
    if (platform.sockets.length > served) {
      served = platform.sockets.length;
      const { socket } = platform;
      socket.accept();
      socket.push(expired("a"));
      await platform.advance(0);
      socket.drop();
    }
  }
  assert(platform.sockets.length < 15, `${platform.sockets.length} connections in 30 seconds`);
});

test("what was refused before the network came back does not count", async () => {
  connect({ token: "good", refusalLimit: 2 });
  for (let attempt = 1; attempt <= 3; attempt++) {
    await platform.advance(MINUTE);
    platform.socket.drop();
  }
  assert.equal(states.at(-1), "reconnecting CONNECTION_REFUSED");
  platform.setOnline(false);
  platform.setOnline(true);
  await settle();
  platform.socket.drop();
  assert.equal(states.at(-1), "reconnecting CONNECTION_LOST");
});

test("a token or an address that cannot be had is no refusal", async () => {
  const never = () => new Promise(() => {});
  const fails = () => Promise.reject(new Error("network"));
  for (const [options, reported] of [
    [{ token: fails }, "reconnecting TOKEN_FAILED"],
    [{ url: fails }, "reconnecting ADDRESS_FAILED"],
    [{ token: never, connectTimeoutMs: 1000 }, "reconnecting CONNECTION_LOST"],
  ]) {
    forgetStates();
    connect(options);
    await platform.advance(10 * MINUTE);
    assert.deepEqual(states, [reported]);
    client.close();
  }
  const tokens = [fails, fails, fails, () => "a", () => "b", () => "c"];
  forgetStates();
  connect({ token: () => (tokens.shift() ?? fails)(), refusalLimit: 3 });
  for (const code of ["CONNECTION_LOST", "CONNECTION_LOST", "CONNECTION_REFUSED"]) {
    const attempts = platform.sockets.length;
    while (platform.sockets.length === attempts) {
      await platform.advance(1000);
    }
    platform.socket.drop();
    assert.equal(states.at(-1), `reconnecting ${code}`);
  }
  await platform.advance(MINUTE);
  assert.equal(states.at(-1), "reconnecting TOKEN_FAILED");
});

test("an open connection in between makes later failures no refusal", async () => {
  platform.randomValue = 0;
  connect({ token: "good", refusalLimit: 3 });
  for (const opens of [false, false, true, false, false]) {
    await platform.advance(1);
    if (opens) {
      platform.socket.accept();
    }
    platform.socket.drop();
  }
  assert.deepEqual(states, ["reconnecting CONNECTION_LOST", "open", "reconnecting CONNECTION_LOST"]);
});

test("an outage of any length closes no client, with a token or without, and all are back within a minute of its end", async () => {
  const signed = `${ADDRESS}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=1`;
  for (const options of [{}, { token: "t" }, { token: () => "t" }, { url: () => signed }, { url: signed }]) {
    for (const random of [0, 0.5, 0.999]) {
      newPlatform();
      platform.randomValue = random;
      connect(options);
      await settle();
      platform.socket.accept();
      platform.socket.push({ status: "pong" });
      platform.isServerAway = true;
      platform.socket.drop();
      await platform.advance(60 * MINUTE);
      assert.equal(client.state, "reconnecting");
      const attempts = platform.sockets.length;
      assert(attempts > 55 && attempts < 130, `${attempts} attempts in an hour`);
      platform.isServerAway = false;
      const backAt = platform.now();
      while (platform.sockets.length === attempts) {
        await platform.step();
      }
      assert(platform.now() - backAt <= MINUTE);
      platform.socket.accept();
      assert.equal(client.state, "open");
      client.close();
    }
  }
});

test("sockets that never open are told apart from a lost connection where a token may be the reason", async () => {
  const seen = [];
  const onStateChange = (state, error) => seen.push([error?.code, error?.message]);
  for (const options of [{ token: "stale" }, {}]) {
    seen.length = 0;
    connect({ ...options, refusalLimit: 3, onStateChange });
    await settle();
    for (let attempt = 1; attempt <= 4; attempt++) {
      await nextAttempt((socket) => socket.fail());
    }
    const codes = options.token ? ["CONNECTION_LOST", "CONNECTION_REFUSED"] : ["CONNECTION_LOST"];
    assert.deepEqual(seen.map(([code]) => code), codes);
    for (const [, message] of seen) {
      assert(message.includes("wss://api.example.com") && message.includes("connect-src"), message);
    }
    client.close();
  }
});

test("a token is asked for anew at each attempt", async () => {
  let calls = 0;
  connect({ token: () => `token${++calls}` });
  await settle();
  for (let attempt = 1; attempt <= 12; attempt++) {
    assert.deepEqual(platform.socket.protocols, ["docprogress", `token${attempt}`]);
    await nextAttempt();
  }
});

test("a replacement that is refused closes nothing, and the loss of the old connection is an outage like any other", async () => {
  platform.randomValue = 0;
  await connected({ token: "stale", replaceAfterMs: 1000, reconnectCapMs: 1000, refusalLimit: 1 });
  const [old] = platform.sockets;
  for (const delay of [1000, 0, 1000, 1000]) {
    await platform.advance(delay);
    platform.socket.drop();
  }
  assert.deepEqual(states, ["open"]);
  assert.equal(platform.sockets.length, 5);
  old.drop();
  await platform.advance(60 * MINUTE);
  assert.equal(client.state, "reconnecting");
});
