// Not proven here: that a browser's own WebSocket, clock and online events behave like these fakes (tests/browser does),
// nor that a server speaks this protocol (tests/local does).

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { ConnectionError, ProgressClient, ProgressError } from "../../web/progress-client.js";
import { FakePlatform, settle } from "./fake_platform.mjs";

const URL = "wss://api.example.com/live";
const MINUTE = 60_000;

const started = (docId, sequence, totalPages = 10) => ({ status: "processing_started", docId, totalPages, sequence });
const pages = (docId, sequence, pagesProcessed, totalPages = 10) => ({
  status: "progress",
  docId,
  pagesProcessed,
  totalPages,
  sequence,
});
const complete = (docId, sequence) => ({ status: "processing_complete", docId, sequence });
const failed = (docId, fields = {}) => ({
  status: "error",
  errorCode: "PROCESSING_FAILED",
  message: "Page 3 is damaged",
  docId,
  recoverable: false,
  ...fields,
});

const expired = (docId) =>
  failed(docId, { errorCode: "FORBIDDEN", message: "The connection has expired. Connect again.", recoverable: true });

let platform;
let states;
let client;
let debug;

function connect(options = {}) {
  client = new ProgressClient(options.url ?? URL, {
    platform,
    onStateChange: (state, error) => states.push(error ? `${state} ${error.code}` : state),
    ...options,
  });
  return client;
}

async function connected(options) {
  connect(options);
  await settle();
  platform.socket.accept();
  return client;
}

function watched(docId, options = {}) {
  const updates = [];
  const watch = client.watch(docId, { onUpdate: (update) => updates.push(update), ...options });
  return { watch, updates };
}

beforeEach(() => {
  platform = new FakePlatform();
  states = [];
  debug = console.debug;
  console.debug = () => {};
});

afterEach(() => {
  console.debug = debug;
  client.close();
  assert.equal(platform.timers.size, 0, "a timer survived close()");
  assert.equal(platform.listeners.size, 0, "a listener survived close()");
  assert.deepEqual(platform.openSockets, [], "a socket survived close()");
});

// --- documents --------------------------------------------------------------------------------------------------------

test("a watch hears its document and is done when it is complete", async () => {
  await connected();
  const { watch, updates } = watched("a");
  assert.deepEqual(platform.socket.sent, [{ action: "progress", docId: "a" }]);
  const story = [{ status: "pending", docId: "a" }, started("a", 1), pages("a", 2, 5), complete("a", 3)];
  story.forEach((message) => platform.socket.push(message));
  assert.deepEqual(updates, story);
  assert.deepEqual(watch.state, complete("a", 3));
  assert.deepEqual(await watch.done, complete("a", 3));
});

test("what is not newer is dropped, whatever the order of arrival", async () => {
  await connected();
  const { updates } = watched("a");
  for (const message of [pages("a", 4, 4), pages("a", 3, 3), pages("a", 4, 4), started("a", 1), pages("a", 6, 6)]) {
    platform.socket.push(message);
  }
  assert.deepEqual(updates.map((update) => update.sequence), [4, 6]);
});

test("a new start after a final state reaches whoever is still watching", async () => {
  await connected();
  const { watch, updates } = watched("a");
  platform.socket.push(complete("a", 3));
  platform.socket.push(started("a", 4));
  assert.deepEqual(updates.map((update) => update.status), ["processing_complete", "processing_started"]);
  assert.deepEqual(await watch.done, complete("a", 3));
});

test("a recoverable error keeps the watch alive and a final one rejects with its code", async () => {
  await connected();
  const { watch, updates } = watched("a");
  platform.socket.push(failed("a", { sequence: 2, recoverable: true }));
  platform.socket.push(started("a", 3));
  platform.socket.push(failed("a", { sequence: 4 }));
  assert.equal(updates.length, 3);
  await assert.rejects(watch.done, (error) => {
    assert(error instanceof ProgressError);
    assert.deepEqual(
      [error.code, error.documentId, error.recoverable, error.message],
      ["PROCESSING_FAILED", "a", false, "Page 3 is damaged"],
    );
    return true;
  });
});

test("a pending reply makes lower sequences news again, since the record has expired", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 9, 9));
  platform.socket.drop();
  await platform.advance(MINUTE);
  platform.socket.accept();
  platform.socket.push({ status: "pending", docId: "a" });
  platform.socket.push(started("a", 1));
  assert.deepEqual(updates.map((update) => update.status), ["progress", "pending", "processing_started"]);
});

test("a pending reply that was overtaken by an update is no news", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 2, 1));
  platform.socket.push({ status: "pending", docId: "a" });
  platform.socket.push(started("a", 1));
  assert.deepEqual(updates, [pages("a", 2, 1)]);
});

test("a finished document stays finished when its record expires, and can start again", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(complete("a", 9));
  platform.socket.drop();
  await platform.advance(MINUTE);
  platform.socket.accept();
  platform.socket.push({ status: "pending", docId: "a" });
  platform.socket.push(started("a", 1));
  assert.deepEqual(updates.map((update) => update.status), ["processing_complete", "processing_started"]);
});

