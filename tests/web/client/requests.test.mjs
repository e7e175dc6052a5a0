// Proven here: what a caller may ask of the server beside watching, and that every wait can be ended.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProgressError } from "../../../web/client/index.js";
import { settle } from "./fake_platform.mjs";
import { MINUTE, client, complete, connect, connected, failed, pages, platform, started, watched } from "./harness.mjs";

const cancelled = (docId, sequence) => failed(docId, { errorCode: "CANCELLED", message: "Cancelled.", sequence });
const refused = (docId) => failed(docId, { errorCode: "FORBIDDEN", message: "You may not cancel this document." });

test("cancelling asks the server and tells how the document ended", async () => {
  await connected();
  const { updates } = watched("a");
  platform.socket.push(pages("a", 2, 2));
  const cancelling = client.cancel("a");
  assert.deepEqual(platform.socket.cancelled, ["a"]);
  platform.socket.push(cancelled("a", 3));
  assert.deepEqual(await cancelling, cancelled("a", 3));
  assert.equal(updates.at(-1).errorCode, "CANCELLED");
  await platform.advance(MINUTE);
  assert.deepEqual(platform.socket.cancelled, ["a"], "what has ended is not cancelled again");
});

test("a document that ends by itself while it is cancelled is told as it ended", async () => {
  await connected();
  const cancelling = client.cancel("a");
  platform.socket.push(started("a", 1));
  platform.socket.push(failed("a", { sequence: 2, recoverable: true }));
  platform.socket.push(complete("a", 3));
  assert.equal((await cancelling).status, "processing_complete");
  assert.equal(platform.socket.sent.at(-1).subscribe, false, "nobody watches it any more");
});

test("a document that is known to have ended is not cancelled", async () => {
  await connected();
  watched("a");
  platform.socket.push(complete("a", 3));
  assert.equal((await client.cancel("a")).status, "processing_complete");
  assert.deepEqual(platform.socket.cancelled, []);
});

test("a cancellation is asked for until it has an effect, over silence, failures and connections", async () => {
  connect();
  const cancelling = client.cancel("a");
  await settle();
  platform.socket.accept();
  assert.deepEqual(platform.socket.cancelled, ["a"]);
  platform.socket.push(pages("a", 2, 2));
  platform.socket.push(failed("a", { errorCode: "INTERNAL_ERROR", recoverable: true }));
  await platform.advance(10_000);
  assert.deepEqual(platform.socket.cancelled, ["a", "a"]);
  platform.socket.drop();
  await platform.advance(500);
  platform.socket.accept();
  assert.deepEqual(platform.socket.cancelled, ["a"]);
  platform.socket.push(cancelled("a", 3));
  assert.equal((await cancelling).errorCode, "CANCELLED");
});

test("a refused cancellation rejects and leaves the watches of the document alone", async () => {
  await connected();
  const { watch, updates } = watched("a");
  platform.socket.push(pages("a", 2, 2));
  const cancelling = client.cancel("a");
  platform.socket.push(refused("a"));
  await assert.rejects(cancelling, (error) => error instanceof ProgressError && error.code === "FORBIDDEN");
  assert.equal(updates.length, 1);
  platform.socket.push(pages("a", 3, 3));
  assert.equal(watch.state.sequence, 3);
});

test("a server that knows no cancelling refuses it", async () => {
  await connected();
  watched("a");
  platform.socket.push(pages("a", 2, 2));
  const cancelling = client.cancel("a");
  platform.socket.push({ status: "error", errorCode: "UNKNOWN_ACTION", message: "No such action.", recoverable: false });
  await assert.rejects(cancelling, { code: "UNKNOWN_ACTION" });
});

test("a document that may not be watched may not be cancelled", async () => {
  await connected();
  const cancelling = client.cancel("a");
  platform.socket.push(refused("a"));
  platform.socket.push(refused("a"));
  await assert.rejects(cancelling, { code: "FORBIDDEN" });
});

