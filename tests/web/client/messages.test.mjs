// Proven here: what a caller may ask for, and which messages a client takes.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProgressClient, countsOf } from "../../../web/client/index.js";
import { started, complete, platform, client, connected, watched } from "./harness.mjs";

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
    { status: "progress", docId: "a", sequence: 5, processed: -1, total: 10, unit: "rows" },
    { status: "processing_started", docId: "a", totalPages: 10 },
    { status: "pending" },
    complete("someone-else's", 1),
  ];
  strange.forEach((message) => platform.socket.push(message));
  assert.deepEqual(updates, []);
  platform.socket.push({ ...started("a", 1), addedByALaterVersion: true });
  assert.equal(updates.length, 1, "a known message with a new field is still known");
});

test("wrong arguments are refused at once", async () => {
  await connected();
  assert.throws(() => new ProgressClient("https://api.example.com/live"), TypeError);
  for (const documentId of ["", "a\nb", "a\u0085", "x".repeat(257), 7, undefined]) {
    assert.throws(() => client.watch(documentId), TypeError);
  }
  client.watch("𝒹".repeat(256));
});

test("what a message may say beside its state is passed on, and left out where it is malformed", async () => {
  await connected();
  const { updates } = watched("a");
  const said = [
    { status: "processing_started", docId: "a", sequence: 1 },
    { status: "progress", docId: "a", sequence: 2, pagesProcessed: 3, message: "Page 3", phase: { name: "ocr", index: 2, of: 3 } },
    { status: "progress", docId: "a", sequence: 3, processed: 5000, total: 9000, unit: "bytes", phase: { name: "copy" } },
    { status: "processing_complete", docId: "a", sequence: 4, result: { key: "results/a.json" }, pagesUnreadable: 2 },
  ];
  said.forEach((message) => platform.socket.push(message));
  const { status, docId } = said[1];
  const wrong = { message: 7, phase: { name: "ocr", of: "3" }, unit: null, totalPages: "9", pagesUnreadable: 1.5, result: [1] };
  platform.socket.push({ status, docId, sequence: 5, pagesProcessed: 4, ...wrong });
  assert.deepEqual(updates, [...said, { status, docId, sequence: 5, pagesProcessed: 4 }]);
});

test("how far a document has come is read from either way of counting", () => {
  const counts = (message) => Object.values(countsOf({ docId: "a", sequence: 1, ...message }));
  assert.deepEqual(counts({ status: "processing_started", totalPages: 9 }), [0, 9, "pages"]);
  assert.deepEqual(counts({ status: "processing_started" }), [0, null, "pages"]);
  assert.deepEqual(counts({ status: "progress", pagesProcessed: 4, totalPages: 9 }), [4, 9, "pages"]);
  assert.deepEqual(counts({ status: "progress", pagesProcessed: 4 }), [4, null, "pages"]);
  assert.deepEqual(counts({ status: "progress", processed: 4, total: 9, unit: "rows" }), [4, 9, "rows"]);
  assert.deepEqual(counts({ status: "processing_complete" }), [null, null, "pages"]);
});