test("a refused request rejects, and a later snapshot is news even if it was known before", async () => {
  await connected();
  const { watch, updates } = watched("a");
  platform.socket.push(pages("a", 5, 5));
  platform.socket.push(failed("a", { errorCode: "FORBIDDEN" }));
  await assert.rejects(watch.done, { code: "FORBIDDEN" });
  platform.socket.drop();
  await platform.advance(MINUTE);
  platform.socket.accept();
  platform.socket.push(pages("a", 5, 5));
  assert.deepEqual(updates.map((update) => update.status), ["progress", "error", "progress"]);
});

test("a new watch of a refused document asks again and does not hear the old refusal", async () => {
  await connected();
  const first = watched("a");
  platform.socket.push(failed("a", { errorCode: "FORBIDDEN" }));
  await assert.rejects(first.watch.done, { code: "FORBIDDEN" });
  const second = watched("a");
  await settle();
  assert.deepEqual(second.updates, []);
  assert.deepEqual(platform.socket.asked, ["a", "a"]);
  platform.socket.push({ status: "pending", docId: "a" });
  assert.deepEqual(second.updates, [{ status: "pending", docId: "a" }]);
});

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

test("messages of unknown shape are ignored", async () => {
  await connected();
  const { updates } = watched("a");
  const strange = [
    "not JSON",
    "null",
    "[1]",
    { status: "rewound", docId: "a", sequence: 5 },
    { status: "progress", docId: "a", sequence: 5, totalPages: 10 },
    { status: "progress", docId: "a", sequence: 5, pagesProcessed: "4", totalPages: 10 },
    { status: "progress", docId: "a", sequence: 1.5, pagesProcessed: 4, totalPages: 10 },
    { status: "processing_complete", docId: "a" },
    { status: "error", docId: "a", sequence: 5, errorCode: "X", message: "y" },
    { status: "pending" },
    complete("someone-else's", 1),
  ];
  strange.forEach((message) => platform.socket.push(message));
  assert.deepEqual(updates, []);
  platform.socket.push({ ...started("a", 1), addedByALaterVersion: true });
  assert.equal(updates.length, 1, "a known message with a new field is still known");
});

