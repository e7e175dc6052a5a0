// Proven here: what a caller may ask for, and which messages a client takes.
// Not proven here: what client.test.mjs says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProgressClient } from "../../../web/client/index.js";
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
