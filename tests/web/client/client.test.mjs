// Proven here: how connections follow one another, and the end.
// Not proven here: that a browser's own WebSocket, clock and online events behave like these fakes (tests/browser does),
// nor that a server speaks this protocol (tests/local does).

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./fake_platform.mjs";
import {
  MINUTE,
  started,
  pages,
  complete,
  expired,
  platform,
  states,
  client,
  newPlatform,
  connect,
  connected,
  watched,
  setAnswering,
} from "./harness.mjs";

test("a connection is replaced before two hours, and the old one closes only when the new one is subscribed", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 1, 1));
  const [old] = platform.sockets;
  const answering = setAnswering(old);
  while (platform.now() < 119 * MINUTE && platform.sockets.length === 1) {
    await platform.advance(10_000);
  }
  answering.stop();
  const replacement = platform.socket;
  assert.notEqual(replacement, old, "no replacement in 119 minutes");
  assert(platform.now() >= 99 * MINUTE);
  replacement.accept();
  assert(old.isOpen, "the new connection is not subscribed yet");
  old.push(pages("a", 2, 2));
  replacement.push(pages("a", 2, 2));
  assert(!old.isOpen);
  replacement.push(pages("a", 3, 3));
  assert.deepEqual(updates.map((update) => update.sequence), [1, 2, 3]);
  assert.deepEqual(states, ["open"]);
});

test("a document watched during the overlap is asked for on both connections", async () => {
  await connected({ replaceAfterMs: 1000 });
  watched("a");
  platform.socket.push(pages("a", 1, 1));
  await platform.advance(1000);
  platform.socket.accept();
  watched("b");
  const [old, replacement] = platform.sockets;
  assert.deepEqual(old.asked, ["a", "b"]);
  assert.deepEqual(replacement.asked, ["a", "b"]);
  replacement.push(pages("a", 1, 1));
  assert(old.isOpen);
  replacement.push(pages("b", 1, 1));
  assert(!old.isOpen);
});

test("the overlap does not wait for a document that nobody watches any more", async () => {
  await connected({ replaceAfterMs: 1000 });
  const { watch } = watched("a");
  platform.socket.push(pages("a", 1, 1));
  await platform.advance(1000);
  platform.socket.accept();
  watch.stop();
  assert.deepEqual(platform.openSockets, [platform.sockets[1]]);
});

test("a replacement that fails is tried again while the old connection serves on", async () => {
  await connected({ replaceAfterMs: 1000 });
  const { updates } = watched("a");
  await platform.advance(1000);
  platform.socket.drop();
  platform.sockets[0].push(pages("a", 1, 1));
  assert.equal(updates.length, 1);
  await platform.advance(1000);
  assert.equal(platform.sockets.length, 3);
  assert.deepEqual(states, ["open"]);
});

test("a connection that has expired gives way to one with a new token, and no watch hears of it", async () => {
  let calls = 0;
  await connected({ token: () => `token${++calls}` });
  const { updates } = watched("a");
  platform.socket.push(pages("a", 1, 1));
  watched("b");
  const [old] = platform.sockets;
  old.push(expired("b"));
  assert(old.isClosedByClient);
  await platform.advance(500);
  assert.equal(platform.sockets.length, 2);
  const replacement = platform.socket;
  assert.deepEqual(replacement.protocols, ["docprogress", "token2"]);
  replacement.accept();
  assert.deepEqual(replacement.asked, ["a", "b"]);
  replacement.push(pages("a", 2, 2));
  replacement.push({ status: "pending", docId: "b" });
  assert.deepEqual(updates.map((update) => update.sequence), [1, 2]);
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST", "open"]);
});

test("a connection that has expired is noticed by its ping, whatever is watched", async () => {
  await connected();
  watched("a");
  platform.socket.push(complete("a", 9));
  await platform.advance(60_000);
  assert.equal(platform.socket.pings, 1);
  platform.socket.push(expired(undefined));
  assert(platform.socket.isClosedByClient);
  await platform.advance(500);
  platform.socket.accept();
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST", "open"]);
});

test("an expired connection is also noticed when the last watch is stopped", async () => {
  await connected();
  watched("a").watch.stop();
  platform.socket.push(expired("a"));
  await platform.advance(500);
  platform.socket.accept();
  assert.deepEqual(platform.openSockets, [platform.sockets[1]]);
});

test("losing the old connection during the overlap leaves the new one in charge", async () => {
  await connected({ replaceAfterMs: 1000 });
  watched("a");
  platform.socket.push(pages("a", 1, 1));
  await platform.advance(1000);
  platform.sockets[0].drop();
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST"]);
  platform.sockets[1].accept();
  assert.deepEqual(states.at(-1), "open");
  assert.equal(platform.sockets.length, 2);
  await platform.advance(1000);
  platform.sockets[2].accept();
  platform.sockets[1].drop();
  assert.equal(states.at(-1), "open");
  platform.sockets[2].push(pages("a", 2, 2));
  await platform.advance(1000);
  assert.equal(platform.sockets.length, 4, "the survivor is replaced in its turn");
});

test("close ends every watch, and nothing happens afterwards", async () => {
  await connected();
  const { watch, updates } = watched("a");
  const [socket] = platform.sockets;
  client.close();
  socket.push(started("a", 1));
  socket.drop();
  platform.setOnline(true);
  await platform.advance(180 * MINUTE);
  await assert.rejects(watch.done, { code: "CLIENT_CLOSED" });
  assert.deepEqual(updates, []);
  assert.deepEqual(states, ["open", "closed CLIENT_CLOSED"]);
  assert.equal(platform.sockets.length, 1);
});

test("close during any phase leaves nothing behind", async () => {
  const closeWhen = (state) => ({ onStateChange: (now) => now === state && client.close() });
  const phases = {
    "address pending": async () => connect({ url: () => new Promise(() => {}) }),
    "token pending": async () => (connect({ token: () => new Promise(() => {}) }), settle()),
    connecting: async () => (connect(), settle()),
    "waiting to retry": async () => (await connected(), platform.socket.drop()),
    "waiting for an answer": async () => (await connected(), watched("a")),
    "waiting for a pong": async () => (await connected(), platform.advance(MINUTE)),
    overlapping: async () => (await connected({ replaceAfterMs: 10 }), watched("a"), platform.advance(10)),
    expired: async () => (await connected(), watched("a"), platform.socket.push(expired("a"))),
    offline: async () => (await connected(), platform.setOnline(false)),
    "told that it is open": async () => connected(closeWhen("open")),
    "told that it is lost": async () => (await connected(closeWhen("reconnecting")), platform.socket.drop()),
    "told that it is lost while overlapping": async () => {
      await connected({ replaceAfterMs: 10, ...closeWhen("reconnecting") });
      await platform.advance(10);
      platform.sockets[0].drop();
    },
    "told that it is offline": async () => (await connected(closeWhen("reconnecting")), platform.setOnline(false)),
    "told that it is closed": async () => connect({ token: () => null, ...closeWhen("closed") }),
  };
  for (const [phase, enter] of Object.entries(phases)) {
    newPlatform();
    await enter();
    client.close();
    await settle();
    assert.deepEqual([platform.timers.size, platform.listeners.size, platform.openSockets.length], [0, 0, 0], phase);
  }
});
