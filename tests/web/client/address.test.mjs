// Proven here: where the client connects to, with which token, and whether at all.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionError } from "../../../web/client/index.js";
import { settle } from "./fake_platform.mjs";
import { ADDRESS, MINUTE, platform, states, client, forgetStates, connect, connected, watched } from "./harness.mjs";

test("nothing is tried while the browser is offline, and at once when it is back", async () => {
  await connected();
  watched("a");
  platform.setOnline(false);
  assert(platform.sockets[0].isClosedByClient);
  await platform.advance(60 * MINUTE);
  assert.equal(platform.sockets.length, 1);
  platform.setOnline(true);
  await settle();
  platform.socket.accept();
  assert.deepEqual(platform.socket.asked, ["a"]);
  assert.deepEqual(states, ["open", "reconnecting OFFLINE", "open"]);
});

test("a client made offline connects when the browser is back", async () => {
  platform.online = false;
  connect();
  await platform.advance(MINUTE);
  assert.equal(platform.sockets.length, 0);
  assert.deepEqual([client.state, client.lastError.code], ["reconnecting", "OFFLINE"]);
  platform.setOnline(true);
  await settle();
  platform.socket.accept();
  assert.deepEqual([client.state, client.lastError], ["open", null]);
});

test("one's own machine is reachable offline", async () => {
  for (const url of ["ws://localhost:4566/live", "ws://127.0.0.1:4566/live", "ws://[::1]:4566/live"]) {
    platform.online = false;
    connect({ url });
    await settle();
    assert.equal(platform.socket.url, url);
    client.close();
  }
});

test("a function for the address is asked before every connection", async () => {
  const addresses = [`${ADDRESS}?X-Amz-Signature=1`, new URL(`${ADDRESS}?X-Amz-Signature=2%2F`)];
  platform.randomValue = 0;
  await connected({ url: async () => addresses.shift() });
  platform.socket.drop();
  await platform.advance(1);
  assert.deepEqual(
    platform.sockets.map((socket) => socket.url),
    [`${ADDRESS}?X-Amz-Signature=1`, `${ADDRESS}?X-Amz-Signature=2%2F`],
  );
});

test("a function for the address that throws is asked again, one that gives no address closes the client", async () => {
  const answers = [() => Promise.reject(new Error("network")), () => "https://api.example.com/live"];
  connect({ url: () => answers.shift()() });
  await settle();
  assert.deepEqual(states, ["reconnecting ADDRESS_FAILED"]);
  assert.equal(client.lastError.cause.message, "network");
  await platform.advance(MINUTE);
  assert.equal(states.at(-1), "closed ADDRESS_INVALID");
  assert.equal(platform.sockets.length, 0);
});

test("offline, an address from a function is used only if it is one's own machine's", async () => {
  platform.online = false;
  connect({ url: () => "ws://localhost:4566/live" });
  await settle();
  assert.equal(platform.sockets.length, 1);
  platform.setOnline(false);
  assert(!platform.socket.isClosedByClient);
  client.close();
  forgetStates();
  let calls = 0;
  connect({ url: () => (calls++, ADDRESS) });
  await platform.advance(MINUTE);
  assert.deepEqual([states, calls, platform.sockets.length], [["reconnecting OFFLINE"], 1, 1]);
  platform.setOnline(true);
  await settle();
  platform.socket.accept();
  assert.equal(client.state, "open");
});

test("a token function is asked before every connection and can travel in the query", async () => {
  let calls = 0;
  platform.randomValue = 0;
  await connected({ url: `${ADDRESS}?tenant=7`, token: async () => `token&${++calls}`, tokenTransport: "query" });
  platform.socket.drop();
  await platform.advance(1);
  assert.deepEqual(
    platform.sockets.map((socket) => socket.url),
    [`${ADDRESS}?tenant=7&token=token%261`, `${ADDRESS}?tenant=7&token=token%262`],
  );
  assert.deepEqual(platform.socket.protocols, []);
});

test("a token travels as a subprotocol unless told otherwise, and then never in the address", async () => {
  await connected({ token: "ey.J.x" });
  assert.deepEqual(platform.socket.protocols, ["docprogress", "ey.J.x"]);
  assert.equal(platform.socket.url, ADDRESS);
});

test("a token function that yields nothing closes the client, one that throws is asked again", async () => {
  platform.randomValue = 0.5;
  const answers = [() => Promise.reject(new Error("network")), () => null];
  connect({ token: () => answers.shift()() });
  const { watch } = watched("a");
  await settle();
  assert.deepEqual(states, ["reconnecting TOKEN_FAILED"]);
  assert.equal(client.lastError.cause.message, "network");
  await platform.advance(MINUTE);
  assert.equal(states.at(-1), "closed TOKEN_MISSING");
  await assert.rejects(watch.done, { code: "TOKEN_MISSING" });
  assert.throws(() => client.watch("b"), ConnectionError);
  assert.equal(platform.sockets.length, 0);
});

test("an address or token that the browser refuses closes the client", async () => {
  platform.WebSocket = class {
    constructor() {
      throw new SyntaxError("invalid subprotocol");
    }
  };
  connect({ token: "not a token" });
  await settle();
  assert.deepEqual(states, ["closed ADDRESS_INVALID"]);
});

test("a token that comes after close opens nothing", async () => {
  let give;
  connect({ token: () => new Promise((resolve) => (give = resolve)) });
  await settle();
  client.close();
  give("late");
  await settle();
  assert.deepEqual(platform.sockets, []);
});
