// Proven here: one socket: questions, pings, unsubscriptions, time-outs.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  MINUTE,
  started,
  pages,
  complete,
  failed,
  platform,
  states,
  client,
  forgetStates,
  newPlatform,
  connect,
  connected,
  watched,
} from "./harness.mjs";

test("a question is asked again until it is answered, also after a recoverable refusal", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(failed("a", { errorCode: "INTERNAL_ERROR", recoverable: true }));
  platform.socket.push({ message: "Internal server error", connectionId: "x", requestId: "y" });
  await platform.advance(10_000);
  assert.deepEqual(platform.socket.asked, ["a", "a"]);
  assert.deepEqual(updates, []);
  platform.socket.push(started("a", 1));
  await platform.advance(55_000);
  assert.deepEqual(platform.socket.asked, ["a", "a"], "an answered question is not repeated");
});

test("stopping and watching again never lets the unsubscription overtake the subscription", async () => {
  await connected();
  watched("a").watch.stop();
  const { updates } = watched("a");
  assert.deepEqual(platform.socket.asked, ["a"]);
  platform.socket.push(pages("a", 2, 5));
  assert.deepEqual(platform.socket.asked, ["a"], "this answers the first question, and the unsubscription is under way");
  platform.socket.push(pages("a", 2, 5));
  assert.deepEqual(platform.socket.asked, ["a", "a"]);
  platform.socket.push(pages("a", 2, 5));
  assert.deepEqual(updates, [pages("a", 2, 5)]);
});

test("an unsubscription that nobody answers or that fails is repeated, or the server would count it for hours", async () => {
  await connected();
  const { watch } = watched("a");
  platform.socket.push(started("a", 1));
  watch.stop();
  const left = () => platform.socket.sent.filter((message) => message.subscribe === false).length;
  assert.equal(left(), 1);
  await platform.advance(20_000);
  assert.equal(left(), 2, "throttled, a message is answered with what has no docId");
  platform.socket.push(failed("a", { errorCode: "INTERNAL_ERROR", recoverable: true }));
  await platform.advance(30_000);
  assert(left() > 2, "so is one that the server could not do");
});

test("documents that take the places of many others wait until the server has heard of those", async () => {
  await connected();
  const names = Array.from({ length: 20 }, (_, number) => `old${number}`);
  const old = names.map((name) => watched(name).watch);
  for (const name of names) {
    platform.socket.push(started(name, 1));
  }
  for (const watch of old) {
    watch.stop();
  }
  const { updates } = watched("new");
  assert(!platform.socket.asked.includes("new"));
  for (const name of names.slice(0, 12)) {
    assert(!platform.socket.asked.includes("new"));
    platform.socket.push(started(name, 1));
  }
  assert.equal(platform.socket.asked.filter((name) => name === "new").length, 1);
  platform.socket.push(started("new", 1));
  assert.deepEqual(updates, [started("new", 1)]);
});

test("a document that is let go while it is held back is asked for by nobody", async () => {
  await connected();
  for (let number = 0; number < 9; number++) {
    watched(`old${number}`).watch.stop();
  }
  watched("new").watch.stop();
  for (let number = 0; number < 9; number++) {
    platform.socket.push({ status: "pending", docId: `old${number}` });
    platform.socket.push({ status: "pending", docId: `old${number}` });
  }
  platform.socket.push({ status: "pending", docId: "new" });
  assert(!platform.socket.asked.includes("new"));
});

test("a silent connection is pinged long before ten minutes, a talking one is not", async () => {
  await connected();
  watched("a");
  for (let minute = 1; minute <= 5; minute++) {
    platform.socket.push(pages("a", minute, minute));
    await platform.advance(MINUTE - 1);
  }
  assert.equal(platform.socket.pings, 0);
  platform.socket.push(complete("a", 10));
  await platform.advance(MINUTE);
  assert.equal(platform.socket.pings, 1);
});

test("a missing pong means a dead socket however close the pings are", async () => {
  await connected({ pingIntervalMs: 5000, replyTimeoutMs: 10_000 });
  await platform.advance(14_999);
  assert.equal(platform.socket.pings, 2);
  assert.equal(client.state, "open");
  await platform.advance(1);
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST"]);
});

test("a missing pong means a dead socket, any message means a live one", async () => {
  await connected();
  platform.randomValue = 0;
  await platform.advance(MINUTE + 9_999);
  assert.equal(platform.socket.pings, 1);
  platform.socket.push({ message: "Internal server error", connectionId: "x", requestId: "y" });
  await platform.advance(30_000);
  assert.equal(platform.sockets.length, 1);
  await platform.advance(MINUTE);
  assert.equal(platform.sockets.length, 2, "the second ping was not answered");
  assert(platform.sockets[0].isClosedByClient);
  platform.sockets[0].drop(); // the browser's close event, much later
  platform.socket.accept();
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST", "open"]);
});

test("a document that stays silent is asked for again, since its last message may be lost", async () => {
  await connected();
  watched("silent");
  watched("finished");
  watched("lively");
  platform.socket.push(pages("silent", 1, 1));
  platform.socket.push(complete("finished", 1));
  platform.socket.push(pages("lively", 1, 1));
  await platform.advance(MINUTE - 1);
  platform.socket.push(pages("lively", 2, 2));
  await platform.advance(1);
  assert.deepEqual(platform.socket.asked, ["silent", "finished", "lively", "silent"]);
});

test("an attempt that hangs is given up, be it the token or the socket that hangs", async () => {
  platform.randomValue = 0;
  connect({ token: () => new Promise(() => {}), connectTimeoutMs: 5000 });
  await platform.advance(5000);
  assert.deepEqual(states, ["reconnecting CONNECTION_LOST"]);
  client.close();
  forgetStates();
  connect({ connectTimeoutMs: 5000 });
  await platform.advance(5000);
  assert.equal(platform.sockets.length, 2);
  assert(platform.sockets[0].isClosedByClient);
  platform.sockets[0].accept(); // too late
  assert.equal(client.state, "reconnecting");
  platform.sockets[0].close();
});

test("a delay of more than 32 bits is a long one, and an option that is undefined is none", async () => {
  for (const replaceAfterMs of [Infinity, 30 * 24 * 60 * MINUTE]) {
    newPlatform();
    await connected({ replaceAfterMs, replyTimeoutMs: undefined });
    await platform.advance(MINUTE + 9_000);
    assert.equal(platform.sockets.length, 1);
    assert.equal(platform.socket.pings, 1);
    client.close();
  }
});
