// Proven here: what the client does when its user, its network or its machine is back, and after a freeze.
// Not proven here: that browsers fire these events (tests/browser does for Chromium and Firefox).

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./fake_platform.mjs";
import { ADDRESS, MINUTE, client, complete, connect, connected, nextAttempt, pages, platform, started, states, watched } from "./harness.mjs";

const WAKING = ["visibilitychange", "pageshow", "focus", "online", "resume"];

test("a client that waits connects at once, with the delays of a fresh start", async () => {
  for (const type of WAKING) {
    await connected({ token: () => "t" });
    for (let attempt = 0; attempt < 12; attempt++) {
      await nextAttempt();
    }
    platform.socket.drop();
    const attempts = platform.sockets.length;
    platform.fire(type);
    await settle();
    assert.equal(platform.sockets.length, attempts + 1, type);
    platform.socket.drop();
    await platform.advance(500);
    assert.equal(platform.sockets.length, attempts + 2, `${type}: the next attempt comes soon`);
    platform.socket.accept();
    assert.equal(states.at(-1), "open");
    client.close();
  }
});

test("an open connection is asked for a sign of life at once, and without one it is replaced", async () => {
  for (const type of WAKING) {
    await connected();
    watched("a");
    platform.socket.push({ status: "pending", docId: "a" });
    await platform.advance(1000);
    const { socket } = platform;
    const sockets = platform.sockets.length;
    platform.fire(type);
    assert.equal(socket.pings, 1, type);
    await platform.advance(9_999);
    assert.equal(states.at(-1), "open");
    await platform.advance(1 + 500);
    assert.equal(platform.sockets.length, sockets + 1, type);
    assert(socket.isClosedByClient);
    client.close();
  }
});

test("all the events of one return ask once, and an answer is enough", async () => {
  await connected();
  WAKING.forEach((type) => platform.fire(type));
  assert.equal(platform.socket.pings, 1);
  platform.socket.push({ status: "pong" });
  await platform.advance(30_000);
  assert.deepEqual(states, ["open"]);
  assert.equal(platform.sockets.length, 1);
});

test("a page that goes out of sight asks nothing", async () => {
  await connected();
  platform.visible = false;
  platform.fire("visibilitychange");
  assert.equal(platform.socket.pings, 0);
});

test("while the browser is offline, coming back to the tab tries nothing", async () => {
  await connected();
  platform.setOnline(false);
  platform.fire("focus");
  await platform.advance(MINUTE);
  assert.equal(platform.sockets.length, 1);
});

test("an attempt that is under way gets its time, unless it hangs or the network has changed", async () => {
  connect();
  await settle();
  platform.fire("focus");
  await settle();
  assert.equal(platform.sockets.length, 1);
  platform.fire("online");
  await settle();
  assert.equal(platform.sockets.length, 2);
  assert(platform.sockets[0].isClosedByClient);
  await platform.advance(15_000);
  platform.fire("focus");
  await settle();
  assert.equal(platform.sockets.length, 3, "one that has hung for longer than an answer may take is begun anew");
});

test("a timer that comes late after a freeze is not a dead server", async () => {
  await connected();
  platform.fire("focus");
  platform.freeze(5 * MINUTE);
  await platform.advance(0); // the timers come first, what the network had to say after them
  assert.deepEqual(states, ["open"]);
  platform.socket.push({ status: "pong" });
  await platform.advance(30_000);
  assert.deepEqual(states, ["open"]);
});

test("a server that is dead is noticed one turn after the freeze", async () => {
  await connected();
  platform.fire("focus");
  platform.freeze(5 * MINUTE);
  await platform.advance(9_999);
  assert.deepEqual(states, ["open"]);
  await platform.advance(1);
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST"]);
});

test("a freeze while the socket opens costs no attempt", async () => {
  connect();
  await settle();
  platform.freeze(10 * MINUTE);
  await platform.advance(0);
  platform.socket.accept();
  assert.deepEqual(states, ["open"]);
  assert.equal(platform.sockets.length, 1);
});

test("a socket that ends with an error alone is noticed at once, and the message says what to allow", async () => {
  connect({ url: `${ADDRESS}?token=secret` });
  await settle();
  platform.socket.fail();
  assert.deepEqual(states, ["reconnecting CONNECTION_LOST"]);
  assert.match(client.lastError.message, /wss:\/\/api\.example\.com: .*Content-Security-Policy .* connect-src$/);
});

test("an open socket that ends with an error alone is noticed at once", async () => {
  await connected();
  platform.socket.fail();
  assert.deepEqual(states, ["open", "reconnecting CONNECTION_LOST"]);
  platform.sockets[0].drop(); // the close event of other browsers
  await platform.advance(500);
  assert.equal(platform.sockets.length, 2);
});

test("a document that begins anew after its retention is heard by who asks again", async () => {
  for (const state of [complete("a", 50), pages("a", 50, 5)]) {
    await connected();
    const { updates } = watched("a");
    platform.socket.push(state);
    platform.socket.drop();
    await platform.advance(500);
    platform.socket.accept();
    platform.socket.push(complete("a", 40));
    platform.socket.push(started("a", 41));
    assert.deepEqual(updates.map((update) => update.sequence), [50, 40, 41]);
    client.close();
  }
});

test("a document that begins anew after its retention is heard on a connection that stayed open", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(complete("a", 50));
  platform.socket.push(started("a", 1));
  assert.deepEqual(platform.socket.asked, ["a", "a"], "whether it is late or new, the answer says");
  platform.socket.push(pages("a", 3, 3));
  platform.socket.push(pages("a", 4, 4));
  platform.socket.push(complete("a", 50));
  assert.deepEqual(updates.map((update) => update.sequence), [50, 3, 4, 50]);
});

test("a start that is late changes nothing", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(complete("a", 50));
  platform.socket.push(started("a", 1));
  platform.socket.push(complete("a", 50));
  platform.socket.push(started("a", 1));
  platform.socket.push(complete("a", 50));
  assert.deepEqual(updates.map((update) => update.sequence), [50]);
});

test("an answer that an update has overtaken takes nothing back", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 4, 4));
  platform.socket.drop();
  await platform.advance(500);
  platform.socket.accept();
  platform.socket.push(pages("a", 6, 6));
  platform.socket.push(pages("a", 5, 5));
  assert.deepEqual(updates.map((update) => update.sequence), [4, 6]);
});

test("an answer with the sequence that is known, of another run, is news", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(complete("a", 5));
  for (const answer of [complete("a", 5), pages("a", 5, 2)]) {
    platform.socket.drop();
    await platform.advance(500);
    platform.socket.accept();
    platform.socket.push(answer);
  }
  assert.deepEqual(updates.map((update) => update.status), ["processing_complete", "progress"]);
});