test("watches of one document share a subscription, and a late one hears the present state", async () => {
  await connected();
  const first = watched("a");
  platform.socket.push(pages("a", 2, 5));
  const second = watched("a");
  await settle();
  assert.deepEqual(second.updates, [pages("a", 2, 5)]);
  assert.deepEqual(platform.socket.asked, ["a"]);
  first.watch.stop();
  platform.socket.push(pages("a", 3, 6));
  assert.equal(first.updates.length, 1);
  assert.equal(second.updates.length, 2);
  second.watch.stop();
  assert.deepEqual(platform.socket.sent.at(-1), { action: "progress", docId: "a", subscribe: false });
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

test("stop rejects done with an AbortError and a signal with its own reason", async () => {
  await connected();
  const { watch } = watched("a");
  watch.stop();
  await assert.rejects(watch.done, { name: "AbortError" });
  const controller = new AbortController();
  const aborted = watched("b", { signal: controller.signal });
  controller.abort(new Error("page left"));
  await assert.rejects(aborted.watch.done, /page left/);
  platform.socket.push(started("b", 1));
  assert.deepEqual(aborted.updates, []);
  const late = watched("c", { signal: AbortSignal.abort(new Error("too late")) });
  await assert.rejects(late.watch.done, /too late/);
  assert(!platform.socket.asked.includes("c"));
});

test("a loop over a watch sees the newest state and ends when the document is complete", async () => {
  await connected();
  const seen = [];
  const loop = (async () => {
    for await (const update of client.watch("a")) {
      seen.push(update.sequence);
    }
  })();
  platform.socket.push(started("a", 1));
  await settle();
  platform.socket.push(pages("a", 2, 1));
  platform.socket.push(pages("a", 3, 2));
  await settle();
  platform.socket.push(complete("a", 4));
  await loop;
  assert.deepEqual(seen, [1, 3, 4]);
  assert.equal(platform.socket.sent.at(-1).subscribe, false, "the loop stops its watch");
});

test("a loop throws the document's error, the signal's reason and the client's end", async () => {
  await connected();
  const drain = async (watch) => {
    for await (const update of watch) {
      void update;
    }
  };
  const failing = drain(client.watch("a"));
  platform.socket.push(failed("a", { sequence: 1 }));
  await assert.rejects(failing, ProgressError);
  const controller = new AbortController();
  const aborted = drain(client.watch("b", { signal: controller.signal }));
  controller.abort(new Error("page left"));
  await assert.rejects(aborted, /page left/);
  const stopped = client.watch("c");
  const quiet = drain(stopped);
  stopped.stop();
  await quiet;
  const closed = drain(client.watch("d"));
  client.close();
  await assert.rejects(closed, { code: "CLIENT_CLOSED" });
});

test("an error in one caller's function does not reach the others", async () => {
  await connected();
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  client.watch("a", {
    onUpdate: () => {
      throw new Error("mine");
    },
  });
  const { updates } = watched("a");
  platform.socket.push(started("a", 1));
  delete globalThis.reportError;
  assert.equal(updates.length, 1);
  assert.deepEqual(reported, ["mine"]);
});

test("wrong arguments are refused at once", async () => {
  await connected();
  assert.throws(() => new ProgressClient("https://api.example.com/live"), TypeError);
  for (const documentId of ["", "a\nb", "a\u0085", "x".repeat(257), 7, undefined]) {
    assert.throws(() => client.watch(documentId), TypeError);
  }
  client.watch("𝒹".repeat(256));
});

// --- connection -------------------------------------------------------------------------------------------------------

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

test("an attempt that hangs is given up, be it the token or the socket that hangs", async () => {
  platform.randomValue = 0;
  connect({ token: () => new Promise(() => {}), connectTimeoutMs: 5000 });
  await platform.advance(5000);
  assert.deepEqual(states, ["reconnecting CONNECTION_LOST"]);
  client.close();
  states = [];
  connect({ connectTimeoutMs: 5000 });
  await platform.advance(5000);
  assert.equal(platform.sockets.length, 2);
  assert(platform.sockets[0].isClosedByClient);
  platform.sockets[0].accept(); // too late
  assert.equal(client.state, "reconnecting");
  platform.sockets[0].close();
});

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

test("a delay of more than 32 bits is a long one, and an option that is undefined is none", async () => {
  for (const replaceAfterMs of [Infinity, 30 * 24 * 60 * MINUTE]) {
    platform = new FakePlatform();
    await connected({ replaceAfterMs, replyTimeoutMs: undefined });
    await platform.advance(MINUTE + 9_000);
    assert.equal(platform.sockets.length, 1);
    assert.equal(platform.socket.pings, 1);
    client.close();
  }
});

// --- address and token --------------------------------------------------------------------------------------------------

test("a function for the address is asked before every connection", async () => {
  const addresses = [`${URL}?X-Amz-Signature=1`, new globalThis.URL(`${URL}?X-Amz-Signature=2%2F`)];
  platform.randomValue = 0;
  await connected({ url: async () => addresses.shift() });
  platform.socket.drop();
  await platform.advance(1);
  assert.deepEqual(
    platform.sockets.map((socket) => socket.url),
    [`${URL}?X-Amz-Signature=1`, `${URL}?X-Amz-Signature=2%2F`],
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
  states = [];
  let calls = 0;
  connect({ url: () => (calls++, URL) });
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
  await connected({ url: `${URL}?tenant=7`, token: async () => `token&${++calls}`, tokenTransport: "query" });
  platform.socket.drop();
  await platform.advance(1);
  assert.deepEqual(
    platform.sockets.map((socket) => socket.url),
    [`${URL}?tenant=7&token=token%261`, `${URL}?tenant=7&token=token%262`],
  );
  assert.deepEqual(platform.socket.protocols, []);
});

test("a token travels as a subprotocol unless told otherwise, and then never in the address", async () => {
  await connected({ token: "ey.J.x" });
  assert.deepEqual(platform.socket.protocols, ["docprogress", "ey.J.x"]);
  assert.equal(platform.socket.url, URL);
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
  const signed = `${URL}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=1`;
  for (const options of [{ token: "stale" }, { url: () => signed }, { url: signed }, { url: `${URL}?token=stale` }]) {
    platform = new FakePlatform();
    states = [];
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
    states = [];
    connect(options);
    await platform.advance(10 * MINUTE);
    assert.deepEqual(states, [reported]);
    client.close();
  }
  const tokens = [fails, fails, fails, () => "a", () => "b", () => "c"];
  states = [];
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
    platform = new FakePlatform();
    platform.randomValue = 0;
    states = [];
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

// --- the end ----------------------------------------------------------------------------------------------------------

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

test("a token that comes after close opens nothing", async () => {
  let give;
  connect({ token: () => new Promise((resolve) => (give = resolve)) });
  await settle();
  client.close();
  give("late");
  await settle();
  assert.deepEqual(platform.sockets, []);
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
    platform = new FakePlatform();
    await enter();
    client.close();
    await settle();
    assert.deepEqual([platform.timers.size, platform.listeners.size, platform.openSockets.length], [0, 0, 0], phase);
  }
});

function setAnswering(socket) {
  const send = socket.send.bind(socket);
  let sequence = 1;
  let answering = true;
  socket.send = (text) => {
    send(text);
    if (answering) {
      const { action, docId } = JSON.parse(text);
      queueMicrotask(() => socket.push(action === "ping" ? { status: "pong" } : pages(docId, sequence, 1)));
    }
  };
  return { stop: () => (answering = false) };
}