test("waiting for a cancellation ends with its signal or the client, and then nothing more is asked", async () => {
  await connected();
  const controller = new AbortController();
  const cancelling = client.cancel("a", { signal: controller.signal });
  controller.abort(new Error("page left"));
  await assert.rejects(cancelling, /page left/);
  await platform.advance(MINUTE);
  assert.deepEqual(platform.socket.cancelled, ["a"]);
  await assert.rejects(client.cancel("b", { signal: AbortSignal.abort(new Error("too late")) }), /too late/);
  assert.deepEqual(platform.socket.cancelled, ["a"]);
  await assert.rejects(client.cancel("a\n"), TypeError);
  const closing = client.cancel("c");
  client.close();
  await assert.rejects(closing, { code: "CLIENT_CLOSED" });
  await assert.rejects(client.cancel("d"), { code: "CLIENT_CLOSED" });
});

test("a message of one's own is sent once there is a connection, and in order", async () => {
  connect();
  const sending = Promise.all([client.send("annotate", { docId: "a", note: 1 }), client.send("annotate", { note: 2 })]);
  await settle();
  platform.socket.accept();
  await sending;
  await client.send("annotate");
  assert.deepEqual(platform.socket.sent, [
    { docId: "a", note: 1, action: "annotate" },
    { note: 2, action: "annotate" },
    { action: "annotate" },
  ]);
});

test("a message waits over an outage, and for nothing after its signal or the client's end", async () => {
  await connected();
  platform.socket.drop();
  const controller = new AbortController();
  const aborted = client.send("first", {}, { signal: controller.signal });
  const kept = client.send("second");
  controller.abort(new Error("page left"));
  await assert.rejects(aborted, /page left/);
  await platform.advance(500);
  platform.socket.accept();
  await kept;
  assert.deepEqual(platform.socket.sent, [{ action: "second" }]);
  await assert.rejects(client.send("third", {}, { signal: AbortSignal.abort(new Error("too late")) }), /too late/);
  platform.socket.drop();
  const closing = client.send("fourth");
  client.close();
  await assert.rejects(closing, { code: "CLIENT_CLOSED" });
  await assert.rejects(client.send("fifth"), { code: "CLIENT_CLOSED" });
});

test("what cannot be a message is refused at once", async () => {
  await connected();
  for (const action of ["", "$connect", 7, undefined]) {
    await assert.rejects(client.send(action), TypeError);
  }
  await assert.rejects(client.send("annotate", { size: 1n }), TypeError);
  assert.deepEqual(platform.socket.sent, []);
});

test("messages are heard by their status, the server's own and others, until taken off or aborted", async () => {
  await connected();
  const heard = [];
  const controller = new AbortController();
  const off = client.on("annotated", (message) => heard.push(["first", message.note]));
  client.on("annotated", (message) => heard.push(["second", message.note]), { signal: controller.signal });
  client.on("progress", (message) => heard.push(message.pagesProcessed));
  client.on("annotated", () => heard.push("never"), { signal: AbortSignal.abort() });
  platform.socket.push({ status: "annotated", note: 1 });
  platform.socket.push(pages("unwatched", 5, 2));
  off();
  controller.abort();
  platform.socket.push({ status: "annotated", note: 2 });
  assert.deepEqual(heard, [["first", 1], ["second", 1], 2]);
});

test("those who hear of the connection each hear the same, even if one of them closes the client", async () => {
  const heard = [];
  connect();
  client.onStateChange((state) => heard.push(["first", state]) && state === "open" && client.close());
  client.onStateChange((state) => heard.push(["second", state]));
  await settle();
  platform.socket.accept();
  assert.deepEqual(heard, [["first", "open"], ["first", "closed"], ["second", "closed"]]);
});

test("each message has the client's correlation id, or one of its own", async () => {
  await connected({ correlationId: "page-1:a.b_c" });
  watched("a");
  await client.send("annotate", { correlationId: "note-1" });
  assert.deepEqual(
    platform.socket.sent.map((message) => message.correlationId),
    ["page-1:a.b_c", "note-1"],
  );
  for (const correlationId of ["", "a b", "x".repeat(129), "é", "a\n"]) {
    assert.throws(() => connect({ correlationId }), TypeError);
  }
});
