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

test("a function for the address that throws or gives none is asked again", async () => {
  const answers = [() => Promise.reject(new Error("network")), () => "https://api.example.com/live", () => ADDRESS];
  platform.randomValue = 0.999;
  connect({ url: () => answers.shift()() });
  await settle();
  assert.deepEqual(states, ["reconnecting ADDRESS_FAILED"]);
  assert.equal(client.lastError.cause.message, "network");
  await platform.advance(500);
  assert.equal(states.at(-1), "reconnecting ADDRESS_INVALID");
  assert.equal(platform.sockets.length, 0);
  await platform.advance(1000);
  assert.equal(platform.socket.url, ADDRESS);
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

test("a token function that gives null closes the client for good, one that throws or gives no text is asked again", async () => {
  const answers = [() => Promise.reject(new Error("network")), () => undefined, () => "", () => ({}), () => null];
  const seen = [];
  connect({ token: () => answers.shift()(), onStateChange: (state, error) => seen.push([state, error.code, error.cause]) });
  const { watch } = watched("a");
  await settle();
  assert.equal(client.lastError.cause.message, "network");
  await platform.advance(4 * MINUTE);
  assert.deepEqual(seen.map(([state, code]) => `${state} ${code}`), ["reconnecting TOKEN_FAILED", "closed TOKEN_MISSING"]);
  assert.equal(answers.length, 0);
  await assert.rejects(watch.done, { code: "TOKEN_MISSING" });
  assert.throws(() => client.watch("b"), ConnectionError);
  assert.equal(platform.sockets.length, 0);
});

test("a token that is null from the start closes the client", async () => {
  connect({ token: null });
  await settle();
  assert.deepEqual(states, ["closed TOKEN_MISSING"]);
});

test("an address or token that the browser refuses closes the client, unless the next may be another", async () => {
  platform.WebSocket = class {
    constructor() {
      throw new SyntaxError("invalid subprotocol");
    }
  };
  connect({ token: "not a token" });
  await settle();
  assert.deepEqual(states, ["closed ADDRESS_INVALID"]);
  forgetStates();
  connect({ token: () => "not a token" });
  await platform.advance(60 * MINUTE);
  assert.deepEqual(states, ["reconnecting ADDRESS_INVALID"]);
});

test("where there is no WebSocket the error says so, and where there is one", async () => {
  platform.WebSocket = undefined;
  connect();
  await settle();
  assert.deepEqual(states, ["closed ADDRESS_INVALID"]);
  assert.match(client.lastError.message, /no WebSocket here: Node\.js has one since version 22/);
});

test("the functions for address and token are told when nobody waits for their answer any more", async () => {
  const signals = [];
  const never = ({ signal }) => (signals.push(signal), new Promise(() => {}));
  connect({ url: never });
  await platform.advance(29_999);
  assert.deepEqual(signals.map((signal) => signal.aborted), [false]);
  await platform.advance(1);
  assert.deepEqual(signals.map((signal) => signal.aborted), [true]);
  client.close();
  connect({ token: never });
  await settle();
  client.close();
  assert.equal(signals.at(-1).aborted, true);
});

test("a server that says on an open connection that it wants nobody closes the client", async () => {
  await connected({ token: "revoked" });
  const { watch } = watched("a");
  platform.socket.push({ status: "error", errorCode: "FORBIDDEN", message: "Your access has ended.", recoverable: false });
  assert.deepEqual(states, ["open", "closed CONNECTION_REFUSED"]);
  await assert.rejects(watch.done, { message: "Your access has ended." });
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
