// Not proven here: what the page makes of these numbers (tests/browser does).

import assert from "node:assert/strict";
import { test } from "node:test";

import { Pace, formatDuration, formatCount, formatRate } from "../../web/pace.js";

test("the rate is pages over time", () => {
  const pace = new Pace();
  pace.add(1000, 0);
  pace.add(3000, 30);
  assert.equal(pace.perSecond, 15);
});

test("nothing is said on too little knowledge", () => {
  const pace = new Pace();
  assert.equal(pace.perSecond, null);
  pace.add(0, 10);
  assert.equal(pace.perSecond, null, "a snapshot alone has no rate");
  pace.add(100, 20);
  assert.equal(pace.perSecond, null, "two messages at once have none either");
  pace.add(1000, 20);
  assert.equal(pace.perSecond, 10);
});

test("a document that stands still has no rate", () => {
  const pace = new Pace();
  pace.add(0, 5);
  pace.add(9000, 5);
  assert.equal(pace.perSecond, null);
});

test("the rate follows the last seconds, not the whole run", () => {
  const pace = new Pace();
  for (let second = 0; second <= 60; second++) {
    pace.add(second * 1000, second);
  }
  for (let second = 1; second <= 30; second++) {
    pace.add(60_000 + second * 1000, 60 + second * 10);
  }
  assert.equal(pace.perSecond, 10);
});

test("a long gap counts in full", () => {
  const pace = new Pace();
  pace.add(0, 0);
  pace.add(100_000, 50);
  assert.equal(pace.perSecond, 0.5);
});

test("fewer pages than before begin a new run", () => {
  const pace = new Pace();
  pace.add(0, 0);
  pace.add(1000, 100);
  pace.add(2000, 0);
  pace.add(3000, 2);
  assert.equal(pace.perSecond, 2);
});

test("rates, durations and counts are written for people", () => {
  assert.deepEqual(
    [606.4, 12, 9.96, 9.94, 1, 0.4, 0.016].map((perSecond) => formatRate(perSecond, "pages")),
    ["606 pages/s", "12 pages/s", "10 pages/s", "9.9 pages/s", "1 pages/s", "24 pages/min", "1 pages/min"],
  );
  assert.equal(formatRate(2_345_000, "bytes"), "2.3 MB/s");
  assert.deepEqual(
    [0.2, 8.4, 59.4, 59.6, 170, 3570, 3600, 7500].map(formatDuration),
    ["1 s", "8 s", "59 s", "1 min", "3 min", "1 h", "1 h", "2 h 5 min"],
  );
  assert.deepEqual([0, 1, 1204].map((count) => formatCount(count, "pages")), ["0 pages", "1 page", "1,204 pages"]);
  assert.deepEqual([1, 2].map((count) => formatCount(count, "rows")), ["1 row", "2 rows"]);
  assert.deepEqual(
    [0, 999, 1000, 9949, 123_456, 999_600, 5e9].map((count) => formatCount(count, "bytes")),
    ["0 B", "999 B", "1 kB", "9.9 kB", "123 kB", "1 MB", "5 GB"],
  );
});
