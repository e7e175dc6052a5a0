// Proven here: how long the client waits before it tries again.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./fake_platform.mjs";
import {
  ADDRESS,
  MINUTE,
  pages,
  expired,
  platform,
  states,
  client,
  forgetStates,
  newPlatform,
  connect,
  connected,
  watched,
} from "./harness.mjs";

test("reconnecting uses full jitter up to the cap and asks for every watched document again", async () => {
  await connected({ reconnectBaseMs: 1000, reconnectCapMs: 8000 });
  watched("a");
  watched("b");
  platform.socket.push(pages("a", 1, 1));
  platform.socket.push(pages("b", 1, 1));
  for (const [random, bound] of [[0, 1000], [0.999, 2000], [0.5, 4000], [0.25, 8000], [0.999, 8000], [0.5, 8000]]) {
    const attempts = platform.sockets.length;
    platform.randomValue = random;
    platform.socket.drop();
    await platform.advance(Math.max(0, random * bound - 1));
    assert.equal(platform.sockets.length, attempts + (random === 0 ? 1 : 0), `too early for ${random} of ${bound} ms`);
    await platform.advance(1);
    assert.equal(platform.sockets.length, attempts + 1, `no attempt after ${random} of ${bound} ms`);
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
  for (const delay of [500, 1000, 2000, 4000, 4000]) {
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
  for (const delay of [500, 1000, 2000, 4000, 4000]) {
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

test("refused authentication slows down to the cap and is told apart", async () => {
  connect({ token: "stale", reconnectCapMs: 10_000, refusalLimit: 3 });
  await settle();
  for (let attempt = 1; attempt <= 3; attempt++) {
    assert.equal(platform.sockets.length, attempt);
    platform.socket.drop();
    await platform.advance(9_999);
  }
  assert.equal(states.at(-1), "reconnecting CONNECTION_REFUSED");
  assert.equal(platform.sockets.length, 3, "within the cap there is no further attempt");
  await platform.advance(10_000);
  assert.equal(platform.sockets.length, 4);
  platform.socket.accept();
  assert.equal(states.at(-1), "open");
  assert.equal(client.lastError, null);
});

test("whoever is refused again and again waits ever longer, then gives up for good", async () => {
  const signed = `${ADDRESS}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=1`;
  for (const options of [{ token: "stale" }, { url: () => signed }, { url: signed }, { url: `${ADDRESS}?token=stale` }]) {
    newPlatform();
    forgetStates();
    connect({ ...options, reconnectBaseMs: 2, reconnectCapMs: 10_000, refusalLimit: 3 });
    const { watch } = watched("a");
    await settle();
    for (const delay of [1, 2, 15_000, 30_000, 60_000]) {
      const attempts = platform.sockets.length;
      platform.socket.drop();
      await platform.advance(delay - 1);
      assert.equal(platform.sockets.length, attempts);
      await platform.advance(1);
      assert.equal(platform.sockets.length, attempts + 1);
    }
    platform.socket.drop();
    assert.deepEqual(states, [
      "reconnecting CONNECTION_LOST",
      "reconnecting CONNECTION_REFUSED",
      "closed CONNECTION_REFUSED",
    ]);
    await assert.rejects(watch.done, { code: "CONNECTION_REFUSED" });
    await platform.advance(60 * MINUTE);
    assert.equal(platform.sockets.length, 6);
  }
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

test("a refused replacement closes nothing while the old connection serves on", async () => {
  for (const isReplacementUnderWay of [false, true]) {
    newPlatform();
    platform.randomValue = 0;
    forgetStates();
    await connected({ token: "stale", replaceAfterMs: 1000, reconnectCapMs: 1000, refusalLimit: 1 });
    const [old] = platform.sockets;
    for (const delay of [1000, 1000, 2000, 4000]) {
      await platform.advance(delay);
      platform.socket.drop();
    }
    assert.deepEqual(states, ["open"]);
    if (isReplacementUnderWay) {
      await platform.advance(8000);
    }
    assert.equal(platform.sockets.length, isReplacementUnderWay ? 6 : 5);
    old.drop();
    if (isReplacementUnderWay) {
      assert.equal(states.at(-1), "reconnecting CONNECTION_REFUSED");
      platform.socket.drop();
    }
    assert.equal(states.at(-1), "closed CONNECTION_REFUSED");
  }
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

test("without a token a server that is away is no refusal", async () => {
  connect({ reconnectCapMs: 1000 });
  for (let attempt = 0; attempt < 20; attempt++) {
    await settle();
    platform.socket.drop();
    await platform.advance(1000);
  }
  assert.deepEqual(states, ["reconnecting CONNECTION_LOST"]);
  assert.equal(platform.sockets.length, 21);
});
