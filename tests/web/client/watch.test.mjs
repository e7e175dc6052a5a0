// Proven here: what the callers of one document hear, and when it is over for them.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProgressError } from "../../../web/client/index.js";
import { settle } from "./fake_platform.mjs";
import { MINUTE, client, complete, connected, failed, nextAttempt, pages, platform, setAnswering, started, watched } from "./harness.mjs";

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

test("a cancelled document is over, whatever the server says of a retry", async () => {
  await connected();
  const { watch } = watched("a");
  platform.socket.push(failed("a", { errorCode: "CANCELLED", sequence: 2, recoverable: true }));
  await assert.rejects(watch.done, { code: "CANCELLED" });
});

test("a stalled document is over when no retry has followed within five minutes, and heard of again if one comes after all", async () => {
  await connected();
  const { stop } = setAnswering(platform.socket, failed("a", { errorCode: "PROCESSING_STALLED", sequence: 2, recoverable: true }));
  const first = watched("a");
  const loop = (async () => {
    for await (const update of client.watch("a")) {
      void update;
    }
  })();
  loop.catch(() => {}); // looked at below
  let outcome = "pending";
  first.watch.done.catch((error) => (outcome = error.code));
  await platform.advance(5 * MINUTE - 1);
  assert.equal(outcome, "pending");
  await platform.advance(1);
  assert.equal(outcome, "PROCESSING_STALLED");
  await assert.rejects(loop, { code: "PROCESSING_STALLED" });
  const late = watched("a");
  await assert.rejects(late.watch.done, { code: "PROCESSING_STALLED" });
  stop();
  platform.socket.push(started("a", 3));
  assert.deepEqual(first.updates.map((update) => update.sequence), [2, 3]);
});

test("a stalled document whose retry comes in time goes on", async () => {
  await connected({ retryWithinMs: 60_000 });
  const { watch } = watched("a");
  platform.socket.push(failed("a", { errorCode: "PROCESSING_STALLED", sequence: 2, recoverable: true }));
  await platform.advance(59_999);
  platform.socket.push(started("a", 3));
  await platform.advance(9_000);
  platform.socket.push(complete("a", 4));
  assert.deepEqual(await watch.done, complete("a", 4));
});

test("nobody gives a stalled document up while nobody could have told of its retry", async () => {
  await connected({ retryWithinMs: 60_000 });
  const { watch } = watched("a");
  let isOver = false;
  watch.done.catch(() => (isOver = true));
  platform.socket.push(failed("a", { errorCode: "PROCESSING_STALLED", sequence: 2, recoverable: true }));
  platform.socket.drop();
  await platform.advance(30 * MINUTE);
  assert(!isOver);
  await nextAttempt();
  platform.socket.accept();
  platform.socket.push(started("a", 3));
  platform.socket.push(failed("a", { errorCode: "PROCESSING_STALLED", sequence: 4, recoverable: true }));
  platform.freeze(30 * MINUTE);
  await platform.advance(0);
  assert(!isOver);
  platform.socket.push(complete("a", 5));
  await watch.done;
});

test("a document is asked for, and its answers are known, by its composed name", async () => {
  await connected();
  const { updates } = watched("u\u0308ber");
  assert.deepEqual(platform.socket.asked, ["\u00fcber"]);
  platform.socket.push(pages("\u00fcber", 1, 1));
  assert.equal(updates.length, 1);
});

test("a server whose sequence has fallen, against its word, is asked and believed", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 50, 5));
  for (let times = 0; times < 4 && platform.socket.asked.length < 2; times++) {
    platform.socket.push(pages("a", 3, 1)); // what is old, again and again, is no sign of life of the document
    await platform.advance(20_000);
  }
  assert.equal(platform.socket.asked.length, 2);
  assert.equal(updates.length, 1);
  platform.socket.push(pages("a", 4, 2));
  platform.socket.push(pages("a", 5, 3));
  assert.deepEqual(
    updates.map(({ pagesProcessed }) => pagesProcessed),
    [5, 2, 3],
  );
});
